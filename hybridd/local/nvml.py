"""The connection to the NVIDIA driver. No driver, no GPU, a sleeping or a hung one: facts with a reason, never errors.

Everything here blocks and may hang inside the driver: the monitor calls it through
:class:`hybridd.monitor.offload.Offload`, :func:`hybridd.local.machine.look` in a thread that it can leave behind.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from hybridd.local.gpus import Gpu, GpuReport, GpuSample, driver_version, inspect, sample

T = TypeVar("T")

LIBRARY = "libnvidia-ml.so.1"
_PCI = Path("/sys/bus/pci/devices")
_NVIDIA = "0x10de"


class Nvml:
    """Asks through NVML.

    Stays connected to the driver unless the GPU may sleep (runtime power management, usual in laptops): an open
    connection keeps it awake, so there each question connects and disconnects, and a sleeping GPU is left asleep.
    """

    def __init__(self, *, load: Callable[[], Any] | None = None, pci: Path = _PCI) -> None:
        self._load = load or load_pynvml
        self._pci = pci
        self._nvml: Any = None
        self._connected = False

    def sample(self) -> GpuReport:
        """Memory, load and temperature of each GPU. Blocks."""
        devices, reason, driver = self._ask(_sample_all, wake=False)
        return GpuReport(gpus=tuple(devices), reason=reason, driver=driver)

    def inspect(self, *, wake: bool) -> tuple[tuple[Gpu, ...], str]:
        """Each GPU (or MIG instance) that a model can be loaded on, with who uses it, and the reason for none. Blocks.

        ``wake``: a sleeping GPU is woken; a load would wake it as well.
        """
        gpus, reason, _driver = self._ask(_inspect_all, wake=wake)
        return tuple(gpus), reason

    def close(self) -> None:
        if self._nvml is not None:
            self._disconnect()

    def _ask(self, read: Callable[[Any, int, str], list[T]], *, wake: bool) -> tuple[list[T], str, str]:
        """(the devices, why there are none, the driver's version)."""
        may_sleep, asleep = _power(self._pci)
        if asleep and not wake:
            return [], "the GPU is asleep (runtime power management) and was not woken to be measured", ""
        if self._nvml is None:
            try:
                self._nvml = self._load()
            except OSError as error:
                return [], f"no NVIDIA driver ({error})", ""
        nvml = self._nvml
        try:
            if not self._connected:
                nvml.nvmlInit()
                self._connected = True
            driver = driver_version(nvml)
            count = nvml.nvmlDeviceGetCount()
            if count == 0:
                return [], "the NVIDIA driver is loaded but there is no GPU", driver
            devices = read(nvml, count, driver)
        except nvml.NVMLError as error:
            # Also after a driver update or a GPU that fell off the bus: the next question connects afresh.
            self._disconnect()
            return [], f"the NVIDIA driver does not answer: {error}", ""
        finally:
            if may_sleep:
                self._disconnect()
        return devices, "", driver

    def _disconnect(self) -> None:
        if self._connected:
            self._connected = False
            with contextlib.suppress(self._nvml.NVMLError):
                self._nvml.nvmlShutdown()


def load_pynvml() -> Any:
    """The module, once the driver's library was found.

    Raises:
        OSError: there is none. (Without it the module would only cost 3 MiB to say the same.)
    """
    ctypes.CDLL(LIBRARY)
    import pynvml

    return pynvml


def _sample_all(nvml: Any, count: int, _driver: str) -> list[GpuSample]:
    return [sample(nvml, index) for index in range(count)]


def _inspect_all(nvml: Any, count: int, driver: str) -> list[Gpu]:
    return [gpu for index in range(count) for gpu in inspect(nvml, index, driver)]


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
