"""A plugin that misbehaves in one chosen way: ``python rude_plugin.py MODE``. Speaks the protocol word by word over a
WebSocket client that is not ours, as a stranger's plugin would.

Its provider has the name of the mode. Modes that answer ``generate`` badly are in :data:`ANSWERS`, those that never get
so far in :data:`STARTS`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, unix_connect

MESSAGE = {"role": "assistant", "content": "fine"}
GOOD_BODY = {"id": "x", "object": "chat.completion", "choices": [{"index": 0, "message": MESSAGE}]}
CHUNK = {"id": "x", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": "part "}}]}
USAGE = {"inputTokens": 2, "outputTokens": 1}
MODEL = {"id": "m", "price": {"inputPerMillionUsd": 1.0, "outputPerMillionUsd": 1.0}}


class Rude:
    def __init__(self, name: str) -> None:
        self.name = name
        self.socket: ClientConnection

    def connect(self) -> None:
        self.socket = unix_connect(
            os.environ["HYBRIDD_SOCKET"], "ws://localhost/v1/plugins/connect", max_size=None, compression=None
        )

    def send(self, **message: Any) -> None:
        self.socket.send(json.dumps({"jsonrpc": "2.0", **message}))

    def initialize(self, **fields: Any) -> None:
        me = f"{self.name}-{os.getpid()}"
        params: dict[str, Any] = {"protocolVersions": ["1"], "plugin": {"name": self.name}, "instanceId": me}
        params["token"] = os.environ.get("HYBRIDD_PLUGIN_TOKEN")
        self.send(id="i", method="initialize", params={**params, **fields})
        self.socket.recv()

    def register(self, **fields: Any) -> None:
        self.send(id="r", method="provider/register", params={"provider": self.name, "models": [MODEL], **fields})

    def begin(self, **fields: Any) -> None:
        self.connect()
        self.initialize()
        self.register(**fields)

    def answer(self, number: int, body: Any = GOOD_BODY, usage: Any = USAGE, **more: Any) -> None:
        self.send(id=number, result={"body": body, "usage": usage, **more})

    def chunk(self, number: int, seq: int, *events: Any) -> None:
        self.send(method="stream/chunk", params={"id": number, "seq": seq, "events": list(events) or [CHUNK]})

    def linger(self) -> None:
        """Silent until the daemon hangs up."""
        while True:
            self.socket.recv()

    def serve(self, on_generate: Callable[[int, dict[str, Any]], None]) -> None:
        while True:
            message = json.loads(self.socket.recv())
            method = message.get("method")
            if method == "generate":
                on_generate(message["id"], message["params"])
            elif method in ("ping", "probe"):
                self.send(id=message["id"], result={})
            elif method == "shutdown":
                self.send(id=message["id"], result={})
                return


# -- those that never serve


def never_connects(rude: Rude) -> None:
    signal.pause()


def never_initialises(rude: Rude) -> None:
    rude.connect()
    rude.linger()


def other_version(rude: Rude) -> None:
    rude.connect()
    rude.initialize(protocolVersions=["99", "0"])
    rude.linger()


def garbage_first(rude: Rude) -> None:
    rude.connect()
    rude.socket.send("this is not JSON")
    rude.linger()


def binary(rude: Rude) -> None:
    rude.connect()
    rude.socket.send(b"\x00\x01\x02")
    rude.linger()


def not_websocket(rude: Rude) -> None:
    import socket

    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(os.environ["HYBRIDD_SOCKET"])
        raw.sendall(os.urandom(4096))
        while raw.recv(4096):
            continue


def wrong_token(rude: Rude) -> None:
    rude.connect()
    rude.initialize(token="forged")
    rude.linger()


def exits_at_once(rude: Rude) -> None:
    print("no licence file found", file=sys.stderr)
    sys.exit(9)


def foreign_name(rude: Rude) -> None:
    """Registers a provider that belongs to another plugin, never its own."""
    rude.connect()
    rude.initialize()
    rude.send(id="r", method="provider/register", params={"provider": "polite", "models": []})
    rude.serve(lambda *_: None)


def huge_message(rude: Rude) -> None:
    rude.begin()
    rude.send(method="log", params={"level": "info", "message": "x" * 45_000_000})
    rude.linger()


def floods(rude: Rude) -> None:
    rude.begin()
    for number in range(1_000_000):
        rude.send(method="log", params={"level": "debug", "message": f"line {number}"})


STARTS = [
    never_connects, never_initialises, other_version, garbage_first, binary, not_websocket, wrong_token, exits_at_once,
    foreign_name, huge_message, floods,
]  # fmt: skip


# -- those that answer badly


def with_answer(make: Callable[[Rude, int, dict[str, Any]], None], **registered: Any) -> Callable[[Rude], None]:
    def mode(rude: Rude) -> None:
        rude.begin(**registered)
        rude.serve(lambda number, params: make(rude, number, params))

    return mode


def dies_mid_stream(rude: Rude, number: int, params: dict[str, Any]) -> None:
    rude.chunk(number, 0)
    print("segmentation fault, core dumped", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


def floods_chunks(rude: Rude, number: int, params: dict[str, Any]) -> None:
    """Ignores its credit."""
    event = {"choices": [{"index": 0, "delta": {"content": "x" * 60_000}}]}
    for seq in range(1000):
        rude.chunk(number, seq, event)


def answers_twice(rude: Rude, number: int, params: dict[str, Any]) -> None:
    rude.answer(number)
    rude.answer(number)


def blocks_its_loop(rude: Rude, number: int, params: dict[str, Any]) -> None:
    """Neither answers nor answers pings."""
    time.sleep(3600)


def pretty_stream(rude: Rude, number: int, params: dict[str, Any]) -> None:
    """Events as JSON of several lines: whole, and yet deadly for a line-based format when passed on as they are."""
    event = json.dumps(CHUNK, indent=2)
    message = '{"jsonrpc":"2.0","method":"stream/chunk","params":{"id":%d,"seq":0,"events":[%s,%s]}}'
    rude.socket.send(message % (number, event, event.replace("\n", "\r\n")))
    rude.send(id=number, result={"usage": USAGE})


ANSWERS: dict[str, Callable[[Rude], None]] = {
    "garbage": with_answer(lambda rude, number, _: rude.socket.send("}{ not JSON")),
    "not-rpc": with_answer(lambda rude, number, _: rude.socket.send('["an", "array"]')),
    "no-result": with_answer(lambda rude, number, _: rude.send(id=number)),
    "both": with_answer(lambda rude, number, _: rude.send(id=number, result={}, error={"code": 1, "message": "x"})),
    "unknown-id": with_answer(lambda rude, number, _: rude.answer(number + 1000)),
    "wrong-types": with_answer(lambda rude, number, _: rude.send(id=number, result={"usage": "lots"})),
    "negative-usage": with_answer(
        lambda rude, number, _: rude.answer(number, usage={"inputTokens": -5, "outputTokens": 1})
    ),
    "absurd-usage": with_answer(
        lambda rude, number, _: rude.answer(number, usage={"inputTokens": 10**30, "outputTokens": 10**30})
    ),
    "large-usage": with_answer(
        lambda rude, number, _: rude.answer(number, usage={"inputTokens": 2**62, "outputTokens": 2**62, "usd": 1e300})
    ),
    "body-number": with_answer(lambda rude, number, _: rude.answer(number, body=5)),
    "body-text": with_answer(lambda rude, number, _: rude.answer(number, body="hello")),
    "body-null": with_answer(lambda rude, number, _: rude.answer(number, body=None)),
    "no-body": with_answer(lambda rude, number, _: rude.send(id=number, result={"usage": USAGE})),
    "hangs": with_answer(lambda rude, number, _: None),
    "blocks": with_answer(blocks_its_loop),
    "twice": with_answer(answers_twice),
    "dies": with_answer(dies_mid_stream),
    "floods-chunks": with_answer(floods_chunks),
    "wrong-seq": with_answer(lambda rude, number, _: rude.chunk(number, 7)),
    "event-text": with_answer(lambda rude, number, _: rude.chunk(number, 0, "hello")),
    "pretty": with_answer(pretty_stream),
    "absurd-price": with_answer(
        lambda rude, number, _: rude.answer(number),
        models=[{"id": "m", "price": {"inputPerMillionUsd": 1e308, "outputPerMillionUsd": -5.0}}],
    ),
    "absurd-limits": with_answer(
        lambda rude, number, _: rude.answer(
            number,
            observations=[
                {"unit": "requests", "remaining": -1e308, "limit": -7, "window": "60s", "resetMs": 2**52},
                {"unit": "total_tokens", "remaining": 1e308, "limit": 1e308, "window": "9999999999s"},
                {"unit": "usd", "remaining": 0.5, "window": "whenever", "resetMs": 0},
            ],
        )
    ),
    "polite": with_answer(lambda rude, number, _: rude.answer(number)),
    "late": with_answer(lambda rude, number, _: rude.answer(number)),
    "later": with_answer(lambda rude, number, _: rude.answer(number)),
}


def main() -> None:
    mode = sys.argv[1]
    rude = Rude(mode)
    starts = {start.__name__.replace("_", "-"): start for start in STARTS}
    try:
        (starts.get(mode) or ANSWERS[mode])(rude)
    except (ConnectionClosed, BrokenPipeError) as error:
        print(f"hung up: {error}", file=sys.stderr)


if __name__ == "__main__":
    main()
