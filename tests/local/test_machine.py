"""The machine's facts: GPUs with who uses them, drivers that are absent, asleep or hung, control groups, back ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]  # it ships no types
import pytest

from hybridd.local import host, machine
from hybridd.local.gpus import Gpu
from hybridd.local.nvml import Nvml
from tests.fakes import nvml

GIB = 1 << 30


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nvml.build(tmp_path_factory.mktemp("nvml"))


def looked(driver: Path, mood: str, arguments: str = "", **environment: str) -> Any:
    program = (
        "import msgspec, sys; from hybridd.local import machine\n"
        f"facts = machine.look({arguments})\n"
        "print(msgspec.json.encode(facts).decode())\n"
        "assert 'llama_cpp' not in sys.modules"
    )
    return json.loads(nvml.printed(driver, mood, program, **environment))


def test_a_machine_without_a_driver_says_why() -> None:
    """No GPU is a fact with a reason; memory and processors are there all the same."""
    facts = machine.look()
    assert facts.gpus == ()
    assert facts.gpu_reason.startswith("no NVIDIA driver")
    assert 0 < facts.ram_available <= facts.ram_total <= psutil.virtual_memory().total
    assert 1 <= facts.physical_cores <= facts.cores <= (os.cpu_count() or 1)
    assert facts.machine_id == machine.look().machine_id


def test_a_gpu_tells_who_uses_it(driver: Path) -> None:
    """Own workers, the desktop and others are told apart; a process that computes and draws is counted once; own memory
    is not others'."""
    with named_process("Xorg") as desktop:
        facts = looked(
            driver, "ok", f"own=[{os.getpid()}]",
            FAKE_NVML_COMPUTE=f"{os.getpid()}:{300 << 20},{desktop.pid}:{100 << 20},999999:?",
            FAKE_NVML_GRAPHICS=f"{desktop.pid}:{200 << 20}",
        )  # fmt: skip
    (gpu,) = facts["gpus"]
    assert (gpu["total"], gpu["free"], gpu["uuid"], gpu["capability"]) == (4 * GIB, 3 * GIB, "GPU-0", [7, 5])
    assert [(user["kind"], user["used"]) for user in gpu["users"]] == [
        ("own", 300 << 20), ("desktop", 200 << 20), ("other", None),
    ]  # fmt: skip
    assert gpu["users"][1]["name"] == "Xorg"
    assert gpu["used_by_others"] == GIB - (300 << 20)


class named_process:  # reads as a function
    """A real process of a given name that waits."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> subprocess.Popen[bytes]:
        self._process = subprocess.Popen(
            [sys.executable, "-c", f"import ctypes, os\nctypes.CDLL(None).prctl(15, b'{self._name}', 0, 0, 0)\n"
             "os.write(1, b'.')\nos.read(0, 1)"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert self._process.stdout is not None
        assert self._process.stdout.read(1) == b"."
        return self._process

    def __exit__(self, *_: object) -> None:
        self._process.communicate(b".", timeout=10)


def test_several_gpus_are_listed_in_the_drivers_order(driver: Path) -> None:
    """Each with its own free memory and its own name for CUDA."""
    gpus = looked(driver, "two")["gpus"]
    assert [(gpu["index"], gpu["uuid"], gpu["free"]) for gpu in gpus] == [
        (0, "GPU-0", 3 * GIB),
        (1, "GPU-1", 4 * GIB - GIB // 2),
    ]


def test_a_split_gpu_is_its_instances(driver: Path) -> None:
    """With MIG on only the instances can run anything; gaps in their numbers are passed over."""
    gpus = looked(driver, "mig")["gpus"]
    assert [(gpu["index"], gpu["uuid"], gpu["mig"], gpu["total"]) for gpu in gpus] == [
        (0, "MIG-4", True, 2 * GIB),
        (1, "MIG-6", True, 2 * GIB),
    ]
    assert gpus[0]["capability"] == [7, 5]


def test_a_gpu_without_memory_of_its_own_shares_the_hosts(driver: Path) -> None:
    """Its total is the host's, and it is said."""
    facts = looked(driver, "unified")
    (gpu,) = facts["gpus"]
    assert gpu["unified"] is True
    assert gpu["total"] == psutil.virtual_memory().total
    assert "shares the host's" in gpu["reason"]


@pytest.mark.parametrize(("mood", "free"), [("bare", 3 * GIB), ("secret", 3 * GIB)])
def test_what_the_driver_does_not_tell_hides_nothing_else(driver: Path, mood: str, free: int) -> None:
    """Without names, processes or MIG the memory is known all the same."""
    (gpu,) = looked(driver, mood)["gpus"]
    assert gpu["free"] == free
    assert gpu["users"] == []
    assert ("does not say who" in gpu["reason"]) == (mood == "secret")


@pytest.mark.parametrize(
    ("mood", "reason"),
    [("none", "there is no GPU"), ("lost", "does not answer"), ("hang", "hangs: no answer for 0.5 s")],
)
def test_troubles_of_the_driver_are_reasons(driver: Path, mood: str, reason: str) -> None:
    """No GPU, a lost one, a driver that hangs: no exception, the host's facts are there, and the process ends."""
    facts = looked(driver, mood, "timeout=0.5")
    assert facts["gpus"] == []
    assert reason in facts["gpu_reason"]
    assert facts["ram_total"] > 0


def test_a_hung_driver_costs_one_thread() -> None:
    """While one question hangs no other is started; when it comes back at last, GPUs are seen again."""
    release, started = threading.Event(), []

    def hang(_wake: bool) -> tuple[tuple[Gpu, ...], str]:
        started.append(1)
        release.wait(30)
        return (Gpu(index=0, name="late", total=1, free=1),), ""

    guarded = machine.Guarded(hang)
    assert guarded.ask(0.01, True)[1] == "the NVIDIA driver hangs: no answer for 0.01 s"
    assert "earlier question" in guarded.ask(30, True)[1]
    assert started == [1]
    release.set()
    assert guarded._hanging is not None
    guarded._hanging.join(30)
    assert guarded.ask(30, True)[0][0].name == "late"


def test_a_library_that_raises_is_a_reason() -> None:
    """Whatever comes out of the driver's library, the look goes on."""

    def broken(_wake: bool) -> tuple[tuple[Gpu, ...], str]:
        raise ValueError("odd")

    assert machine.Guarded(broken).ask(5, True) == ((), "the GPU cannot be asked: ValueError: odd")


def test_a_sleeping_gpu_is_woken_only_when_asked(tmp_path: Path) -> None:
    """A look for a plan wakes it, a look in passing does not even load the library."""
    folder = nvml.pci(tmp_path, control="auto", status="suspended")
    loads = []

    def load() -> Any:
        loads.append(1)
        raise OSError("stop here")

    gpus = Nvml(load=load, pci=folder)
    assert "asleep" in gpus.inspect(wake=False)[1]
    assert loads == []
    assert gpus.inspect(wake=True)[1] == "no NVIDIA driver (stop here)"
    assert loads == [1]


def groups(folder: Path, line: str, files: dict[str, str]) -> tuple[Path, Path]:
    proc, root = folder / "cgroup", folder / "fs"
    proc.write_text(f"{line}\n")
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return proc, root


def test_a_control_group_limits_the_memory(tmp_path: Path) -> None:
    """systemd's MemoryMax counts, less what the group uses; its cache is available; a parent's limit counts too."""
    proc, root = groups(
        tmp_path,
        "0::/user.slice/hybridd.service",
        {
            "user.slice/hybridd.service/memory.max": "max",
            "user.slice/hybridd.service/memory.current": "1",
            "user.slice/memory.max": str(1 << 30),
            "user.slice/memory.current": str(300 << 20),
            "user.slice/memory.stat": f"anon 5\ninactive_file {100 << 20}",
        },
    )
    found = host.ram(proc, root)
    assert (found.total, found.available) == (1 << 30, (1 << 30) - (200 << 20))
    assert "1,024 MiB" in found.reason


def test_an_old_control_group_limits_it_too(tmp_path: Path) -> None:
    """Version 1: a tree for each controller, totals with the groups below, a quota of the processor."""
    proc, root = groups(
        tmp_path,
        "4:memory:/box\n2:cpu,cpuacct:/box",
        {
            "memory/box/memory.limit_in_bytes": str(512 << 20),
            "memory/box/memory.usage_in_bytes": str(200 << 20),
            "memory/box/memory.stat": f"inactive_file 0\ntotal_inactive_file {50 << 20}",
            "cpu/box/cpu.cfs_quota_us": "100000",
            "cpu/box/cpu.cfs_period_us": "100000",
        },
    )
    assert host.ram(proc, root).available == (512 - 150) << 20
    assert host.cores(proc, root) == (1, 1)


def test_a_quota_of_the_processor_counts(tmp_path: Path) -> None:
    """Half a processor is one, without a limit all are."""
    proc, root = groups(tmp_path, "0::/a", {"a/cpu.max": "50000 100000"})
    assert host.cores(proc, root) == (1, 1)
    proc, root = groups(tmp_path, "0::/b", {"b/cpu.max": "max 100000"})
    assert host.cores(proc, root)[0] == len(os.sched_getaffinity(0))


def test_without_control_groups_the_machine_counts(tmp_path: Path) -> None:
    """A kernel without them, or a line of another shape, limits nothing."""
    found = host.ram(tmp_path / "none", tmp_path)
    assert found.total == psutil.virtual_memory().total
    assert found.reason == ""


def test_back_ends_are_told_by_their_files(tmp_path: Path) -> None:
    """A build for CUDA or Vulkan has their library beside llama.cpp's; a build for the processor has none."""
    (tmp_path / "libggml-cpu.so").touch()
    assert machine.llama_backends(tmp_path) == ()
    (tmp_path / "libggml-cuda.so.0.1").touch()
    (tmp_path / "libggml-vulkan.so").touch()
    assert machine.llama_backends(tmp_path) == ("cuda", "vulkan")
    assert machine.llama_backends(tmp_path / "nothing") is None


def test_the_installed_build_is_found_without_being_imported(driver: Path) -> None:
    """llama.cpp stays out of this process (asserted in the child), its folder is found all the same."""
    assert looked(driver, "none")["offload"] is False
    assert looked(driver, "none", LLAMA_CPP_LIB_PATH="/nonexistent")["offload"] is None


def test_a_machine_has_a_name_of_its_own(tmp_path: Path) -> None:
    """It comes from the system's own, which it does not give away; without one the host's name does."""
    (tmp_path / "id").write_text("0123456789abcdef0123456789abcdef\n")
    name = machine.machine_id(tmp_path / "id")
    assert len(name) == 16
    assert name not in "0123456789abcdef0123456789abcdef"
    assert machine.machine_id(tmp_path / "none") != name


def test_a_simulated_gpu_replaces_the_real_ones() -> None:
    """For planning what another machine could do; memory and processors stay."""
    facts = machine.look()
    other = machine.simulated(facts, 4 * GIB)
    assert [gpu.free for gpu in other.gpus] == [4 * GIB]
    assert other.offload is True
    assert other.ram_total == facts.ram_total
