"""A hub for model files on loopback: a real HTTP server that answers as the Hub's API does, with a second one (another
port, so another origin) that holds the large files, as the Hub's content network does.

    with FakeHub() as hub:
        hub.add("acme/tiny-GGUF", {"tiny-Q4_K_M.gguf": content})
        …  HF_ENDPOINT=hub.url …

``hub.faults`` makes it misbehave, ``hub.asked`` is what it was asked. By hand, for a folder of repositories
(``owner/name/file``): ``python -m tests.fakes.hub FOLDER``.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, quote, unquote, urlsplit

TOKEN = "hf_" + "loopback" * 4
_PIECE = 64 * 1024


@dataclass
class Repo:
    """``gated``: needs TOKEN, and with it ``granted``. ``private``: not there without TOKEN."""

    name: str
    files: dict[str, bytes]
    gated: bool = False
    granted: bool = False
    private: bool = False
    disabled: bool = False
    commit: str = ""
    lfs: bool = True
    """False: files are served by the hub itself, with git's digest."""
    xet: bool = False
    """Names xet's digest too, as the Hub does for every newer repository."""
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass
class Faults:
    """What goes wrong; each is off until set."""

    cut_after: int | None = None
    """Bytes after which the body of a large file breaks off."""
    cuts: int = 1_000_000
    """How many times it does."""
    cut_at: int | None = None
    """Position in a large file past which no connection ever gets."""
    wrong_content: bool = False
    """One byte of large files is another."""
    too_long: bool = False
    """Large files have more bytes than announced."""
    status: dict[str, tuple[int, dict[str, str], int]] = field(default_factory=dict)
    """``api``, ``resolve`` or ``cdn`` → status, headers, how many times."""
    moved: dict[str, str] = field(default_factory=dict)
    """Former name of a repository → its name: answered with a relative redirect, as the Hub does after a renaming."""
    late_redirect: bool = False
    """A file of the hub itself is sent elsewhere only when it is fetched: HEAD has said nothing of it."""
    ignore_range: bool = False
    wrong_range: bool = False
    no_commit: bool = False
    """No X-Repo-Commit: not the Hub at all."""
    etag: str | None = None
    """This instead of the digest."""
    hold_after: int | None = None
    """Bytes after which a large file waits until ``release`` is set."""
    release: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True)
class Asked:
    host: str
    """``hub`` or ``cdn``"""
    method: str
    path: str
    headers: dict[str, str]


class FakeHub:
    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.faults = Faults()
        self.asked: list[Asked] = []
        self._servers = [_Server(self, "hub"), _Server(self, "cdn")]
        self._threads = [threading.Thread(target=server.serve_forever, args=(0.02,)) for server in self._servers]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._servers[0].server_address[1]}"

    @property
    def cdn(self) -> str:
        return f"http://127.0.0.1:{self._servers[1].server_address[1]}"

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.faults.release.set()
        for server in self._servers:
            server.shutdown()
            server.server_close()
        for thread in self._threads:
            thread.join()

    def add(self, name: str, files: dict[str, bytes], **more: Any) -> Repo:
        """A repository; its commit follows from its content."""
        commit = hashlib.sha1(repr(sorted((path, sha256(body)) for path, body in files.items())).encode()).hexdigest()
        self.repos[name] = Repo(name, dict(files), commit=commit, **more)
        return self.repos[name]

    def requests(self, host: str, method: str = "GET") -> list[Asked]:
        return [one for one in self.asked if (one.host, one.method) == (host, method)]


def sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def git_digest(body: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, hub: FakeHub, host: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.hub = hub
        self.host = host

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        """Silent: tests read ``asked``."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    @property
    def _hub(self) -> FakeHub:
        return self.server.hub

    def _answer(self) -> None:
        address = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        self._hub.asked.append(Asked(self.server.host, self.command, self.path, headers))
        for former, name in self._hub.faults.moved.items() if self.server.host == "hub" else ():
            if f"/{former}" in self.path:
                self._send(307, {"Location": self.path.replace(f"/{former}", f"/{name}")}, b"moved")
                return
        if self.server.host == "cdn":
            self._cdn(unquote(address.path))
        elif address.path == "/api/models":
            self._listing(parse_qs(address.query))
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?", address.path):
            self._info(unquote(match[1]), unquote(match[2] or "main"))
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", address.path):
            self._resolve(unquote(match[1]), unquote(match[2]), unquote(match[3]))
        else:
            self._fail(404, "no such page")

    # ---- the hub -------------------------------------------------------------------------------------------------

    def _listing(self, query: dict[str, list[str]]) -> None:
        if self._broken("api"):
            return
        words = query.get("search", [""])[0].lower()
        repos = [repo for repo in self._hub.repos.values() if words in repo.name.lower() and not repo.private]
        self._json([self._info_of(repo, blobs=False) for repo in repos][: int(query.get("limit", ["20"])[0])])

    def _info(self, name: str, revision: str) -> None:
        repo = None if self._broken("api") else self._permitted(name, listing=True)
        if repo is None:
            return
        if revision not in {"main", repo.commit}:
            self._fail(404, "Invalid rev id", {"X-Error-Code": "RevisionNotFound"})
            return
        self._json(self._info_of(repo, blobs=True))

    def _info_of(self, repo: Repo, *, blobs: bool) -> dict[str, Any]:
        siblings: list[dict[str, Any]] = []
        for path, body in repo.files.items():
            one: dict[str, Any] = {"rfilename": path}
            if blobs:
                one |= {"size": len(body), "blobId": git_digest(body)}
                if repo.lfs:
                    one["lfs"] = {"size": len(body), "sha256": sha256(body), "pointerSize": 134}
            siblings.append(one)
        return {
            "_id": "0", "id": repo.name, "modelId": repo.name, "sha": repo.commit, "private": repo.private,
            "gated": "auto" if repo.gated else False, "downloads": 12_345, "likes": 67, "tags": ["gguf"],
            "lastModified": "2026-10-01T12:00:00.000Z", "siblings": siblings, **repo.extra,
        }  # fmt: skip

    def _resolve(self, name: str, revision: str, path: str) -> None:
        faults = self._hub.faults
        repo = None if self._broken("resolve") else self._permitted(name, listing=False)
        if repo is None:
            return
        if revision not in {"main", repo.commit}:
            self._fail(404, "Invalid rev id", {"X-Error-Code": "RevisionNotFound"})
            return
        commit = {} if faults.no_commit else {"X-Repo-Commit": repo.commit}
        body = repo.files.get(path)
        if body is None:
            self._fail(404, "Entry not found", {"X-Error-Code": "EntryNotFound", **commit})
            return
        if not repo.lfs and faults.late_redirect and self.command == "GET":
            self._send(302, {"Location": f"{self._hub.cdn}/{quote(name)}/{sha256(body)}"}, b"Found")
            return
        if not repo.lfs:
            self._body(body, {"ETag": f'"{faults.etag or git_digest(body)}"', **commit})
            return
        digest = faults.etag or sha256(body)
        xet = {"X-Xet-Hash": sha256(body[::-1]), "X-Xet-Refresh-Route": "/never"} if repo.xet else {}
        self._send(
            302,
            {
                "Location": f"{self._hub.cdn}/{quote(name)}/{sha256(body)}?signature=1",
                "X-Linked-Etag": f'"{digest}"',
                "X-Linked-Size": str(len(body)),
                "ETag": '"of-the-redirect"',
                **commit,
                **xet,
            },
            b"Found",
        )

    def _permitted(self, name: str, *, listing: bool) -> Repo | None:
        """The repository if the caller may have it; a gated one's listing is open to everybody, as on the Hub."""
        repo = self._hub.repos.get(name)
        given = self.headers.get("Authorization")
        if given not in {None, f"Bearer {TOKEN}"}:
            message = "Invalid credentials in Authorization header"
            self._fail(401, message, {"X-Error-Message": message})
        elif repo is None or (repo.private and given is None):
            # Whoever is not known is not told whether it exists.
            self._fail(404 if given else 401, "Repository not found", {"X-Error-Code": "RepoNotFound"})
        elif repo.disabled:
            message = "Access to this resource is disabled."
            self._fail(403, message, {"X-Error-Message": message})
        elif repo.gated and not repo.granted and not listing:
            self._fail(403 if given else 401, "Access to model is restricted", {"X-Error-Code": "GatedRepo"})
        elif repo.gated and given is None and not listing:
            self._fail(401, "Access to model is restricted", {"X-Error-Code": "GatedRepo"})
        else:
            return repo
        return None

    # ---- the content network -------------------------------------------------------------------------------------

    def _cdn(self, path: str) -> None:
        if self._broken("cdn"):
            return
        _, owner, name, digest = path.split("/")
        repo = self._hub.repos[f"{owner}/{name}"]
        body = next(body for body in repo.files.values() if sha256(body) == digest)
        if self._hub.faults.wrong_content:
            body = body[:-1] + bytes([body[-1] ^ 1])
        if self._hub.faults.too_long:
            body += b"more"
        self._body(body, {"ETag": '"of-the-network"'})

    def _body(self, body: bytes, headers: dict[str, str]) -> None:
        faults = self._hub.faults
        start, status = 0, 200
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        end = len(body) - 1
        if wanted and not faults.ignore_range:
            start, status = int(wanted[1]), 206
            end = min(end, int(wanted[2] or end))
            if start >= len(body):
                self._send(416, {"Content-Range": f"bytes */{len(body)}"}, b"")
                return
            shown = start + 1 if faults.wrong_range else start
            headers |= {"Content-Range": f"bytes {shown}-{end}/{len(body)}"}
        if not faults.ignore_range:
            headers |= {"Accept-Ranges": "bytes"}
        self._send(status, headers, body[start : end + 1], start=start, faulty=True)

    def _broken(self, where: str) -> bool:
        status, headers, times = self._hub.faults.status.get(where, (0, {}, 0))
        if times <= 0:
            return False
        self._hub.faults.status[where] = (status, headers, times - 1)
        self._fail(status, "as told", headers)
        return True

    def _json(self, value: Any) -> None:
        self._send(200, {"Content-Type": "application/json"}, json.dumps(value).encode())

    def _fail(self, status: int, message: str, headers: dict[str, str] | None = None) -> None:
        body = json.dumps({"error": message}).encode()
        self._send(status, {"Content-Type": "application/json", **(headers or {})}, body)

    def _send(self, status: int, headers: dict[str, str], body: bytes, *, start: int = 0, faulty: bool = False) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        faults = self._hub.faults
        if faulty and faults.cut_at is not None and start + len(body) > faults.cut_at:
            self.wfile.write(body[: max(0, faults.cut_at - start)])
            self.close_connection = True
        elif faulty and faults.cut_after is not None and faults.cuts > 0 and len(body) > faults.cut_after:
            faults.cuts -= 1
            self.wfile.write(body[: faults.cut_after])
            self.close_connection = True
        elif faulty and faults.hold_after is not None and len(body) > faults.hold_after:
            self.wfile.write(body[: faults.hold_after])
            self.wfile.flush()
            faults.release.wait()
            self.wfile.write(body[faults.hold_after :])
        else:
            for at in range(0, len(body), _PIECE):
                self.wfile.write(body[at : at + _PIECE])


def main(folder: Path) -> None:
    """Serves ``folder`` until Ctrl-C."""
    with FakeHub() as hub:
        for home in sorted(path for path in folder.glob("*/*") if path.is_dir()):
            files = {str(file.relative_to(home)): file.read_bytes() for file in home.rglob("*") if file.is_file()}
            hub.add(f"{home.parent.name}/{home.name}", files)
        print(f"HF_ENDPOINT={hub.url}  ({len(hub.repos)} repositories)", flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            return


if __name__ == "__main__":
    main(Path(sys.argv[1]))
