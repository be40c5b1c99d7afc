"""What was asked in the playground since the dashboard was started. It is kept here and nowhere else."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Literal

from hybridd.client.types import Message
from tui.rates import tokens_per_second

TURNS_KEPT = 500

State = Literal["waiting", "answering", "done", "stopped", "failed"]


@dataclass(slots=True, eq=False)
class Turn:
    """One question and its answer. ``model``: what was asked for; ``answered``: who did it. Times in milliseconds.

    ``messages``: the whole conversation that was sent. ``thoughts``: what a reasoning model said before its answer.
    ``first_ms``, ``last_ms``: until its first and its last words were here; ``latency_ms``: as the daemon counts.
    ``score``: what was said of the answer, -1 to 1. ``began``: UTC seconds.
    """

    prompt: str
    model: str
    messages: list[Message]
    text: str = ""
    thoughts: str = ""
    began: float = 0.0
    state: State = "waiting"
    error: str = ""
    request_id: str = ""
    answered: str = ""
    reason: str = ""
    passed_over: int = 0
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost_usd: float | None = None
    latency_ms: float | None = None
    first_ms: float | None = None
    last_ms: float | None = None
    cache: str = ""
    score: float | None = None

    @property
    def speed(self) -> float | None:
        """Tokens per second from the first token on; None when it cannot be told."""
        if self.last_ms is None or self.cache == "hit":
            return None
        return tokens_per_second(self.output_tokens, self.last_ms, self.first_ms)


@dataclass(slots=True)
class Session:
    """``turns``: of every pane, oldest first."""

    turns: deque[Turn] = field(default_factory=lambda: deque(maxlen=TURNS_KEPT))

    def find(self, request_id: str) -> Turn | None:
        return next((turn for turn in self.turns if turn.request_id == request_id), None) if request_id else None

    def prompts(self) -> list[str]:
        """What was typed, each text once, the newest last."""
        return list(dict.fromkeys(turn.prompt for turn in reversed(self.turns)))[::-1]
