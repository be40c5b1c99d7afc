"""Which models there are to load: the files of the configured folders, each with what its header says.

Files are listed by walking (in a thread) and read by the inspecting child, never in this process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from hybridd.config import gguf_files
from hybridd.contracts.protocol import ModelInfo
from hybridd.local import inspect_cache
from hybridd.local.facts import ModelFacts
from hybridd.local.residency_ports import Ports
from hybridd.local.types import Goal

Stamp = inspect_cache.State
"""Size, modification time (ns) and inode of each part: an equal stamp is an unchanged file."""


class Wanted(msgspec.Struct, frozen=True):
    """How the configuration wants one model loaded. ``context``: tokens of each request; None: the plan's choice.
    ``keep_alive``: seconds, None: for ever. Limits in bytes."""

    goal: Goal
    context: int | None
    parallel: int | None
    keep_alive: float | None
    vram_limit: int | None
    ram_limit: int | None
    max_loaded: int | None


class Known(msgspec.Struct, frozen=True):
    """One model file. ``facts`` None: not inspected yet, or not readable, and then ``problem`` says why."""

    id: str
    path: Path
    stamp: Stamp = ()
    facts: ModelFacts | None = None
    problem: str = ""

    @property
    def bytes(self) -> int:
        return sum(size for size, _, _ in self.stamp)


class Shelf:
    """The models by id, the default one first. ``folders`` for sentences about an empty shelf."""

    def __init__(self, ports: Ports) -> None:
        self.known: dict[str, Known] = {}
        self.folders: list[Path] = []
        self._ports = ports
        self._default: str | None = None
        self._default_path: Path | None = None
        self._config: dict[str, Any] = {}
        self._idle_stop: float | None = None
        self._scanning = asyncio.Lock()

    def prepare(self, config: Mapping[str, Any], idle_stop: float | None) -> None:
        """Takes a configuration: names and paths at once, what is in the files with the next :meth:`scan`."""
        self._config, self._idle_stop = dict(config), idle_stop
        self.folders = [Path(config[key]) for key in ("models_dir", "cache_dir") if config.get(key)]
        self._default_path = Path(config["default_path"]) if config.get("default_path") else None
        self._default = config.get("default_model")
        files = {name: Path(path) for name, path in (config.get("files") or {}).items()}
        self.known = self._ordered({name: self._same(name, path) or Known(name, path) for name, path in files.items()})

    @property
    def places(self) -> dict[str, str | None]:
        """Where files are looked for: ``models_dir``, ``cache_dir``, ``default_path``."""
        return {name: self._config.get(name) for name in ("models_dir", "cache_dir", "default_path")}

    @property
    def inspected(self) -> bool:
        """Has every file been looked into?"""
        return all(one.facts is not None or one.problem for one in self.known.values())

    def wanted(self, model: str) -> Wanted:
        config, own = self._config, (self._config.get("models") or {}).get(model) or {}
        return Wanted(
            goal=own.get("goal") or config.get("goal") or "quality",
            context=own.get("context") or config.get("context"),
            parallel=own.get("parallel") or config.get("parallel"),
            keep_alive=own.get("keep_alive_seconds", self._idle_stop),
            vram_limit=_bytes(config.get("vram_limit_mb")),
            ram_limit=_bytes(config.get("ram_limit_mb")),
            max_loaded=config.get("max_loaded"),
        )

    async def scan(self) -> bool:
        """Looks into the folders; True when something is not as it was."""
        async with self._scanning:
            before = self.known
            files, stamps = await asyncio.to_thread(self._list)
            found = {
                name: same
                if (same := self._same(name, path)) is not None and same.stamp == stamps[path]
                else Known(name, path, stamps[path])
                for name, path in files.items()
            }
            # A problem may have been the reader's; those that are the file's own it remembers.
            fresh = [one.path for one in found.values() if one.facts is None]
            facts = await self._ports.inspect(fresh) if fresh else {}
            for name, one in found.items():
                said = facts.get(one.path)
                if isinstance(said, str):
                    found[name] = msgspec.structs.replace(one, problem=said)
                elif said is not None:
                    found[name] = msgspec.structs.replace(one, facts=said)
            shown = {name: one for name, one in found.items() if one.facts is None or one.facts.kind in _SERVED}
            if self.known is before:  # otherwise a new configuration came meanwhile: its own scan follows
                self.known = self._ordered(shown)
            return self.known != before

    def info(self, one: Known) -> ModelInfo:
        """What routing may know of a model that is not loaded: the context is the most it could have."""
        facts, wanted = one.facts, self.wanted(one.id)
        if facts is None:
            return ModelInfo(id=one.id, methods=["generate", "embed"])
        details = {
            "bytes": facts.bytes,
            "architecture": facts.architecture,
            "layers": len(facts.layers),
            "quantization": facts.quantization,
        }
        methods = ["embed"] if facts.kind == "embedding" else ["generate"]
        context = wanted.context or facts.trained_context or None
        return ModelInfo(id=one.id, context=context, methods=methods, details=details)

    def stamp_now(self, one: Known) -> Stamp:
        """Of the file as it is on the disk at this moment."""
        return inspect_cache.state(one.path)

    def _list(self) -> tuple[dict[str, Path], dict[Path, Stamp]]:
        files = gguf_files.find(self.folders, self._default_path)
        return files, {path: inspect_cache.state(path) for path in files.values()}

    def _same(self, name: str, path: Path) -> Known | None:
        before = self.known.get(name)
        return before if before is not None and before.path == path else None

    def _ordered(self, found: dict[str, Known]) -> dict[str, Known]:
        first = self._default if self._default in found else next(iter(found), None)
        return {} if first is None else {first: found[first], **found}


_SERVED = ("text", "embedding")


def _bytes(mib: float | None) -> int | None:
    return None if mib is None else round(mib * 1_048_576)
