"""The provider ``specialists``: model ``sentiment``, trained on first use from the shipped sentences.

The model loads (or is trained) in a thread from the moment the process starts; a call waits only for that. Nothing
heavy is imported before: the process registers first.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hybridd import locations
from hybridd.plugin import CallFailure, Model, ProbeResult, Provider, Request, Result, Stream, Usage
from hybridd.plugin.runtime import PluginError

MODEL = "sentiment"
MAX_BATCH = 10_000
MAX_CHARACTERS = 20_000  # hybridd.mlops.sentiment reads that much of a text
_COUNTED = "whitespace-separated words"


class Specialists(Provider):
    """``settings``: cache_dir, where trained models are kept."""

    def __init__(self, name: str, settings: dict[str, Any]) -> None:
        super().__init__(name, settings)
        # One thread: predictions are short, and scikit-learn's own threads would fight over two cores.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="specialists")
        self._loading: asyncio.Future[Any] | None = None
        self._load_ms = 0.0
        self._telling: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._loading = asyncio.get_running_loop().run_in_executor(self._thread, self._load)
        self._loading.add_done_callback(self._loaded)

    async def stop(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def models(self) -> list[Model]:
        return [Model(id=MODEL, tasks=["sentiment_analysis"], methods=["generate", "predict"])]

    async def probe(self) -> ProbeResult:
        return ProbeResult(
            ok=self.state == "ready", reason=self.reason, details={"unmetered": True, "load_ms": self._load_ms}
        )

    async def generate(self, request: Request, stream: Stream) -> Result:
        """Classifies the last user message; the answer's content is the label alone."""
        self._require(request.model)
        text = request.prompt_text
        if not text.strip():
            raise CallFailure("bad_request", "there is no user message to classify", sent="no", param="messages")
        began = time.perf_counter()
        [told] = await self._predict([text])
        usage = Usage(input_tokens=len(text.split()), output_tokens=1)
        details = {**told, "tokens_counted": _COUNTED, "truncated": len(text) > MAX_CHARACTERS}
        spent = (time.perf_counter() - began) * 1000
        if request.stream:
            await stream.send(told["label"])
            return Result(usage=usage, details=details, upstream_ms=spent)
        return Result(_completion(request, told, usage), usage=usage, details=details, upstream_ms=spent)

    async def predict(self, request: Request) -> Result:
        """``{"input": [text, …]}`` (or one text) to ``{"data": [{index, label, probabilities}, …], "version"}``."""
        self._require(request.model)
        texts = request.body.get("input")
        texts = [texts] if isinstance(texts, str) else texts
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise CallFailure("bad_request", "input must be a text or a list of texts", sent="no", param="input")
        if not 0 < len(texts) <= MAX_BATCH:
            raise CallFailure(
                "bad_request", f"input holds {len(texts)} texts; 1 to {MAX_BATCH} are taken", sent="no", param="input"
            )
        began = time.perf_counter()
        told = await self._predict(texts)
        usage = Usage(input_tokens=sum(len(text.split()) for text in texts), output_tokens=len(texts))
        body = {
            "object": "list",
            "model": MODEL,
            "version": told[0]["version"],
            "data": [
                {"index": index, "label": one["label"], "probabilities": one["probabilities"]}
                for index, one in enumerate(told)
            ],
            "usage": _usage_body(usage),
        }
        spent = (time.perf_counter() - began) * 1000
        return Result(body, usage=usage, details={"tokens_counted": _COUNTED}, upstream_ms=spent)

    def _load(self) -> Any:
        from hybridd.mlops.sentiment import load_or_train

        began = time.perf_counter()
        # Without settings (`hybridd plugin check`): where the daemon keeps it too, never the working directory.
        given = self.settings.get("cache_dir") or locations.cache_dir() / "specialists"
        model = load_or_train(Path(str(given)).expanduser())
        self._load_ms = (time.perf_counter() - began) * 1000
        return model

    def _loaded(self, loading: asyncio.Future[Any]) -> None:
        if loading.cancelled() or loading.exception() is None:
            return
        self.state, self.reason = "degraded", f"the sentiment model cannot be loaded: {loading.exception()}"
        self.log("error", self.reason)
        self._telling = asyncio.get_running_loop().create_task(self._tell())

    async def _tell(self) -> None:
        try:
            await self.changed()
        except PluginError as error:
            self.log("debug", f"not registered again: {error}")

    async def _predict(self, texts: list[str]) -> list[dict[str, Any]]:
        if self._loading is None:
            raise CallFailure("unavailable", "the specialists have not started", sent="no")
        try:
            model = await asyncio.shield(self._loading)
        except Exception as error:
            raise CallFailure("unavailable", f"the sentiment model cannot be loaded: {error}", sent="no") from error
        predictions = await asyncio.get_running_loop().run_in_executor(self._thread, model.predict, texts)
        return [
            {
                "label": one.label,
                "probabilities": {label: round(float(p), 6) for label, p in one.probabilities.items()},
                "version": one.version,
            }
            for one in predictions
        ]

    @staticmethod
    def _require(model: str) -> None:
        if model not in (MODEL, "", "*"):
            raise CallFailure("not_found", f"there is no specialist {model!r}; there is: {MODEL}", sent="no")


def _completion(request: Request, told: dict[str, Any], usage: Usage) -> dict[str, Any]:
    if request.endpoint == "completion":
        choice: dict[str, Any] = {"index": 0, "text": told["label"], "logprobs": None, "finish_reason": "stop"}
    else:
        message = {"role": "assistant", "content": told["label"], "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    return {
        "id": f"chatcmpl-{request.trace_id or request.id}",
        "object": "text_completion" if request.endpoint == "completion" else "chat.completion",
        "created": int(time.time()),
        "model": MODEL,
        "choices": [choice],
        "usage": _usage_body(usage),
        "hybridd": told,
    }


def _usage_body(usage: Usage) -> dict[str, int]:
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }
