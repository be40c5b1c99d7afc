"""Which ways of loading a model are worth looking at, by its layout and by what was asked for."""

from __future__ import annotations

from typing import Literal, NamedTuple

from msgspec import Struct

from hybridd.local.facts import ModelFacts
from hybridd.local.types import Goal, KvType, LoadOptions

Dimension = Literal["layers", "context", "kv", "micro_batch", "sequences"]

# Tokens. A chat, a page of code and their answers fit into FLOOR; WANTED is as much as most requests ever use.
FLOOR = 4_096
WANTED = 8_192
SHARE_FLOOR = 2_048
"""Of each of several parallel sequences."""
MAX_SEQUENCES = 256
"""llama.cpp's LLAMA_MAX_SEQ: no context is made for more."""
_STEP = 1_024
_SMALL = (256, 512, 1_024, 2_048)
_UNKNOWN_TRAINED = 4_096

_BLOCK = 32
"""Values in a block of the quantised cache types offered here (ggml: QK8_0, QK4_0, …)."""
_F16: tuple[KvType, KvType] = ("f16", "f16")
_FLASH_HEADS = frozenset({40, 64, 72, 80, 96, 112, 128, 256, 512})
"""Head sizes that ggml-cuda has flash attention kernels for (ggml/src/ggml-cuda/fattn.cu). Others would be computed on
the processor, in the middle of every layer."""
_FLASH_PAIRS = frozenset({(192, 128), (320, 256), (576, 512)})
"""The same where K and V differ."""


class Request(Struct, frozen=True, kw_only=True):
    """What a load should be good for.

    ``context`` (tokens that each sequence may use) and ``parallel`` (sequences at once) are hard wishes; None leaves
    them to the goal. ``vram_limit``: bytes that all models may take on GPUs together, ``reserved`` of them being held
    by models that stay; ``ram_limit``: of the host's memory that this one may take. ``allow_cpu``: no GPU, or one that
    is too small, is no reason to fail. The rest are findings of a calibration or settings, kept as they are:
    ``flash_attention``, ``micro_batch``, ``kv`` (both caches), ``threads``, ``gpu`` (the only one looked at).
    """

    goal: Goal = "quality"
    context: int | None = None
    parallel: int | None = None
    vram_limit: int | None = None
    reserved: int = 0
    ram_limit: int | None = None
    allow_cpu: bool = True
    flash_attention: bool | None = None
    micro_batch: int | None = None
    kv: KvType | None = None
    threads: int | None = None
    gpu: int | None = None


class Choice(NamedTuple):
    """A point of the space: indices into its dimensions, a higher one is better and takes more memory. ``layers`` is
    the number itself, llama.cpp's ``n_gpu_layers``."""

    layers: int
    context: int = 0
    kv: int = 0
    micro_batch: int = 0
    sequences: int = 0


class Space(Struct, frozen=True, kw_only=True):
    """Candidates of each dimension, the cheapest first.

    ``shared``: the sequences share the context, any of them may use all of it; otherwise each has its own.
    ``whole_batch``: an input must fit into one micro-batch (encoders see all tokens at once).
    """

    layers: tuple[int, int]
    """The least and the most."""
    context: tuple[int, ...]
    kv: tuple[tuple[KvType, KvType], ...]
    micro_batch: tuple[int, ...]
    sequences: tuple[int, ...]
    shared: bool
    flash: bool
    whole_batch: bool = False
    threads: int = 0
    gpu: int = 0

    def options(self, choice: Choice) -> LoadOptions:
        context, sequences = self.context[choice.context], self.sequences[choice.sequences]
        type_k, type_v = self.kv[choice.kv]
        # llama.cpp shares an encoder's batch out evenly among the sequences, and aborts where that leaves a rest.
        micro = -(-context // sequences) * sequences if self.whole_batch else self.micro_batch[choice.micro_batch]
        return LoadOptions(
            gpu_layers=choice.layers,
            context=context if self.shared else context * sequences,
            sequences=sequences,
            # Cells of their own keep a sequence's attention off those of others: 5-16 % more tokens/s at 2 to 8 callers
            # on 2 cores. A GPU would read its weights once more for each gap between the sequences at work.
            unified=self.shared or sequences == 1 or choice.layers > 0,
            type_k=type_k,
            type_v=type_v,
            flash_attention=self.flash,
            batch=max(micro, 2_048) if not self.whole_batch else micro,
            micro_batch=micro,
            threads=self.threads,
            gpu=self.gpu,
            # The engine asks for one row of each sequence at most. Room for the logits of a whole micro-batch would be
            # 300 MB with a vocabulary of 152,000.
            outputs=0 if self.whole_batch else sequences,
        )


class Step(NamedTuple):
    """Raise ``dimension``, not above ``cap`` (in its own unit; None: as far as it goes).

    ``whole``: to the cap or not at all.
    """

    dimension: Dimension
    cap: int | None = None
    whole: bool = False

    def worth(self, value: int) -> int:
        """What a value counts in this step."""
        if self.cap is None:
            return value
        return int(value >= self.cap) if self.whole else min(value, self.cap)


def steps(goal: Goal, layers: int) -> tuple[Step, ...]:
    """What matters, the most important first. A plan is better when it is ahead in the first step in which two differ.

    quality: a usable context; all layers on the GPU; an exact cache, also where it costs a few layers of a model that
    is split anyway; layers; the wanted context; wide prompts; more callers.
    context: a usable context; half of the layers; the longest context; more layers; an exact cache; then as above.
    throughput: a usable share for each of four callers; layers; up to eight callers; wide prompts; a longer share.
    """
    if goal == "context":
        half = Step("layers", (layers + 1) // 2)
        return (
            Step("context", FLOOR), half, Step("context"), Step("layers"), Step("kv"), Step("micro_batch"),
            Step("sequences"),
        )  # fmt: skip
    if goal == "throughput":
        return (
            Step("context", SHARE_FLOOR), Step("sequences", 4), Step("layers"), Step("sequences", 8),
            Step("micro_batch"), Step("kv"), Step("context", FLOOR),
        )  # fmt: skip
    return (
        Step("context", FLOOR), Step("layers", layers + 1, whole=True), Step("kv"), Step("layers"),
        Step("context", WANTED), Step("micro_batch"), Step("sequences"),
    )  # fmt: skip


def space(facts: ModelFacts, request: Request, *, gpu: int | None, threads: int) -> Space:
    """The candidates on GPU number ``gpu``, or (None) on the processor alone."""
    flash = request.flash_attention if request.flash_attention is not None else gpu is None or _flash(facts)
    own_share = request.parallel is not None or request.goal == "throughput"
    return Space(
        layers=(0, 0) if gpu is None else (1, block_count(facts) + 1),
        context=_contexts(facts, request),
        kv=_kv(facts, request, flash),
        micro_batch=_micro_batches(request),
        sequences=_sequences(request),
        shared=not own_share,
        flash=flash,
        whole_batch=whole_batch(facts),
        threads=request.threads or threads,
        gpu=gpu or 0,
    )


def trained(facts: ModelFacts) -> int:
    """Tokens; a file that does not say gets llama.cpp's own careful default."""
    return facts.trained_context or _UNKNOWN_TRAINED


def _contexts(facts: ModelFacts, request: Request) -> tuple[int, ...]:
    most = trained(facts)
    if request.context is not None:
        # llama.cpp aborts where a table of learned positions ends; turned ones (RoPE) only get worse.
        return (min(request.context, most) if facts.learned_positions else request.context,)
    if request.goal != "context" or facts.kind == "embedding":
        most = min(most, WANTED)
    candidates = [size for size in _SMALL if size < most]
    candidates += range(_SMALL[-1] + _STEP, most, _STEP)
    return (*candidates, most)


def _sequences(request: Request) -> tuple[int, ...]:
    if request.parallel is not None:
        return (request.parallel,)
    return tuple(range(1, 9)) if request.goal == "throughput" else (1, 2, 4, 8)


def _micro_batches(request: Request) -> tuple[int, ...]:
    if request.micro_batch is not None:
        return (request.micro_batch,)
    return (128, 256, 512, 1_024) if request.goal == "throughput" else (128, 256, 512)


def _kv(facts: ModelFacts, request: Request, flash: bool) -> tuple[tuple[KvType, KvType], ...]:
    """Cache types, the exact one last. llama.cpp refuses a quantised V cache without flash attention, and a type whose
    block does not divide the head (llama_init_from_model)."""
    if request.kv is not None:
        return ((request.kv, request.kv),)
    sizes = heads(facts)
    if not cached(facts) or any(key % _BLOCK for key, _ in sizes):
        return (_F16,)
    if flash and not any(value % _BLOCK for _, value in sizes):
        return (("q8_0", "q8_0"), _F16)
    # Half a saving: the K cache may be quantised by itself, as long as no kernel wants both of one type.
    return (_F16,) if flash else (("q8_0", "f16"), _F16)


def _flash(facts: ModelFacts) -> bool:
    """Does ggml-cuda compute this model's attention in one kernel?"""
    return all(key in _FLASH_HEADS if key == value else (key, value) in _FLASH_PAIRS for key, value in heads(facts))


def block_count(facts: ModelFacts) -> int:
    """Layers without the output layer, as llama.cpp counts them."""
    return max(facts.layers_all, len(facts.layers))


def heads(facts: ModelFacts) -> frozenset[tuple[int, int]]:
    """Sizes of a key and a value, of the layers that keep them."""
    return frozenset((layer.key_length, layer.value_length) for layer in facts.layers if layer.attention and layer.cell)


def whole_batch(facts: ModelFacts) -> bool:
    """Encoders look at all tokens of a text at once: llama.cpp takes it in one micro-batch or not at all."""
    return not facts.causal


def cached(facts: ModelFacts) -> bool:
    """Does the context take memory?"""
    return facts.attends and any(layer.cell for layer in facts.layers)
