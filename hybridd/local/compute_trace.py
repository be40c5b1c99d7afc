"""Writes down a graph as llama.cpp builds it, keeping track of which buffer each tensor lives in."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from hybridd.local.compute_alloc import Graph, Node
from hybridd.local.facts_layers import LayerFacts
from hybridd.local.types import KvType

HOST, DEVICE = 0, 1
F32, F16, I32, I64 = 4, 2, 4, 8


class Batch(Struct, frozen=True, kw_only=True):
    """The largest micro-batch, for which the buffers are reserved (``llama_context::sched_reserve``).

    ``cells``, ``window_cells``: of the KV cache that each stream sees. ``streams``: 1 when the sequences share the
    cache. ``rotate_keys``, ``rotate_values``: quantised caches are turned by a Hadamard matrix first
    (``attn_rot_k``).
    """

    tokens: int
    sequences: int
    outputs: int
    cells: int
    window_cells: int
    streams: int
    flash: bool
    type_k: KvType = "f16"
    type_v: KvType = "f16"
    rotate_keys: bool = False
    rotate_values: bool = False


class Trace:
    """A graph in the making. ``home``: where the next nodes are computed; ``stored``: where the block that they belong
    to has its weights and its cache, which may be elsewhere."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.graph = Graph()
        self.home = HOST
        self.stored = HOST

    def rows(self, width: int, count: int | None = None) -> int:
        """Bytes of ``count`` (default: the batch's tokens) rows of f32."""
        return width * (self.batch.tokens if count is None else count) * F32

    def input(self, size: int) -> Node:
        return self.graph.input(size, HOST)

    def op(self, size: int, *parents: Node, reuse: Sequence[Node] = (), kept: bool = False) -> Node:
        return self.graph.op(size, *parents, reuse=reuse, home=self.home, kept=kept)

    def over(self, node: Node, *others: Node) -> Node:
        """An operation that may overwrite ``node``."""
        return self.op(node.size, node, *others, reuse=(node,))

    def store(self, *parents: Node) -> None:
        """Writing into the cache, which is done where the cache is."""
        self.graph.op(0, *parents, home=self.stored)

    def fetch(self, size: int, *parents: Node) -> Node:
        """Reading the state of a recurrent layer, likewise."""
        return self.graph.op(size, *parents, home=self.stored)

    def multiply(self, size: int, layer: LayerFacts, part: str, *parents: Node) -> Node:
        """The product with the block's matrix ``part``, which is copied when it is elsewhere."""
        if self.home == self.stored:
            return self.op(size, *parents)
        weight = Node(layer.part(part), home=self.stored, outside=True, weight=True)
        return self.op(size, weight, *parents)

    def cached(self, size: int) -> tuple[Node, ...]:
        """``size`` bytes of the block's cache, to be read; copied when it is elsewhere."""
        return () if self.home == self.stored else (Node(size, home=self.stored, outside=True),)
