"""Host and GPU samples, with drivers that are absent, asleep, lost or hung."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from hybridd.local.gpus import GpuReport
from hybridd.local.nvml import Nvml
from hybridd.monitor.host import sampler
from hybridd.monitor.machine import Machine
from hybridd.monitor.offload import Hung, Offload
from tests.fakes import nvml
from tests.monitor.helpers import HOST, NO_GPU


async def test_a_call_that_returns_gives_its_result() -> None:
    """The function runs in another thread; result and exception come back, time after time."""
    caller = threading.get_ident()
    offload = Offload("t", threading.get_ident)
    assert await offload.run(5) != caller
    assert await offload.run(5) != caller

    def fail() -> int:
        raise OSError("broken")

    with pytest.raises(OSError, match="broken"):
        await Offload("t", fail).run(5)


async def test_a_hung_call_costs_one_thread_and_never_blocks() -> None:
    """While it hangs every further call is refused at once; when it comes back at last, calls work again."""
    release, entered, calls = threading.Event(), threading.Event(), []

    def hang() -> int:
        calls.append(1)
        entered.set()
        release.wait(30)
        return len(calls)

    offload = Offload("t", hang)
    with pytest.raises(Hung):
        await offload.run(0.01)
    for _ in range(3):
        with pytest.raises(Hung, match="no answer for"):
            await offload.run(30)
    assert calls == [1]
    release.set()
    while offload.busy:
        await asyncio.sleep(0)
    assert await offload.run(5) == 2


async def test_a_cancelled_wait_leaves_nothing_behind() -> None:
    """Cancelling the waiting side (a stop) is no error of the thread's."""
    release = threading.Event()

    def fail_late() -> None:
        release.wait(30)
        raise OSError("late")

    offload = Offload("t", fail_late)
    waiting = asyncio.ensure_future(offload.run(30))
    while not offload.busy:
        await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    release.set()
    while offload.busy:
        await asyncio.sleep(0)


def test_a_hung_driver_does_not_keep_the_process_from_ending() -> None:
    """The interpreter exits although the thread is still stuck, also when it comes back after the loop has ended."""
    code = (
        "import asyncio, threading; from hybridd.monitor.offload import Offload, Hung\n"
        "async def main():\n"
        "    try: await Offload('t', threading.Event().wait).run(0.01)\n"
        "    except Hung: print('hung')\n"
        "asyncio.run(main())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "hung", "")


async def test_the_host_is_sampled(tmp_path: Path) -> None:
    """Real counters of this machine are plausible, and the second sample has a processor figure."""
    machine = Machine(tmp_path, take_gpu=lambda: NO_GPU)
    assert machine.view()["reason"] == "not sampled yet"
    await machine.sample()
    view = machine.view()
    assert view["reason"] == ""
    assert 0 < view["memory_available"] < view["memory_total"]
    assert 0 < view["disk_free"] <= view["disk_total"]
    assert 1_000_000 < view["daemon_rss"] < view["memory_total"]
    assert 0 <= view["cpu_percent"] <= 100
    assert view["gpu_reason"] == "no NVIDIA driver"
    machine.close()


def test_a_folder_that_is_gone_leaves_the_rest(tmp_path: Path) -> None:
    """Without its disk the sample still has memory and load."""
    sample = sampler(tmp_path / "gone")()
    assert sample.disk_free is None
    assert sample.memory_total > 0


async def test_reasons_replace_figures(tmp_path: Path) -> None:
    """A host that cannot be read and a GPU library that raises are facts with a reason."""

    def broken_host() -> Any:
        raise OSError("no /proc")

    def broken_gpu() -> Any:
        raise ValueError("odd library")

    machine = Machine(tmp_path, take_host=broken_host, take_gpu=broken_gpu)
    await machine.sample()
    assert machine.view() == {
        "reason": "the host's counters cannot be read: no /proc",
        "gpus": [],
        "gpu_reason": "the GPU cannot be sampled: ValueError: odd library",
        "gpu_driver": "",
    }


async def test_a_hung_gpu_does_not_hide_the_host(tmp_path: Path) -> None:
    """The driver's silence is the GPU's reason; the host's figures are there."""
    release = threading.Event()

    def hang() -> GpuReport:
        release.wait(30)
        return NO_GPU

    machine = Machine(tmp_path, take_host=lambda: HOST, take_gpu=hang, timeout=0.02)
    await machine.sample()
    assert machine.host == HOST
    assert machine.gpu.reason.startswith("the NVIDIA driver hangs: no answer for")
    machine.close()
    release.set()
    while machine._gpu_offload.busy:
        await asyncio.sleep(0)


def test_without_a_driver_there_is_a_reason() -> None:
    """No library, no GPU, no exception: the loader's own words."""

    def missing() -> Any:
        raise OSError("libnvidia-ml.so.1: cannot open shared object file")

    report = Nvml(load=missing).sample()
    assert report == GpuReport(reason="no NVIDIA driver (libnvidia-ml.so.1: cannot open shared object file)")


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nvml.build(tmp_path_factory.mktemp("nvml"))


def sampled(driver: Path, mood: str, code: str = "") -> Any:
    program = (
        "import json, msgspec; from hybridd.local.nvml import Nvml\nnvml = Nvml()\n"
        + (code or "reports = [nvml.sample(), nvml.sample()]\n")
        + "print(json.dumps([msgspec.to_builtins(r) for r in reports]))"
    )
    return json.loads(nvml.printed(driver, mood, program))


def test_a_gpu_is_measured_through_the_real_module(driver: Path) -> None:
    """Name, memory, utilization and temperature come through pynvml."""
    first, second = sampled(driver, "ok")
    assert first == second
    assert first == {
        "gpus": [
            {
                "index": 0,
                "name": "GeForce GTX 1650",
                "memory_total": 4 << 30,
                "memory_used": 1 << 30,
                "memory_free": 3 << 30,
                "utilization": 42.0,
                "temperature": 55.0,
            }
        ],
        "reason": "",
        "driver": "560.35",
    }


def test_gpus_that_do_not_say_everything(driver: Path) -> None:
    """What a GPU does not support is None; the rest is there."""
    gpu = sampled(driver, "bare")[0]["gpus"][0]
    assert (gpu["utilization"], gpu["temperature"], gpu["memory_free"]) == (None, None, 3 << 30)


def test_a_driver_without_gpus_and_a_lost_gpu(driver: Path) -> None:
    """Both are reasons; a lost GPU is asked afresh the next time."""
    assert sampled(driver, "none")[0]["reason"] == "the NVIDIA driver is loaded but there is no GPU"
    code = (
        "import os\nreports = [nvml.sample()]\n"
        "import ctypes; ctypes.CDLL(None).setenv(b'FAKE_NVML_MOOD', b'ok', 1)\nreports.append(nvml.sample())\n"
    )
    lost, found = sampled(driver, "lost", code)
    assert lost["reason"].startswith("the NVIDIA driver does not answer: ")
    assert found["gpus"]


def test_a_driver_that_hangs(driver: Path) -> None:
    """Through the whole stack: the sample says so, the process ends."""
    code = (
        "import asyncio; from hybridd.monitor.machine import Machine; from pathlib import Path\n"
        "machine = Machine(Path('/'), timeout=0.5)\nasyncio.run(machine.sample())\nreports = [machine.gpu]\n"
    )
    (report,) = sampled(driver, "hang", code)
    assert "hangs" in report["reason"]


class CountingModule:
    """pynvml's surface, counting connections."""

    class NVMLError(Exception):
        pass

    class NVMLError_NotSupported(NVMLError):
        pass

    class NVMLError_FunctionNotFound(NVMLError):
        pass

    def __init__(self) -> None:
        self.log: list[str] = []

    def nvmlInit(self) -> None:
        self.log.append("init")

    def nvmlShutdown(self) -> None:
        self.log.append("shutdown")

    def nvmlSystemGetDriverVersion(self) -> bytes:
        return b"1.0"

    def nvmlDeviceGetCount(self) -> int:
        return 0


def test_a_sleeping_gpu_is_not_woken(tmp_path: Path) -> None:
    """A laptop's suspended GPU is left alone: the library is not even loaded."""
    module = CountingModule()
    report = Nvml(load=lambda: module, pci=nvml.pci(tmp_path, control="auto", status="suspended")).sample()
    assert "asleep" in report.reason
    assert module.log == []


def test_a_gpu_that_may_sleep_is_not_kept_awake(tmp_path: Path) -> None:
    """Where it may sleep each sample connects and disconnects; elsewhere the connection is kept until the end."""
    module = CountingModule()
    gpus = Nvml(load=lambda: module, pci=nvml.pci(tmp_path / "laptop", control="auto", status="active"))
    gpus.sample()
    gpus.sample()
    assert module.log == ["init", "shutdown"] * 2
    module.log.clear()
    gpus = Nvml(load=lambda: module, pci=nvml.pci(tmp_path / "desktop", control="on", status="active"))
    gpus.sample()
    gpus.sample()
    gpus.close()
    gpus.close()
    assert module.log == ["init", "shutdown"]


def test_other_devices_do_not_matter(tmp_path: Path) -> None:
    """A suspended audio function or another vendor's GPU says nothing about ours."""
    module = CountingModule()
    folder = nvml.pci(tmp_path / "a", control="auto", status="suspended", kind="0x040300")
    assert "asleep" not in Nvml(load=lambda: module, pci=folder).sample().reason
    folder = nvml.pci(tmp_path / "b", control="auto", status="suspended", vendor="0x8086")
    assert "asleep" not in Nvml(load=lambda: module, pci=folder).sample().reason
    (tmp_path / "b" / "0000:01:00.0" / "vendor").unlink()
    assert "asleep" not in Nvml(load=lambda: module, pci=folder).sample().reason
