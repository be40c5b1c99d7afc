"""How the tokens of one step are shared between prompts. Pure.

Prompts get no more of a step than makes it last too long for those who wait for their next token, and for newcomers.
"""

from __future__ import annotations

from collections.abc import Sequence

# Smaller pieces of a prompt are evaluated at a worse rate (CPU, Q8_0: 0.90 ms a token at 64, 0.82 at 128, 0.87 at 512).
SMALLEST = 128
# How long those who already read their answer may wait for their next token while a prompt is evaluated, in seconds.
PATIENCE = 0.25
# How long a newcomer may wait for the end of a step in which only prompts are evaluated.
ALONE_PATIENCE = 0.3
_MEMORY = 0.3
_MEASURED = 64


def shares(needs: Sequence[int], budget: int) -> list[int]:
    """How many tokens of each prompt go into this step; ``needs``: tokens still to evaluate, oldest request first.

    The oldest gets at least half, so that it ends in bounded time whatever comes after it; the rest goes to those that
    are done soonest, so that a short prompt does not wait for a long one.
    """
    given = [0] * len(needs)
    if not needs or budget <= 0:
        return given
    given[0] = min(needs[0], (budget + 1) // 2)
    left = budget - given[0]
    for at in sorted(range(len(needs)), key=lambda at: needs[at] - given[at]):
        more = min(needs[at] - given[at], left)
        given[at] += more
        left -= more
    return given


class Pace:
    """How many prompt tokens fit into the time a step may take, learned from the steps before."""

    def __init__(self, capacity: int, micro_batch: int) -> None:
        self._capacity = capacity
        self._micro_batch = micro_batch
        self._token_seconds = 0.0

    def measured(self, tokens: int, seconds: float) -> None:
        """A step with that many prompt tokens took so long."""
        if tokens < _MEASURED:
            return
        each = seconds / tokens
        known = self._token_seconds
        self._token_seconds = each if not known else known + _MEMORY * (each - known)

    def budget(self, decoding: int, needs: Sequence[int]) -> int:
        """Prompt tokens of the next step, beside ``decoding`` tokens of sequences that already speak."""
        if not needs:
            return 0
        patience = PATIENCE if decoding else ALONE_PATIENCE
        fitting = int(patience / self._token_seconds) if self._token_seconds else SMALLEST
        smallest = min(SMALLEST, self._micro_batch)
        budget = max(smallest, min(fitting, self._micro_batch if decoding else self._capacity))
        if len(needs) > 1:
            # Nobody is served later if the first prompt gets a step of its own, and its answer begins at once.
            budget = min(budget, max(smallest, needs[0]))
        return max(1, min(budget, self._capacity - decoding))
