"""What a model takes of the GPU's and the host's memory when it is loaded in a given way. Pure.

* Weights: ``llama_model_base::load_tensors``. Block ``i`` is on the GPU from ``layers + 1 - gpu_layers`` on, the output
  layer counting as one more; the embedding table always stays on the host. An output that reuses the embedding table
  needs a copy of it on the GPU.
* KV cache and recurrent state: on the side of their block (``offload_kqv``), see :mod:`hybridd.local.kv` and
  ``llama_memory_recurrent``: f32, one state for each sequence.
* Compute: :mod:`hybridd.local.compute`.
* Output: rows of logits and vectors that are handed out (``llama_context::output_reserve``).
* Runtime: the CUDA context and what its libraries keep; on the host, the worker process without any of the above.
"""

from __future__ import annotations

from msgspec.structs import replace

from hybridd.local import kv
from hybridd.local.compute import batch_of, compute_buffers
from hybridd.local.compute_trace import F32
from hybridd.local.facts import ModelFacts
from hybridd.local.facts_layers import LayerFacts
from hybridd.local.types import LoadOptions, Memory, MemoryUse

MIB = 2**20
CUDA_CONTEXT = 220 * MIB
"""A CUDA context with its kernels and cuBLAS's workspace: 150 to 250 MiB on the cards this is for. An assumption, not
measured here; what a driver really takes is learned from residuals."""
WORKER = 64 * MIB
"""Resident memory of the worker without a model: 48 MiB measured with llama.cpp and the engine imported, the rest for
templates, samplers and threads' stacks."""
VOCABULARY_ENTRY = 300
"""Bytes of a token in llama.cpp's tables (text, map of ids, pieces): 155 measured with SentencePiece vocabularies of
33,000 and 152,000; merges of a byte-pair vocabulary are counted with as much again."""


def estimate(facts: ModelFacts, options: LoadOptions, *, steady: bool = False) -> Memory:
    """Bytes by part and side. ``projector`` and ``draft`` are added by :func:`with_companions`.

    ``steady``: for a search, which needs numbers that never fall where a context or a batch grows; a little higher.
    """
    layers = facts.layers
    first = max(facts.layers_all + 1 - options.gpu_layers, 0)
    on_device = layers[first:] if options.gpu_layers > 0 else ()
    on_host = layers[: len(layers) - len(on_device)]
    host_compute, device_compute = compute_buffers(facts, options, steady=steady)
    output_on_device = options.gpu_layers > 0
    device = MemoryUse(
        weights=sum(layer.weights for layer in on_device) + (_output(facts) if output_on_device else 0),
        kv=_kv(on_device, facts, options),
        recurrent=_states(on_device, options),
        compute=device_compute,
        runtime=CUDA_CONTEXT if options.gpu_layers > 0 else 0,
    )
    host = MemoryUse(
        weights=facts.input_bytes + sum(layer.weights for layer in on_host)
        + (0 if output_on_device else facts.output_bytes),
        kv=_kv(on_host, facts, options),
        recurrent=_states(on_host, options),
        compute=host_compute,
        output=_handed_out(facts, options),
        runtime=WORKER + facts.vocabulary * VOCABULARY_ENTRY,
    )  # fmt: skip
    return Memory(device=device, host=host)


def with_companions(
    memory: Memory, options: LoadOptions, *, projector: ModelFacts | None = None, draft: Memory | None = None
) -> Memory:
    """``memory`` with a multimodal projector (its tensors and as much again as its largest activations take, at least
    a tenth; ``clip.cpp`` reserves for one image) and a draft model, on the side of the model."""
    seen = projector.weights + max(projector.weights // 10, 64 * MIB) if projector is not None else 0
    on_device = options.gpu_layers > 0
    guess_device = draft.device.total - draft.device.runtime if draft is not None else 0
    guess_host = draft.host.total - draft.host.runtime if draft is not None else 0
    return Memory(
        device=replace(memory.device, projector=seen if on_device else 0, draft=guess_device),
        host=replace(memory.host, projector=0 if on_device else seen, draft=guess_host),
    )


def _output(facts: ModelFacts) -> int:
    return facts.output_bytes + (facts.embedding_bytes if facts.tied else 0)


def _kv(layers: tuple[LayerFacts, ...], facts: ModelFacts, options: LoadOptions) -> int:
    return sum(kv.layer_bytes(layer, facts, options) for layer in layers)


def _states(layers: tuple[LayerFacts, ...], options: LoadOptions) -> int:
    return sum(layer.state_bytes for layer in layers) * max(options.sequences, 1)


def _handed_out(facts: ModelFacts, options: LoadOptions) -> int:
    """Logits are kept even when only vectors are asked for; a vector of every token is."""
    batch = batch_of(facts, options)
    if facts.kind == "embedding":
        return (facts.vocabulary + facts.embedding_output) * max(batch.tokens, options.sequences) * F32
    return facts.vocabulary * max(options.sequences, min(options.outputs, batch.outputs)) * F32
