"""What planning, loading and serving say to each other. Plain frozen values; all memory is in bytes."""

from __future__ import annotations

from typing import Literal

import msgspec

Goal = Literal["quality", "context", "throughput"]
KvType = Literal["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"]
Cause = Literal["weights", "kv", "runtime", "bad_file", "driver", "hung"]
Target = Literal["gpu", "cpu"]
Fit = Literal["gpu", "partly", "memory", "no"]
"""All layers on the GPU, some of them, none, or no way at all."""


class LoadOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How llama.cpp loads a model; the names are its own where it has one.

    ``gpu_layers``: 0 … layers + 1, the output layer counts as one (llama.cpp's ``n_gpu_layers``). ``context``: cells of
    the whole KV cache, all ``sequences`` together (``n_ctx``); with ``unified`` they share them, otherwise each has
    context / sequences. ``batch`` and ``micro_batch``: tokens (``n_batch``, ``n_ubatch``).
    """

    gpu_layers: int = 0
    context: int = 4096
    sequences: int = 1
    unified: bool = True
    type_k: KvType = "f16"
    type_v: KvType = "f16"
    flash_attention: bool = True
    batch: int = 2048
    micro_batch: int = 512
    threads: int = 0
    """0: as many as the machine's cores allow."""
    gpu: int = 0
    """Index of the GPU that takes the offloaded layers."""
    outputs: int = 0
    """Tokens of one batch whose logits may be asked for (``n_outputs_max``); 0: all of them. Each takes a row of the
    vocabulary in the compute buffer."""


class MemoryUse(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes on one side (a GPU, or the host)."""

    weights: int = 0
    kv: int = 0
    recurrent: int = 0
    compute: int = 0
    output: int = 0
    runtime: int = 0
    """The CUDA context and libraries on a GPU; the worker process itself on the host."""
    projector: int = 0
    draft: int = 0

    @property
    def total(self) -> int:
        return (
            self.weights + self.kv + self.recurrent + self.compute + self.output + self.runtime + self.projector
            + self.draft
        )  # fmt: skip


class Memory(msgspec.Struct, frozen=True):
    """What a load takes on the GPU and on the host. Weights mapped from the file count as host memory."""

    device: MemoryUse = MemoryUse()
    host: MemoryUse = MemoryUse()


class Alternative(msgspec.Struct, frozen=True):
    """A plan that was looked at and not taken. ``needs``: bytes on the side that was short."""

    options: LoadOptions
    reason: str
    needs: int


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """The best feasible way to load ``model``, and why. ``options`` None: it does not fit, ``reasons`` say why not.

    ``budget``: bytes that the load may take on the target's side; ``margin``: bytes of it kept free, learned.
    """

    model: str
    goal: Goal
    target: Target
    options: LoadOptions | None
    memory: Memory
    layers: int
    budget: int
    margin: int
    reasons: list[str] = []
    rejected: list[Alternative] = []
    gpu: str = ""
    """Name of the GPU; ``options.gpu`` is its index."""
    gpu_uuid: str = ""
    """For ``CUDA_VISIBLE_DEVICES``: the driver's order of GPUs need not be CUDA's own."""
    sequence_context: int = 0
    """Tokens that each sequence may use: the whole context where the sequences share it, otherwise its part."""


class FilePlan(msgspec.Struct, frozen=True, kw_only=True):
    """One model of a repository. Bytes; ``fit``: gpu, partly, memory or no; ``context``: tokens of one sequence;
    ``taken``: what a pull without a file would take."""

    file: str
    quantization: str
    bytes: int
    fit: Fit
    gpu_layers: int | None
    layers: int
    context: int | None
    sequences: int | None
    kv: str | None
    device: int
    host: int
    taken: bool
    reasons: list[str]


class RepositoryPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What a repository's models would be here. ``reasons``: why one is taken, or none; ``plan``: in full, when one
    file was asked for. ``repo`` is the address of a file that is in no repository."""

    repo: str
    revision: str
    files: list[FilePlan]
    reasons: list[str]
    plan: Plan | None = None


class LoadFailure(msgspec.Struct, frozen=True):
    """Why a worker could not load its model."""

    cause: Cause
    message: str
