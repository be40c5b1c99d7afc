"""HTTP over the daemon's socket with the standard library alone: what the command line uses.

Importing httpx costs about 90 ms, more than everything else ``hybridd status`` does.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from hybridd import locations
from hybridd.client import streams, wire
from hybridd.client.types import CallResult
from hybridd.client.wire import Call
from hybridd.errors import DaemonUnreachable, DeadlineExceeded

_READ = 64 * 1024


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float | None) -> None:
        super().__init__("hybridd", timeout=timeout)
        self._path = path
        self.link: socket.socket | None = None

    def connect(self) -> None:
        self.sock = self.link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)

    def hang_up(self) -> None:
        """From any thread: whoever waits for the answer or reads it sees its end at once."""
        link = self.link
        if link is not None:
            with contextlib.suppress(OSError):  # it has ended by itself
                link.shutdown(socket.SHUT_RDWR)


class Api:
    """The daemon behind one socket; one connection for each request.

    Args:
        socket: path of the socket; absent: the default place.
        timeout: seconds without a byte after which a request fails; None waits for ever.
    """

    def __init__(self, socket: Path | str | None = None, timeout: float | None = 30.0) -> None:
        self.socket = Path(socket) if socket is not None else locations.socket_path()
        self.timeout = timeout

    def send(self, call: Call) -> Any:
        """The answer's JSON.

        Raises:
            DaemonUnreachable: nobody listens, or the daemon went away.
            DeadlineExceeded: no byte within the timeout.
            HybriddError: the daemon's own error, by its stable code.
        """
        with self.open(call) as response:
            return wire.decode(response.read())

    def open(
        self, call: Call, *, timeout: float | None = -1.0, began: Callable[[Callable[[], None]], None] | None = None
    ) -> Response:
        """The answer before its body is read; the same errors as :meth:`send`. ``began`` is given, before the answer
        is waited for, what ends the call from another thread."""
        limit = self.timeout if timeout == -1.0 else timeout
        connection = _Connection(str(self.socket), limit)
        try:
            headers = {"content-type": "application/json", **call.headers} if call.body is not None else call.headers
            connection.request(call.method, call.path, call.encoded(), dict(headers))
            if began is not None:
                began(connection.hang_up)
            answer = connection.getresponse()
        except TimeoutError as error:
            connection.close()
            raise DeadlineExceeded(f"the daemon at {self.socket} did not answer within {limit:g} s") from error
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise wire.unreachable(self.socket, error) from error
        response = Response(self.socket, connection, answer)
        if answer.status >= 400:
            with response:
                raise wire.error_of(answer.status, response.read(), answer.headers.get("retry-after"))
        return response


class Response:
    """An answer that is being read; closing it early tells the daemon that nobody listens any more."""

    def __init__(self, path: Path, connection: _Connection, answer: http.client.HTTPResponse) -> None:
        self._path = path
        self._connection = connection
        self._answer = answer
        self.headers = answer.headers

    def __enter__(self) -> Response:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._answer.close()
        self._connection.close()

    def hang_up(self) -> None:
        """Ends the answer from another thread: whoever reads it sees its end at once."""
        self._connection.hang_up()

    def read(self) -> bytes:
        return b"".join(self.chunks())

    def chunks(self) -> Iterator[bytes]:
        """The body as it arrives."""
        try:
            while chunk := self._answer.read1(_READ):
                yield chunk
        except TimeoutError as error:
            raise DeadlineExceeded(f"the daemon at {self._path} stopped sending") from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise DaemonUnreachable(f"the daemon at {self._path} went away in the middle of its answer") from error

    def json_lines(self) -> Iterator[Any]:
        return streams.json_lines(self.chunks())


class Streaming:
    """A streamed call: iterate over the text pieces, then read ``result``."""

    def __init__(self, response: Response) -> None:
        self._response = response
        self._reader = streams.StreamReader()
        self.headers = response.headers
        self.result: CallResult | None = None

    def __iter__(self) -> Iterator[str]:
        with self._response:
            for data in self._response.chunks():
                for chunk in self._reader.feed(data):
                    text = wire.delta_of(chunk)
                    if text:
                        yield text
            self.result = self._reader.finish()
