"""A real web server for one file, and every way in which a server can get ranges wrong.

By hand: ``python -m tests.fakes.range_server FILE`` serves it at ``/sound``; the other paths misbehave.
"""

from __future__ import annotations

import re
import ssl
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit


class Asked(NamedTuple):
    path: str
    headers: dict[str, str]


class RangeServer:
    """``asked``: the requests so far, over ``connections`` connections. ``/BEHAVIOUR`` serves ``data``,
    ``/BEHAVIOUR/NAME`` the bytes of that name in ``files``."""

    def __init__(self, data: bytes, *, files: Mapping[str, bytes] | None = None, tls: tuple[Path, Path] | None = None):
        self.data = data
        self.files = dict(files or {})
        self.asked: list[Asked] = []
        self.connections = 0
        self.ended = threading.Event()
        handler = type("Handler", (_Handler,), {"owner": self})
        self._server = _Server(("127.0.0.1", 0), handler)
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.base = f"{'https' if tls else 'http'}://127.0.0.1:{self._server.server_address[1]}"

    @contextmanager
    def running(self) -> Iterator[RangeServer]:
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.ended.set()
            self._server.shutdown()
            thread.join()
            self._server.server_close()

    def tokens(self, path: str) -> list[str]:
        """What was sent as authorization to ``path``, request by request."""
        return [one.headers.get("authorization", "") for one in self.asked if one.path.startswith(path)]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that left, or did not like the certificate, is no error of the server's."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    owner: RangeServer
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        super().setup()
        self.owner.connections += 1

    def log_message(self, *_: object) -> None:
        """Silence."""

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        self.owner.asked.append(Asked(parts.path, {name.lower(): value for name, value in self.headers.items()}))
        name, _, file = parts.path.strip("/").partition("/")
        query = {key: values[0] for key, values in parse_qs(parts.query, keep_blank_values=True).items()}
        data = self.owner.files.get(file) if file else self.owner.data
        behaviour: Callable[..., None] | None = getattr(self, f"_{name.replace('-', '_')}", None)
        if behaviour is None or data is None:
            self._answer(404, b"no such file")
            return
        behaviour(data, **query)

    def _range(self, data: bytes) -> tuple[int, int]:
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers["Range"])
        assert found
        return int(found[1]), min(int(found[2]) + 1, len(data))

    def _answer(self, status: int, body: bytes, *, declared: int | None = None, **headers: Any) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.send_header("Content-Length", str(len(body) if declared is None else declared))
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = declared is not None

    def _part(self, data: bytes, *, status: int = 206, declared: int | None = None, **more: Any) -> None:
        begin, end = self._range(data)
        headers = {"Content_Range": f"bytes {begin}-{end - 1}/{len(data)}", "ETag": '"one"', **more}
        self._answer(status, data[begin:end], declared=declared, **headers)

    def _sound(self, data: bytes, download: str = "") -> None:
        self._part(data)

    def _closes(self, data: bytes) -> None:
        """Hangs up after each answer, without having said so."""
        self._part(data)
        self.close_connection = True

    def _hangs_up(self, data: bytes, after: str = "1") -> None:
        """Takes so many requests; the next ones of the connection find it closed, without a byte of an answer."""
        self.taken = getattr(self, "taken", 0) + 1
        if self.taken <= int(after):
            self._part(data)
        else:
            self.close_connection = True

    def _cookie(self, data: bytes) -> None:
        self._part(data, Set_Cookie="track=1; Path=/")

    def _slow_later(self, data: bytes) -> None:
        """The first request of a connection is answered, the second is dripped."""
        self.taken = getattr(self, "taken", 0) + 1
        self._part(data) if self.taken == 1 else self._drips(data)

    def _ignores(self, data: bytes) -> None:
        self._answer(200, data, ETag='"one"')

    def _untrue(self, data: bytes) -> None:
        begin, end = self._range(data)
        self._answer(206, data[begin:end])

    def _star(self, data: bytes) -> None:
        begin, end = self._range(data)
        self._part(data, Content_Range=f"bytes {begin}-{end - 1}/*")

    def _elsewhere(self, data: bytes) -> None:
        begin, end = self._range(data)
        self._part(data, Content_Range=f"bytes {begin + 1}-{end}/{len(data) + 5}")

    def _fewer(self, data: bytes) -> None:
        begin, _ = self._range(data)
        self._answer(206, data[begin : begin + 10], Content_Range=f"bytes {begin}-{begin + 9}/{len(data)}")

    def _cut(self, data: bytes) -> None:
        begin, end = self._range(data)
        self._answer(
            206, data[begin:end][:-3], declared=end - begin, Content_Range=f"bytes {begin}-{end - 1}/{len(data)}"
        )

    def _short(self, data: bytes) -> None:
        begin, end = self._range(data)
        self._answer(206, data[begin:end][:-3], Content_Range=f"bytes {begin}-{end - 1}/{len(data)}")

    def _endless(self, data: bytes) -> None:
        begin, end = self._range(data)
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {begin}-{end - 1}/{len(data)}")
        self.end_headers()
        self.close_connection = True
        try:
            while not self.owner.ended.is_set():
                self.wfile.write(bytes(65536))
        except OSError:
            return

    def _encoded(self, data: bytes) -> None:
        self._part(data, Content_Encoding="gzip")

    def _replaced(self, data: bytes) -> None:
        self._part(data, ETag=f'"{len(self.owner.asked)}"')

    def _grows(self, data: bytes) -> None:
        begin, end = self._range(data)
        self._part(data, Content_Range=f"bytes {begin}-{end - 1}/{len(data) + len(self.owner.asked)}")

    def _loop(self, data: bytes) -> None:
        self._answer(302, b"", Location="/loop")

    def _redirect(self, data: bytes, to: str, status: str = "302") -> None:
        self._answer(int(status), b"", Location=to)

    def _status(self, data: bytes, code: str, wait: str = "") -> None:
        headers: dict[str, Any] = {"Retry_After": wait} if wait else {}
        self._answer(int(code), b"" if code == "204" else b"no", **headers)

    def _expires(self, data: bytes) -> None:
        """A signed address: good once for each time it was given out."""
        mine = [one for one in self.owner.asked if one.path.startswith("/expires")]
        given = [one for one in self.owner.asked if one.path.startswith("/redirect")]
        self._part(data) if len(mine) % 2 == 1 and given else self._answer(403, b"too old")

    def _silent(self, data: bytes) -> None:
        self.owner.ended.wait(20)
        self.close_connection = True

    def _drips(self, data: bytes) -> None:
        """A byte of the head every now and then, so that no read ever takes long."""
        self.close_connection = True
        try:
            self.wfile.write(b"HTTP/1.1 206 Partial Content\r\nX-Slow: ")
            while not self.owner.ended.wait(0.02):
                self.wfile.write(b"a")
                self.wfile.flush()
        except OSError:
            return


if __name__ == "__main__":
    with RangeServer(Path(sys.argv[1]).read_bytes()).running() as server:
        print(f"{server.base}/sound")
        server.ended.wait()
