"""Sizes of the KV cache."""

from __future__ import annotations

from hybridd.local.facts import ModelFacts
from hybridd.local.facts_layers import LayerFacts
from hybridd.local.kv_types import row_bytes
from hybridd.local.types import LoadOptions

CELL_STEP = 256


def padded(cells: int) -> int:
    """``GGML_PAD(n, 256)``."""
    return (cells + CELL_STEP - 1) // CELL_STEP * CELL_STEP


def cells_of(options: LoadOptions) -> tuple[int, int]:
    """Cells of one stream, and streams (``llama_context``: ``n_ctx`` and ``n_ctx_seq`` are padded to 256)."""
    whole = padded(options.context)
    if options.unified:
        return whole, 1
    return padded(whole // options.sequences), options.sequences


def window_cells_of(window: int, options: LoadOptions) -> int:
    """Cells of one stream for layers with a sliding window: the windows of all that share it and one micro-batch
    (``llama_kv_cache_iswa``, ``swa_full`` off)."""
    cells, _ = cells_of(options)
    micro = min(options.micro_batch, options.batch)
    return padded(min(cells, window * (options.sequences if options.unified else 1) + micro))


def layer_bytes(layer: LayerFacts, facts: ModelFacts, options: LoadOptions) -> int:
    """Keys and values of one block (``llama_kv_cache``). Without flash attention values lie transposed, all blocks
    as wide as the widest."""
    if not facts.attends or not layer.key_cell:
        return 0
    cells, streams = cells_of(options)
    if layer.window:
        cells = window_cells_of(facts.window, options)
    value = layer.value_cell
    if value and not options.flash_attention:
        value = max(one.value_cell for one in facts.layers)
    return cells * streams * (row_bytes(options.type_k, layer.key_cell) + row_bytes(options.type_v, value))
