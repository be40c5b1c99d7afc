"""A residency on a real hub and socket, with workers that are real processes of the SDK.

The worker below loads nothing: how it behaves stands in a JSON file beside the model's (``<path>.how``), so that a test
can make a load slow, failing, crashing or hanging. ``journal`` has one line for each start and end of a worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Raw

from hybridd.api.bind import bind
from hybridd.api.plugin_link import plugin_endpoint
from hybridd.api.server import build_server
from hybridd.bus import EventBus
from hybridd.clocks import SystemClock
from hybridd.config.resolved import ProviderSpec
from hybridd.contracts import protocol as wire
from hybridd.local.residency import Residency
from hybridd.local.residency_ports import Ports, real_ports
from hybridd.local.residency_timing import ResidencyTiming, WorkerTiming
from hybridd.providers import Hub, PluginCall, SpawnContext
from tests.fakes.tiny_gguf import make_tiny_gguf
from tests.providers.support import FAST, ROOT

WORKER = """
import asyncio, json, os, time
from hybridd.plugin import LoadFailed, Model, Plugin, ProbeResult, Provider, run

class Local(Provider):
    def note(self, what):
        with open(os.path.join(os.path.dirname(self.settings["path"]), "journal"), "a") as file:
            file.write(f"{what} {self.settings['model']} {os.getpid()} {time.monotonic()}\\n")

    async def start(self):
        self.note("start")
        self.steps = 0
        self.stuck = False
        path = self.settings["path"] + ".how"
        how = self.how = json.load(open(path)) if os.path.exists(path) else {}
        if how.get("once"):
            os.unlink(path)
        for step in range(how.get("steps", 0)):
            self.progress("load", self.settings["model"], step / how["steps"])
            await asyncio.sleep(how["seconds"] / how["steps"])
        if how.get("silent"):
            await asyncio.sleep(how["silent"])
        if "exit" in how:
            print(how.get("says", ""), flush=True)
            os._exit(how["exit"])
        if "fail" in how:
            raise LoadFailed(how["fail"], how.get("says", "it fails"))
        self.note("loaded")
        if how.get("dies_loaded"):
            await asyncio.sleep(0.1)
            os._exit(3)

    async def stop(self):
        self.note("stop")

    async def models(self):
        options = self.settings["options"]
        layers = self.how.get("gpu_layers", options["gpu_layers"])
        loaded = {"gpu_layers": layers, "context": options["context"], "pid": os.getpid()}
        return [Model(id=self.settings["model"], context=options["context"], details={"loaded": loaded})]

    async def probe(self):
        return ProbeResult(details={"steps": self.steps, "busy": self.stuck or True, "tokens_per_second": 41.5})

    async def generate(self, request, stream):
        text = request.prompt_text
        if text == "die":
            os._exit(3)
        if text == "stuck":
            await asyncio.sleep(60)
        if text == "freeze":
            time.sleep(60)
        if text.startswith("slow"):
            for _ in range(int(text.split()[1])):
                self.steps += 1
                await asyncio.sleep(0.02)
        self.steps += 1
        return json.dumps({"pid": os.getpid(), "options": self.settings["options"]})

run(Plugin("llama_cpp", "1", lambda config: [Local(name, one) for name, one in config.providers.items()]))
"""

QUICK = WorkerTiming(stall=0.7, probe_every=0.1, probe_timeout=0.3, hang=0.6, promise=0.3, drain=5.0, stop=1.0)


class Home:
    """What a test holds: the residency on its hub, a folder of models, and short ways to do things."""

    def __init__(self, directory: Path, hub: Hub, residency: Residency) -> None:
        self.directory = directory
        self.folder = directory / "models"
        self.hub = hub
        self.residency = residency
        (directory / "worker.py").write_text(WORKER, encoding="utf-8")

    def model(self, name: str, *, seed: int = 0, **how: Any) -> Path:
        """A model file, and how its worker is to behave."""
        path = self.folder / f"{name}.gguf"
        if not path.exists():
            make_tiny_gguf(path, seed=seed)
        self.behave(name, **how)
        return path

    def behave(self, name: str, **how: Any) -> None:
        place = self.folder / f"{name}.gguf.how"
        place.unlink(missing_ok=True)
        if how:
            place.write_text(json.dumps(how))

    def spec(self, **config: Any) -> ProviderSpec:
        idle = config.pop("idle_stop_seconds", 600)
        enabled = config.pop("enabled", True)
        files = {path.stem: str(path) for path in sorted(self.folder.glob("*.gguf"))}
        return ProviderSpec(
            name="local", plugin="llama_cpp", account="local", enabled=enabled, origin="builtin", process="local",
            command=(sys.executable, str(self.directory / "worker.py")),
            environment=("PYTHONPATH", "CUDA_VISIBLE_DEVICES"), idle_stop_seconds=idle,
            plugin_config={"models_dir": str(self.folder), "files": files, "vram_limit_mb": 4096, **config},
        )  # fmt: skip

    async def apply(self, **config: Any) -> None:
        await self.hub.apply({"local": self.spec(**config)})

    async def load(self, model: str, timeout: float = 15.0) -> int:
        """The PID of the worker."""
        await self.hub.ensure_connected("local", timeout, model)
        worker = self.residency.worker(model)
        assert worker is not None
        assert worker.pid is not None
        return worker.pid

    def generate(self, model: str, prompt: str = "hello", **body: Any) -> PluginCall:
        asked = {"model": model, "messages": [{"role": "user", "content": prompt}], **body}
        params = wire.Generate("local", model, Raw(msgspec.json.encode(asked)))
        deadline = asyncio.get_running_loop().time() + 15
        return self.hub.start_call("local", "generate", params, deadline=deadline)

    async def ask(self, model: str, prompt: str = "hello", **body: Any) -> dict[str, Any]:
        await self.hub.ensure_connected("local", 15, model)
        result = await self.generate(model, prompt, **body).result()
        answer: dict[str, Any] = json.loads(json.loads(bytes(result.body))["choices"][0]["message"]["content"])  # type: ignore[arg-type]  # not streamed
        return answer

    def journal(self) -> list[tuple[str, str, int, float]]:
        """(what, model, pid, monotonic seconds) of every start, load and stop."""
        place = self.folder / "journal"
        lines = place.read_text().splitlines() if place.exists() else []
        return [(what, model, int(pid), float(at)) for what, model, pid, at in (line.split() for line in lines)]

    def starts(self, model: str) -> list[int]:
        return [pid for what, name, pid, _ in self.journal() if what == "start" and name == model]

    async def until(self, condition: Any, timeout: float = 10.0) -> None:
        async with asyncio.timeout(timeout):
            while not condition():
                await asyncio.sleep(0.005)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


@contextlib.asynccontextmanager
async def home(
    ports: Ports | None = None, timing: WorkerTiming = QUICK, *, vram: float = 1.0, **changes: Any
) -> AsyncIterator[Home]:
    directory = Path(tempfile.mkdtemp(prefix="hy"))  # short: a socket's path holds 107 bytes
    (directory / "models").mkdir()
    bound = bind(directory / "run" / "s", environ={})
    clock = SystemClock()
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    link = msgspec.structs.replace(FAST, heartbeat=0.2, **changes)
    context = SpawnContext(socket=bound.path, environ=environ, timing=link, cwd=directory)
    bus = EventBus(clock)
    hub = Hub(clock=clock, bus=bus, spawn=context, rng=random.Random(7))
    residency = Residency(hub, bus, clock, ports or real_ports(), ResidencyTiming(scan=60, vram=vram), timing)
    server = build_server(plugin_endpoint, hub=hub, graceful_seconds=1)
    serving = asyncio.create_task(server.serve([bound.socket]))
    await server.listening.wait()
    try:
        yield Home(directory, hub, residency)
    finally:
        await hub.close(1.0)
        server.stop()
        await serving
        bound.close()
        shutil.rmtree(directory)
