"""What each architecture of the zoo is made of: its keys and its tensors, in numpy's order of dimensions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

Keys = Iterator[tuple[str, Any]]
Tensors = Iterator[tuple[str, tuple[int, ...]]]


@dataclass
class Shape:
    """Sizes of a model; the names of the keys they become stand in :func:`_attention_keys` and below."""

    layers: int = 4
    width: int = 256
    heads: int = 8
    kv_heads: int = 4
    head: int = 0
    """Of keys and values; 0: width / heads."""
    feed_forward: int = 512
    vocabulary: int = 4096
    context: int = 4096
    window: int = 512
    experts: int = 8
    experts_used: int = 2
    expert_feed_forward: int = 256
    kv_rank: int = 128
    q_rank: int = 96
    rope: int = 32
    """Dimensions of MLA's rotated part."""
    state: int = 16
    convolution: int = 4
    attention_every: int = 4
    """In hybrids: each such layer has attention, the others are recurrent."""

    @property
    def head_size(self) -> int:
        return self.head or self.width // self.heads

    def is_attention(self, layer: int) -> bool:
        return layer % self.attention_every == self.attention_every - 1


@dataclass
class Model:
    """``untied``: it has an output matrix of its own."""

    architecture: str
    metadata: Callable[[Shape], Keys]
    tensors: Callable[[Shape], Tensors]
    shape: dict[str, Any] = field(default_factory=dict)
    vocabulary: str = "llama"
    untied: bool = True


def _common_keys(s: Shape, *, epsilon: str = "attention.layer_norm_rms_epsilon") -> Keys:
    yield "block_count", s.layers
    yield "context_length", s.context
    yield "embedding_length", s.width
    yield epsilon, 1e-5


def _attention_keys(s: Shape) -> Keys:
    yield from _common_keys(s)
    yield "feed_forward_length", s.feed_forward
    yield "attention.head_count", s.heads
    yield "attention.head_count_kv", s.kv_heads
    yield "rope.dimension_count", s.head_size
    if s.head:
        yield "attention.key_length", s.head
        yield "attention.value_length", s.head


def _ends(s: Shape, *, output: bool = True, norm: str = "output_norm") -> Tensors:
    yield "token_embd.weight", (s.vocabulary, s.width)
    yield f"{norm}.weight", (s.width,)
    if output:
        yield "output.weight", (s.vocabulary, s.width)


def _attention(s: Shape, block: str, *, bias: bool = False, norms: bool = False) -> Tensors:
    q, kv = s.heads * s.head_size, s.kv_heads * s.head_size
    yield f"{block}.attn_norm.weight", (s.width,)
    for part, size in (("attn_q", q), ("attn_k", kv), ("attn_v", kv)):
        yield f"{block}.{part}.weight", (size, s.width)
        if bias:
            yield f"{block}.{part}.bias", (size,)
    yield f"{block}.attn_output.weight", (s.width, q)
    if norms:
        yield f"{block}.attn_q_norm.weight", (s.head_size,)
        yield f"{block}.attn_k_norm.weight", (s.head_size,)


def _feed_forward(s: Shape, block: str) -> Tensors:
    yield f"{block}.ffn_norm.weight", (s.width,)
    yield f"{block}.ffn_gate.weight", (s.feed_forward, s.width)
    yield f"{block}.ffn_up.weight", (s.feed_forward, s.width)
    yield f"{block}.ffn_down.weight", (s.width, s.feed_forward)


def _experts(s: Shape, block: str, *, shared: int = 0, size: int = 0) -> Tensors:
    size = size or s.expert_feed_forward
    yield f"{block}.ffn_norm.weight", (s.width,)
    yield f"{block}.ffn_gate_inp.weight", (s.experts, s.width)
    yield f"{block}.ffn_gate_exps.weight", (s.experts, size, s.width)
    yield f"{block}.ffn_down_exps.weight", (s.experts, s.width, size)
    yield f"{block}.ffn_up_exps.weight", (s.experts, size, s.width)
    if shared:
        yield f"{block}.ffn_gate_shexp.weight", (size * shared, s.width)
        yield f"{block}.ffn_down_shexp.weight", (s.width, size * shared)
        yield f"{block}.ffn_up_shexp.weight", (size * shared, s.width)


def _dense(*, bias: bool = False, norms: bool = False, output: bool = True) -> Callable[[Shape], Tensors]:
    def tensors(s: Shape) -> Tensors:
        yield from _ends(s, output=output)
        for layer in range(s.layers):
            yield from _attention(s, f"blk.{layer}", bias=bias, norms=norms)
            yield from _feed_forward(s, f"blk.{layer}")

    return tensors


def _gemma_keys(s: Shape) -> Keys:
    yield from _attention_keys(s)
    yield "attention.sliding_window", s.window


def _gemma2_keys(s: Shape) -> Keys:
    yield from _gemma_keys(s)
    yield "attn_logit_softcapping", 50.0
    yield "final_logit_softcapping", 30.0


def _gemma(*, norms: bool) -> Callable[[Shape], Tensors]:
    def tensors(s: Shape) -> Tensors:
        yield from _ends(s, output=False)
        for layer in range(s.layers):
            yield from _attention(s, f"blk.{layer}", norms=norms)
            yield from _feed_forward(s, f"blk.{layer}")
            yield f"blk.{layer}.post_attention_norm.weight", (s.width,)
            yield f"blk.{layer}.post_ffw_norm.weight", (s.width,)

    return tensors


def _moe_keys(s: Shape) -> Keys:
    yield from _attention_keys(s)
    yield "expert_count", s.experts
    yield "expert_used_count", s.experts_used
    yield "expert_feed_forward_length", s.expert_feed_forward


def _moe(s: Shape) -> Tensors:
    yield from _ends(s)
    for layer in range(s.layers):
        yield from _attention(s, f"blk.{layer}", norms=True)
        yield from _experts(s, f"blk.{layer}")


def _deepseek2_keys(s: Shape) -> Keys:
    yield from _common_keys(s)
    yield "feed_forward_length", s.feed_forward
    yield "attention.head_count", s.heads
    yield "attention.head_count_kv", 1
    yield "rope.dimension_count", s.rope
    yield "attention.q_lora_rank", s.q_rank
    yield "attention.kv_lora_rank", s.kv_rank
    yield "attention.key_length", s.kv_rank + s.rope
    yield "attention.value_length", s.kv_rank
    yield "attention.key_length_mla", s.head_size + s.rope
    yield "attention.value_length_mla", s.head_size
    yield "leading_dense_block_count", 1
    yield "expert_count", s.experts
    yield "expert_used_count", s.experts_used
    yield "expert_feed_forward_length", s.expert_feed_forward
    yield "expert_shared_count", 1
    yield "expert_weights_scale", 1.0


def _deepseek2(s: Shape) -> Tensors:
    yield from _ends(s)
    for layer in range(s.layers):
        block = f"blk.{layer}"
        yield f"{block}.attn_norm.weight", (s.width,)
        yield f"{block}.attn_q_a_norm.weight", (s.q_rank,)
        yield f"{block}.attn_kv_a_norm.weight", (s.kv_rank,)
        yield f"{block}.attn_q_a.weight", (s.q_rank, s.width)
        yield f"{block}.attn_q_b.weight", (s.heads * (s.head_size + s.rope), s.q_rank)
        yield f"{block}.attn_kv_a_mqa.weight", (s.kv_rank + s.rope, s.width)
        yield f"{block}.attn_k_b.weight", (s.heads, s.kv_rank, s.head_size)
        yield f"{block}.attn_v_b.weight", (s.heads, s.head_size, s.kv_rank)
        yield f"{block}.attn_output.weight", (s.width, s.heads * s.head_size)
        if layer < 1:
            yield from _feed_forward(s, block)
        else:
            yield from _experts(s, block, shared=1)


def _state_keys(s: Shape) -> Keys:
    yield "ssm.conv_kernel", s.convolution
    yield "ssm.inner_size", 2 * s.width
    yield "ssm.state_size", s.state
    yield "ssm.time_step_rank", s.width // 16


def _mamba_keys(s: Shape) -> Keys:
    yield from _common_keys(s)
    yield "feed_forward_length", 0
    yield "attention.head_count", 0
    yield from _state_keys(s)


def _state(s: Shape, block: str, *, norms: bool = False) -> Tensors:
    inner, rank = 2 * s.width, s.width // 16
    yield f"{block}.attn_norm.weight", (s.width,)
    yield f"{block}.ssm_in.weight", (2 * inner, s.width)
    yield f"{block}.ssm_conv1d.weight", (inner, s.convolution)
    yield f"{block}.ssm_conv1d.bias", (inner,)
    yield f"{block}.ssm_x.weight", (rank + 2 * s.state, inner)
    yield f"{block}.ssm_dt.weight", (inner, rank)
    yield f"{block}.ssm_dt.bias", (inner,)
    yield f"{block}.ssm_a", (inner, s.state)
    yield f"{block}.ssm_d", (inner,)
    yield f"{block}.ssm_out.weight", (s.width, inner)
    if norms:
        yield f"{block}.ssm_dt_norm.weight", (rank,)
        yield f"{block}.ssm_b_norm.weight", (s.state,)
        yield f"{block}.ssm_c_norm.weight", (s.state,)


def _mamba(s: Shape) -> Tensors:
    yield from _ends(s)
    for layer in range(s.layers):
        yield from _state(s, f"blk.{layer}")


def _hybrid_heads(s: Shape) -> list[int]:
    return [s.kv_heads if s.is_attention(layer) else 0 for layer in range(s.layers)]


def _jamba_keys(s: Shape) -> Keys:
    yield from _common_keys(s)
    yield "feed_forward_length", s.feed_forward
    yield "attention.head_count", s.heads
    yield "attention.head_count_kv", _hybrid_heads(s)
    yield "expert_count", s.experts
    yield "expert_used_count", s.experts_used
    yield from _state_keys(s)


def _jamba(s: Shape) -> Tensors:
    yield from _ends(s)
    for layer in range(s.layers):
        block = f"blk.{layer}"
        yield from _attention(s, block) if s.is_attention(layer) else _state(s, block, norms=True)
        yield from _experts(s, block, size=s.feed_forward) if layer % 2 else _feed_forward(s, block)


def _granite_keys(s: Shape) -> Keys:
    yield from _common_keys(s)
    yield "feed_forward_length", s.feed_forward
    yield "attention.head_count", s.heads
    yield "attention.head_count_kv", _hybrid_heads(s)
    yield "rope.dimension_count", s.head_size
    yield "ssm.conv_kernel", s.convolution
    yield "ssm.inner_size", 2 * s.width
    yield "ssm.state_size", s.state
    yield "ssm.time_step_rank", 2 * s.width // 32
    yield "ssm.group_count", 1


def _granite(s: Shape) -> Tensors:
    inner, heads = 2 * s.width, 2 * s.width // 32
    yield from _ends(s, output=False)
    for layer in range(s.layers):
        block = f"blk.{layer}"
        if s.is_attention(layer):
            yield from _attention(s, block)
        else:
            yield f"{block}.attn_norm.weight", (s.width,)
            yield f"{block}.ssm_in.weight", (2 * inner + 2 * s.state + heads, s.width)
            yield f"{block}.ssm_conv1d.weight", (inner + 2 * s.state, s.convolution)
            yield f"{block}.ssm_conv1d.bias", (inner + 2 * s.state,)
            yield f"{block}.ssm_dt.bias", (heads,)
            yield f"{block}.ssm_a", (heads, 1)
            yield f"{block}.ssm_d", (heads, 1)
            yield f"{block}.ssm_norm.weight", (1, inner)
            yield f"{block}.ssm_out.weight", (s.width, inner)
        yield from _feed_forward(s, block)


def _lfm2_keys(s: Shape) -> Keys:
    yield from _common_keys(s)
    yield "feed_forward_length", s.feed_forward
    yield "attention.head_count", s.heads
    yield "attention.head_count_kv", _hybrid_heads(s)
    yield "rope.dimension_count", s.head_size
    yield "shortconv.l_cache", s.convolution


def _lfm2(s: Shape) -> Tensors:
    yield from _ends(s, output=False, norm="token_embd_norm")
    for layer in range(s.layers):
        block = f"blk.{layer}"
        if s.is_attention(layer):
            yield from _attention(s, block, norms=True)
        else:
            yield f"{block}.attn_norm.weight", (s.width,)
            yield f"{block}.shortconv.conv.weight", (s.width, s.convolution)
            yield f"{block}.shortconv.in_proj.weight", (3 * s.width, s.width)
            yield f"{block}.shortconv.out_proj.weight", (s.width, s.width)
        yield from _feed_forward(s, block)


def _bert_keys(s: Shape) -> Keys:
    yield from _common_keys(s, epsilon="attention.layer_norm_epsilon")
    yield "feed_forward_length", s.feed_forward
    yield "attention.head_count", s.heads
    yield "attention.causal", False
    yield "pooling_type", 1  # mean


def _bert(*, positions: bool, gate: bool) -> Callable[[Shape], Tensors]:
    def tensors(s: Shape) -> Tensors:
        yield "token_embd.weight", (s.vocabulary, s.width)
        yield "token_types.weight", (2, s.width)
        if positions:
            yield "position_embd.weight", (s.context, s.width)
        yield "token_embd_norm.weight", (s.width,)
        yield "token_embd_norm.bias", (s.width,)
        for layer in range(s.layers):
            yield from _bert_layer(s, f"blk.{layer}", gate=gate)

    return tensors


def _bert_layer(s: Shape, block: str, *, gate: bool) -> Tensors:
    for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
        yield f"{block}.{part}.weight", (s.width, s.width)
        yield f"{block}.{part}.bias", (s.width,)
    yield f"{block}.ffn_up.weight", (s.feed_forward, s.width)
    yield f"{block}.ffn_down.weight", (s.width, s.feed_forward)
    if gate:
        yield f"{block}.ffn_gate.weight", (s.feed_forward, s.width)
    for norm in ("attn_output_norm", "layer_output_norm"):
        yield f"{block}.{norm}.weight", (s.width,)
        yield f"{block}.{norm}.bias", (s.width,)


MODELS: dict[str, Model] = {
    "llama": Model("llama", _attention_keys, _dense()),
    "tied": Model("llama", _attention_keys, _dense(output=False), untied=False),
    "qwen2": Model("qwen2", _attention_keys, _dense(bias=True), {"kv_heads": 2}),
    "qwen3": Model("qwen3", _attention_keys, _dense(norms=True), {"head": 96, "kv_heads": 2}),
    "gemma2": Model("gemma2", _gemma2_keys, _gemma(norms=False), {"head": 64}, untied=False),
    "gemma3": Model("gemma3", _gemma_keys, _gemma(norms=True), {"head": 64, "layers": 6}, untied=False),
    "moe": Model("qwen3moe", _moe_keys, _moe),
    "deepseek2": Model("deepseek2", _deepseek2_keys, _deepseek2, {"head": 64}),
    "mamba": Model("mamba", _mamba_keys, _mamba),
    "jamba": Model("jamba", _jamba_keys, _jamba),
    "granitehybrid": Model("granitehybrid", _granite_keys, _granite, {"layers": 8}, untied=False),
    "lfm2": Model("lfm2", _lfm2_keys, _lfm2, {"layers": 8}, untied=False),
    "bert": Model("bert", _bert_keys, _bert(positions=True, gate=False), {"context": 512}, "bert", untied=False),
    "nomic-bert": Model(
        "nomic-bert", _bert_keys, _bert(positions=False, gate=True), {"context": 2048}, "bert", untied=False
    ),
}  # fmt: skip
