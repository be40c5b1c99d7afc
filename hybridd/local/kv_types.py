"""Bytes of the types that a KV cache may have."""

from __future__ import annotations

from hybridd.local.types import KvType

# values in a block, bytes of a block (ggml's QK8_0, block_q8_0, …)
BLOCKS: dict[KvType, tuple[int, int]] = {
    "f32": (1, 4), "f16": (1, 2), "bf16": (1, 2), "q8_0": (32, 34), "q5_1": (32, 24), "q5_0": (32, 22),
    "q4_1": (32, 20), "q4_0": (32, 18), "iq4_nl": (32, 18),
}  # fmt: skip


def is_quantized(kind: KvType) -> bool:
    return BLOCKS[kind][0] > 1


def row_bytes(kind: KvType, values: int) -> int:
    """``ggml_row_size``; a row that is no whole number of blocks is counted up (llama.cpp refuses it)."""
    block, size = BLOCKS[kind]
    return (values + block - 1) // block * size
