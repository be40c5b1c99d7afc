"""The provider ``local``: one process, one loaded model, many callers.

The daemon plans and says in ``initialize`` which file to load and how; :meth:`Local.start` loads it, and what the
process then registers is exactly that model.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from hybridd.plugin import CallFailure, LoadFailed, Model, ProbeResult, Provider, Request, Result, Stream, Usage
from plugins.llama_cpp import asked, responses
from plugins.llama_cpp.answering import Answering

if TYPE_CHECKING:
    from plugins.llama_cpp.engine import Engine

MISSING = "llama-cpp-python is not installed; install the extra: hybridd[local]"
# A broken engine's callers get their errors before the process ends and the daemon starts another.
_LAST_WORDS_S = 0.5
_BROKEN_EXIT = 70
_PROGRESS_STEP = 0.02


class Local(Provider):
    """``settings``: ``model`` (its id), ``path``, ``options`` (the plan's), ``quantization``, ``positions`` (see
    :func:`~plugins.llama_cpp.engine.load`)."""

    def __init__(self, name: str, settings: dict[str, Any]) -> None:
        super().__init__(name, settings)
        self._engine: Engine | None = None
        self._stopping = False
        self._told = -1.0

    async def start(self) -> None:
        """Raises LoadFailed."""
        if importlib.util.find_spec("llama_cpp") is None:
            self.state, self.reason = "not_configured", MISSING
            return
        if not self.settings.get("path"):
            self.state, self.reason = "not_configured", "there is no model to load: the settings name no path"
            return
        from plugins.llama_cpp import engine

        try:
            options = msgspec.convert(self.settings.get("options") or {}, engine.Options)
        except msgspec.ValidationError as error:
            raise LoadFailed("runtime", f"the options to load with are wrong: {error}") from None
        loop = asyncio.get_running_loop()
        path = Path(str(self.settings["path"]))
        self._engine = await asyncio.to_thread(
            engine.load, path, options, name=self.settings.get("model") or path.stem,
            quantization=str(self.settings.get("quantization") or ""),
            positions=int(self.settings.get("positions") or 0),
            progress=lambda done: self._loading(loop, done),
        )  # fmt: skip
        self._engine.start(loop, self._broken)

    async def stop(self) -> None:
        self._stopping = True
        if self._engine is not None and not await asyncio.to_thread(self._engine.close):
            sys.stderr.write("llama.cpp hangs and is left to the end of the process\n")

    async def models(self) -> list[Model]:
        if self._engine is None:
            return []
        facts = self._engine.facts
        methods = ["embed"] if facts.kind == "embedding" else ["generate"]
        details = {"loaded": msgspec.to_builtins(facts)}
        return [Model(id=facts.model, context=facts.context, methods=methods, details=details)]

    async def probe(self) -> ProbeResult:
        """The heartbeat of decoding."""
        figures = {} if self._engine is None else self._engine.figures()
        return ProbeResult(ok=self.state == "ready", reason=self.reason, details={"unmetered": True, **figures})

    async def generate(self, request: Request, stream: Stream) -> Result:
        engine = self._loaded()
        if engine.scheduler is None:
            raise _cannot(engine, "makes embeddings, not texts", "model")
        chat = request.endpoint != "completion"
        template = engine.template.source if chat and engine.template is not None else ""
        wanted = asked.read(request.body, chat=chat, template=template)
        return await Answering(engine, request, wanted).run(stream)

    async def embed(self, request: Request) -> Result:
        engine = self._loaded()
        if engine.embedder is None:
            raise _cannot(engine, "makes texts, not embeddings", "model")
        wanted = asked.read_embedding(request.body)
        if wanted.dimensions not in (None, engine.dimensions):
            raise _cannot(engine, f"makes vectors of {engine.dimensions} numbers, no others", "dimensions")
        texts = [
            engine.text_tokens(text) if isinstance(text, str) else engine.given_tokens(text, "input")
            for text in wanted.inputs
        ]
        for text in texts:
            engine.check_length(len(text), "input", 0)
        began = time.perf_counter()
        vectors = await engine.embedder.embed(texts, normalize=wanted.normalize)
        usage = Usage(input_tokens=sum(map(len, texts)), output_tokens=0)
        took = responses.Timings(prompt_n=usage.input_tokens, prompt_ms=(time.perf_counter() - began) * 1e3)
        extra = {"timings": took.body(), "local": engine.local.body(wanted.ignored)}
        body = responses.embeddings(
            vectors, model=request.model, encoding=wanted.encoding, prompt_tokens=usage.input_tokens, extra=extra
        )
        return Result(body, usage=usage, details=extra)

    def _loaded(self) -> Engine:
        if self._engine is None or self.state != "ready":
            raise CallFailure("unavailable", self.reason or "no model is loaded", sent="no")
        return self._engine

    def _loading(self, loop: asyncio.AbstractEventLoop, done: float) -> bool:
        """In the loading thread; False ends the loading."""
        if done - self._told >= _PROGRESS_STEP or done >= 1:
            self._told = done
            loop.call_soon_threadsafe(self.progress, "load", str(self.settings.get("model") or ""), done)
        return not self._stopping

    def _broken(self, reason: str) -> None:
        """The engine is gone; a new process is the only way to a sound one."""
        self.state, self.reason = "degraded", f"the engine failed: {reason}"
        self.log("error", self.reason)
        sys.stderr.write(f"{self.reason}\n")
        if not self._stopping:
            asyncio.get_running_loop().call_later(_LAST_WORDS_S, os._exit, _BROKEN_EXIT)


def _cannot(engine: Engine, what: str, param: str) -> CallFailure:
    """Another model may do it."""
    return CallFailure("unsupported", f"{engine.facts.model} {what}", sent="no", param=param)
