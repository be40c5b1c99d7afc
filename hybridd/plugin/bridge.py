"""``python -m hybridd.plugin.bridge -- CMD…``: any program can be a plugin.

CMD speaks the protocol's messages as NDJSON: one JSON message per line, the daemon's on its standard input, its own on
standard output; standard error is its log. The bridge adds the WebSocket and, in ``initialize``, the one-time token.
It ends when either side does, and CMD dies with it.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import msgspec

from hybridd import locations
from hybridd.contracts.protocol import MAX_MESSAGE_BYTES, TOKEN_VARIABLE
from hybridd.plugin.link import ClientLink, ConnectRefused

LAUNCHER = Path(__file__).with_name("launch.py")
CONNECT_SECONDS = 5.0
STOP_SECONDS = 2.0


class BridgeError(Exception):
    """The bridge cannot work; the message says why."""


class _Command(asyncio.SubprocessProtocol):
    """CMD, its lines, and its end."""

    def __init__(self, loop: asyncio.AbstractEventLoop, bridge: Bridge) -> None:
        self.exited: asyncio.Future[int] = loop.create_future()
        self._bridge = bridge
        self._parts: list[bytes] = []
        self._size = 0
        self._transport: asyncio.SubprocessTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.SubprocessTransport, transport)

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        *lines, rest = data.split(b"\n")
        for line in lines:
            self._bridge.from_command(b"".join((*self._parts, line)))
            self._parts, self._size = [], 0
        if rest:
            self._parts.append(rest)
            self._size += len(rest)
            if self._size > MAX_MESSAGE_BYTES:
                self._bridge.fail(f"a line of more than {MAX_MESSAGE_BYTES} bytes")

    def process_exited(self) -> None:
        assert self._transport is not None
        code = self._transport.get_returncode()
        if not self.exited.done():
            self.exited.set_result(-1 if code is None else code)

    def write(self, line: bytes) -> None:
        pipe = self._pipe()
        if pipe is not None and not pipe.is_closing():
            pipe.write(line)

    def end_input(self) -> None:
        pipe = self._pipe()
        if pipe is not None:
            pipe.close()

    def kill(self, number: signal.Signals) -> None:
        """Signals the whole group, also what an ended CMD has left behind in it."""
        if self._transport is None:
            return
        try:
            os.killpg(self._transport.get_pid(), number)
        except ProcessLookupError:
            return

    def _pipe(self) -> asyncio.WriteTransport | None:
        if self._transport is None:
            return None
        return cast("asyncio.WriteTransport | None", self._transport.get_pipe_transport(0))


class Bridge:
    """Passes messages between one command and one connection."""

    def __init__(self, command: Sequence[str], socket: str, token: str | None) -> None:
        self._command = list(command)
        self._socket = socket
        self._token = token
        self._initialized = False
        self._link: ClientLink | None = None
        self._child: _Command | None = None
        self._failed: asyncio.Future[str] | None = None

    async def run(self) -> int:
        """Returns CMD's exit code, 0 after the daemon asked for the end.

        Raises:
            BridgeError: no daemon, no such program, or a broken message.
        """
        program = shutil.which(self._command[0])
        if program is None:
            raise BridgeError(f"program {self._command[0]!r} does not exist or is not executable")
        loop = asyncio.get_running_loop()
        self._failed = loop.create_future()
        try:
            link = self._link = await ClientLink.connect(self._socket, self._from_daemon, CONNECT_SECONDS)
        except (OSError, TimeoutError, ConnectRefused) as error:
            raise BridgeError(f"no daemon answers on {self._socket}: {error or 'timed out'}") from None
        _, child = await loop.subprocess_exec(
            lambda: _Command(loop, self),
            *(sys.executable, "-I", "-S", str(LAUNCHER), str(os.getpid()), program, *self._command[1:]),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=None,
            start_new_session=True,
        )
        self._child = child
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, child.end_input)
        ends: list[asyncio.Future[object]] = [child.exited, link.lost, self._failed]  # type: ignore[list-item]  # invariance
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        return await self._end(link, child)

    def from_command(self, line: bytes) -> None:
        """One line of CMD's standard output."""
        if not line.strip() or self._link is None:
            return
        if not self._initialized:
            line = self._with_token(line)
        if line:
            self._link.send(line)

    def fail(self, reason: str) -> None:
        if self._failed is not None and not self._failed.done():
            self._failed.set_result(reason)

    def _from_daemon(self, message: bytes) -> None:
        if self._child is None:
            return
        # A body may hold line breaks between its tokens; a line may not.
        if b"\n" in message or b"\r" in message:
            message = msgspec.json.format(message, indent=-1)
        self._child.write(message + b"\n")

    def _with_token(self, line: bytes) -> bytes:
        """CMD need not know about the token: ``initialize`` gets it here. Empty when the line cannot be sent."""
        try:
            message = msgspec.json.decode(line)
        except msgspec.DecodeError as error:
            self.fail(f"a line before initialize is not JSON: {error}")
            return b""
        if not isinstance(message, dict) or message.get("method") != "initialize":
            return line
        self._initialized = True
        params = message.get("params")
        if self._token and isinstance(params, dict) and not params.get("token"):
            params["token"] = self._token
            return msgspec.json.encode(message)
        return line

    async def _end(self, link: ClientLink, child: _Command) -> int:
        assert self._failed is not None
        try:
            if not child.exited.done() and not self._failed.done():
                child.end_input()
                await asyncio.wait([child.exited], timeout=STOP_SECONDS)
            for number in (signal.SIGTERM, signal.SIGKILL):
                if not child.exited.done():
                    child.kill(number)
                    await asyncio.wait([child.exited], timeout=STOP_SECONDS)
        finally:
            child.kill(signal.SIGKILL)
            link.close()
        if self._failed.done():
            raise BridgeError(self._failed.result())
        if link.lost.done():
            reason = link.lost.result()
            if " 1000" not in reason and " 1001" not in reason:
                raise BridgeError(reason)
            return 0
        code = child.exited.result()
        if code != 0:
            raise BridgeError(f"{self._command[0]} exited with {code}")
        return 0


def main(argv: Sequence[str]) -> int:
    """``hybridd plugin bridge -- CMD…``; returns the exit code."""
    command = list(argv)
    if command[:1] == ["--"]:
        command = command[1:]
    if not command:
        sys.stderr.write("usage: python -m hybridd.plugin.bridge -- CMD [ARGS…]\n")
        return 2
    import uvloop

    bridge = Bridge(command, str(locations.socket_path()), os.environ.pop(TOKEN_VARIABLE, None))
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(bridge.run())
    except BridgeError as error:
        sys.stderr.write(f"bridge: {error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
