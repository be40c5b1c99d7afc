"""One llama.cpp context: its batch, its memory of sequences, and running it.

The batch is llama.cpp's own structure over buffers that are made once. What a step costs in Python is a slice
assignment per prompt and four item assignments per decoded token.
"""

from __future__ import annotations

import ctypes
from array import array
from typing import Any

from hybridd.plugin import LoadFailed
from plugins.llama_cpp import native
from plugins.llama_cpp.bindings import lib
from plugins.llama_cpp.native import Model

_BF16 = 30  # ggml has it, its Python names do not

# What llama_decode answers.
DONE = 0
NO_CELLS = 1
ABORTED = 2

_TYPES = {
    "f32": lib.GGML_TYPE_F32, "f16": lib.GGML_TYPE_F16, "bf16": _BF16, "q8_0": lib.GGML_TYPE_Q8_0,
    "q5_1": lib.GGML_TYPE_Q5_1, "q5_0": lib.GGML_TYPE_Q5_0, "q4_1": lib.GGML_TYPE_Q4_1, "q4_0": lib.GGML_TYPE_Q4_0,
    "iq4_nl": lib.GGML_TYPE_IQ4_NL,
}  # fmt: skip


# The same function as llama_cpp's, but its pointer comes as a number.
_address_of_logits = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int32)(
    ("llama_get_logits_ith", lib._lib)
)


class _Abort:
    """Tells llama.cpp to stop computing, from any thread, without Python in its way.

    llama.cpp asks before each node of a graph, hundreds of times in a step. A Python callback would take the
    interpreter's lock each time; the C library's ``strlen`` on a text of ours answers 0 (go on) or 1 (stop).
    """

    def __init__(self) -> None:
        self.text = ctypes.create_string_buffer(2)
        libc: Any = ctypes.CDLL(None)
        self.function = ctypes.cast(libc.strlen, lib.ggml_abort_callback)

    def set(self) -> None:
        self.text[0] = b"x"

    def clear(self) -> None:
        self.text[0] = b"\0"


class Context:
    """``capacity``: tokens of one batch; ``room``: tokens that one sequence may hold; ``cells``: of all together."""

    def __init__(
        self,
        model: Model,
        *,
        context: int,
        sequences: int,
        batch: int,
        micro_batch: int,
        threads: int,
        unified: bool = True,
        type_k: str = "f16",
        type_v: str = "f16",
        flash_attention: bool = True,
        embeddings: bool = False,
        outputs: int = 0,
        positions: int = 0,
    ) -> None:
        """``outputs``: rows of a batch whose results may be asked for, at least one a sequence; 0: all. ``positions``:
        how many the model has learned, for llama.cpp rounds a context up and aborts past them; 0: it has no such table.

        Raises:
            LoadFailed: ``kv`` or ``runtime``, there is no memory for it.
        """
        self.model = model
        self._abort = _Abort()
        wanted = lib.llama_context_default_params()
        wanted.n_ctx, wanted.n_batch, wanted.n_ubatch = context, batch, min(batch, micro_batch)
        wanted.n_seq_max = sequences
        wanted.n_threads = wanted.n_threads_batch = native.threads_for(threads)
        wanted.type_k, wanted.type_v = _TYPES[type_k], _TYPES[type_v]
        wanted.flash_attn_type = (
            lib.LLAMA_FLASH_ATTN_TYPE_ENABLED if flash_attention else lib.LLAMA_FLASH_ATTN_TYPE_DISABLED
        )
        wanted.kv_unified = unified
        wanted.swa_full = False
        wanted.no_perf = True
        wanted.embeddings = embeddings
        if outputs and not embeddings:
            wanted.n_outputs_max = max(outputs, sequences)
        wanted.abort_callback = self._abort.function
        wanted.abort_callback_data = ctypes.addressof(self._abort.text)
        with native.captured() as lines:
            self.handle: Any = lib.llama_init_from_model(model.handle, wanted)
        self.log = lines
        if not self.handle:
            raise native.failure("kv", lines, f"a context of {context} tokens for {sequences} sequences")
        self.memory: Any = lib.llama_get_memory(self.handle)
        self.cells: int = lib.llama_n_ctx(self.handle)
        room: int = lib.llama_n_ctx_seq(self.handle)
        self.room = min(room, positions) if positions else room
        self.capacity: int = lib.llama_n_batch(self.handle)
        self.micro_batch: int = lib.llama_n_ubatch(self.handle)
        self.sequences: int = lib.llama_n_seq_max(self.handle)
        self.threads: int = lib.llama_n_threads(self.handle)
        self.unified = unified
        self._logits = ctypes.c_float * model.vocabulary
        self._make_batch()

    def _make_batch(self) -> None:
        rows = self.capacity
        self._tokens, self._positions = (lib.llama_token * rows)(), (lib.llama_pos * rows)()
        self._counts, self._owners = (ctypes.c_int32 * rows)(), (lib.llama_seq_id * rows)()
        self._wanted = (ctypes.c_int8 * rows)()
        pointer = ctypes.POINTER(lib.llama_seq_id)
        self._pointers = (pointer * rows)()
        start = ctypes.addressof(self._owners)
        for row in range(rows):
            self._counts[row] = 1  # each token belongs to one sequence
            self._pointers[row] = ctypes.cast(start + row * ctypes.sizeof(lib.llama_seq_id), pointer)
        self._batch = lib.llama_batch(
            0, self._tokens, None, self._positions, self._counts,
            ctypes.cast(self._pointers, ctypes.POINTER(pointer)), self._wanted,
        )  # fmt: skip
        self._token_view, self._position_view = _view(self._tokens, "i"), _view(self._positions, "i")
        self._owner_view, self._wanted_view = _view(self._owners, "i"), _view(self._wanted, "b")
        self._count_up = array("i", range(self.room + 1))
        self._rows = 0
        self._outputs: list[int] = []

    # the batch

    @property
    def rows(self) -> int:
        return self._rows

    def begin(self) -> None:
        """An empty batch."""
        for row in self._outputs:
            self._wanted_view[row] = 0
        self._outputs.clear()
        self._rows = 0

    def put(self, token: int, position: int, sequence: int) -> int:
        """One token whose output is wanted; returns its row."""
        row = self._rows
        self._token_view[row] = token
        self._position_view[row] = position
        self._owner_view[row] = sequence
        self._wanted_view[row] = 1
        self._outputs.append(row)
        self._rows = row + 1
        return row

    def again(self, tokens: list[int]) -> None:
        """The batch that was run last, of single tokens, with new ones at the next positions."""
        token_view, position_view = self._token_view, self._position_view
        for row, token in enumerate(tokens):
            token_view[row] = token
            position_view[row] += 1

    def put_run(self, tokens: array[int], start: int, stop: int, sequence: int, *, outputs: int) -> int:
        """``tokens[start:stop]`` at these positions, with the outputs of the last ``outputs``; returns the last row."""
        first, count = self._rows, stop - start
        end = first + count
        self._token_view[first:end] = memoryview(tokens)[start:stop]
        self._position_view[first:end] = memoryview(self._count_up)[start:stop]
        self._owner_view[first:end] = array("i", (sequence,)) * count
        for row in range(end - outputs, end):
            self._wanted_view[row] = 1
            self._outputs.append(row)
        self._rows = end
        return end - 1

    def run(self) -> int:
        """Computes the batch; the interpreter's lock is free meanwhile. :data:`DONE`, :data:`NO_CELLS`,
        :data:`ABORTED`, or less than 0: broken. What is not done leaves sequences that must be cut by :meth:`keep`."""
        self._batch.n_tokens = self._rows
        return int(lib.llama_decode(self.handle, self._batch))

    def encode(self) -> int:
        """Like :meth:`run`, for models that only encode."""
        self._batch.n_tokens = self._rows
        return int(lib.llama_encode(self.handle, self._batch))

    def abort(self) -> None:
        """Ends the :meth:`run` under way soon, and every later one until :meth:`resume`. Safe in any thread."""
        self._abort.set()

    def resume(self) -> None:
        """Nothing before this counts as an abort any more."""
        self._abort.clear()

    # memory

    def keep(self, sequence: int, count: int) -> int:
        """Cuts a sequence to its first ``count`` tokens; returns how many are left: that many, or 0 where its memory
        cannot go back so far (a recurrent state, cells out of a sliding window that are overwritten)."""
        memory = self.memory
        if not memory:
            return 0
        if count > 0:
            end = lib.llama_memory_seq_pos_max(memory, sequence) + 1
            whole = end == count or (end > count and lib.llama_memory_seq_rm(memory, sequence, count, -1))
            if whole and (not self.model.window or self._window_is_whole(sequence, count)):
                return count
        lib.llama_memory_seq_rm(memory, sequence, -1, -1)
        return 0

    def _window_is_whole(self, sequence: int, count: int) -> bool:
        first: int = lib.llama_memory_seq_pos_min(self.memory, sequence)
        return self.model.recurrent or 0 <= first <= max(0, count - self.model.window)

    def copy(self, source: int, target: int, count: int) -> int:
        """Gives ``target`` the first ``count`` tokens of ``source``; returns how many it really has then."""
        if not self.memory:
            return 0
        lib.llama_memory_seq_rm(self.memory, target, -1, -1)
        # A partial copy exists only where sequences share cells; elsewhere all is copied and then cut.
        end = count if self.unified and not self.model.recurrent else -1
        lib.llama_memory_seq_cp(self.memory, source, target, -1 if end < 0 else 0, end)
        return self.keep(target, count)

    def clear(self) -> None:
        if self.memory:
            lib.llama_memory_clear(self.memory, False)

    # results

    def logits(self, row: int) -> Any:
        """The logits of that row, one per token of the vocabulary, as a buffer that is valid until the next
        :meth:`run`."""
        return self._logits.from_address(_address_of_logits(self.handle, row))

    def pooled(self, sequence: int) -> list[float]:
        """The vector of a sequence after a batch that wanted embeddings.

        Raises:
            LoadFailed: the model gives none.
        """
        vector = lib.llama_get_embeddings_seq(self.handle, sequence)
        if not vector:
            raise LoadFailed("bad_file", "the model gives no embedding for a text")
        return list(vector[: self.model.embedding])

    def close(self) -> None:
        if self.handle:
            lib.llama_free(self.handle)
            self.handle = None


def _view(buffer: Any, code: Any) -> memoryview:
    return memoryview(buffer).cast("B").cast(code)
