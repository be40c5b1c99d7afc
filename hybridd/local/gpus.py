"""One GPU as NVML describes it: its memory, who uses it, its MIG instances. The caller holds the connection."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Literal

import psutil  # type: ignore[import-untyped]  # it ships no types
from msgspec import Struct
from msgspec.structs import replace

_DESKTOP = frozenset({
    "Xorg", "Xwayland", "Xvfb", "gnome-shell", "mutter", "kwin_x11", "kwin_wayland", "plasmashell", "ksmserver",
    "sway", "Hyprland", "weston", "cosmic-comp", "cinnamon", "marco", "xfwm4", "xfce4-panel", "muffin", "compiz",
    "picom", "gamescope", "niri", "labwc", "wayfire", "sddm-greeter", "gnome-remote-de", "xdg-desktop-por",
})  # fmt: skip


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


class GpuUser(Struct, frozen=True):
    """A process on a GPU. ``used``: bytes, None when the driver does not say; ``kind``: ``own`` is a worker of ours,
    ``desktop`` the display server or its shell."""

    pid: int
    name: str
    kind: Literal["own", "desktop", "other"]
    used: int | None


class Gpu(Struct, frozen=True, kw_only=True):
    """A GPU, or one MIG instance of it, that a model can be loaded on. Memory in bytes.

    ``index``: its place in the list, the driver's number where nothing is split. ``uuid`` is what
    ``CUDA_VISIBLE_DEVICES`` takes: the driver's order need not be CUDA's own, and of MIG instances CUDA sees one only.
    ``unified``: it has no memory of its own, ``total`` and ``free`` are the host's. ``used_by_others``: in use, without
    ``own`` workers. ``capability``: CUDA's, (0, 0) when unknown. ``reason``: what could not be found out.
    """

    index: int
    name: str
    total: int
    free: int
    used_by_others: int = 0
    driver: str = ""
    uuid: str = ""
    mig: bool = False
    unified: bool = False
    capability: tuple[int, int] = (0, 0)
    users: tuple[GpuUser, ...] = ()
    reason: str = ""


def driver_version(nvml: Any) -> str:
    return _text(_optional(nvml, nvml.nvmlSystemGetDriverVersion) or "")


def sample(nvml: Any, index: int) -> GpuSample:
    """The figures worth following over time."""
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    total, used, free, _unified = _memory(nvml, handle)
    rates = _optional(nvml, nvml.nvmlDeviceGetUtilizationRates, handle)
    temperature = _optional(nvml, nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU)
    return GpuSample(
        index=index,
        name=_text(nvml.nvmlDeviceGetName(handle)),
        memory_total=total,
        memory_used=used,
        memory_free=free,
        utilization=None if rates is None else float(rates.gpu),
        temperature=None if temperature is None else float(temperature),
    )


def inspect(nvml: Any, index: int, driver: str) -> list[Gpu]:
    """GPU number ``index``: itself, or its MIG instances, which alone can run anything while MIG is on."""
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    mode = _optional(nvml, nvml.nvmlDeviceGetMigMode, handle)
    if not mode or mode[0] != nvml.NVML_DEVICE_MIG_ENABLE:
        return [_gpu(nvml, handle, index, driver)]
    found = []
    for number in range(_optional(nvml, nvml.nvmlDeviceGetMaxMigDeviceCount, handle) or 0):
        try:
            instance = nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, number)
        except nvml.NVMLError_NotFound:
            continue  # the numbers have gaps
        found.append(_gpu(nvml, instance, index, driver, mig=True, capability=_capability(nvml, handle)))
    return found


def _gpu(
    nvml: Any, handle: Any, index: int, driver: str, *, mig: bool = False, capability: tuple[int, int] | None = None
) -> Gpu:
    total, used, free, unified = _memory(nvml, handle)
    users, reason = _users(nvml, handle)
    return Gpu(
        index=index,
        name=_text(nvml.nvmlDeviceGetName(handle)),
        total=total,
        free=free,
        used_by_others=used,
        driver=driver,
        uuid=_text(_optional(nvml, nvml.nvmlDeviceGetUUID, handle) or ""),
        mig=mig,
        unified=unified,
        capability=capability or _capability(nvml, handle),
        users=users,
        reason="it has no memory of its own and shares the host's" if unified else reason,
    )


def _memory(nvml: Any, handle: Any) -> tuple[int, int, int, bool]:
    """(total, used, free, is it the host's memory). A GPU without memory of its own does not say."""
    memory = _optional(nvml, nvml.nvmlDeviceGetMemoryInfo, handle)
    if memory is not None:
        return int(memory.total), int(memory.used), int(memory.free), False
    host = psutil.virtual_memory()
    return int(host.total), int(host.total - host.available), int(host.available), True


def _users(nvml: Any, handle: Any) -> tuple[tuple[GpuUser, ...], str]:
    """The processes, the largest first, and why they are not known."""
    used: dict[int, int | None] = {}
    for ask in (nvml.nvmlDeviceGetComputeRunningProcesses, nvml.nvmlDeviceGetGraphicsRunningProcesses):
        try:
            processes = ask(handle)
        except nvml.NVMLError as error:
            # Not every GPU tells, and a container may not be allowed to ask; the free memory is known all the same.
            return (), f"the driver does not say who uses it ({error})"
        for process in processes:
            # A process may do both; each list then has all of its memory.
            known, size = used.get(process.pid), process.usedGpuMemory
            used[process.pid] = known if size is None else max(int(size), known or 0)
    users = [GpuUser(pid, name := _process_name(pid), _kind(name), size) for pid, size in used.items()]
    return tuple(sorted(users, key=lambda user: (-(user.used or 0), user.pid))), ""


def claim(gpu: Gpu, own: Collection[int]) -> Gpu:
    """The GPU with the processes ``own`` known as ours, and what they hold no longer counted as others'."""
    users = tuple(replace(user, kind="own") if user.pid in own else user for user in gpu.users)
    held = sum(user.used or 0 for user in users if user.kind == "own")
    return replace(gpu, users=users, used_by_others=max(0, gpu.used_by_others - held))


def _process_name(pid: int) -> str:
    try:
        return str(psutil.Process(pid).name())
    except psutil.Error:
        return ""  # ended meanwhile, or of another container


def _kind(name: str) -> Literal["desktop", "other"]:
    return "desktop" if name in _DESKTOP else "other"


def _capability(nvml: Any, handle: Any) -> tuple[int, int]:
    major, minor = _optional(nvml, nvml.nvmlDeviceGetCudaComputeCapability, handle) or (0, 0)
    return int(major), int(minor)


def _optional(nvml: Any, function: Callable[..., Any], *args: Any) -> Any:
    """A figure that not every GPU or driver has: None when this one does not support it; other trouble is trouble."""
    try:
        return function(*args)
    except (nvml.NVMLError_NotSupported, nvml.NVMLError_FunctionNotFound):
        return None


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
