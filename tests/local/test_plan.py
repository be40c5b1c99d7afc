"""The planner: what fits on simulated GPUs, the goals, hard wishes, and the two promises (never over, never worse)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from hybridd.errors import InvalidRequest
from hybridd.local.facts import ModelFacts
from hybridd.local.facts_layers import LayerFacts, StateFacts
from hybridd.local.gpus import Gpu, GpuUser
from hybridd.local.machine import MachineFacts
from hybridd.local.memory import estimate
from hybridd.local.plan import Request, plan, quality_key, ram_budget
from hybridd.local.plan_estimate import Estimator
from hybridd.local.types import Goal, LoadOptions, Memory, Plan

MIB, GIB = 1 << 20, 1 << 30
GOALS: tuple[Goal, ...] = ("quality", "context", "throughput")


def model(
    name: str, *, layers: int, width: int, layer_mib: float, output_mib: float, vocabulary: int, trained: int,
    kv_heads: int = 8, head: int = 128, **changes: Any,
) -> ModelFacts:  # fmt: skip
    """Facts of a dense model with grouped-query attention, by hand."""
    layer = LayerFacts(
        weights=int(layer_mib * MIB), key_cell=kv_heads * head, value_cell=kv_heads * head, heads=width // head or 1,
        kv_heads=kv_heads, key_length=head, value_length=head, query_width=width, feed_forward=3 * width, gate=True,
    )  # fmt: skip
    size = int((layers * layer_mib + 2 * output_mib) * MIB)
    facts = ModelFacts(
        id=name, path=f"/models/{name}.gguf", bytes=size, architecture="qwen3", quantization="Q4_K_M",
        trained_context=trained, layers=(layer,) * layers, layers_all=layers, embedding_length=width,
        vocabulary=vocabulary, weights=size, input_bytes=int(output_mib * MIB), output_bytes=int(output_mib * MIB),
    )  # fmt: skip
    return replace(facts, **changes)


# Sizes of Qwen3 1.7B and 4B and of Llama 3.1 8B at Q4_K_M.
SMALL = model("1.7b", layers=28, width=2048, layer_mib=27.5, output_mib=240, vocabulary=151_936, trained=40_960)
MIDDLE = model("4b", layers=36, width=2560, layer_mib=56, output_mib=304, vocabulary=151_936, trained=40_960)
LARGE = model("8b", layers=32, width=4096, layer_mib=128, output_mib=411, vocabulary=128_256, trained=131_072)
MODELS = {facts.id: facts for facts in (SMALL, MIDDLE, LARGE)}


def gpu_of(total: int, **changes: Any) -> Gpu:
    """All of it free, unless said otherwise."""
    return replace(Gpu(index=0, name="simulated GPU", total=total, free=total), **changes)


def machine_with(*gpus: Gpu, ram: int = 16 * GIB, **changes: Any) -> MachineFacts:
    facts = MachineFacts(
        gpus=gpus, gpu_reason="" if gpus else "no NVIDIA driver", ram_total=ram, ram_available=ram * 3 // 4, cores=8,
        physical_cores=4, offload=True if gpus else None,
    )  # fmt: skip
    return replace(facts, **changes)


def check(made: Plan, machine: MachineFacts, facts: ModelFacts, request: Request) -> None:
    """The first promise: never over the budget, and the memory is the estimate's."""
    if made.options is None:
        assert made.reasons
        return
    assert made.memory == estimate(facts, made.options)
    device, host = made.memory.device.total, made.memory.host.total
    if made.target == "gpu":
        assert device <= made.budget - made.margin
        assert made.budget <= machine.gpus[made.options.gpu].free
        if request.vram_limit is not None:
            assert made.budget <= request.vram_limit - request.reserved
        assert host <= ram_budget(machine)
        assert 1 <= made.options.gpu_layers <= made.layers + 1
    else:
        assert host <= made.budget - made.margin
        assert made.options.gpu_layers == 0
        assert device == 0


# What is expected of each model on a card of so many GiB: the share of its blocks on it, and the least context.
EXPECTED = {
    ("1.7b", 2): (1.0, 4_096), ("1.7b", 4): (1.0, 8_192), ("1.7b", 6): (1.0, 8_192), ("1.7b", 8): (1.0, 8_192),
    ("4b", 2): (0.4, 4_096), ("4b", 4): (1.0, 4_096), ("4b", 6): (1.0, 8_192), ("4b", 8): (1.0, 8_192),
    ("8b", 2): (0.2, 4_096), ("8b", 4): (0.6, 4_096), ("8b", 6): (1.0, 4_096), ("8b", 8): (1.0, 8_192),
}  # fmt: skip


@pytest.mark.parametrize(("name", "gib"), EXPECTED)
def test_real_sizes_on_real_cards(name: str, gib: int) -> None:
    """Models of usual sizes use a 2, 4, 6 or 8 GB card as far as it goes, with a usable context and an exact cache."""
    machine = machine_with(gpu_of(gib * GIB))
    made = plan(MODELS[name], machine)
    check(made, machine, MODELS[name], Request())
    share, context = EXPECTED[name, gib]
    assert made.options is not None
    assert made.target == "gpu"
    assert (made.options.gpu_layers - 1) / made.layers >= share
    assert made.sequence_context >= context
    assert (made.options.type_k, made.options.type_v) == ("f16", "f16")
    # Close to what there is: not one more layer fits, or all are there already.
    if made.options.gpu_layers <= made.layers:
        more = replace(made.options, gpu_layers=made.options.gpu_layers + 1, micro_batch=128)
        assert estimate(MODELS[name], more).device.total > gib * GIB


def test_goals_differ() -> None:
    """context buys length with layers and an exact cache, throughput buys sequences and width."""
    machine = machine_with(gpu_of(4 * GIB))
    quality, context, throughput = (plan(MIDDLE, machine, Request(goal=goal)) for goal in GOALS)
    assert quality.options is not None
    assert context.options is not None
    assert throughput.options is not None
    assert context.sequence_context > quality.sequence_context
    assert context.options.type_v == "q8_0"
    assert context.options.flash_attention is True
    assert context.options.gpu_layers >= (context.layers + 1) // 2
    assert throughput.options.sequences >= 4
    assert throughput.sequence_context * throughput.options.sequences == throughput.options.context
    assert throughput.sequence_context >= 2_048


def test_a_plan_says_why() -> None:
    """Each limit names what the next better value would need; the alternatives are data with their bytes."""
    machine = machine_with(gpu_of(4 * GIB))
    made = plan(LARGE, machine)
    text = " ".join(made.reasons)
    assert made.options is not None
    blocks = made.options.gpu_layers - 1
    assert f"{blocks} of 32 layers and the output layer on the GPU: {blocks + 1} would need" in text
    assert "more than the GPU has free" in text
    for one in made.rejected:
        assert one.needs > 0
        assert one.reason.endswith(".")
    one_more = next(one for one in made.rejected if one.options.gpu_layers == made.options.gpu_layers + 1)
    assert one_more.needs == estimate(LARGE, one_more.options).device.total > made.budget
    assert any("processor alone" in one.reason for one in made.rejected)


def test_without_a_gpu_memory_is_planned() -> None:
    """The same planner plans RAM: available less a reserve, physical cores as threads."""
    machine = machine_with(ram=8 * GIB)
    made = plan(MIDDLE, machine)
    check(made, machine, MIDDLE, Request())
    assert made.options is not None
    assert (made.target, made.budget, made.options.threads) == ("cpu", ram_budget(machine), 4)
    assert made.budget == 6 * GIB - GIB // 2
    assert "No GPU is used: no NVIDIA driver." in made.reasons
    tight = plan(LARGE, machine_with(ram=8 * GIB, ram_available=5 * GIB))
    assert tight.options is None
    assert "more than there is" in tight.reasons[0]


def test_a_build_without_gpu_support_uses_none() -> None:
    """A GPU that llama.cpp cannot use is not planned for, and it is said; before it is installed it is."""
    without = plan(SMALL, machine_with(gpu_of(8 * GIB), offload=False))
    assert without.target == "cpu"
    assert "built without GPU support" in " ".join(without.reasons)
    unknown = plan(SMALL, machine_with(gpu_of(8 * GIB), offload=None))
    assert unknown.target == "gpu"
    assert "not installed" in " ".join(unknown.reasons)


def test_the_limit_what_is_held_and_what_comes_back_count() -> None:
    """Budget = min(limit less what stays, free and what is replaced); the margin stays free of it."""
    machine = machine_with(gpu_of(8 * GIB, free=3 * GIB, used_by_others=5 * GIB))
    assert plan(SMALL, machine).budget == 3 * GIB
    assert plan(SMALL, machine, replaced=2 * GIB).budget == 5 * GIB
    limited = Request(vram_limit=4 * GIB, reserved=GIB)
    assert plan(SMALL, machine, limited, replaced=2 * GIB).budget == 3 * GIB
    assert plan(SMALL, machine, limited, replaced=100 * GIB).budget == 3 * GIB
    assert plan(SMALL, machine, replaced=100 * GIB).budget == 8 * GIB
    kept = plan(SMALL, machine, margin=GIB)
    assert (kept.margin, kept.memory.device.total <= 2 * GIB) == (GIB, True)


def test_the_desktops_use_is_named() -> None:
    """Who holds memory of the card is a reason, with its bytes."""
    users = (GpuUser(7, "firefox", "other", 300 * MIB), GpuUser(8, "Xorg", "desktop", 200 * MIB))
    machine = machine_with(gpu_of(4 * GIB, free=3 * GIB, used_by_others=600 * MIB, users=users))
    text = " ".join(plan(MIDDLE, machine).reasons)
    assert "600 MiB of simulated GPU are in use by others (firefox 300 MiB, Xorg 200 MiB)" in text
    assert "200 MiB of it by the desktop" in text


def test_hard_wishes_are_kept_or_refused() -> None:
    """--ctx and --parallel are kept at the cost of layers; impossible ones say by how much, and what would fit."""
    machine = machine_with(gpu_of(4 * GIB))
    request = Request(context=16_384, parallel=2)
    made = plan(MIDDLE, machine, request)
    check(made, machine, MIDDLE, request)
    assert made.options is not None
    assert (made.options.context, made.options.sequences, made.sequence_context) == (32_768, 2, 16_384)
    request = Request(context=1_000_000, parallel=4)
    refused = plan(MIDDLE, machine, request)
    check(refused, machine, MIDDLE, request)
    assert refused.options is None
    text = " ".join(refused.reasons)
    assert "GiB more than there is" in text
    eased = plan(MIDDLE, machine, Request(goal="context", parallel=4))
    assert f"a context of {eased.sequence_context:,} would fit" in text
    assert refused.memory.host.total > 16 * GIB


def test_who_has_cells_of_their_own() -> None:
    """On the processor each of several asked-for sequences has its own cells; they share them on a GPU, where there is
    only one sequence, and where nobody said how many: then any of them may use the whole context."""
    cpu, gpu = machine_with(), machine_with(gpu_of(8 * GIB))
    for machine, parallel, shared in ((cpu, 4, False), (cpu, 1, True), (cpu, None, True), (gpu, 4, True)):
        made = plan(SMALL, machine, Request(context=2048, parallel=parallel))
        assert made.options is not None
        assert made.options.unified is shared


def test_beyond_the_training_is_allowed_and_said() -> None:
    """A context longer than the model was trained for is the user's wish; the plan warns."""
    made = plan(SMALL, machine_with(gpu_of(8 * GIB)), Request(context=65_536))
    assert made.sequence_context == 65_536
    assert any("trained for 40,960 only" in reason for reason in made.reasons)
    assert plan(SMALL, machine_with(gpu_of(80 * GIB), ram=64 * GIB), Request(goal="context")).sequence_context == 40_960


def test_cache_types_follow_the_layout() -> None:
    """A head that no block divides keeps f16; without flash attention only the K cache may shrink."""
    machine = machine_with(gpu_of(3 * GIB))
    odd = model("odd", layers=36, width=2560, layer_mib=56, output_mib=30, vocabulary=32_000, trained=40_960, head=80)
    made = plan(odd, machine, Request(goal="context"))
    assert made.options is not None
    assert made.options.type_k == made.options.type_v == "f16"
    plain = plan(MIDDLE, machine, Request(goal="context", flash_attention=False))
    assert plain.options is not None
    assert (plain.options.type_k, plain.options.type_v) == ("q8_0", "f16")
    strange = model(
        "192", layers=36, width=2560, layer_mib=56, output_mib=30, vocabulary=32_000, trained=8192, head=192
    )
    off = plan(strange, machine)
    assert off.options is not None
    assert off.options.flash_attention is False
    assert any("Flash attention is off" in reason for reason in off.reasons)
    assert plan(strange, machine_with()).options.flash_attention is True  # type: ignore[union-attr]  # it fits


def test_a_recurrent_model_gains_nothing_from_a_small_context() -> None:
    """Its state has a fixed size: the context is as long as wanted, no cache type is chosen, and it is said."""
    state = LayerFacts(weights=40 * MIB, attention=False, state_bytes=2 * MIB)
    facts = replace(
        SMALL, id="mamba", layers=(state,) * 24, layers_all=24, trained_context=1_048_576,
        state=StateFacts("mamba", 3 * 2048, 16 * 2048, inner=2048, width=16, rank=64, kernel=4),
    )  # fmt: skip
    made = plan(facts, machine_with(gpu_of(2 * GIB)))
    assert made.sequence_context == 8_192
    assert any("fixed size" in reason for reason in made.reasons)
    assert not any("KV cache" in reason for reason in made.reasons)


def test_an_encoder_takes_each_text_in_one_batch() -> None:
    """No KV cache; the micro-batch is the context, no longer than trained."""
    facts = replace(
        SMALL, id="bert", kind="embedding", architecture="bert", causal=False, attends=False, trained_context=512,
        pooling="mean", embedding_output=2048,
    )  # fmt: skip
    made = plan(facts, machine_with(gpu_of(4 * GIB)))
    assert made.options is not None
    assert (made.sequence_context, made.options.micro_batch, made.options.batch) == (512, 512, 512)
    assert not any("KV cache" in reason for reason in made.reasons)


def test_a_projector_is_no_model() -> None:
    """Files that cannot answer are refused with a reason, not planned."""
    made = plan(replace(SMALL, kind="projector", layers=()), machine_with(gpu_of(4 * GIB)))
    assert made.options is None
    assert "beside its model" in made.reasons[0]


def test_a_gtx_16_wants_calibration() -> None:
    """Cards without tensor cores get the note, others do not."""
    for name, noted in (("NVIDIA GeForce GTX 1650", True), ("NVIDIA GeForce RTX 2060", False)):
        made = plan(SMALL, machine_with(gpu_of(4 * GIB, name=name, capability=(7, 5))))
        assert any("calibrated" in reason for reason in made.reasons) == noted


def test_the_best_of_several_gpus_is_taken() -> None:
    """The one with room, by its name for CUDA; a wish for another is kept; the other is an alternative."""
    machine = machine_with(
        gpu_of(2 * GIB, name="small", uuid="GPU-a"), gpu_of(8 * GIB, index=1, name="large", uuid="GPU-b")
    )
    made = plan(MIDDLE, machine)
    assert made.options is not None
    assert (made.gpu, made.gpu_uuid, made.options.gpu) == ("large", "GPU-b", 1)
    assert any(one.reason.startswith("On small") for one in made.rejected)
    wished = plan(MIDDLE, machine, Request(gpu=0))
    assert wished.gpu == "small"


def test_a_gpu_that_shares_memory_counts_once() -> None:
    """Both sides together fit into what the host has."""
    machine = machine_with(gpu_of(8 * GIB, free=6 * GIB, unified=True), ram=8 * GIB)
    made = plan(LARGE, machine)
    check(made, machine, LARGE, Request())
    assert made.memory.device.total + made.memory.host.total <= ram_budget(machine)


def test_no_gpu_is_no_excuse_when_the_processor_is_not_allowed() -> None:
    """allow_cpu=False: a card that is too small is a failure with its figures."""
    made = plan(LARGE, machine_with(gpu_of(300 * MIB)), Request(allow_cpu=False))
    assert made.options is None
    assert made.target == "gpu"
    assert "of its memory" in made.reasons[0]


def test_findings_of_a_calibration_are_kept() -> None:
    """Flash attention, micro-batch, cache type and threads that were measured are not chosen anew."""
    request = Request(flash_attention=False, micro_batch=64, kv="f16", threads=3)
    made = plan(SMALL, machine_with(gpu_of(8 * GIB)), request)
    assert made.options is not None
    options = made.options
    assert (options.flash_attention, options.micro_batch, options.type_k, options.threads) == (False, 64, "f16", 3)


@pytest.mark.parametrize("wish", ["context", "parallel", "micro_batch"])
def test_wishes_below_one_are_refused(wish: str) -> None:
    """A mistake of the caller's, not a plan."""
    with pytest.raises(InvalidRequest, match=f"{wish} is 0"):
        plan(SMALL, machine_with(), replace(Request(), **{wish: 0}))


def test_learned_positions_are_all_there_is() -> None:
    """A context that was asked for, of all models say, ends where the model's table of positions does; one with RoPE
    gets what was asked for."""
    wish = Request(context=8_192, parallel=2)
    for learned, expected in ((True, 512), (False, 8_192)):
        made = plan(replace(SMALL, trained_context=512, learned_positions=learned), machine_with(), wish)
        assert made.options is not None
        assert (made.sequence_context, made.options.context) == (expected, 2 * expected)
        assert any("has no positions for the 8,192" in reason for reason in made.reasons) == learned


def test_more_sequences_than_llama_cpp_has_are_refused() -> None:
    """No load could keep such a plan."""
    most = plan(SMALL, machine_with(), Request(parallel=256, context=256))
    assert most.options is not None
    with pytest.raises(InvalidRequest, match="parallel is 257"):
        plan(SMALL, machine_with(), Request(parallel=257, context=256))


@st.composite
def facts_of_any_model(draw: st.DrawFn) -> ModelFacts:
    """Dense, windowed, recurrent and mixed ones, with odd heads and any sizes."""
    kinds = draw(st.lists(st.sampled_from(["full", "window", "state"]), min_size=1, max_size=40))
    head = draw(st.sampled_from([48, 64, 80, 128, 192, 256]))
    kv_heads = draw(st.integers(1, 8))
    width = head * kv_heads * draw(st.integers(1, 4))
    weights = draw(st.integers(1, 200)) * MIB
    attention = LayerFacts(
        weights=weights, key_cell=kv_heads * head, value_cell=kv_heads * head, heads=max(1, width // head),
        kv_heads=kv_heads, key_length=head, value_length=head, query_width=width, feed_forward=3 * width, gate=True,
    )  # fmt: skip
    recurrent = LayerFacts(weights=weights, attention=False, state_bytes=draw(st.integers(1, 8)) * MIB)
    layers = {"full": attention, "window": replace(attention, window=1_024), "state": recurrent}
    vocabulary = draw(st.integers(1_000, 262_144))
    output = vocabulary * width
    return ModelFacts(
        id="any", path="any", layers=tuple(layers[kind] for kind in kinds), layers_all=len(kinds),
        trained_context=draw(st.sampled_from([0, 100, 2_048, 40_960, 1_048_576])), embedding_length=width,
        vocabulary=vocabulary, input_bytes=output, output_bytes=output, architecture="any",
        state=StateFacts("mamba", 3 * width, 16 * width, inner=width, width=16, rank=64, kernel=4)
        if "state" in kinds else None,
    )  # fmt: skip


REQUESTS = st.builds(
    Request,
    goal=st.sampled_from(GOALS),
    context=st.none() | st.integers(1, 100_000),
    parallel=st.none() | st.integers(1, 16),
    allow_cpu=st.booleans(),
    flash_attention=st.none() | st.booleans(),
)
SIZES = st.integers(0, 24 * GIB)


@settings(max_examples=120, deadline=None)
@given(facts_of_any_model(), REQUESTS, SIZES, st.integers(0, 2 * GIB), st.none() | SIZES, st.integers(1, 64))
def test_a_plan_never_exceeds_the_budget(
    facts: ModelFacts, request_: Request, free: int, margin: int, limit: int | None, ram: int
) -> None:
    """Whatever the model, the machine and the wish: the estimate of the plan is within what it may take."""
    machine = machine_with(gpu_of(24 * GIB, free=free), ram=ram * GIB)
    request = replace(request_, vram_limit=limit)
    check(plan(facts, machine, request, margin=margin), machine, facts, request)


@settings(max_examples=120, deadline=None)
@given(facts_of_any_model(), REQUESTS, SIZES, SIZES, st.integers(1, 64), st.integers(0, 64))
def test_more_memory_never_gives_a_worse_plan(
    facts: ModelFacts, request: Request, free: int, more: int, ram: int, more_ram: int
) -> None:
    """On the card, in the host, or on both."""
    less = machine_with(gpu_of(48 * GIB, free=free), ram=ram * GIB)
    with_more = replace(less, gpus=(gpu_of(48 * GIB, free=free + more),))
    with_all = replace(with_more, ram_total=less.ram_total, ram_available=less.ram_available + more_ram * GIB)
    first, second, third = (quality_key(plan(facts, one, request)) for one in (less, with_more, with_all))
    assert first <= second <= third


@settings(max_examples=60, deadline=None)
@given(facts_of_any_model(), REQUESTS, st.integers(1, 32), st.integers(0, 32))
def test_more_memory_helps_without_a_gpu_too(facts: ModelFacts, request: Request, ram: int, more: int) -> None:
    """The same promise for the processor alone."""
    less = machine_with(ram=ram * GIB)
    with_more = replace(less, ram_available=less.ram_available + more * GIB)
    assert quality_key(plan(facts, less, request)) <= quality_key(plan(facts, with_more, request))


def test_what_is_chosen_is_estimated_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Should the quick estimate ever be too low, the plan still fits by the whole one."""

    def low(self: Estimator, options: LoadOptions) -> Memory:
        whole = estimate(LARGE, options)
        return Memory(replace(whole.device, compute=0), replace(whole.host, compute=0))

    monkeypatch.setattr(Estimator, "__call__", low)
    for machine in (machine_with(gpu_of(4 * GIB)), machine_with(ram=10 * GIB)):
        made = plan(LARGE, machine, Request(goal="context"))
        assert made.options is not None
        check(made, machine, LARGE, Request(goal="context"))


OPTIONS = st.builds(
    LoadOptions,
    gpu_layers=st.integers(0, 45),
    context=st.sampled_from([256, 4_096, 65_536]),
    sequences=st.sampled_from([1, 4, 8]),
    micro_batch=st.sampled_from([64, 128, 512, 1_024]),
    flash_attention=st.booleans(),
    type_k=st.sampled_from(["f16", "q8_0"]),
)


@settings(max_examples=150, deadline=None)
@given(facts_of_any_model(), st.integers(1, 6), OPTIONS)
def test_the_quick_estimate_is_the_whole_one(facts: ModelFacts, times: int, options: LoadOptions) -> None:
    """Leaving out repeated blocks changes nothing that is counted, whatever the pattern."""
    layers = (facts.layers[:8] * times * 2)[:64]
    facts = replace(facts, layers=layers, layers_all=len(layers))
    options = replace(options, gpu_layers=min(options.gpu_layers, len(layers) + 1))
    assert Estimator(facts)(options) == estimate(facts, options, steady=True)
