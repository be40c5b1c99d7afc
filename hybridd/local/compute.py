"""How large llama.cpp's compute buffers become for a model and a way of loading it.

The buffers are reserved for the largest micro-batch with as many outputs as may be asked for
(``llama_context::sched_reserve``), the sequences all taking part. All blocks are looked at: what one frees is where the
next one finds room, and a large tensor may or may not find any.
"""

from __future__ import annotations

from hybridd.local import compute_layers as layers
from hybridd.local.compute_alloc import Node
from hybridd.local.compute_trace import DEVICE, F32, HOST, I32, I64, Batch, Trace
from hybridd.local.facts import ModelFacts
from hybridd.local.facts_layers import LayerFacts
from hybridd.local.kv import cells_of, window_cells_of
from hybridd.local.kv_types import is_quantized
from hybridd.local.types import LoadOptions

_NO_ROPE = frozenset({"jamba", "nemotron_h", "nemotron_h_moe", "mpt", "bloom", "mamba", "mamba2"})
_RESIDUAL_FIRST = frozenset({"lfm2", "lfm2moe", "jamba"})
"""Architectures that add what a layer made to its input, not the other way round: another one is overwritten."""
_HADAMARD = 64
_WORTH_THE_COPY = 32
"""Tokens of a batch (``GGML_OP_OFFLOAD_MIN_BATCH``)."""
_M_ROPE = frozenset({"qwen2vl", "qwen3vl", "qwen3vlmoe", "qwen35", "qwen35moe", "glm4v"})


def batch_of(facts: ModelFacts, options: LoadOptions) -> Batch:
    """What the graph is reserved for (``llama_context``'s constructor and ``sched_reserve``)."""
    cells, streams = cells_of(options)
    if facts.kind == "embedding":  # a text is seen as a whole: one micro-batch as large as the batch
        tokens = min(options.context, max(options.batch, options.micro_batch))
    else:
        tokens = min(cells * streams, options.micro_batch, options.batch)
    outputs = tokens if facts.kind == "embedding" or not options.outputs else min(tokens, options.outputs)
    first = next((layer for layer in facts.layers if layer.key_cell), None)
    keys = {layer.key_length for layer in facts.layers if layer.key_cell}
    values = {layer.value_length for layer in facts.layers if layer.value_cell}
    return Batch(
        tokens=tokens,
        sequences=options.sequences,
        outputs=outputs,
        cells=cells if facts.attends else tokens,
        window_cells=window_cells_of(facts.window, options) if facts.attends else tokens,
        streams=streams,
        flash=options.flash_attention,
        type_k=options.type_k,
        type_v=options.type_v,
        rotate_keys=first is not None
        and is_quantized(options.type_k)
        and len(keys) == 1
        and first.key_length % _HADAMARD == 0,
        rotate_values=first is not None
        and is_quantized(options.type_v)
        and len(values) == 1
        and first.value_length % _HADAMARD == 0,
    )


def compute_buffers(facts: ModelFacts, options: LoadOptions, *, steady: bool = False) -> tuple[int, int]:
    """Bytes on the host and on the GPU.

    ``steady``: never less for a longer context or a larger batch, at the cost of some exactness. Whether a large tensor
    finds room among what is free changes with every size, and a search needs numbers that only grow.
    """
    batch = batch_of(facts, options)
    trace = Trace(batch)
    tokens = trace.input(batch.tokens * I32)
    trace.input(trace.rows(facts.embedding_length))  # for callers that give vectors; always there
    inputs = _inputs(trace, facts)
    ids = trace.input(batch.outputs * I32)
    first_on_gpu = facts.layers_all + 1 - options.gpu_layers
    # With a GPU, batches of some size are computed there even where the weights are not (``op_offload``).
    travels = options.gpu_layers > 0 and batch.tokens >= _WORTH_THE_COPY
    x = _embedding(trace, facts, inputs, tokens)
    for at, layer in enumerate(facts.layers):
        trace.stored = home_of(at, first_on_gpu)
        trace.home = DEVICE if travels else trace.stored
        behind = facts.layers[at + 1] if at + 1 < len(facts.layers) else None
        inputs.next_rolling = facts.state.rolling if facts.state and behind and behind.state_bytes else 0
        x = _block(trace, x, facts, layer, inputs, None if behind else ids)
    trace.home = trace.stored = DEVICE if options.gpu_layers > 0 else HOST
    _head(trace, x, facts, apart=options.gpu_layers > 0 and _apart(facts, options))
    if steady or 0 < options.gpu_layers <= facts.layers_all:
        return _with_holes(trace, facts)
    sizes = trace.graph.sizes(2)
    return sizes[HOST], sizes[DEVICE]


def _with_holes(trace: Trace, facts: ModelFacts) -> tuple[int, int]:
    """What is in use at once, and room for holes: as large as the widest activations, which was found to be right to
    as much again.

    So for models that are only partly on the GPU: copies of weights and caches come and go, and no hole stays.
    """
    widest = max(max(layer.feed_forward, layer.expert_feed_forward * layer.experts_used) for layer in facts.layers)
    host, device = trace.graph.peaks(2)
    return host + trace.rows(facts.embedding_length), device + trace.rows(max(widest, 2 * facts.embedding_length))


def _apart(facts: ModelFacts, options: LoadOptions) -> bool:
    """Do the logits find no room among what is free by then? Seen with Mamba 2, and with Mamba where some states are on
    the other side and copies go to and fro. (Mamba 2 without flash attention: the scores leave room enough.)"""
    kind = facts.state.kind if facts.state is not None else ""
    partly = options.gpu_layers <= facts.layers_all
    return (kind == "mamba2" and options.flash_attention) or (kind == "mamba" and partly)


def home_of(block: int, first_on_gpu: int) -> int:
    return DEVICE if block >= first_on_gpu else HOST


def _inputs(trace: Trace, facts: ModelFacts) -> layers.Inputs:
    """In the order in which the first block asks for them, which is the order of their places."""
    batch = trace.batch
    attending = [layer for layer in facts.layers if layer.attention]
    rotation = max((max(layer.key_length, layer.value_length) for layer in attending), default=0) ** 2 * F32
    positions = batch.tokens * I32 * (4 if facts.architecture in _M_ROPE else 1)
    turns = facts.architecture not in _NO_ROPE and (attending or facts.learned_positions)
    return layers.Inputs(
        states=trace.input(batch.sequences * I32) if facts.recurrent else None,
        positions=trace.input(positions) if turns else None,
        rotate_keys=trace.input(rotation) if batch.rotate_keys else None,
        rotate_values=trace.input(rotation) if batch.rotate_values else None,
        attends_at_cache=facts.state is not None and facts.state.kind != "mamba",
        caches={windowed: _cache(trace, facts, windowed=windowed)
                for windowed in dict.fromkeys(layer.window > 0 for layer in attending)},
    )  # fmt: skip


def _cache(trace: Trace, facts: ModelFacts, *, windowed: bool) -> layers.Cache:
    """Values go to cells one by one where they lie transposed, which is without flash attention."""
    batch = trace.batch
    value = max((layer.value_cell for layer in facts.layers), default=0)
    keys = trace.input(batch.tokens * I64) if facts.attends else None
    values = trace.input(batch.tokens * I64 * (1 if batch.flash else max(value, 1))) if facts.attends else None
    cells = batch.window_cells if windowed else batch.cells
    return layers.Cache(trace.input(layers.mask_bytes(cells, batch.tokens, flash=batch.flash)), keys, values)


def _embedding(trace: Trace, facts: ModelFacts, inputs: layers.Inputs, tokens: Node) -> Node:
    x = trace.op(trace.rows(facts.embedding_length), tokens)
    if facts.learned_positions and inputs.positions is not None:
        positions = trace.op(x.size, inputs.positions)
        x = trace.op(x.size, positions, x, reuse=(positions,))
        inputs.positions = None  # added once, here, instead of in every layer
    if not facts.attends:
        x = trace.op(x.size, x)  # NORM, unlike RMS_NORM, overwrites nothing
    return x


def _block(
    trace: Trace, x: Node, facts: ModelFacts, layer: LayerFacts, inputs: layers.Inputs, ids: Node | None
) -> Node:  # fmt: skip
    width, tokens = facts.embedding_length, trace.batch.tokens
    post = not facts.attends  # norms come behind, and are NORM
    first = facts.architecture in _RESIDUAL_FIRST
    mixed = _mixed(trace, x, facts, layer, inputs)
    seen_through = bool(layer.state_bytes) and facts.state is not None and facts.state.kind in ("mamba", "convolution")
    if ids is not None:
        tokens = trace.batch.outputs
        mixed, x = trace.op(trace.rows(width, tokens), mixed, ids), trace.op(trace.rows(width, tokens), x, ids)
    spent = (x,) if seen_through and ids is None else (x, mixed) if first else (mixed, x)
    x = trace.op(trace.rows(width, tokens), mixed, x, reuse=spent)
    if post:
        x = trace.op(x.size, x)
    if not layer.feed_forward and not layer.experts:
        return x
    y = x if post else trace.op(trace.rows(width, tokens), x)
    out = layers.experts(trace, y, layer, width, tokens) if layer.experts else None
    if layer.feed_forward:
        plain = layers.dense(trace, y, layer, width, tokens)
        out = plain if out is None else trace.over(out, plain)
    if out is None:
        return x
    x = trace.op(trace.rows(width, tokens), out, x, reuse=(x, out) if first else (out, x))
    return trace.op(x.size, x) if post else x


def _mixed(trace: Trace, x: Node, facts: ModelFacts, layer: LayerFacts, inputs: layers.Inputs) -> Node:
    """What a block adds to its input before the feed-forward part."""
    width = facts.embedding_length
    out: Node | None = None
    if layer.state_bytes and facts.state is not None:
        out = layers.recurrent(trace, x, layer, facts.state, inputs, width)
        if not layer.attention:
            return out
    y = layers.normed(trace, x, width) if facts.attends else x
    if not layer.attention:
        return y
    if facts.mla:
        heads = layers.latent_attention(trace, y, layer, inputs)
    else:
        last = not facts.attends or facts.window > 0 or facts.architecture in _NO_ROPE
        heads = layers.attention(trace, y, layer, inputs, softcap=facts.softcap, values_last=last)
    projected = trace.multiply(trace.rows(width), layer, "attn_output", heads)
    return projected if out is None else trace.over(projected, out)


def _head(trace: Trace, x: Node, facts: ModelFacts, *, apart: bool) -> None:
    """The last norm and the logits, or the pooled vectors (``build_pooling``). The results are kept to the end.

    ``apart``: the logits get a place of their own, see :func:`_apart`.
    """
    batch = trace.batch
    if facts.kind == "embedding":
        x.kept = True
        turned = trace.op(x.size, x)
        trace.op(facts.embedding_length * batch.sequences * F32, turned, kept=True)
        return
    final = trace.op(trace.rows(facts.embedding_length, batch.outputs), x, reuse=(x,), kept=True)
    if apart:
        trace.graph.input(trace.rows(facts.vocabulary, batch.outputs), trace.home)
    else:
        trace.op(trace.rows(facts.vocabulary, batch.outputs), final, kept=True)
