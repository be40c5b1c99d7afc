"""Properties that the memory model has whatever the model and the way of loading it."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from hybridd.local import kv
from hybridd.local.facts import ModelFacts, facts_of
from hybridd.local.gguf import open_model
from hybridd.local.kv_types import BLOCKS, row_bytes
from hybridd.local.memory import estimate, with_companions
from hybridd.local.types import KvType, LoadOptions, Memory
from tests.fakes.model_zoo import KINDS, Zoo, make_model

MIB = 2**20
BY_SIZE: tuple[KvType, ...] = ("f32", "f16", "q8_0", "q5_1", "q5_0", "q4_0")


@pytest.fixture(scope="session")
def models(zoo: Zoo) -> dict[str, ModelFacts]:
    return {kind: facts_of(open_model(zoo.path(kind)), kind, str(zoo.path(kind))) for kind in KINDS}


kinds = st.sampled_from(KINDS)
options = st.builds(
    LoadOptions,
    gpu_layers=st.integers(0, 9),
    context=st.integers(256, 65_536),
    sequences=st.integers(1, 8),
    unified=st.booleans(),
    type_k=st.sampled_from(BY_SIZE),
    type_v=st.sampled_from(BY_SIZE),
    flash_attention=st.booleans(),
    micro_batch=st.sampled_from([32, 128, 512, 1024]),
    outputs=st.sampled_from([0, 1, 8]),
)


def total(memory: Memory) -> int:
    return memory.device.total + memory.host.total


@settings(max_examples=150, deadline=None)
@given(kind=kinds, one=options)
def test_weights_are_never_lost_or_counted_twice(models: dict[str, ModelFacts], kind: str, one: LoadOptions) -> None:
    """Wherever the layers go, host and GPU together hold the tensor table, and a tied output once more on the GPU."""
    facts = models[kind]
    memory = estimate(facts, one)
    extra = facts.embedding_bytes if facts.tied and one.gpu_layers > 0 else 0
    assert memory.device.weights + memory.host.weights == facts.weights + extra


@settings(max_examples=150, deadline=None)
@given(kind=kinds, one=options, more=st.integers(1, 65_536))
def test_more_context_never_needs_less(models: dict[str, ModelFacts], kind: str, one: LoadOptions, more: int) -> None:
    """The cache grows with the context, never shrinks; so does all of it, but for what a buffer's holes differ by."""
    facts = models[kind]
    small, large = estimate(facts, one), estimate(facts, replace(one, context=one.context + more))
    assert large.host.kv >= small.host.kv
    assert large.device.kv >= small.device.kv
    assert total(large) >= total(small) - 2 * MIB


@settings(max_examples=150, deadline=None)
@given(kind=kinds, one=options, more=st.integers(1, 65_536), wider=st.sampled_from([1, 2, 4]))
def test_what_a_search_is_told_never_falls(
    models: dict[str, ModelFacts], kind: str, one: LoadOptions, more: int, wider: int
) -> None:
    """A longer context and a larger micro-batch never take less on either side, not by a byte."""
    facts = models[kind]
    small = estimate(facts, one, steady=True)
    large = replace(one, context=one.context + more, micro_batch=one.micro_batch * wider)
    larger = estimate(facts, large, steady=True)
    assert larger.host.total >= small.host.total
    assert larger.device.total >= small.device.total


@settings(max_examples=150, deadline=None)
@given(kind=kinds, one=options, pair=st.lists(st.sampled_from(BY_SIZE), min_size=2, max_size=2))
def test_a_smaller_type_never_needs_a_larger_cache(
    models: dict[str, ModelFacts], kind: str, one: LoadOptions, pair: list[KvType]
) -> None:
    """Quantised keys and values take no more than those they are made of."""
    large, small = sorted(pair, key=BY_SIZE.index)
    facts = models[kind]
    wide, narrow = (estimate(facts, replace(one, type_k=kind_, type_v=kind_)) for kind_ in (large, small))
    assert narrow.host.kv + narrow.device.kv <= wide.host.kv + wide.device.kv


@settings(max_examples=100, deadline=None)
@given(kind=kinds, one=options)
def test_a_layer_on_the_gpu_is_off_the_host(models: dict[str, ModelFacts], kind: str, one: LoadOptions) -> None:
    """Each further layer moves weights, cache and state from the host to the GPU and changes neither's sum."""
    facts = models[kind]
    loads = [estimate(facts, replace(one, gpu_layers=layers)) for layers in range(1, facts.offloadable + 1)]
    for fewer, more in itertools.pairwise(loads):
        for part in ("weights", "kv", "recurrent"):
            assert getattr(more.device, part) >= getattr(fewer.device, part)
            assert getattr(more.host, part) <= getattr(fewer.host, part)
            assert getattr(more.device, part) + getattr(more.host, part) == getattr(fewer.device, part) + getattr(
                fewer.host, part
            )


@settings(max_examples=100, deadline=None)
@given(one=options, window=st.integers(1, 8192))
def test_a_window_never_needs_more_than_full_attention(
    models: dict[str, ModelFacts], one: LoadOptions, window: int
) -> None:
    """A sliding window bounds a layer's cache by the context from above."""
    facts = models["gemma3"]
    layer = facts.layers[0]
    full = kv.layer_bytes(replace(layer, window=0), facts, one)
    windowed = replace(facts, layers=tuple(replace(each, window=window) for each in facts.layers))
    assert kv.layer_bytes(windowed.layers[0], windowed, one) <= full


@settings(max_examples=100, deadline=None)
@given(kind=kinds, one=options)
def test_nothing_is_on_the_gpu_without_layers_there(models: dict[str, ModelFacts], kind: str, one: LoadOptions) -> None:
    """With no layer offloaded the GPU is not touched, not even for its context."""
    assert estimate(models[kind], replace(one, gpu_layers=0)).device.total == 0


@settings(max_examples=100, deadline=None)
@given(kind=kinds, one=options)
def test_every_part_is_a_size(models: dict[str, ModelFacts], kind: str, one: LoadOptions) -> None:
    """No part is negative, whatever was asked for."""
    memory = estimate(models[kind], one)
    for use in (memory.device, memory.host):
        assert all(getattr(use, name) >= 0 for name in use.__struct_fields__)


@settings(max_examples=60, deadline=None)
@given(one=options, more=st.integers(1, 8))
def test_states_grow_with_sequences_not_with_context(
    models: dict[str, ModelFacts], one: LoadOptions, more: int
) -> None:
    """A recurrent model keeps one state for each sequence, however long it is."""
    facts = models["mamba"]
    first = estimate(facts, one)
    wider = estimate(facts, replace(one, context=one.context * 2, sequences=one.sequences + more))
    states = first.host.recurrent + first.device.recurrent
    assert (wider.host.recurrent + wider.device.recurrent) * one.sequences == states * (one.sequences + more)
    assert first.host.kv == first.device.kv == 0


def test_the_logits_that_may_be_asked_for_are_counted(tmp_path: Path) -> None:
    """With a large vocabulary the micro-batch's logits are the largest buffer: 512 × 100,000 × 4 bytes; 8 rows are
    not."""
    path = make_model(tmp_path / "wide.gguf", "llama", width=64, layers=1, vocabulary=100_000, feed_forward=128)
    facts = facts_of(open_model(path), "wide", str(path))
    every, few = estimate(facts, LoadOptions()), estimate(facts, LoadOptions(outputs=8))
    assert every.host.compute - few.host.compute == pytest.approx(504 * 100_000 * 4, rel=0.05)


def test_a_tied_output_is_copied_to_the_gpu(models: dict[str, ModelFacts]) -> None:
    """The embedding table stays on the host for the input and is on the GPU for the output."""
    facts = models["tied"]
    memory = estimate(facts, LoadOptions(gpu_layers=facts.offloadable))
    assert memory.host.weights == facts.input_bytes == facts.embedding_bytes
    assert memory.device.weights == facts.weights - facts.input_bytes + facts.embedding_bytes


def test_weights_left_on_the_host_travel_to_the_gpu(models: dict[str, ModelFacts]) -> None:
    """Batches are computed on the GPU even for layers of the host: their largest matrix has room there."""
    facts = models["llama"]
    wide = replace(
        facts,
        layers=tuple(replace(layer, parts=(("ffn_up", 64 * MIB), *layer.parts)) for layer in facts.layers),
    )
    whole = LoadOptions(gpu_layers=facts.offloadable)
    part = replace(whole, gpu_layers=2)
    assert estimate(wide, part).device.compute >= 64 * MIB
    assert estimate(wide, whole).device.compute == estimate(facts, whole).device.compute


def test_quantised_caches_are_unpacked_on_the_gpu(models: dict[str, ModelFacts]) -> None:
    """CUDA's flash attention reads f16: keys and values of one layer are unpacked behind its result."""
    facts = models["llama"]
    plain = LoadOptions(gpu_layers=facts.offloadable, context=65_536, outputs=1)
    packed = replace(plain, type_k="q8_0", type_v="q8_0")
    cells = 65_536 * facts.layers[0].cell * 2
    grown = estimate(facts, packed).device.compute - estimate(facts, plain).device.compute
    assert grown == pytest.approx(cells, rel=0.15)


def test_a_projector_and_a_draft_are_on_the_models_side(models: dict[str, ModelFacts]) -> None:
    """Companions go where the model goes; the draft's own runtime is not paid twice."""
    facts, small = models["llama"], models["tied"]
    whole = LoadOptions(gpu_layers=facts.offloadable)
    draft = estimate(small, LoadOptions(gpu_layers=small.offloadable))
    memory = with_companions(estimate(facts, whole), whole, projector=models["bert"], draft=draft)
    assert memory.device.projector > models["bert"].weights
    assert memory.device.draft == draft.device.total - draft.device.runtime
    assert memory.host.projector == 0


@pytest.mark.parametrize("kind", list(BLOCKS))
def test_types_of_the_cache_are_ggmls(kind: KvType) -> None:
    """Sizes of blocks are those of llama.cpp's own table, as the reader of files has it."""
    from hybridd.local.ggml_types import TYPES

    told = next(one for one in TYPES.values() if one.name == kind)
    assert row_bytes(kind, told.block * 7) == told.size * 7
