"""The graphs of llama.cpp's layers, as far as they take memory.

Each function follows the code named in its docstring, in the same order, leaving out what overwrites its own input.
"""

from __future__ import annotations

from hybridd.local.compute_alloc import Node
from hybridd.local.compute_trace import DEVICE, F16, F32, I32, Batch, Trace
from hybridd.local.facts_layers import LayerFacts, StateFacts
from hybridd.local.kv_types import row_bytes


class Cache:
    """Inputs of the layers that share one cache (all layers, or those with a window): its mask, where keys and values
    go. Without a cache there is only a mask."""

    def __init__(self, mask: Node, keys: Node | None, values: Node | None) -> None:
        self.mask = mask
        self.keys = keys
        self.values = values


class Inputs:
    """What the layers share. ``caches``: by whether their layers have a window. ``attends_at_cache``: most hybrids
    compute attention where the cache is, other models where everything else is computed.

    ``rolling``: the next recurrent layer's state, fetched as soon as the layer before has stored its own: llama.cpp
    puts both into the graph when it meets them, and what lies between only when something needs it.
    """

    def __init__(self, *, states: Node | None, positions: Node | None, rotate_keys: Node | None,
                 rotate_values: Node | None, caches: dict[bool, Cache], attends_at_cache: bool) -> None:  # fmt: skip
        self.states = states
        self.positions = positions
        self.rotate_keys = rotate_keys
        self.rotate_values = rotate_values
        self.caches = caches
        self.attends_at_cache = attends_at_cache
        self.next_rolling = 0
        self.rolling: Node | None = None

    def stored(self, trace: Trace) -> None:
        """A layer has put its keys and values, or its state, where they are kept."""
        if self.next_rolling:
            self.rolling = _fetched(trace, self, self.next_rolling)


def normed(trace: Trace, x: Node, width: int) -> Node:
    """``build_norm``: RMS_NORM may overwrite its parent, which the residual still needs; MUL overwrites it."""
    return trace.op(trace.rows(width), x, reuse=(x,))


def attention(trace: Trace, x: Node, layer: LayerFacts, inputs: Inputs, *, softcap: bool, values_last: bool) -> Node:
    """``build_qkv`` and ``build_attn`` (``llama-graph.cpp``) up to the output matrix's input.

    ``values_last``: with sliding windows, or without a cache, the keys come before the values.
    """
    key, value = layer.kv_heads * layer.key_length, layer.kv_heads * layer.value_length
    query = layer.heads * layer.key_length
    gate: Node | None = None
    if layer.fused:
        together = trace.multiply(trace.rows(query + key + value), layer, "attn_qkv", x)
        q = _rotated(trace, _turned(trace, together, query, inputs), inputs.rotate_keys)
        k = _rotated(trace, _turned(trace, together, key, inputs), inputs.rotate_keys)
        v = together
    else:
        wide = trace.multiply(trace.rows(layer.query_width), layer, "attn_q", x)
        gate = wide if layer.gated_query else None  # qwen3next: the other half of what it asks
        turns = inputs.positions is not None or layer.query_norm
        q = _rotated(trace, _turned(trace, wide, query, inputs) if turns or gate else wide, inputs.rotate_keys)
        v = (
            x
            if values_last
            else _rotated(trace, trace.multiply(trace.rows(value), layer, "attn_v", x), inputs.rotate_values)
        )
        k = trace.multiply(trace.rows(key), layer, "attn_k", x)
        k = _rotated(trace, _turned(trace, k, key, inputs) if turns else k, inputs.rotate_keys)
        if values_last:
            v = _rotated(trace, trace.multiply(trace.rows(value), layer, "attn_v", x), inputs.rotate_values)
    cache = inputs.caches[layer.window > 0]
    if cache.keys is not None and cache.values is not None:
        trace.store(k, cache.keys)
        trace.store(v, cache.values)
        inputs.stored(trace)
        there = trace.home
        trace.home = trace.stored if inputs.attends_at_cache else there
        out = _mha(trace, (q,), layer, inputs, layer.value_length, softcap=softcap)
        trace.home = there
    else:
        if trace.batch.flash:  # computed from f16, as from a cache
            k, v = trace.op(trace.rows(key) // 2, k), trace.op(trace.rows(value) // 2, v)
        else:
            v = trace.op(trace.rows(value), v)
        out = _mha(trace, (q, k, v), layer, inputs, layer.value_length, softcap=softcap)
    out = _rotated(trace, out, inputs.rotate_values)
    if gate is not None:
        out = trace.over(out, trace.over(trace.op(trace.rows(query), gate)))
    return out


def _turned(trace: Trace, node: Node, width: int, inputs: Inputs) -> Node:
    """Heads are a view of a matrix's result, and what a view shows is never overwritten: RoPE makes a copy."""
    return trace.op(trace.rows(width), node, *((inputs.positions,) if inputs.positions is not None else ()))


def _rotated(trace: Trace, node: Node, matrix: Node | None) -> Node:
    """``ggml_mul_mat_aux`` with the Hadamard matrix of a quantised cache."""
    return node if matrix is None else trace.op(node.size, node, matrix)


def _mha(
    trace: Trace, sources: tuple[Node, ...], layer: LayerFacts, inputs: Inputs, value_length: int, *, softcap: bool
) -> Node:  # fmt: skip
    """``build_attn_mha``: with flash attention only its result; otherwise every score, as f32.

    CUDA's kernels for batches read f16: a quantised cache is unpacked behind the result
    (``ggml_cuda_flash_attn_ext_get_alloc_size``).
    """
    batch = trace.batch
    cells = batch.window_cells if layer.window else batch.cells
    mask = inputs.caches[layer.window > 0].mask
    size = trace.rows(layer.heads * value_length)
    keys = trace.cached(cells * batch.streams * row_bytes(batch.type_k, layer.key_cell)) if layer.key_cell else ()
    value_cell, type_v = (layer.value_cell, batch.type_v) if not layer.mla_value else (layer.key_cell, batch.type_k)
    values = trace.cached(cells * batch.streams * row_bytes(type_v, value_cell)) if value_cell else ()
    if batch.flash:
        if trace.home == DEVICE:
            size += cells * batch.streams * F16 * _unpacked(batch, layer)
        return trace.op(size, *sources[:1], *keys, *values, *sources[1:], mask)
    scores = trace.op(cells * batch.tokens * layer.heads * F32, *keys, *sources[:2])
    if softcap:
        scores = trace.over(scores)
    scores = trace.over(scores, mask)
    weighed = trace.op(size, *values, scores, *sources[2:])
    return trace.op(size, weighed)


def _unpacked(batch: Batch, layer: LayerFacts) -> int:
    """Elements of each cell that are no f16 yet."""
    keys = layer.key_cell if batch.type_k != "f16" else 0
    return keys + (layer.value_cell if batch.type_v != "f16" else 0)


def latent_attention(trace: Trace, x: Node, layer: LayerFacts, inputs: Inputs) -> Node:
    """MLA: ``llama_model_deepseek2::graph`` and the ``v_mla`` branch of ``build_attn_mha``."""
    heads, rank = layer.heads, layer.kv_rank
    rope = layer.key_length - rank
    x_query = trace.over(trace.multiply(trace.rows(layer.query_rank), layer, "attn_q_a", x)) if layer.query_rank else x
    part = "attn_q_b" if layer.query_rank else "attn_q"
    q = trace.multiply(trace.rows(heads * layer.mla_key), layer, part, x_query)
    absorbed = trace.multiply(trace.rows(heads * rank), layer, "attn_k_b", q)
    turned = _turned(trace, q, heads * rope, inputs)
    query = trace.op(trace.rows(heads * (rank + rope)), absorbed, turned)
    compressed = trace.multiply(trace.rows(rank + rope), layer, "attn_kv_a_mqa", x)
    normal = trace.over(trace.op(trace.rows(rank), compressed))
    turned_key = _turned(trace, compressed, rope, inputs)
    key = trace.op(trace.rows(rank + rope), normal, turned_key)
    if inputs.rotate_keys is not None:
        query = trace.op(query.size, query, inputs.rotate_keys)
        key = trace.op(key.size, key, inputs.rotate_keys)
    cache = inputs.caches[False]
    if cache.keys is not None:
        trace.store(key, cache.keys)
    if trace.batch.flash:
        out = _mha(trace, (query,), layer, inputs, rank, softcap=False)
        out = trace.multiply(trace.rows(heads * layer.mla_value), layer, "attn_v_b", out)
        return trace.op(out.size, out)
    batch = trace.batch
    size = batch.cells * batch.streams * row_bytes(batch.type_k, layer.key_cell)
    keys, values = trace.cached(size), trace.cached(size)  # values are a view of the keys, copied once more
    scores = trace.over(trace.op(batch.cells * batch.tokens * heads * F32, *keys, query), cache.mask)
    out = trace.op(trace.rows(heads * rank), *values, scores)
    out = trace.multiply(trace.rows(heads * layer.mla_value), layer, "attn_v_b", out)
    return trace.op(out.size, out)


def dense(trace: Trace, x: Node, layer: LayerFacts, width: int, tokens: int) -> Node:
    """``build_ffn``: the gated unit (GLU) overwrites nothing, so that three of its rows are alive at once."""
    size = trace.rows(layer.feed_forward, tokens)
    if layer.gate:
        gate = trace.multiply(size, layer, "ffn_gate", x)
        up = trace.multiply(size, layer, "ffn_up", x)
        unit = trace.op(size, gate, up)
    elif layer.fused_gate:
        unit = trace.op(size // 2, trace.multiply(size, layer, "ffn_up", x))
    else:
        unit = trace.over(trace.multiply(size, layer, "ffn_up", x))
    return trace.multiply(trace.rows(width, tokens), layer, "ffn_down", unit)


def experts(trace: Trace, x: Node, layer: LayerFacts, width: int, tokens: int) -> Node:
    """``build_moe_ffn`` and the shared expert behind it."""
    used = layer.experts_used
    logits = trace.op(trace.rows(layer.experts, tokens), x)
    shares = trace.over(logits)
    order = trace.op(layer.experts * tokens * I32, shares)
    weights = trace.op(used * tokens * F32, shares, order)
    size = trace.rows(layer.expert_feed_forward * used, tokens)
    gate = trace.multiply(size, layer, "ffn_gate_exps", x, order)
    up = trace.multiply(size, layer, "ffn_up_exps", x, order)
    unit = trace.op(size, gate, up)
    down = trace.multiply(trace.rows(width * used, tokens), layer, "ffn_down_exps", unit, order)
    weighed = trace.over(down, weights)
    out = trace.op(trace.rows(width, tokens), weighed)
    for _ in range(used - 2):
        out = trace.over(out, weighed)
    if layer.shared_feed_forward:
        shared_size = trace.rows(layer.shared_feed_forward, tokens)
        gate = trace.multiply(shared_size, layer, "ffn_gate_shexp", x)
        up = trace.multiply(shared_size, layer, "ffn_up_shexp", x)
        unit = trace.op(shared_size, gate, up)
        shared = trace.multiply(trace.rows(width, tokens), layer, "ffn_down_shexp", unit)
        out = trace.over(out, shared)
    return out


def recurrent(trace: Trace, x: Node, layer: LayerFacts, state: StateFacts, inputs: Inputs, width: int) -> Node:
    """A layer with a state, up to its last matrix's result. ``x`` is not yet normed: the state is fetched first."""
    rolling = inputs.rolling if inputs.rolling is not None else _fetched(trace, inputs, state.rolling)
    inputs.rolling = None
    y = normed(trace, x, width)
    if state.kind == "convolution":
        return _short_convolution(trace, y, layer, state, inputs, rolling, width)
    if state.kind in ("mamba", "mamba2"):
        return _scan(trace, y, layer, state, inputs, rolling, width)
    return _delta(trace, y, layer, state, inputs, rolling, width)


def _fetched(trace: Trace, inputs: Inputs, size: int) -> Node:
    """``build_rs``."""
    states = (inputs.states,) if inputs.states is not None else ()
    return trace.fetch(size * trace.batch.sequences * F32, *states)


def _scan(
    trace: Trace, x: Node, layer: LayerFacts, state: StateFacts, inputs: Inputs, rolling: Node, width: int
) -> Node:
    """``build_mamba_layer`` and ``build_mamba2_layer`` (``models/mamba-base.cpp``)."""
    batch = trace.batch
    inner = state.inner
    mixed = inner + 2 * state.groups * state.width
    projected = trace.multiply(trace.rows(inner + mixed + (state.rank if state.groups else 0)), layer, "ssm_in", x)
    wide = trace.op((batch.tokens + (state.kernel - 1) * batch.sequences) * mixed * F32, rolling, projected)
    trace.store(wide)
    convolved = trace.over(trace.op(trace.rows(mixed), wide))
    if state.groups:
        step = trace.over(trace.op(trace.rows(state.rank), projected))
        parameters = convolved
    else:
        parameters = trace.multiply(trace.rows(state.rank + 2 * state.width), layer, "ssm_x", convolved)
        step = trace.op(trace.rows(inner), trace.op(trace.rows(state.rank), parameters))
    scanned = trace.op(trace.rows(inner) + state.state * batch.sequences * F32, convolved, step, parameters)
    trace.store(scanned)
    if trace.home != trace.stored:  # both wait on the GPU until the host, which has the state, took them
        trace.store(wide, scanned)
        trace.op(0, projected, wide, scanned)
    inputs.stored(trace)
    gate = trace.op(trace.rows(inner), projected)
    skipped = trace.op(trace.rows(inner), convolved, reuse=() if state.groups else (convolved,))
    added = trace.op(trace.rows(inner), scanned, skipped, reuse=(skipped,))
    unit = trace.op(trace.rows(inner), gate, added)
    if state.groups:
        unit = trace.op(trace.rows(inner), unit)
    return trace.multiply(trace.rows(width), layer, "ssm_out", unit)


def _short_convolution(
    trace: Trace, x: Node, layer: LayerFacts, state: StateFacts, inputs: Inputs, rolling: Node, width: int
) -> Node:  # fmt: skip
    """``build_shortconv_block`` (``models/lfm2.cpp``)."""
    batch = trace.batch
    projected = trace.multiply(trace.rows(3 * width), layer, "shortconv.in_proj", x)
    mixed = trace.op(trace.rows(width), projected)
    wide = trace.op((batch.tokens + (state.kernel - 1) * batch.sequences) * width * F32, rolling, mixed)
    trace.store(wide)
    inputs.stored(trace)
    convolved = trace.op(trace.rows(width), wide)
    out = trace.op(trace.rows(width), projected, convolved, reuse=(convolved,))
    return trace.multiply(trace.rows(width), layer, "shortconv.out_proj", out)


def _delta(
    trace: Trace, x: Node, layer: LayerFacts, state: StateFacts, inputs: Inputs, rolling: Node, width: int
) -> Node:
    """Gated delta nets and other linear attention, by their widest tensors (``models/delta-net-base.cpp``)."""
    batch = trace.batch
    inner = state.inner or width
    mixed = inner + 2 * state.groups * state.width
    projected = trace.multiply(trace.rows(mixed), layer, "attn_qkv", x)
    gate = trace.multiply(trace.rows(inner), layer, "attn_gate", x)
    wide = trace.op((batch.tokens + max(state.kernel - 1, 0) * batch.sequences) * mixed * F32, rolling, projected)
    trace.store(wide)
    convolved = trace.over(trace.op(trace.rows(mixed), wide))
    query = trace.op(trace.rows(inner), convolved)
    key = trace.op(trace.rows(inner), convolved)
    kept = _fetched(trace, inputs, state.state)
    out = trace.op(trace.rows(inner) + state.state * batch.sequences * F32, query, key, convolved, kept)
    trace.store(out)
    inputs.stored(trace)
    unit = trace.op(trace.rows(inner), out, gate)
    return trace.multiply(trace.rows(width), layer, "ssm_out", unit)


def mask_bytes(cells: int, tokens: int, *, flash: bool) -> int:
    """``build_attn_inp_kq_mask``: f16 for flash attention, f32 otherwise; all streams together see each cell once."""
    return cells * tokens * (F16 if flash else F32)
