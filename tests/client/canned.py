"""A real HTTP server on a Unix socket that answers as the daemon does, with canned values; it keeps what was asked."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

NOW = 1_800_000_000.0
CHOICE = {
    "task": "code_generation",
    "chosen_model": "lab:m1",
    "provider": "lab",
    "reason": "first feasible candidate of the task",
    "rejected": [
        {"candidate": "github_models:copilot-chat", "reason": "no key", "code": "not_configured", "retry_after": None}
    ],
    "candidates": ["github_models:copilot-chat", "lab:m1"],
    "defaults": {},
}
EXPLAINED = {
    "model_choice": CHOICE,
    "usage": {"input_tokens": 7, "output_tokens": 3},
    "cost_usd": 0.000012,
    "latency_ms": 12.5,
    "request_id": "req_65bfdedd6c000",
    "cache": "miss",
}
LIMITS = [
    {
        "key": "github_models/requests/3600s",
        "provider": "github_models",
        "account": "github_models",
        "unit": "requests",
        "window": "3600s",
        "limit": 5000.0,
        "used": 250.0,
        "reserved": 2.0,
        "remaining": 4648.0,
        "buffer": 100.0,
        "reset": NOW + 1800,
        "source": "header",
        "models": None,
        "drift": 40.0,
        "observed_remaining": 4708.0,
        "observed_at": NOW,
        "debt": 0.0,
        "forecast": {"exhausted_at": 4e9, "earliest": 3.9e9, "latest": 4.1e9, "per_second": 0.1},
        "zone": "UTC",
    },
    {
        "key": "lab/usd/month",
        "provider": "lab",
        "account": "lab",
        "unit": "usd",
        "window": "month",
        "limit": 5.0,
        "used": 1.25,
        "reserved": 0.0,
        "remaining": 3.75,
        "buffer": 0.0,
        "reset": None,
        "source": "config",
        "models": ["m1"],
        "drift": None,
        "observed_remaining": None,
        "observed_at": None,
        "debt": 0.0,
        "forecast": None,
        "zone": "UTC",
    },
]
PROVIDERS = [
    {"name": "lab", "plugin": "openai_compatible", "state": "ready", "reason": "", "models": [{"id": "m1"}],
     "account": "lab", "since": NOW, "until": None, "in_flight": 1},
    {"name": "github_models", "plugin": "github_models", "state": "not_configured", "reason": "no key: GITHUB_TOKEN",
     "models": [], "account": "github_models", "since": NOW, "until": None, "in_flight": 0},
]  # fmt: skip
PLUGINS = [
    {"name": "openai_compatible", "state": "failed", "pid": None, "restarts": 5, "providers": ["lab"], "since": NOW,
     "version": "1", "reason": "exited with 1", "stderr": ["first", "last words"]},
]  # fmt: skip
STATUS = {
    "version": "0.1.0", "pid": 4711, "uptime_s": 3723.5, "state": "ready", "socket": "/s", "database": "/d",
    "config": None, "providers": PROVIDERS, "plugins": PLUGINS, "in_flight": 1, "waiting": 0, "alerts_open": 1,
    "host": {}, "storage": None,
}  # fmt: skip
REQUEST = {
    "id": "req_65bfdedd6c000", "at": NOW, "task": "code_generation", "requested": "auto", "provider": "lab",
    "model": "m1", "status": 200, "error_code": None, "stream": False, "cache": "miss", "attempts": 2,
    "input_tokens": 7, "output_tokens": 3, "cost_usd": 0.000012, "latency_ms": 12.5, "first_token_ms": None,
    "overhead_ms": 0.6, "tier": None, "client": None,
}  # fmt: skip
CALLS = [
    {"call_id": 1, "candidate": "groq:x", "state": "settled", "started": NOW, "duration_ms": 8.0, "error": "HTTP 429",
     "error_code": "rate_limited", "input_tokens": None, "output_tokens": None, "cost_usd": 0.0},
]  # fmt: skip
ALERT = {
    "id": 12, "key": "k", "name": "HubDownloadsLow", "severity": "warning", "state": "open",
    "message": "fewer than 1,000 downloads are left", "opened_at": NOW, "updated_at": NOW, "count": 3,
    "provider": "hugging_face", "resolved_at": None, "silenced_until": None, "data": {},
}  # fmt: skip
REPORT = {
    "rows": [
        {"provider": "lab", "model": "m1", "requests": 10, "failed_requests": 1, "cache_hits": 2, "calls": 11,
         "input_tokens": 1000, "output_tokens": 500, "cost_usd": 0.5, "latency_ms": 250.0},
        {"provider": "groq", "model": "x", "requests": 5, "failed_requests": 0, "cache_hits": 0, "calls": 5,
         "input_tokens": 100, "output_tokens": 50, "cost_usd": 0.0, "latency_ms": 90.0},
    ],
    "total": {"requests": 15, "failed_requests": 1, "cache_hits": 2, "calls": 16, "input_tokens": 1100,
              "output_tokens": 550, "cost_usd": 0.5, "latency_ms": 200.0},
    "trend": {"requests": {"now": 15, "before": 12, "change": 0.25},
              "summary": "requests +25% against the 7 days before"},
}  # fmt: skip
EVENTS = [
    {"seq": 1, "at": NOW, "kind": "snapshot", "data": {"status": STATUS}},
    {"seq": 2, "at": NOW, "kind": "request", "data": {"id": "req_1", "text": "é"}},
]


def error(message: str, code: str, **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, "type": "api_error", "code": code, "param": None, **more}}


def completion(text: str) -> dict[str, Any]:
    return {"choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]}


def sse(*pieces: str, explained: dict[str, Any] | None = EXPLAINED, done: bool = True) -> bytes:
    """A streamed answer as the daemon writes it."""
    events = [f"data: {json.dumps({'choices': [{'delta': {'content': piece}}]})}\n\n" for piece in pieces]
    if explained is not None:
        events.append(f"event: hybridd\ndata: {json.dumps(explained)}\n\n")
    if done:
        events.append("data: [DONE]\n\n")
    return "".join(events).encode()


class Answer:
    """``pieces`` are written one HTTP chunk each; ``hold`` keeps the connection open after them."""

    def __init__(
        self,
        value: Any = None,
        *,
        status: int = 200,
        pieces: list[bytes] | None = None,
        headers: dict[str, str] | None = None,
        kind: str = "application/json",
        hold: threading.Event | None = None,
        cut: bool = False,
    ) -> None:
        self.status = status
        self.pieces = pieces if pieces is not None else [json.dumps(value).encode()]
        self.headers = headers or {}
        self.kind = kind
        self.hold = hold
        self.cut = cut


Route = Answer | Callable[["Asked"], Answer]


class Asked:
    """One request as it arrived."""

    def __init__(self, method: str, target: str, headers: dict[str, str], body: bytes) -> None:
        parts = urlsplit(target)
        self.method = method
        self.path = parts.path
        self.query = dict(parse_qsl(parts.query))
        self.headers = {name.lower(): value for name, value in headers.items()}
        self.body = json.loads(body) if body else None


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 128  # a Unix socket refuses at once what does not fit
    canned: CannedDaemon


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def address_string(self) -> str:
        return "local"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _answer(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        asked = Asked(self.command, self.path, dict(self.headers), self.rfile.read(length))
        canned = self.server.canned
        canned.asked.append(asked)
        route = canned.routes.get((asked.method, asked.path))
        answer = route(asked) if callable(route) else route
        if answer is None:
            answer = Answer(error(f"There is nothing at {asked.path}.", "not_found"), status=404)
        self.send_response(answer.status)
        self.send_header("content-type", answer.kind)
        self.send_header("transfer-encoding", "chunked")
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.end_headers()
        try:
            for piece in answer.pieces:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                self.wfile.flush()
            if answer.hold is not None:
                answer.hold.wait(30)
            if answer.cut:
                self.close_connection = True
            else:
                self.wfile.write(b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            canned.left.set()
            self.close_connection = True

    do_GET = do_POST = _answer


class CannedDaemon:
    """``routes`` may be changed by a test; ``asked`` is every request so far; ``left`` is set when a client closed the
    connection in the middle of an answer."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self.asked: list[Asked] = []
        self.left = threading.Event()
        self.routes: dict[tuple[str, str], Route] = {
            ("GET", "/health"): Answer({"status": "ok"}),
            ("GET", "/ready"): Answer({"status": "ready"}),
            ("GET", "/v1/status"): Answer(STATUS),
            ("GET", "/v1/limits"): Answer({"limits": LIMITS}),
            ("POST", "/v1/route"): Answer(CHOICE),
            ("POST", "/v1/chat/completions"): _chat,
            ("POST", "/v1/embeddings"): Answer({"data": [{"embedding": [0.5]}]}),
            ("GET", "/v1/models"): Answer({"object": "list", "data": [{"id": "lab:m1"}]}),
            ("GET", "/v1/requests"): Answer({"requests": [REQUEST], "next": "c2"}),
            ("GET", f"/v1/requests/{REQUEST['id']}"): Answer({**REQUEST, "choice": CHOICE, "calls": CALLS}),
            ("GET", "/v1/history"): Answer({"series": "gpu", "points": [[NOW, 1.0]]}),
            ("GET", "/v1/usage"): Answer({"rows": []}),
            ("GET", "/v1/report"): Answer(REPORT),
            ("GET", "/v1/alerts"): Answer({"alerts": [ALERT]}),
            ("POST", "/v1/alerts/12/ack"): Answer({**ALERT, "state": "acknowledged"}),
            ("POST", "/v1/alerts/12/silence"): Answer({**ALERT, "state": "silenced"}),
            ("GET", "/v1/plugins"): Answer({"plugins": PLUGINS}),
            ("POST", "/v1/feedback"): Answer({"ok": True}),
            ("POST", "/v1/reload"): Answer({"changed": ["flags"]}),
            ("GET", "/v1/events"): Answer(
                pieces=[(json.dumps(event, ensure_ascii=False) + "\n").encode() for event in EVENTS],
                kind="application/x-ndjson",
            ),
        }

    @property
    def last(self) -> Asked:
        return self.asked[-1]


def _chat(asked: Asked) -> Answer:
    assert asked.body is not None
    headers = {"x-hybridd-provider": "lab", "x-hybridd-model": "m1"}
    if asked.body.get("stream"):
        return Answer(pieces=[sse("Olá", ", ", "mundo")], kind="text/event-stream", headers=headers)
    return Answer({**completion("Olá, mundo"), "hybridd": EXPLAINED}, headers=headers)


@contextmanager
def serving(socket: Path) -> Iterator[CannedDaemon]:
    server = _Server(str(socket), _Handler)
    server.canned = CannedDaemon(socket)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server.canned
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
