"""Records what llama.cpp would take on a GPU, by dry runs with a stand-in for one.

``python -m tests.local.offload_sizes LIBRARY`` prints the recording (see ``tests/fakes/standin_gpu.cpp``). The zoo's
models are the same wherever they are made, so the recording holds for them everywhere.
"""

from __future__ import annotations

import ctypes
import os
import sys
import tempfile
from pathlib import Path

import msgspec
from msgspec.structs import replace

from hybridd.local.facts import ModelFacts, facts_of
from hybridd.local.gguf import open_model
from hybridd.local.types import LoadOptions
from plugins.llama_cpp import dry_run
from plugins.llama_cpp.measure import Measured, Use
from tests.fakes.model_zoo import KINDS, Zoo

FILE = Path(__file__).with_name("offload_sizes.json")
SCALE = {"width": 512, "layers": 8, "feed_forward": 1536, "vocabulary": 16384, "weights": "q8_0"}
WAYS = (
    LoadOptions(context=4096, outputs=8),
    LoadOptions(context=2048, sequences=4, flash_attention=False),
    LoadOptions(context=8192, sequences=4, unified=False),
)


class Recorded(msgspec.Struct, frozen=True):
    kind: str
    options: LoadOptions
    device: Use
    host: Use


def facts(path: Path) -> ModelFacts:
    return facts_of(open_model(path), path.stem, str(path))


def wanted(one: ModelFacts) -> list[LoadOptions]:
    """All layers on the GPU, all but the first, and half of them."""
    ways = [replace(way, batch=512, outputs=0) for way in WAYS] if one.kind == "embedding" else WAYS
    layers = len(one.layers)
    return [replace(way, gpu_layers=count) for count in (layers + 1, layers, layers // 2) for way in ways]


def main(library: str) -> None:
    os.environ["GGML_NO_BACKTRACE"] = "1"
    from llama_cpp import llama_cpp

    llama_cpp.llama_backend_init()
    ctypes.CDLL(library).standin_register()
    found: list[Recorded] = []
    with tempfile.TemporaryDirectory() as folder:
        zoo = Zoo(Path(folder))
        for kind in KINDS:
            one = facts(zoo.path(kind, **SCALE))
            for options in wanted(one):
                told = dry_run.look(dry_run.Asked(one.path, msgspec.to_builtins(options)))
                assert isinstance(told, Measured), told
                found.append(Recorded(kind, options, told.device, told.host))
    lines = [msgspec.json.encode(one).decode() for one in found]
    sys.stdout.write("[\n" + ",\n".join(lines) + "\n]\n")


def recorded() -> list[Recorded]:
    return msgspec.json.decode(FILE.read_bytes(), type=list[Recorded])


if __name__ == "__main__":
    main(sys.argv[1])
