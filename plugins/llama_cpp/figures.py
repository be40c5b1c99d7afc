"""What the scheduler tells of itself: the heartbeat by which a hang is seen, speed, and where a step's time goes."""

from __future__ import annotations

import time
from typing import Any

_MEMORY = 0.1


class Figures:
    """Written by the scheduler's thread, read by any. Seconds."""

    def __init__(self) -> None:
        self.steps = 0
        self.retries = 0
        self.sent_back = 0
        self.computing = 0.0
        self.sampling = 0.0
        self.other = 0.0
        self.prompt_tokens = 0
        self.answer_tokens = 0
        self.since = 0.0  # of the step under way; 0: none
        self._last = time.perf_counter()
        self._speed = 0.0

    @property
    def busy(self) -> bool:
        return self.since > 0

    def step(self, began: float, before: float, computed: float, *, prompts: int, decoded: int) -> None:
        """A step is over: when it began, when llama.cpp began to compute, and when it had."""
        now = time.perf_counter()
        self.steps += 1
        self.computing += computed - before
        self.sampling += now - computed
        self.other += before - began
        self.prompt_tokens += prompts
        self.answer_tokens += decoded
        if decoded:
            speed = decoded / (now - began)
            self._speed += _MEMORY * (speed - self._speed) if self._speed else speed
        self.since, self._last = 0.0, now

    def body(self) -> dict[str, Any]:
        """``last_step_ms_ago``: since a step ended, or since the one under way began: the larger grows in a hang."""
        now = time.perf_counter()
        whole = self.computing + self.sampling + self.other
        return {
            "steps": self.steps,
            "busy": self.busy,
            "last_step_ms_ago": round((now - (self.since or self._last)) * 1000, 1),
            "tokens_per_second": round(self._speed, 2),
            "prompt_tokens": self.prompt_tokens,
            "answer_tokens": self.answer_tokens,
            "retries": self.retries,
            "sent_back": self.sent_back,
            "overhead": round(self.other / whole, 5) if whole else 0.0,
        }
