"""What one rendering of a chat template may cost, and how values are weighed before they grow. Pure."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from jinja2 import TemplateRuntimeError, Undefined
from jinja2.runtime import Context

MAX_ITEMS = 200_000
MAX_DIGITS = 4000
BUDGET = "\0budget"  # no template can spell it as a name


class OverBudget(TemplateRuntimeError):
    """The template takes too long or makes too much."""


class Refused(TemplateRuntimeError):
    """The template itself refuses what it was given (``raise_exception``)."""


class Budget:
    """What one rendering may cost: characters and steps in all, and seconds."""

    def __init__(self, units: int, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._left = units
        self._clock = clock
        self._until = clock() + seconds

    def charge(self, units: int) -> None:
        self._left -= units
        if self._left < 0:
            raise OverBudget("it makes too much text or runs through too many steps")
        if self._clock() > self._until:
            raise OverBudget("it takes too long")

    def weigh(self, value: Any) -> int:
        """What ``value`` holds, each shared part as often as it is there; raises for what is no plain value."""
        weight, todo = 0, [value]
        while todo:
            one = todo.pop()
            weight += 1
            if isinstance(one, str):
                weight += len(one)
            elif isinstance(one, Mapping):
                todo += one.keys()
                todo += one.values()
            elif isinstance(one, list | tuple):
                todo += one
            elif not isinstance(one, int | float | Undefined | type(None)):
                raise TemplateRuntimeError(f"a {type(one).__name__} cannot be written out")
            if weight > self._left or len(todo) > MAX_ITEMS:
                raise OverBudget("it makes too large a value")
        return weight


def budget_of(context: Context) -> Budget:
    found: Budget = context.parent[BUDGET]
    return found


def growth(budget: Budget, operator: str, left: Any, right: Any) -> int:
    """What ``left + right`` or ``left * right`` will hold."""
    if isinstance(left, int) and isinstance(right, int):
        if operator == "*":
            small(left.bit_length() + right.bit_length())
        return 1
    if operator == "+":
        return sum(budget.weigh(one) for one in (left, right) if isinstance(one, str | list | tuple))
    text, times = (right, left) if isinstance(left, int) else (left, right)
    if isinstance(text, str | list | tuple) and isinstance(times, int):
        return budget.weigh(text) * max(times, 0)
    return 1


def small(bits: int) -> None:
    if bits > MAX_DIGITS:
        raise OverBudget("a number is too large")
