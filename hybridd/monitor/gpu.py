"""What the NVIDIA driver says about its GPUs. No driver, no GPU, a sleeping or a hung one: facts with a reason, never
errors.

Everything here blocks and may hang inside the driver, so it runs in :class:`hybridd.monitor.offload.Offload`.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

from msgspec import Struct

LIBRARY = "libnvidia-ml.so.1"
_PCI = Path("/sys/bus/pci/devices")
_NVIDIA = "0x10de"


class GpuSample(Struct, frozen=True):
    """One GPU. Memory in bytes; ``utilization`` in per cent, ``temperature`` in °C; None: the GPU does not say."""

    index: int
    name: str
    memory_total: int
    memory_used: int
    memory_free: int
    utilization: float | None = None
    temperature: float | None = None


class GpuReport(Struct, frozen=True):
    """``reason`` says why there are no GPUs in ``gpus``; empty when there are."""

    gpus: tuple[GpuSample, ...] = ()
    reason: str = ""
    driver: str = ""


class Nvml:
    """Samples through NVML.

    Stays connected to the driver unless the GPU may sleep (runtime power management, usual in laptops): an open
    connection keeps it awake, so there each sample connects and disconnects, and a sleeping GPU is left asleep.
    """

    def __init__(self, *, load: Callable[[], Any] | None = None, pci: Path = _PCI) -> None:
        self._load = load or load_pynvml
        self._pci = pci
        self._nvml: Any = None
        self._connected = False

    def sample(self) -> GpuReport:
        """One report. Blocks."""
        may_sleep, asleep = _power(self._pci)
        if asleep:
            return GpuReport(reason="the GPU is asleep (runtime power management) and was not woken to be measured")
        if self._nvml is None:
            try:
                self._nvml = self._load()
            except OSError as error:
                return GpuReport(reason=f"no NVIDIA driver ({error})")
        nvml = self._nvml
        try:
            if not self._connected:
                nvml.nvmlInit()
                self._connected = True
            report = self._report(nvml)
        except nvml.NVMLError as error:
            # Also after a driver update or a GPU that fell off the bus: the next sample connects afresh.
            self._disconnect()
            return GpuReport(reason=f"the NVIDIA driver does not answer: {error}")
        if may_sleep:
            self._disconnect()
        return report

    def close(self) -> None:
        if self._nvml is not None:
            self._disconnect()

    def _disconnect(self) -> None:
        if self._connected:
            self._connected = False
            with contextlib.suppress(self._nvml.NVMLError):
                self._nvml.nvmlShutdown()

    def _report(self, nvml: Any) -> GpuReport:
        driver = _text(_optional(nvml, nvml.nvmlSystemGetDriverVersion) or "")
        count = nvml.nvmlDeviceGetCount()
        if count == 0:
            return GpuReport(reason="the NVIDIA driver is loaded but there is no GPU", driver=driver)
        return GpuReport(gpus=tuple(_device(nvml, index) for index in range(count)), driver=driver)


def load_pynvml() -> Any:
    """The module, once the driver's library was found.

    Raises:
        OSError: there is none. (Without it the module would only cost 3 MiB to say the same.)
    """
    ctypes.CDLL(LIBRARY)
    import pynvml

    return pynvml


def _device(nvml: Any, index: int) -> GpuSample:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    rates = _optional(nvml, nvml.nvmlDeviceGetUtilizationRates, handle)
    temperature = _optional(nvml, nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU)
    return GpuSample(
        index=index,
        name=_text(nvml.nvmlDeviceGetName(handle)),
        memory_total=int(memory.total),
        memory_used=int(memory.used),
        memory_free=int(memory.free),
        utilization=None if rates is None else float(rates.gpu),
        temperature=None if temperature is None else float(temperature),
    )


def _optional(nvml: Any, function: Callable[..., Any], *args: Any) -> Any:
    """A figure that not every GPU has: None when this one does not support it; any other trouble is trouble."""
    try:
        return function(*args)
    except nvml.NVMLError_NotSupported:
        return None


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _power(pci: Path) -> tuple[bool, bool]:
    """(may a GPU of this machine sleep, are all of them asleep), from the kernel's view of the PCI bus."""
    may_sleep, states = False, []
    for device in pci.iterdir() if pci.is_dir() else ():
        try:
            if _read(device / "vendor") != _NVIDIA or not _read(device / "class").startswith("0x03"):
                continue
            may_sleep = may_sleep or _read(device / "power" / "control") == "auto"
            states.append(_read(device / "power" / "runtime_status"))
        except OSError:
            continue  # unplugged meanwhile, or a kernel without runtime power management
    return may_sleep, bool(states) and all(state == "suspended" for state in states)


def _read(path: Path) -> str:
    return path.read_text(encoding="ascii", errors="replace").strip()
