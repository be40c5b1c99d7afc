"""Dry runs: llama.cpp itself is asked, in a real child process that allocates nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from hybridd.local.dry_run import dry_run
from hybridd.local.facts import ModelFacts, facts_of
from hybridd.local.gguf import open_model
from hybridd.local.machine import look
from hybridd.local.memory import estimate
from hybridd.local.plan import Request, plan
from hybridd.local.types import LoadFailure, LoadOptions, Memory
from plugins.llama_cpp.measure import MIB, measured
from tests.fakes.model_zoo import Zoo


def facts(path: Path) -> ModelFacts:
    return facts_of(open_model(path), path.stem, str(path))


@pytest.mark.parametrize("kind", ["qwen3", "gemma3", "jamba", "bert"])
async def test_llama_cpp_confirms_the_plan(zoo: Zoo, kind: str) -> None:
    """Caches, states and compute buffers of the dry run are those predicted; weights are the tensor table's."""
    one = facts(zoo.path(kind))
    options = LoadOptions(context=2048, sequences=2, outputs=4, batch=512)
    told = await dry_run(one, options)
    assert isinstance(told, Memory)
    predicted = estimate(one, options)
    assert told.host.weights == one.weights
    assert told.host.kv == pytest.approx(predicted.host.kv, abs=MIB // 64)
    assert told.host.recurrent == pytest.approx(predicted.host.recurrent, rel=0.02, abs=MIB // 64)
    assert told.host.compute == pytest.approx(predicted.host.compute, rel=0.1, abs=MIB)
    assert told.device.total == 0


async def test_an_encoders_batch_is_shared_out_evenly(zoo: Zoo) -> None:
    """Any context with any number of sequences can be loaded: what is planned rounds the batch up, and so does who asks
    llama.cpp."""
    one = facts(zoo.path("bert"))
    planned = plan(one, look(), Request(context=301, parallel=3)).options
    assert planned is not None
    assert (planned.micro_batch, planned.batch) == (303, 303)
    for options in (planned, LoadOptions(context=301, sequences=8, batch=301, micro_batch=301)):
        assert isinstance(await dry_run(one, options), Memory)


async def test_a_file_that_llama_cpp_refuses_is_a_bad_file(zoo: Zoo, tmp_path: Path) -> None:
    """The child's failure comes back as a cause and a sentence, not as an exception."""
    one = facts(zoo.path("llama"))
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(Path(one.path).read_bytes()[:200_000])
    told = await dry_run(replace(one, path=str(cut)), LoadOptions())
    assert isinstance(told, LoadFailure)
    assert told.cause == "bad_file"
    assert "cut.gguf" in told.message


async def test_a_file_that_makes_llama_cpp_abort_is_a_bad_file(zoo: Zoo, tmp_path: Path) -> None:
    """llama.cpp aborts on two tokens of the same text; the process that dies is not ours."""
    one = facts(zoo.path("llama"))
    twins = tmp_path / "twins.gguf"
    twins.write_bytes(Path(one.path).read_bytes().replace("▁w17".encode(), "▁w16".encode(), 1))
    told = await dry_run(replace(one, path=str(twins)), LoadOptions())
    assert isinstance(told, LoadFailure)
    assert told.cause == "bad_file"
    assert "GGML_ASSERT" in told.message


async def test_an_impossible_cache_is_refused(zoo: Zoo) -> None:
    """Quantised values without flash attention are nothing llama.cpp can do; it says so before anything is loaded."""
    one = facts(zoo.path("llama"))
    told = await dry_run(one, LoadOptions(flash_attention=False, type_v="q4_0"))
    assert isinstance(told, LoadFailure)
    assert told.cause == "runtime"


async def test_a_child_that_does_not_answer_is_killed(zoo: Zoo) -> None:
    """After its time the child is gone and the cause is ``hung``."""
    told = await dry_run(facts(zoo.path("llama")), LoadOptions(), seconds=0.001)
    assert isinstance(told, LoadFailure)
    assert told.cause == "hung"


LOG = """load_tensors:   CPU_Mapped model buffer size =   100.00 MiB
load_tensors:   CPU_REPACK model buffer size =    40.00 MiB
load_tensors:        CUDA0 model buffer size =   900.00 MiB
llama_context:  CUDA_Host  output buffer size =     2.00 MiB
llama_kv_cache:        CPU KV buffer size =    10.00 MiB
llama_kv_cache:      CUDA0 KV buffer size =    54.00 MiB
llama_kv_cache: size =   64.00 MiB (  4096 cells,  16 layers,  1/1 seqs), K (f16):   32.00 MiB, V (f16):   32.00 MiB
llama_memory_recurrent:      CUDA0 RS buffer size =     3.00 MiB
sched_reserve:      CUDA0 compute buffer size =   304.00 MiB
sched_reserve:  CUDA_Host compute buffer size =    12.00 MiB
sched_reserve:      CUDA0 compute buffer size =   300.00 MiB
~llama_context:      CUDA0 compute buffer size is 300.0000 MiB, matches expectation of 300.0000 MiB
"""


def test_the_log_is_read_by_part_and_side() -> None:
    """Pinned host buffers are the host's; a buffer reserved again is counted once; repacked weights not twice."""
    found = measured(LOG.splitlines(keepends=True))
    assert (found.device.weights, found.device.kv, found.device.recurrent, found.device.compute) == (
        900 * MIB, 54 * MIB, 3 * MIB, 300 * MIB,
    )  # fmt: skip
    assert (found.host.weights, found.host.kv, found.host.compute, found.host.output) == (
        100 * MIB, 10 * MIB, 12 * MIB, 2 * MIB,
    )  # fmt: skip
    assert found.repacked == 40 * MIB


def test_the_log_may_come_in_pieces() -> None:
    """llama.cpp's callback is called with parts of lines."""
    assert measured([LOG[at : at + 7] for at in range(0, len(LOG), 7)]) == measured([LOG])


def test_a_simulated_cache_is_split_by_its_layers() -> None:
    """A dry run prints buffers of 0 bytes; the summary and the devices of the layers tell the rest."""
    log = """llama_kv_cache: layer   0: dev = CPU
llama_kv_cache: layer   1: dev = CUDA0
llama_kv_cache: layer   2: dev = CUDA0
llama_kv_cache: layer   3: dev = CUDA0
llama_kv_cache:        CPU KV buffer size =     0.00 MiB
llama_kv_cache:      CUDA0 KV buffer size =     0.00 MiB
llama_kv_cache: size =   64.00 MiB (  4096 cells,   4 layers,  1/1 seqs), K (f16):   32.00 MiB, V (f16):   32.00 MiB
"""
    found = measured([log])
    assert (found.host.kv, found.device.kv) == (16 * MIB, 48 * MIB)
