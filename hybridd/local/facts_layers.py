"""The blocks of a model: their weights, what each keeps for every token, and what it keeps for every sequence.

Sources, all of llama.cpp's ``src/``: widths of keys and values ``llama_hparams::n_embd_k_gqa``, ``n_embd_v_gqa``; state
of recurrent layers ``n_embd_r``, ``n_embd_s`` (``llama-hparams.cpp``); which layers have a sliding window
``set_swa_pattern`` and the calls of ``load_swa_pattern`` in ``models/*.cpp``; which layers keep keys and values
``llama_model::create_memory`` (``llama-model.cpp``).
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from hybridd.local.facts_keys import Keys
from hybridd.local.gguf import Tensor

F32 = 4
# One layer in how many has full attention, when the file does not say; True: the first of them, False: the last.
_WINDOWED: dict[str, tuple[int, bool]] = {
    "afmoe": (4, False), "cohere2": (4, False), "cohere2moe": (4, True), "exaone-moe": (4, False),
    "exaone4": (4, False), "gemma2": (2, False), "gemma3": (6, False), "gemma3n": (5, False),
    "gemma-embedding": (6, False), "gpt-oss": (2, False), "laguna": (4, True), "llama4": (4, False),
    "mellum": (4, False), "modern-bert": (3, True), "muse-glimmer": (4, False), "olmo2": (4, False),
    "plamo3": (8, False), "smallthinker": (4, True),
}  # fmt: skip
# Their windows come from the file's own pattern, one item for each layer.
_LISTED = frozenset({"gemma4", "gemma4-assistant", "granite-swa", "maple", "mimo2", "spark2-5", "step35"})
_WINDOW = {"gemma2": 4096, "exaone4": 4096, "exaone-moe": 128, "llama4": 8192, "smallthinker": 4096}
_HYBRID_WINDOWED = frozenset({"lfm2", "lfm2moe"})
_EXAONE4_WINDOWED_LAYERS = 64
_GEMMA3N_OWN_CACHE = 20
_STATE_PARTS = ("ssm_", "shortconv.", "time_mix_")
_INPUT = ("token_embd.", "position_embd.", "token_types.", "per_layer_token_embd.")


class StateFacts(Struct, frozen=True):
    """Sizes of the recurrent layers, in elements. ``kind``: ``mamba``, ``mamba2``, ``delta``, ``convolution``,
    ``rwkv`` or ``other``."""

    kind: str
    rolling: int
    """``n_embd_r``: what the convolution remembers."""
    state: int
    """``n_embd_s``."""
    inner: int = 0
    width: int = 0
    rank: int = 0
    groups: int = 0
    kernel: int = 0


class LayerFacts(Struct, frozen=True, kw_only=True):
    """One block. ``weights``: bytes of its tensors. ``key_cell``, ``value_cell``: elements kept for one token;
    MLA keeps no values, recurrent layers neither. ``window``: tokens its attention sees, 0 for all.
    ``state_bytes``: kept for one sequence. The rest are sizes of the graph, in elements."""

    weights: int
    attention: bool = True
    key_cell: int = 0
    value_cell: int = 0
    window: int = 0
    state_bytes: int = 0
    heads: int = 0
    kv_heads: int = 0
    key_length: int = 0
    value_length: int = 0
    mla_key: int = 0
    mla_value: int = 0
    query_rank: int = 0
    kv_rank: int = 0
    query_width: int = 0
    gated_query: bool = False
    fused: bool = False
    query_norm: bool = False
    post_norms: bool = False
    feed_forward: int = 0
    gate: bool = False
    fused_gate: bool = False
    experts: int = 0
    experts_used: int = 0
    expert_feed_forward: int = 0
    shared_feed_forward: int = 0
    parts: tuple[tuple[str, int], ...] = ()
    """Its matrices by name (``attn_q``, ``ffn_up_exps``, …), and their bytes."""

    def part(self, name: str) -> int:
        """Bytes of a matrix, 0 if it has none of that name."""
        return next((size for part, size in self.parts if part == name), 0)

    @property
    def cell(self) -> int:
        """Elements kept for one token."""
        return self.key_cell + self.value_cell


class Groups(Struct):
    """Tensors by where they belong. ``input`` and ``output``: bytes; ``blocks``: by number, names without prefix."""

    named: dict[str, Tensor]
    blocks: list[dict[str, Tensor]]
    input: int
    output: int


def group(tensors: Sequence[Tensor], keys: Keys) -> Groups:
    """Sorts a model's tensors into the input layer, its blocks and the output layer (``LLM_TENSOR_INFOS``).

    Blocks for predicting several tokens at once are left out: llama.cpp loads them only when asked (``load_mtp``).
    """
    count = _blocks(keys)
    groups = Groups({}, [{} for _ in range(count)], 0, 0)
    shared: list[Tensor] = []
    for tensor in tensors:
        prefix, _, rest = tensor.name.partition(".")
        if prefix == "blk":
            number, _, part = rest.partition(".")
            if number.isdigit() and int(number) < count:
                groups.blocks[int(number)][part] = tensor
            continue
        groups.named[tensor.name] = tensor
        if tensor.name.startswith(_INPUT) or (
            tensor.name.startswith("token_embd_norm.") and not keys.architecture.startswith("lfm2")
        ):
            groups.input += tensor.nbytes
        elif tensor.name.startswith(("rope_", "per_layer_model_proj", "per_layer_proj_norm")):
            shared.append(tensor)
        else:
            groups.output += tensor.nbytes
    for tensor in shared:  # llama.cpp makes them with its first layer
        groups.blocks[0][tensor.name] = tensor
    return groups


def _blocks(keys: Keys) -> int:
    count = keys.number("block_count") - keys.number("nextn_predict_layers", 0)
    if not 0 < count <= 512:
        raise keys.bad("block_count", f"{count} layers; llama.cpp loads 1 to 512")
    return count


def layers_of(keys: Keys, groups: Groups) -> tuple[LayerFacts, ...]:
    """The facts of every block that is loaded."""
    count = len(groups.blocks)
    heads = keys.by_layer("attention.head_count", count)
    kv_heads = keys.by_layer("attention.head_count_kv", count) if keys.has("attention.head_count_kv") else heads
    used = keys.by_layer("expert_used_count", count)
    windows = _windows(keys, count)
    cached = _with_own_cache(keys, count)
    state = state_of(keys)
    return tuple(
        _layer(keys, block, heads[at], kv_heads[at], windows[at], used[at], own=at < cached, state=state)
        for at, block in enumerate(groups.blocks)
    )


def _layer(
    keys: Keys, block: dict[str, Tensor], heads: int, kv_heads: int, window: int, used: int, *, own: bool,
    state: StateFacts | None,
) -> LayerFacts:  # fmt: skip
    recurrent = any(part.startswith(_STATE_PARTS) for part in block) and state is not None
    attention = _has_attention(block, kv_heads, recurrent=recurrent)
    key_length, value_length = _head_sizes(keys, max(heads, 1), windowed=bool(window)) if heads else (0, 0)
    mla = keys.has("attention.key_length_mla")
    experts = block.get("ffn_up_exps.weight") or block.get("ffn_gate_up_exps.weight")
    up, shared = block.get("ffn_up.weight"), block.get("ffn_up_shexp.weight")
    query = block.get("attn_q.weight")
    return LayerFacts(
        weights=sum(tensor.nbytes for tensor in block.values()),
        attention=attention,
        key_cell=key_length * kv_heads if attention and own else 0,
        value_cell=value_length * kv_heads if attention and own and not mla else 0,
        window=window if attention else 0,
        state_bytes=(state.rolling + state.state) * F32 if recurrent and state else 0,
        heads=heads,
        kv_heads=kv_heads,
        key_length=key_length,
        value_length=value_length,
        mla_key=keys.number("attention.key_length_mla", 0),
        mla_value=keys.number("attention.value_length_mla", 0),
        query_rank=keys.number("attention.q_lora_rank", 0),
        kv_rank=keys.number("attention.kv_lora_rank", 0),
        query_width=query.shape[1] if query and len(query.shape) > 1 else heads * key_length,
        gated_query=bool(query and len(query.shape) > 1 and query.shape[1] == 2 * heads * key_length),
        fused="attn_qkv.weight" in block,
        query_norm="attn_q_norm.weight" in block,
        post_norms="post_attention_norm.weight" in block and "post_ffw_norm.weight" in block,
        feed_forward=_rows(up),
        gate="ffn_gate.weight" in block,
        fused_gate=up is not None and "ffn_gate.weight" not in block and _is_fused(block),
        experts=experts.shape[2] if experts and len(experts.shape) > 2 else 0,
        experts_used=used if experts else 0,
        expert_feed_forward=_expert_width(block),
        shared_feed_forward=_rows(shared),
        parts=tuple(
            (name.removesuffix(".weight"), tensor.nbytes)
            for name, tensor in block.items()
            if len(tensor.shape) > 1 and name.endswith(".weight")
        ),
    )


def _has_attention(block: dict[str, Tensor], kv_heads: int, *, recurrent: bool) -> bool:
    """Linear attention fuses its inputs into ``attn_qkv`` too; a layer with both has keys of its own."""
    if kv_heads == 0:
        return False
    if recurrent:
        return "attn_k.weight" in block
    return any(part.startswith(("attn_k", "attn_q", "attn_output")) for part in block)


def _head_sizes(keys: Keys, heads: int, *, windowed: bool) -> tuple[int, int]:
    size = keys.number("embedding_length") // heads
    key, value = keys.number("attention.key_length", size), keys.number("attention.value_length", size)
    if windowed:
        return keys.number("attention.key_length_swa", key), keys.number("attention.value_length_swa", value)
    return key, value


def _rows(tensor: Tensor | None) -> int:
    return tensor.shape[1] if tensor is not None and len(tensor.shape) > 1 else 0


def _is_fused(block: dict[str, Tensor]) -> bool:
    """phi3 and glm4: gate and up in one matrix, twice as wide as what ``ffn_down`` takes."""
    down, up = block.get("ffn_down.weight"), block.get("ffn_up.weight")
    return down is not None and up is not None and _rows(up) == 2 * down.shape[0]


def _expert_width(block: dict[str, Tensor]) -> int:
    down = block.get("ffn_down_exps.weight")
    return down.shape[0] if down is not None else 0


def _windows(keys: Keys, count: int) -> list[int]:
    """Each layer's sliding window, 0 for full attention. llama.cpp ignores phi3's."""
    window = keys.number("attention.sliding_window", 0)
    architecture = keys.architecture
    pattern = keys.items("attention.sliding_window_pattern")
    if architecture == "llama4" and keys.has("attention.sliding_window") and window == 0:
        return [0] * count
    if architecture == "exaone4" and count < _EXAONE4_WINDOWED_LAYERS:
        return [0] * count
    window = window if window and architecture != "llama4" else _WINDOW.get(architecture, window)
    if window == 0:
        return [0] * count
    if architecture in _HYBRID_WINDOWED:
        return [window if heads else 0 for heads in keys.by_layer("attention.head_count_kv", count)]
    if architecture not in _WINDOWED and architecture not in _LISTED:
        return [0] * count
    if pattern is not None and len(pattern) >= count:
        return [window if item else 0 for item in pattern[:count]]
    every, first = _WINDOWED.get(architecture, (1, False))
    every = keys.number("attention.sliding_window_pattern", every) if pattern is None else every
    full = 0 if first else every - 1
    return [window if every == 0 or at % every != full else 0 for at in range(count)]


def _with_own_cache(keys: Keys, count: int) -> int:
    """How many layers, from the first, keep keys and values; those behind read an earlier layer's
    (``n_layer_kv_from_start``)."""
    if keys.architecture == "gemma3n":
        return _GEMMA3N_OWN_CACHE
    if keys.architecture == "gemma4":
        return keys.number("block_count") - keys.number("attention.shared_kv_layers", 0)
    return count


def state_of(keys: Keys) -> StateFacts | None:
    """The state of recurrent layers, None without them (``llama_hparams::n_embd_r`` and ``n_embd_s``)."""
    width = keys.number("embedding_length")
    head = keys.number("wkv.head_size", 0)
    if head:
        shifts = keys.number("token_shift_count", 2)
        return StateFacts("rwkv", shifts * width, width * head, width=head)
    kernel = keys.number("shortconv.l_cache", 0)
    if kernel:
        return StateFacts("convolution", width * (kernel - 1), 0, kernel=kernel)
    kernel, inner = keys.number("ssm.conv_kernel", 0), keys.number("ssm.inner_size", 0)
    if keys.has("kda.head_dim"):
        size, heads = keys.number("kda.head_dim"), keys.number("attention.head_count")
        return StateFacts("other", 3 * (max(kernel, 4) - 1) * heads * size, size * size * heads, inner=heads * size)
    if not inner:
        return None
    state, groups = keys.number("ssm.state_size"), keys.number("ssm.group_count", 0)
    return StateFacts(
        _state_kind(keys.architecture, groups),
        max(kernel - 1, 0) * (inner + 2 * groups * state),
        state * inner,
        inner=inner,
        width=state,
        rank=keys.number("ssm.time_step_rank", 0),
        groups=groups,
        kernel=kernel,
    )


def _state_kind(architecture: str, groups: int) -> str:
    if architecture.startswith(("qwen3next", "qwen35", "qwen4")):
        return "delta"
    return "mamba2" if groups else "mamba"
