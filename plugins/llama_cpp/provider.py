"""The provider ``local``: one model loaded at a time, one request at a time, in the order they came.

All of llama.cpp runs in one worker thread; its queue is the fair queue. A cancelled request that still waits is taken
out of it; a running one ends before its next token, without holding the answer to the cancel up.
"""

from __future__ import annotations

import asyncio
import importlib.util
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hybridd.plugin import CallFailure, Model, ProbeResult, Provider, Request, Result, Stream, Usage
from hybridd.plugin.runtime import PluginError
from plugins.llama_cpp import asked, files
from plugins.llama_cpp.engine import Engine, LlamaEngine, context_for
from plugins.llama_cpp.pieces import Pieces


class Turn:
    """One request's way through the worker thread: text out, a cancel in."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._texts: deque[str] = deque()
        self._wake = asyncio.Event()
        self._cancelled = threading.Event()
        self.first_at: float | None = None
        self.produced = 0
        self.prompt = 0
        self.limit = 0
        self.reason = "stop"
        self.details: dict[str, Any] = {}

    # worker thread

    def cancelled(self) -> bool:
        return self._cancelled.is_set()

    def say(self, text: str) -> None:
        if text:
            self.first_at = self.first_at or time.perf_counter()
            self._texts.append(text)
            self._loop.call_soon_threadsafe(self._wake.set)

    # event loop

    def cancel(self) -> None:
        self._cancelled.set()

    def over(self, _: asyncio.Future[None]) -> None:
        self._wake.set()

    async def texts(self, done: asyncio.Future[None]) -> list[str]:
        """Everything said since the last call; waits for some. Empty: the turn is over."""
        while not self._texts and not done.done():
            self._wake.clear()
            await self._wake.wait()
        said = []
        while self._texts:
            said.append(self._texts.popleft())
        return said


class Local(Provider):
    """``settings``: models_dir, cache_dir, files, default_model, context, vram_limit_mb."""

    def __init__(self, name: str, settings: dict[str, Any]) -> None:
        super().__init__(name, settings)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="llama")
        self._files: dict[str, files.ModelFile] = {}
        self._problems: list[str] = []
        self._engine: Engine | None = None
        self._turns: set[Turn] = set()
        self._installed = False

    async def start(self) -> None:
        self._installed = importlib.util.find_spec("llama_cpp") is not None
        await self._rescan()

    async def stop(self) -> None:
        for turn in self._turns:
            turn.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def models(self) -> list[Model]:
        return [
            Model(
                id=name,
                context=self._context(file),
                details={"bytes": file.size, "architecture": file.header.architecture, "layers": file.header.layers},
            )
            for name, file in self._files.items()
        ]

    async def probe(self) -> ProbeResult:
        """Looks for new files. Nothing is loaded."""
        if await self._rescan():
            await self._register()
        loaded = self._engine.facts.as_details() if self._engine is not None else None
        return ProbeResult(ok=self.state == "ready", reason=self.reason, details={"unmetered": True, "loaded": loaded})

    async def generate(self, request: Request, stream: Stream) -> Result:
        wanted = asked.read(request.body, chat=request.endpoint != "completion")
        file = await self._file(request.model)
        loop = asyncio.get_running_loop()
        turn = Turn(loop)
        began = time.perf_counter()
        self._turns.add(turn)
        done: asyncio.Future[None] = loop.run_in_executor(self._thread, self._run, turn, file, wanted)
        done.add_done_callback(turn.over)
        try:
            while texts := await turn.texts(done):
                await stream.send(*texts)
            await done  # raises what the worker raised
        finally:
            turn.cancel()
            done.cancel()
            self._turns.discard(turn)
        usage = Usage(input_tokens=turn.prompt, output_tokens=turn.produced)
        await stream.finish(turn.reason)
        if wanted.include_usage and request.stream:
            await stream.send(stream.writer().usage(usage))
        return Result(
            usage=usage,
            upstream_ms=(time.perf_counter() - began) * 1000,
            first_byte_ms=None if turn.first_at is None else (turn.first_at - began) * 1000,
            details={**turn.details, "max_tokens": turn.limit},
        )

    # worker thread

    def _run(self, turn: Turn, file: files.ModelFile, wanted: asked.Asked) -> None:
        if turn.cancelled():
            return
        engine = self._loaded(turn, file)
        tokens = (
            engine.chat_tokens(wanted.messages)
            if wanted.messages is not None
            else engine.text_tokens(wanted.prompt or "")
        )
        turn.prompt = len(tokens)
        turn.details.update(engine.facts.as_details())
        room = engine.facts.context - len(tokens)
        if room < 1:
            raise CallFailure(
                "too_large",
                f"the prompt has {len(tokens)} tokens and the context of {file.id} is {engine.facts.context}: "
                "nothing would be left for an answer, and a prompt is never cut",
                sent="no",
                upstream_code="context_length_exceeded",
                param="messages" if wanted.messages is not None else "prompt",
            )
        turn.limit = room if wanted.max_tokens is None else min(room, wanted.max_tokens)
        try:
            self._speak(turn, engine.generate(tokens, wanted.sampling, turn.cancelled), Pieces(wanted.stops))
        except RuntimeError as error:  # llama.cpp could not decode: what the context holds now is anybody's guess
            engine.close()
            self._engine = None
            raise CallFailure("unavailable", f"llama.cpp failed on {file.id}: {error}", sent="yes") from None

    @staticmethod
    def _speak(turn: Turn, tokens: Iterator[bytes], pieces: Pieces) -> None:
        for token in tokens:
            turn.produced += 1
            turn.say(pieces.feed(token))
            if pieces.stopped:
                break
            if turn.produced >= turn.limit:
                turn.reason = "length"
                break
        turn.say(pieces.flush())
        if pieces.stopped:
            turn.reason = "stop"

    def _loaded(self, turn: Turn, file: files.ModelFile) -> Engine:
        """The engine with this model in it; the one before is closed first, so that both never need memory at once."""
        if self._engine is not None and self._engine.facts.model == file.id:
            return self._engine
        if self._engine is not None:
            self._engine.close()
            self._engine = None
        began = time.perf_counter()
        self._engine = LlamaEngine(
            file, context=self.settings.get("context"), vram_limit_mb=self.settings.get("vram_limit_mb")
        )
        turn.details["load_ms"] = round((time.perf_counter() - began) * 1000, 3)
        return self._engine

    # files

    async def _file(self, model: str) -> files.ModelFile:
        """Raises CallFailure (``not_found``): no such model, also after another look into the folders."""
        if not self._installed:
            raise CallFailure("unsupported", self.reason, sent="no")
        for _ in range(2):
            found = self._lookup(model)
            if found is not None:
                return found
            await self._rescan()
        known = ", ".join(list(self._files)[:10]) or "none"
        raise CallFailure(
            "not_found", f"there is no local model {model!r}; there are: {known}", sent="no", param="model"
        )

    def _lookup(self, model: str) -> files.ModelFile | None:
        if model in ("", "*", "default", "local"):
            return next(iter(self._files.values()), None)
        direct = self._files.get(model) or self._files.get(model.removesuffix(".gguf"))
        return direct or next((file for name, file in self._files.items() if files.alias(name) == model), None)

    async def _rescan(self) -> bool:
        """Looks for model files; True when there are others than before."""
        if not self._installed:
            self.state = "not_configured"
            self.reason = "llama-cpp-python is not installed; install the extra: hybridd[local]"
            return False
        folders = [Path(str(self.settings[key])) for key in ("models_dir", "cache_dir") if self.settings.get(key)]
        named = {str(name): Path(str(path)) for name, path in (self.settings.get("files") or {}).items()}
        found, problems = await asyncio.to_thread(files.find, folders, named, self.settings.get("default_model"))
        for problem in problems:
            if problem not in self._problems:
                self.log("warning", problem)
        changed = list(found) != list(self._files)
        self._files, self._problems = found, problems
        self.state, self.reason = "ready", ""
        if not found:
            places = " or ".join(str(folder) for folder in folders) or "the configuration"
            self.state, self.reason = "not_configured", problems[0] if problems else f"no GGUF file in {places}"
        return changed

    def _context(self, file: files.ModelFile) -> int:
        if self._engine is not None and self._engine.facts.model == file.id:
            return self._engine.facts.context
        return context_for(self.settings.get("context"), file.header.context)

    async def _register(self) -> None:
        try:
            await self.changed()
        except PluginError as error:
            self.log("debug", f"not registered again: {error}")
