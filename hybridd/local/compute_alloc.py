"""How large llama.cpp's compute buffers become: its graph allocator, over sizes alone.

A copy of the rules of ggml's ``ggml_gallocr_alloc_graph_impl`` and ``ggml_dyn_tallocr_alloc``
(``ggml/src/ggml-alloc.c``): inputs first, then each node in order; a node takes the place of a parent that it may
overwrite and that nobody else needs (``ggml_op_can_inplace``), otherwise the smallest free block that is large enough,
the open end last; what is not needed any more is freed and joined with its neighbours. Views are their source here:
reading one is reading its source.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence

ALIGNMENT = 128
"""Of CUDA's buffers; the processor's is 64, which differs by nothing that matters."""


class Node:
    """A tensor of a graph. ``size``: bytes; ``reuse``: parents it may overwrite, in order; ``home``: which of the
    buffers it lives in; ``kept``: a result, never freed; ``outside``: a weight or a cache, which has its own buffer and
    takes room only where it is copied to; ``weight``: one of those whose copies llama.cpp takes one at a time."""

    __slots__ = ("home", "kept", "offset", "outside", "parents", "readers", "reuse", "size", "weight")

    def __init__(
        self, size: int, parents: Sequence[Node] = (), reuse: Sequence[Node] = (), *, home: int = 0,
        kept: bool = False, outside: bool = False, weight: bool = False,
    ) -> None:  # fmt: skip
        self.size = (max(size, 0) + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT
        self.parents = parents
        self.reuse = reuse
        self.home = home
        self.kept = kept
        self.outside = outside
        self.weight = weight
        self.readers = 0
        self.offset = -1


class Pool:
    """One buffer. ``size``: the largest it has to be."""

    __slots__ = ("_free", "end", "size")

    def __init__(self) -> None:
        self._free: list[tuple[int, int]] = []  # offset, bytes; in order, none touching the next
        self.end = 0
        self.size = 0

    def take(self, size: int) -> int:
        """Where ``size`` bytes go."""
        best, least = -1, -1
        for at, (_, free) in enumerate(self._free):
            if free >= size and (best < 0 or free <= least):  # of equal ones the last, as ggml does
                best, least = at, free
        if best < 0:
            offset = self.end
            self.end += size
            self.size = max(self.size, self.end)
            return offset
        offset, free = self._free[best]
        if free == size:
            del self._free[best]
        else:
            self._free[best] = (offset + size, free - size)
        return offset

    def give(self, offset: int, size: int) -> None:
        """Frees them."""
        if not size:
            return
        at = bisect_left(self._free, (offset, 0))
        start, end = offset, offset + size
        if at < len(self._free) and self._free[at][0] == end:
            end += self._free.pop(at)[1]
        if at and sum(self._free[at - 1]) == start:
            at -= 1
            start = self._free.pop(at)[0]
        if end == self.end:
            self.end = start
        else:
            self._free.insert(at, (start, end - start))


class Graph:
    """Tensors in the order in which they are computed."""

    def __init__(self) -> None:
        self.inputs: list[Node] = []
        self.nodes: list[Node] = []

    def input(self, size: int, home: int = 0) -> Node:
        node = Node(size, home=home)
        self.inputs.append(node)
        return node

    def op(self, size: int, *parents: Node, reuse: Sequence[Node] = (), home: int = 0, kept: bool = False) -> Node:
        node = Node(size, parents, reuse, home=home, kept=kept)
        self.nodes.append(node)
        return node

    def sizes(self, homes: int = 1) -> list[int]:
        """Bytes of each buffer, as ggml's allocator makes them."""
        pools = [Pool() for _ in range(homes)]
        nodes = self._counted()
        for node in self.inputs:  # also those nobody reads, which nobody frees
            node.offset = pools[node.home].take(node.size)
        for node in nodes:
            over = _overwritten(node)
            if over is not None:
                node.offset, over.offset = over.offset, -1
                pools[node.home].give(node.offset + node.size, over.size - node.size)
            elif node.size:
                node.offset = pools[node.home].take(node.size)
            for parent in _forgotten(node):
                pools[parent.home].give(parent.offset, parent.size)
                parent.offset = -1
        return [pool.size for pool in pools]

    def peaks(self, homes: int = 1) -> list[int]:
        """Bytes that are in use at once, at most: what each buffer would take without any holes."""
        used = [0] * homes
        for node in self.inputs:
            used[node.home] += node.size
            node.offset = 0
        most = list(used)
        for node in self._counted():
            over = _overwritten(node)
            if over is not None:
                used[node.home] += node.size - over.size
                over.offset = -1
            else:
                used[node.home] += node.size
            node.offset = 0
            most[node.home] = max(most[node.home], used[node.home])
            for parent in _forgotten(node):
                used[parent.home] -= parent.size
                parent.offset = -1
        return most

    def _counted(self) -> list[Node]:
        nodes = _split(self.nodes)
        for node in nodes:
            for parent in node.parents:
                parent.readers += 1
        return nodes


def _split(nodes: Sequence[Node]) -> list[Node]:
    """The nodes with copies of what they read from another buffer (``ggml_backend_sched_split_graph``).

    A run of nodes with the same home is a split, at whose beginning all that it reads from elsewhere is copied, once
    for each home. A weight that has to be copied begins a new split, so that the one before can be forgotten.
    """
    result: list[Node] = []
    copies: dict[tuple[int, int], Node] = {}
    here: list[Node] = []
    fetched: list[Node] = []
    home = -1
    for node in nodes:
        foreign = [parent for parent in node.parents if parent.home != node.home]
        if not foreign and node.home == home:
            here.append(node)
            continue
        if node.home != home or (fetched and any(parent.weight for parent in foreign)):
            result += [*fetched, *here]
            here, fetched, home = [], [], node.home
        for parent in foreign:
            if (id(parent), home) not in copies:
                copy = Node(parent.size, () if parent.outside else (parent,), home=home)
                copies[id(parent), home] = copy
                fetched.append(copy)
        if foreign:
            node.parents = [copies.get((id(parent), home), parent) for parent in node.parents]
            node.reuse = [copies.get((id(parent), home), parent) for parent in node.reuse]
        here.append(node)
    return [*result, *fetched, *here]


def _overwritten(node: Node) -> Node | None:
    """The parent whose place a node takes."""
    for parent in node.reuse:
        if parent.readers == 1 and parent.offset >= 0 and not parent.kept and parent.home == node.home:
            return parent
    return None


def _forgotten(node: Node) -> Iterator[Node]:
    """Parents that nobody needs any more once a node is computed."""
    for parent in node.parents:
        parent.readers -= 1
        if parent.readers == 0 and parent.offset >= 0 and not parent.kept:
            yield parent
