"""Finds the best way of loading a model that fits: lexicographic, exact where memory grows with every choice.

Each step of a goal raises one dimension as far as some completion still fits, all later dimensions being at their
cheapest. As a cheaper value never takes more memory, looking at the cheapest completion answers for all of them, and
a binary search finds the highest value. Layers are the exception: more of them take memory from the GPU and give it
back to the host, so both sides are looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec import Struct

from hybridd.local.plan_space import Choice, Dimension, Space, Step
from hybridd.local.types import LoadOptions, Memory, Target


class Room(Struct, frozen=True):
    """Bytes that a load may take: on the GPU (None: there is none), on the host, and where the GPU has no memory of its
    own, on both together."""

    device: int | None
    host: int
    together: int | None = None

    def holds(self, memory: Memory) -> bool:
        """Does a load fit?"""
        return self.device_holds(memory) and self.host_holds(memory)

    def device_holds(self, memory: Memory) -> bool:
        return self.device is None or memory.device.total <= self.device

    def host_holds(self, memory: Memory) -> bool:
        return memory.host.total <= self.host and (
            self.together is None or memory.host.total + memory.device.total <= self.together
        )

    def less(self, size: int) -> Room:
        """With so many bytes less on every side."""
        return Room(
            None if self.device is None else self.device - size,
            self.host - size,
            None if self.together is None else self.together - size,
        )


class Shortage(Struct, frozen=True):
    """``options`` take ``needs`` bytes on ``side``, ``over`` more than there are."""

    options: LoadOptions
    side: Target
    needs: int
    over: int


class Blocked(Struct, frozen=True):
    """The next better value of a dimension, and what it lacks."""

    dimension: Dimension
    shortage: Shortage


class Found(Struct, frozen=True):
    """The best choice, and the next better one in each dimension that could not be had."""

    choice: Choice
    options: LoadOptions
    memory: Memory
    blocked: tuple[Blocked, ...]


class Search:
    """``estimate`` is asked once for each set of options."""

    def __init__(self, space: Space, room: Room, estimate: Callable[[LoadOptions], Memory]) -> None:
        self._space = space
        self._room = room
        self._estimate = estimate
        self._known: dict[Choice, Memory] = {}
        self._settled = False
        """The layers are chosen; before, a choice stands for all with as many or more of them."""

    def best(self, steps: Sequence[Step]) -> Found | Shortage:
        """The best choice by ``steps``, or what the cheapest one lacks."""
        state = Choice(layers=self._space.layers[0])
        if not self._fits(state):
            return self._shortage(state)
        blocked: dict[Dimension, Blocked] = {}
        for step in steps:
            state, failed = self._raise_layers(state, step) if step.dimension == "layers" else self._raise(state, step)
            blocked.pop(step.dimension, None)
            if failed is not None:
                blocked[step.dimension] = Blocked(step.dimension, self._shortage(failed))
        return Found(state, self._space.options(state), self._memory(state), tuple(blocked.values()))

    def _raise(self, state: Choice, step: Step) -> tuple[Choice, Choice | None]:
        """The state with the dimension raised, and the next value up if that is wanted and does not fit."""
        dimension = step.dimension
        values: Sequence[object] = getattr(self._space, dimension)
        low = int(getattr(state, dimension))
        most = len(values) - 1
        if step.cap is not None:
            most = max([low, *(at for at, value in enumerate(values) if isinstance(value, int) and value <= step.cap)])
        low = _highest(low, most, lambda at: self._fits(state._replace(**{dimension: at})))
        failed = state._replace(**{dimension: low + 1}) if low < most else None
        return state._replace(**{dimension: low}), failed

    def _raise_layers(self, state: Choice, step: Step) -> tuple[Choice, Choice | None]:
        """The same for layers: what fits on the GPU limits them, the host only gains by each."""
        most = self._space.layers[1] if step.cap is None else min(step.cap, self._space.layers[1])
        most = max(most, state.layers)
        if step.whole:
            whole = state._replace(layers=most)
            if step.cap != most or not self._holds(whole):
                return state, None
            self._settled = True
            return whole, None
        layers = _highest(state.layers, most, lambda at: self._fits_device(state._replace(layers=at)))
        if step.cap is None:
            # More layers are less on the host. The graph allocator's figures waver a little, so this is looked at.
            layers = next((at for at in range(layers, state.layers, -1) if self._holds(state._replace(layers=at))),
                          state.layers)  # fmt: skip
            self._settled = True
        return state._replace(layers=layers), state._replace(layers=layers + 1) if layers < most else None

    def _fits(self, choice: Choice) -> bool:
        """Does the choice fit, with its layers or, as long as they are not settled, with more?"""
        if self._settled or not self._fits_device(choice):
            return self._holds(choice)
        if self._fits_host(choice):
            return True
        layers = _highest(
            choice.layers, self._space.layers[1], lambda at: self._fits_device(choice._replace(layers=at))
        )
        return self._fits_host(choice._replace(layers=layers))

    def _holds(self, choice: Choice) -> bool:
        return self._room.holds(self._memory(choice))

    def _fits_device(self, choice: Choice) -> bool:
        return self._room.device_holds(self._memory(choice))

    def _fits_host(self, choice: Choice) -> bool:
        return self._room.host_holds(self._memory(choice))

    def _shortage(self, choice: Choice) -> Shortage:
        """What a choice that does not fit lacks, on the side that lacks more."""
        memory, options = self._memory(choice), self._space.options(choice)
        device, host = memory.device.total, memory.host.total
        over_device = 0 if self._room.device is None else device - self._room.device
        over_host = host - self._room.host
        if self._room.together is not None and host + device - self._room.together > max(over_device, over_host):
            return Shortage(options, "cpu", host + device, host + device - self._room.together)
        if over_device >= over_host and self._room.device is not None:
            return Shortage(options, "gpu", device, over_device)
        return Shortage(options, "cpu", host, over_host)

    def _memory(self, choice: Choice) -> Memory:
        memory = self._known.get(choice)
        if memory is None:
            memory = self._known[choice] = self._estimate(self._space.options(choice))
        return memory


def _highest(low: int, high: int, fits: Callable[[int], bool]) -> int:
    """The highest number from ``low`` (which fits) to ``high`` that fits; the top is tried first, it often does."""
    if low >= high or fits(high):
        return max(low, high)
    high -= 1
    while low < high:
        middle = (low + high + 1) // 2
        if fits(middle):
            low = middle
        else:
            high = middle - 1
    return low
