"""What llama.cpp says it allocated, by part and by side, read from its log.

Its lines name the part, the kind of buffer and MiB with two decimals, so a size is right to 5 KiB. Buffers of the
processor, and a GPU's pinned buffers on the host (``CUDA_Host``), are the host's; all others are the device's. In a dry
run (``no_alloc``) weights and caches are printed as 0; the cache's summary and the devices of its layers still tell.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

MIB = 2**20
_BUFFER = re.compile(
    r"(?P<by>\w+):\s+(?P<where>\S+)\s+(?P<part>model|output|KV|RS|compute|LoRA)\s+buffer size =\s+(?P<size>[\d.]+) MiB"
)
_CACHE = re.compile(r"\w+: size =\s+(?P<size>[\d.]+) MiB \(\s*(?P<cells>\d+) cells,\s+(?P<layers>\d+) layers.*K \(")
_LAYER = re.compile(r"llama_kv_cache: layer\s+(?P<layer>\d+): dev = (?P<where>\S+)")
_PARTS = {
    "model": "weights",
    "output": "output",
    "KV": "kv",
    "RS": "recurrent",
    "compute": "compute",
    "LoRA": "weights",
}
_HOST = ("CPU", "BLAS", "AMX")


class Use(msgspec.Struct):
    """Bytes on one side; the fields are those of hybridd's ``MemoryUse`` that llama.cpp tells."""

    weights: int = 0
    kv: int = 0
    recurrent: int = 0
    compute: int = 0
    output: int = 0


class Buffer(msgspec.Struct, frozen=True):
    """One line of the log. ``where``: llama.cpp's name of the kind of buffer (``CPU_Mapped``, ``CUDA0``, …)."""

    part: str
    where: str
    bytes: int


class Measured(msgspec.Struct):
    """Everything that one load logged. ``repacked``: weights that the processor's kernels keep in an order of their
    own, in memory instead of mapped from the file (a part of ``host.weights``)."""

    device: Use = msgspec.field(default_factory=Use)
    host: Use = msgspec.field(default_factory=Use)
    repacked: int = 0
    buffers: list[Buffer] = []


def is_host(where: str) -> bool:
    return where.startswith(_HOST) or where.endswith("_Host") or where == "Host"


def measured(lines: Iterable[str]) -> Measured:
    """Reads the log of a model's load and of its context's creation; pieces of lines may come apart anywhere."""
    result = Measured()
    pending: list[str] = []
    mapped = 0
    compute: dict[str, int] = {}
    for line in "".join(lines).splitlines():
        if line.startswith("~"):  # a context says at its end what it had taken
            continue
        if found := _BUFFER.search(line):
            size = round(float(found["size"]) * MIB)
            part, where = _PARTS[found["part"]], found["where"]
            result.buffers.append(Buffer(part, where, size))
            if part == "compute":  # said again when the reservation is repeated
                compute[where] = size
                continue
            if where.endswith("_REPACK"):
                result.repacked += size
            mapped += size if where.endswith("_Mapped") else 0
            _add(result.host if is_host(where) else result.device, part, size)
        elif found := _LAYER.search(line):
            pending.append(found["where"])
        elif found := _CACHE.search(line):
            _dry_cache(result, round(float(found["size"]) * MIB), pending)
            pending = []
    for where, size in compute.items():
        _add(result.host if is_host(where) else result.device, "compute", size)
    # What is repacked was read through the mapping, whose length llama.cpp prints with that hole in it.
    result.host.weights -= min(result.repacked, mapped)
    return result


def _dry_cache(result: Measured, size: int, layers: list[str]) -> None:
    """A cache that is only simulated prints buffers of 0 bytes: its total is split by where its layers are."""
    told = [buffer for buffer in result.buffers if buffer.part == "kv"]
    if not layers or any(buffer.bytes for buffer in told[-2:]):
        return
    here = sum(is_host(where) for where in layers)
    result.host.kv += size * here // len(layers)
    result.device.kv += size * (len(layers) - here) // len(layers)


def _add(use: Use, part: str, size: int) -> None:
    setattr(use, part, getattr(use, part) + size)
