"""One loaded model: its facts, its scheduler, and the way in and out. Everything here but :func:`load` is quick."""

from __future__ import annotations

import asyncio
import importlib
import resource
import threading
import time
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from hybridd.plugin import CallFailure, LoadFailed
from plugins.llama_cpp import measure, native
from plugins.llama_cpp.context import Context
from plugins.llama_cpp.embeddings import Embedder
from plugins.llama_cpp.native import Model
from plugins.llama_cpp.responses import Local

if TYPE_CHECKING:
    from plugins.llama_cpp.scheduler import Scheduler
    from plugins.llama_cpp.template import Template

# With numpy and Jinja behind them they take 40 ms, as long as llama.cpp needs to make a context: both at once.
_OF_TEXTS = ("plugins.llama_cpp.scheduler", "plugins.llama_cpp.template")


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How to load; the daemon's ``LoadOptions``. ``context``: cells of all ``sequences`` together."""

    gpu_layers: int = 0
    context: int = 4096
    sequences: int = 1
    unified: bool = True
    type_k: str = "f16"
    type_v: str = "f16"
    flash_attention: bool = True
    batch: int = 2048
    micro_batch: int = 512
    threads: int = 0
    gpu: int = 0
    outputs: int = 0


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """What was really loaded. ``gpu_layers`` of ``layers`` (the output layer counts as one) are in video memory.
    ``type_k`` and ``type_v``: of the KV cache; None: the model has none."""

    model: str
    file: str
    quantization: str
    kind: str
    context: int
    trained_context: int
    sequences: int
    gpu_layers: int
    layers: int
    type_k: str | None
    type_v: str | None
    flash_attention: bool
    unified: bool
    batch: int
    micro_batch: int
    threads: int
    template: str
    load_ms: float
    memory: dict[str, Any]
    rss: int

    def local(self) -> Local:
        """The part that every answer carries."""
        return Local(
            file=self.file, quantization=self.quantization, context=self.context, gpu_layers=self.gpu_layers,
            layers=self.layers, type_k=self.type_k, type_v=self.type_v,
        )  # fmt: skip


class Engine:
    """A text model has a ``scheduler`` and a ``template``, an embedding model an ``embedder``."""

    def __init__(self, model: Model, context: Context, template: Template | None, facts: Loaded) -> None:
        self.facts = facts
        self.local = facts.local()
        self.template = template
        self.scheduler: Scheduler | None = None
        self.embedder: Embedder | None = None
        self._model = model
        self._context = context

    @property
    def _mixed(self) -> bool:
        """A GPU reads its weights once for prompts and decoded tokens together. The processor's flash attention takes
        64 rows at a time through every cell that one of them looks at: 150 tokens of a prompt and 7 decoded ones took
        173 ms in one batch, 124 and 25 ms in two (2 cores, Q8_0, 1,700 shared cells)."""
        return self.facts.gpu_layers > 0 or not self.facts.flash_attention

    @property
    def room(self) -> int:
        """Tokens that a prompt and its answer may have together."""
        return self._context.room

    def start(self, loop: asyncio.AbstractEventLoop, broken: Callable[[str], None]) -> None:
        """Begins to serve; ``broken`` is told when llama.cpp cannot go on."""
        if self.facts.kind == "embedding":
            self.embedder = Embedder(self._context, loop, broken=broken)
            self.embedder.start()
        else:
            from plugins.llama_cpp.scheduler import Scheduler

            self.scheduler = Scheduler(self._context, loop, mixed=self._mixed, broken=broken)
            self.scheduler.start()

    def chat_tokens(self, prompt: str) -> array[int]:
        """Of a rendered template, which may have written the token that begins a text itself."""
        if not prompt:
            return self.text_tokens("")
        written = self.template is not None and self.template.adds_bos
        return self._tokens(prompt, add_special=not written, parse_special=True)

    def text_tokens(self, text: str) -> array[int]:
        """Of plain text: what looks like a control token is text too."""
        return self._tokens(text, add_special=True, parse_special=False) if text else self._empty()

    def given_tokens(self, tokens: tuple[int, ...], where: str) -> array[int]:
        """Raises CallFailure (``bad_request``) for ids the model does not have."""
        highest = max(tokens, default=0)
        if highest >= self._model.vocabulary:
            raise CallFailure(
                "bad_request", f"{where} has token {highest}; the model's are 0 to {self._model.vocabulary - 1}",
                sent="no", param=where,
            )  # fmt: skip
        return array("i", tokens) or self._empty()

    def check_length(self, tokens: int, where: str, answer: int) -> None:
        """Raises CallFailure (``too_large``) when there is no room for ``answer`` more tokens: nothing is ever cut."""
        room = self.room if self.embedder is None else self.embedder.longest
        if tokens + answer <= room:
            return
        left = "nothing would be left for an answer, and " if tokens <= room else ""
        raise CallFailure(
            "too_large",
            f"the {'text' if where == 'input' else 'prompt'} has {tokens} tokens and the context of {self.facts.model} "
            f"is {room}: {left}nothing is ever cut",
            sent="no", upstream_code="context_length_exceeded", param=where,
        )  # fmt: skip

    @property
    def dimensions(self) -> int:
        """Numbers of an embedding."""
        return self._model.embedding

    def text_of(self, tokens: array[int]) -> str:
        return b"".join(map(self._model.piece, tokens)).decode("utf-8", "replace")

    def figures(self) -> dict[str, Any]:
        """For the probe: the heartbeat of decoding, and how much is going on."""
        worker = self.scheduler or self.embedder
        if worker is None:
            return {"steps": 0, "busy": False, "last_step_ms_ago": 0.0}
        return {**worker.figures.body(), "sequences_used": worker.active, "waiting": worker.waiting}

    def close(self) -> bool:
        """Blocks. Frees everything; False when the engine's thread hangs and only the process's end can free it."""
        for worker in (self.scheduler, self.embedder):
            if worker is not None and not worker.stop():
                return False
        self._context.close()
        self._model.close()
        return True

    def _tokens(self, text: str, *, add_special: bool, parse_special: bool) -> array[int]:
        return self._model.tokenize(text, add_special=add_special, parse_special=parse_special) or self._empty()

    def _empty(self) -> array[int]:
        """Something must be evaluated, also for an empty prompt."""
        first = next((token for token in (self._model.bos, self._model.eos) if token >= 0), 0)
        return array("i", (first,))


def load(
    path: Path,
    options: Options,
    *,
    name: str = "",
    quantization: str = "",
    positions: int = 0,
    progress: Callable[[float], bool] | None = None,
) -> Engine:
    """Blocks while the file is read.

    Args:
        path: a GGUF file, or the first of its parts.
        options: as the plan said; taken as they are.
        name: the model's id.
        quantization: as the daemon calls it.
        positions: tokens that the model has learned a position for; 0: it has no table of them.
        progress: told 0…1; False ends the loading.

    Raises:
        LoadFailed: with the cause.
    """
    began = time.perf_counter()
    model = Model(path, gpu_layers=options.gpu_layers, gpu=options.gpu, progress=progress)
    try:
        wanted = () if model.pooled else _OF_TEXTS
        imports = threading.Thread(target=lambda: [importlib.import_module(name) for name in wanted], name="imports")
        imports.start()
        context = _context(model, options, positions)
        imports.join()
        try:
            template = None if model.pooled else _template(model, name or path.stem)
            memory = measure.measured([*model.log, *context.log])
            cached = memory.device.kv + memory.host.kv > 0
            # Compute buffers that first pages, tables and threads are made here, not in the first answer.
            facts = Loaded(
                model=name or path.stem, file=path.name, quantization=quantization,
                kind="embedding" if model.pooled else "text", context=context.room,
                trained_context=model.trained_context, sequences=context.sequences,
                gpu_layers=min(options.gpu_layers, model.layers + 1) if native.supports_offload() else 0,
                layers=model.layers + 1, type_k=options.type_k if cached else None,
                type_v=options.type_v if cached else None, flash_attention=options.flash_attention,
                unified=context.unified, batch=context.capacity,
                micro_batch=context.micro_batch, threads=context.threads,
                template=template.origin if template is not None else "",
                load_ms=round((time.perf_counter() - began) * 1000, 1), memory=_memory(memory), rss=_rss(),
            )  # fmt: skip
        except BaseException:
            context.close()
            raise
    except BaseException:
        model.close()
        raise
    return Engine(model, context, template, facts)


def _whole_batch(options: Options) -> int:
    """Of a model that embeds: llama.cpp shares it out evenly among the sequences, and aborts where a rest is left."""
    least = min(options.context, max(options.batch, options.micro_batch))
    return least + -least % options.sequences


def _context(model: Model, options: Options, positions: int) -> Context:
    # Attention in both directions sees a text only as a whole: its batch is computed at once.
    whole = model.pooled
    batch = _whole_batch(options) if whole else options.batch
    return Context(
        model,
        context=options.context,
        sequences=options.sequences,
        batch=batch,
        micro_batch=batch if whole else options.micro_batch,
        threads=options.threads,
        unified=options.unified,
        type_k=options.type_k,
        type_v=options.type_v,
        flash_attention=options.flash_attention,
        embeddings=whole,
        outputs=options.outputs,
        positions=positions,
    )


def _template(model: Model, name: str) -> Template:
    from plugins.llama_cpp.template import BadTemplate, Template

    try:
        template = Template(model.template(), bos=model.name(model.bos), eos=model.name(model.eos), model=name)
    except BadTemplate as error:
        raise LoadFailed("bad_file", f"{name}: {error}") from None
    model.show(template.form.marks)
    return template


def _memory(found: measure.Measured) -> dict[str, Any]:
    """Bytes by side and part, as llama.cpp says it has allocated them."""
    return {"device": msgspec.to_builtins(found.device), "host": msgspec.to_builtins(found.host)}


def _rss() -> int:
    """Bytes of this process in memory, mapped files included."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()
