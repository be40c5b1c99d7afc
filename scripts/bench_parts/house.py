"""What most figures need at once: the fake upstream, the bare control and the daemon, started when first asked for."""

from __future__ import annotations

import contextlib
import os
from typing import Self

from scripts.bench_parts.daemon_process import Control, Daemon, Scratch, configuration
from scripts.bench_parts.loadgen import Target
from scripts.bench_parts.proc import children
from tests.fakes.upstream import FakeUpstream, rule

STREAM_CHUNKS = 100
SLOW_S = 0.05
FOUR_WRITES_INTERVAL_S = 0.00003
"""The upstream's timers count whole milliseconds: 100 chunks at this pace leave in about four writes."""


class House:
    """Owns every process of a bench; leaving the block ends them."""

    def __init__(self, *, quick: bool = False, seconds: float = 2.0, alternations: int = 5) -> None:
        self.quick = quick
        self.seconds = seconds
        self.alternations = alternations
        self._stack = contextlib.ExitStack()
        self._upstream: FakeUpstream | None = None
        self._control: Control | None = None
        self._daemon: Daemon | None = None
        self._daemon_error: Exception | None = None

    def __enter__(self) -> Self:
        self.scratch = self._stack.enter_context(Scratch())
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    @property
    def upstream(self) -> FakeUpstream:
        if self._upstream is None:
            self._upstream = self._stack.enter_context(FakeUpstream())
            self._upstream.script(
                [
                    rule({"chunks": STREAM_CHUNKS}, model="m1", stream=True),
                    rule({"delay_s": SLOW_S}, model="slow"),
                    rule({"chunks": STREAM_CHUNKS, "chunk_interval_s": FOUR_WRITES_INTERVAL_S}, model="four"),
                ]
            )
        return self._upstream

    @property
    def control(self) -> Control:
        if self._control is None:
            self._control = self._stack.enter_context(Control(self.scratch.home(), self.upstream.url))
        return self._control

    @property
    def daemon(self) -> Daemon:
        """Raises `StartFailed`, at the first use and at every later one."""
        if self._daemon_error is not None:
            raise self._daemon_error
        if self._daemon is None:
            daemon = Daemon(self.scratch.home(), configuration(self.upstream.base_url))
            try:
                self._daemon = self._stack.enter_context(daemon)
                daemon.wait_routed()
            except Exception as error:
                self._daemon_error = error
                raise
        return self._daemon

    def processes(self) -> dict[str, list[int]]:
        """What runs now, by name: the daemon's plugins are its children."""
        found = {"generator": [os.getpid()]}
        if self._upstream is not None:
            found["upstream"] = [self._upstream.pid]
        if self._control is not None:
            found["control"] = [self._control.pid]
        if self._daemon is not None:
            found["daemon"] = [self._daemon.pid]
            found["plugin"] = children(self._daemon.pid)
        return found

    def direct(self, model: str = "m1") -> Target:
        return Target("direct", model, host=self.upstream.host, port=self.upstream.port)

    def targets(self, model: str = "m1") -> list[Target]:
        """Direct, control and hybridd, in this order."""
        return [self.direct(model), self.control.target(model), self.daemon.target(f"lab:{model}")]
