"""llama.cpp's models behind a thin, typed skin: backend, log, loading, vocabulary.

This module, :mod:`context` and :mod:`sampling` are the only ones of the engine that touch llama-cpp-python. Nothing
here is safe between threads except what says so; the scheduler's thread owns a model once it is loaded.
"""

from __future__ import annotations

import collections
import contextlib
import ctypes
import functools
import os
from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from hybridd.plugin import LoadFailed
from plugins.llama_cpp.bindings import lib

_LOG_LINES = 200
_ERROR = 4
# What llama.cpp and its backends say when memory, a driver or the file is the reason.
_NO_MEMORY = (
    "out of memory",
    "failed to allocate",
    "unable to allocate",
    "cannot allocate",
    "cudamalloc failed",
    "bad_alloc",
)
_DRIVER = ("cuda error", "no cuda-capable", "driver version", "failed to initialize cuda", "rocm error")

_lines: collections.deque[tuple[int, str]] = collections.deque(maxlen=_LOG_LINES)
_captures: list[list[str]] = []


@lib.llama_log_callback  # type: ignore[untyped-decorator]  # a ctypes type used as a decorator
def _log(level: int, text: bytes, _: Any) -> None:
    line = (text or b"").decode("utf-8", "replace")
    _lines.append((level, line))
    for capture in _captures:
        capture.append(line)


@functools.cache
def start() -> None:
    """Before anything else; works once: llama.cpp's chatter goes to :func:`captured` instead of stderr."""
    lib.llama_log_set(_log, None)
    lib.llama_backend_init()


@contextlib.contextmanager
def captured() -> Iterator[list[str]]:
    """What llama.cpp logs meanwhile, as it came: lines, some of them in parts."""
    lines: list[str] = []
    _captures.append(lines)
    try:
        yield lines
    finally:
        _captures.remove(lines)


def last_error() -> str:
    """The last error that llama.cpp logged, in one line; empty when it logged none."""
    return next((" ".join(line.split()) for level, line in reversed(_lines) if level == _ERROR and line.strip()), "")


def failure(stage: str, lines: Sequence[str], what: str) -> LoadFailed:
    """Why loading failed, judged by the log. ``stage``: ``weights`` or ``kv``, where memory was asked for."""
    text = "".join(lines).lower()
    reason = last_error() or "llama.cpp gave no reason"
    if any(words in text for words in _DRIVER) and "out of memory" not in text:
        return LoadFailed("driver", f"the GPU's driver failed on {what}: {reason}")
    if any(words in text for words in _NO_MEMORY):
        message = f"no memory for {what}: {reason}"
        if stage == "weights":
            return LoadFailed("weights", message)
        return LoadFailed("runtime" if "compute" in reason.lower() else "kv", message)
    return LoadFailed("runtime" if stage == "kv" else "bad_file", f"llama.cpp cannot load {what}: {reason}")


def threads_for(wanted: int) -> int:
    """``wanted``, or as many as compute well: on larger machines the other half are usually hyper-threads."""
    cores = len(os.sched_getaffinity(0))
    return wanted if wanted > 0 else cores if cores <= 2 else cores // 2


def supports_offload() -> bool:
    return bool(lib.llama_supports_gpu_offload())


class Model:
    """One loaded file: its vocabulary and facts. ``window``: tokens that sliding attention looks back on, or 0."""

    def __init__(
        self,
        path: Path,
        *,
        gpu_layers: int = 0,
        gpu: int = 0,
        progress: Callable[[float], bool] | None = None,
    ) -> None:
        """``progress``: told 0…1; False ends the loading. Raises LoadFailed."""
        start()
        parameters = lib.llama_model_default_params()
        parameters.n_gpu_layers = gpu_layers
        # One GPU takes all: the plan counted with one. Without layers there none is touched: llama.cpp would still
        # compute large batches on it, with copies of the weights.
        parameters.split_mode = lib.LLAMA_SPLIT_MODE_NONE
        parameters.main_gpu = gpu if gpu_layers else -1
        on_progress = lib.llama_progress_callback(lambda done, _: progress is None or progress(done))
        parameters.progress_callback = on_progress
        with captured() as lines:
            self.handle: Any = lib.llama_model_load_from_file(os.fsencode(path), parameters)
        if not self.handle:
            raise failure("weights", lines, path.name)
        self.log = lines
        self.vocab: Any = lib.llama_model_get_vocab(self.handle)
        self.vocabulary: int = lib.llama_vocab_n_tokens(self.vocab)
        self.trained_context: int = lib.llama_model_n_ctx_train(self.handle)
        self.layers: int = lib.llama_model_n_layer(self.handle)
        self.embedding: int = lib.llama_model_n_embd_out(self.handle)
        self.window: int = lib.llama_model_n_swa(self.handle)
        # A recurrent state cannot be taken back to an earlier token.
        self.recurrent = bool(lib.llama_model_is_recurrent(self.handle) or lib.llama_model_is_hybrid(self.handle))
        self.encoder = bool(lib.llama_model_has_encoder(self.handle))
        self.decoder = bool(lib.llama_model_has_decoder(self.handle))
        self.architecture = self.meta("general.architecture") or ""
        self.bos: int = lib.llama_vocab_bos(self.vocab)
        self.eos: int = lib.llama_vocab_eos(self.vocab)
        self.adds_bos = bool(lib.llama_vocab_get_add_bos(self.vocab))
        self._pieces: list[bytes | None] = [None] * self.vocabulary
        self._special: dict[int, bytes] = {}
        self._ends: dict[int, bool] = {}

    @property
    def pooled(self) -> bool:
        """Made for embeddings: it says how a text's vectors become one."""
        return self.meta(f"{self.architecture}.pooling_type") not in (None, "0")

    def meta(self, key: str) -> str | None:
        """A metadata value as text; None when it is not there."""
        size = lib.llama_model_meta_val_str(self.handle, key.encode(), None, 0)
        if size < 0:
            return None
        room = ctypes.create_string_buffer(size + 1)
        lib.llama_model_meta_val_str(self.handle, key.encode(), room, size + 1)
        return room.value.decode("utf-8", "replace")

    def template(self) -> str | None:
        """The file's chat template, if it has one."""
        text = lib.llama_model_chat_template(self.handle, None)
        return text.decode("utf-8", "replace") if text else None

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> array[int]:
        """Token ids. ``add_special``: with what the model wants at the beginning (and end). Safe in any thread."""
        data = text.encode("utf-8", "replace")
        room = len(data) + 16
        for _ in range(2):
            tokens = (lib.llama_token * room)()
            count = lib.llama_tokenize(self.vocab, data, len(data), tokens, room, add_special, parse_special)
            if count >= 0:
                found = array("i")
                found.frombytes(memoryview(tokens).cast("B")[: count * 4])
                return found
            room = -count
        raise ValueError("the text cannot be tokenized")

    def piece(self, token: int) -> bytes:
        """The bytes a token adds to the text; nothing for control tokens."""
        piece = self._pieces[token]
        if piece is None:
            piece = self._pieces[token] = self._convert(token, special=False)
        return piece

    def special_piece(self, token: int) -> bytes:
        """Like :meth:`piece`, but control tokens by their names."""
        piece = self._special.get(token)
        if piece is None:
            piece = self._special[token] = self._convert(token, special=True)
        return piece

    def show(self, marks: Sequence[str]) -> None:
        """From now on control tokens with these names are part of the text."""
        for mark in marks:
            tokens = self.tokenize(mark, add_special=False, parse_special=True)
            if len(tokens) == 1:
                self._pieces[tokens[0]] = self.special_piece(tokens[0])

    def name(self, token: int) -> str:
        """How the vocabulary writes a token; empty for none (-1)."""
        return self.special_piece(token).decode("utf-8", "replace") if 0 <= token < self.vocabulary else ""

    def ends(self, token: int) -> bool:
        """Is it one of the tokens that end an answer?"""
        end = self._ends.get(token)
        if end is None:
            end = self._ends[token] = bool(lib.llama_vocab_is_eog(self.vocab, token))
        return end

    def all_ends(self) -> list[int]:
        return [token for token in range(self.vocabulary) if self.ends(token)]

    def close(self) -> None:
        if self.handle:
            lib.llama_model_free(self.handle)
            self.handle = None

    def _convert(self, token: int, *, special: bool) -> bytes:
        room = ctypes.create_string_buffer(64)  # one of its own: several threads ask
        size = lib.llama_token_to_piece(self.vocab, token, room, len(room), 0, special)
        if size < 0:  # a longer token: llama.cpp says how long
            room = ctypes.create_string_buffer(-size)
            size = lib.llama_token_to_piece(self.vocab, token, room, len(room), 0, special)
        return room.raw[:size]
