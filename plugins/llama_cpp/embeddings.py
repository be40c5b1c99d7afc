"""Texts to vectors: one thread, one context, as many texts in a batch as fit."""

from __future__ import annotations

import asyncio
import math
import sys
import threading
import time
import traceback
from array import array
from collections.abc import Callable
from queue import Empty, SimpleQueue

from hybridd.plugin import CallFailure
from plugins.llama_cpp.context import ABORTED, DONE, Context
from plugins.llama_cpp.figures import Figures
from plugins.llama_cpp.native import last_error


class Job:
    """The texts of one request; ``vectors`` are little-endian 32-bit floats, one per text, in their order."""

    def __init__(self, loop: asyncio.AbstractEventLoop, texts: list[array[int]], *, normalize: bool) -> None:
        self.texts = texts
        self.normalize = normalize
        self.vectors: list[bytes] = []
        self.next = 0
        self.cancelled = False
        self.done: asyncio.Future[list[bytes]] = loop.create_future()


class Embedder:
    """Owns the context from :meth:`start` to :meth:`stop`."""

    def __init__(
        self, context: Context, loop: asyncio.AbstractEventLoop, *, broken: Callable[[str], None] | None = None
    ) -> None:
        self.figures = Figures()
        self._context = context
        self._loop = loop
        self._broken = broken
        self._inbox: SimpleQueue[Job | None] = SimpleQueue()
        self._jobs: list[Job] = []
        self._stopping = False
        self._thread = threading.Thread(target=self._live, name="llama", daemon=True)

    # event loop

    @property
    def longest(self) -> int:
        """Tokens of the longest text that can be taken."""
        return min(self._context.capacity, self._context.room)

    @property
    def waiting(self) -> int:
        return self._inbox.qsize()

    @property
    def active(self) -> int:
        return len(self._jobs)

    def start(self) -> None:
        self._thread.start()

    async def embed(self, texts: list[array[int]], *, normalize: bool = True) -> list[bytes]:
        """Raises CallFailure when the engine cannot go on."""
        job = Job(self._loop, texts, normalize=normalize)
        self._inbox.put(job)
        try:
            return await job.done
        finally:
            job.cancelled = True

    def stop(self, timeout: float = 10.0) -> bool:
        """Ends the thread; what is under way fails. Returns False when it hangs."""
        self._stopping = True
        self._context.abort()
        self._inbox.put(None)
        if self._thread.is_alive():
            self._thread.join(timeout)
        return not self._thread.is_alive()

    # its thread

    def _live(self) -> None:
        reason = ""
        try:
            while not self._stopping:
                self._receive()
                if self._jobs and not self._stopping:
                    self._step()
        except Exception as error:  # noqa: BLE001  # whatever it is, no request may wait for ever for this thread
            traceback.print_exc(file=sys.stderr)
            reason = f"{type(error).__name__}: {error}"
        failure = CallFailure("unavailable", reason or "the model is being unloaded", sent="maybe")
        for job in self._jobs:
            self._call_loop(_fail, job, failure)
        if reason and self._broken is not None:
            self._call_loop(self._broken, reason)

    def _receive(self) -> None:
        try:
            job = self._inbox.get(block=not self._jobs)
            while True:
                if job is not None:
                    self._jobs.append(job)
                job = self._inbox.get_nowait()
        except Empty:
            pass
        self._jobs = [job for job in self._jobs if not job.cancelled]

    def _step(self) -> None:
        """One batch: texts of one request after the other, as many as there are sequences and rows for."""
        began = time.perf_counter()
        context = self._context
        context.clear()
        context.begin()
        taken: list[tuple[Job, int]] = []
        for job in self._jobs:
            at = job.next
            while at < len(job.texts) and len(taken) < context.sequences:
                text = job.texts[at]
                if context.rows + len(text) > context.capacity:
                    break
                context.put_run(text, 0, len(text), len(taken), outputs=len(text))
                taken.append((job, len(taken)))
                at += 1
        self.figures.since = before = time.perf_counter()
        only_encodes = context.model.encoder and not context.model.decoder
        code = context.encode() if only_encodes else context.run()
        computed = time.perf_counter()
        if code == ABORTED:
            return
        if code != DONE:
            raise RuntimeError(f"llama.cpp answered {code}: {last_error() or 'no reason given'}")
        for job, sequence in taken:
            job.vectors.append(_packed(context.pooled(sequence), normalize=job.normalize))
            job.next += 1
        finished = [job for job in self._jobs if job.next == len(job.texts)]
        self._jobs = [job for job in self._jobs if job.next < len(job.texts)]
        for job in finished:
            self._call_loop(_finish, job)
        self.figures.step(began, before, computed, prompts=context.rows, decoded=0)

    def _call_loop(self, function: Callable[..., None], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:  # the loop is closed: nobody waits any more
            self._stopping = True


def _packed(vector: list[float], *, normalize: bool) -> bytes:
    if normalize:
        length = math.sqrt(math.fsum(value * value for value in vector))
        if length > 0:
            vector = [value / length for value in vector]
    return array("f", vector).tobytes()


def _finish(job: Job) -> None:
    if not job.done.done():
        job.done.set_result(job.vectors)


def _fail(job: Job, failure: CallFailure) -> None:
    if not job.done.done():
        job.done.set_exception(failure)
