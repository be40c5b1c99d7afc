"""The machine as the planner sees it: GPUs with what is really free on them, memory, processors, and whether the
installed llama.cpp can use a GPU at all."""

from __future__ import annotations

import hashlib
import os
import platform
import threading
from collections.abc import Callable, Collection
from importlib.util import find_spec
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # it ships no types
from msgspec import Struct
from msgspec.structs import replace

from hybridd.local import host
from hybridd.local.gpus import Gpu, claim
from hybridd.local.nvml import Nvml

_MACHINE_ID = Path("/etc/machine-id")
# ggml's back ends that take layers, as the libraries of a build are called. (rpc and blas hold no weights here.)
_BACKENDS = ("cuda", "hip", "vulkan", "sycl", "metal", "musa", "cann", "opencl")


class MachineFacts(Struct, frozen=True, kw_only=True):
    """Memory in bytes. ``gpu_reason``: why there are no GPUs. ``cores`` and ``physical_cores``: those this process may
    use. ``offload``: llama.cpp can use a GPU; None: it is not installed. ``machine_id``: names this machine in stored
    measurements, the same after every start."""

    gpus: tuple[Gpu, ...] = ()
    gpu_reason: str = ""
    ram_total: int
    ram_available: int
    ram_reason: str = ""
    cores: int = 1
    physical_cores: int = 1
    offload: bool | None = None
    backends: tuple[str, ...] = ()
    machine_id: str = ""


def look(timeout: float = 2.0, *, own: Collection[int] = (), wake: bool = True) -> MachineFacts:
    """The machine now. Blocks for up to ``timeout`` seconds and no longer, whatever the driver does.

    ``own``: processes of our own workers, told apart from other users of a GPU. ``wake``: ask a sleeping GPU too.
    """
    gpus, reason = _driver.ask(timeout, wake)
    memory = host.ram()
    cores, physical = host.cores()
    backends = llama_backends()
    return MachineFacts(
        # MIG instances share their GPU's number; the place in the list names each alone.
        gpus=tuple(replace(claim(gpu, own), index=place) for place, gpu in enumerate(gpus)),
        gpu_reason=reason,
        ram_total=memory.total,
        ram_available=memory.available,
        ram_reason=memory.reason,
        cores=cores,
        physical_cores=physical,
        offload=None if backends is None else bool(backends),
        backends=backends or (),
        machine_id=machine_id(),
    )


def simulated(machine: MachineFacts, size: int) -> MachineFacts:
    """The machine as if it had one free GPU of ``size`` bytes, and a llama.cpp that can use it."""
    gpu = Gpu(index=0, name="simulated GPU", total=size, free=size)
    return replace(machine, gpus=(gpu,), gpu_reason="", offload=True, backends=("cuda",))


def llama_backends(folder: Path | None = None) -> tuple[str, ...] | None:
    """The GPU back ends of the installed llama.cpp, by the files beside its library; None: it is not installed.

    The package is found, not imported: importing it loads llama.cpp itself into this process.
    """
    folder = folder or _llama_folder()
    if folder is None or not folder.is_dir():
        return None
    names = {path.name.split(".")[0] for path in folder.iterdir()}
    return tuple(name for name in _BACKENDS if f"libggml-{name}" in names)


def machine_id(path: Path = _MACHINE_ID) -> str:
    """A name for this machine that says nothing about it (the operating system's own is not to be handed around)."""
    try:
        text = path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        text = ""
    text = text or f"{platform.node()} {platform.machine()} {psutil.virtual_memory().total >> 30}"
    return hashlib.sha256(f"hybridd local {text}".encode()).hexdigest()[:16]


def _llama_folder() -> Path | None:
    given = os.environ.get("LLAMA_CPP_LIB_PATH")  # llama-cpp-python's own variable
    if given:
        return Path(given)
    spec = find_spec("llama_cpp")
    return Path(spec.origin).parent / "lib" if spec is not None and spec.origin else None


class Guarded:
    """Asks the driver in a thread that can be left behind. While one hangs no other is started: a dead driver costs
    one thread, not one for each look."""

    def __init__(self, inspect: Callable[[bool], tuple[tuple[Gpu, ...], str]]) -> None:
        self._inspect = inspect
        self._lock = threading.Lock()
        self._hanging: threading.Thread | None = None

    def ask(self, timeout: float, wake: bool) -> tuple[tuple[Gpu, ...], str]:
        """The GPUs, and the reason for none. Never raises."""
        answer: list[tuple[tuple[Gpu, ...], str]] = []

        def work() -> None:
            try:
                answer.append(self._inspect(wake))
            except Exception as error:  # noqa: BLE001  # a driver's library may raise anything: reported as the reason
                answer.append(((), f"the GPU cannot be asked: {type(error).__name__}: {error}"))

        # One at a time: a connection to the driver is not for two threads.
        if not self._lock.acquire(timeout=timeout):
            return (), f"the NVIDIA driver hangs: no answer for {timeout:g} s"
        try:
            if self._hanging is not None and self._hanging.is_alive():
                return (), "the NVIDIA driver hangs: it has not answered an earlier question"
            # A daemon thread: one that is stuck in the driver must not keep the process from ending.
            thread = self._hanging = threading.Thread(target=work, name="local-gpu", daemon=True)
            thread.start()
            thread.join(timeout)
        finally:
            self._lock.release()
        return answer[0] if answer else ((), f"the NVIDIA driver hangs: no answer for {timeout:g} s")


_nvml = Nvml()
_driver = Guarded(lambda wake: _nvml.inspect(wake=wake))
