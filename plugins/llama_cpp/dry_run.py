"""What llama.cpp would allocate for a model, asked of llama.cpp itself in a process that is thrown away.

``python -m plugins.llama_cpp.dry_run`` reads ``{"path", "options"}`` on stdin (the options as the daemon's
``LoadOptions``) and prints one line of JSON: ``{"device": {…}, "host": {…}, "buffers": […]}``, or
``{"failure": {"cause", "message"}}``. Nothing of the size of the model is allocated (``no_alloc``): graphs and caches
are only counted, weights are not counted at all. A file that llama.cpp aborts on ends the process; whoever started it
sees the signal.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import msgspec

from plugins.llama_cpp.measure import Measured, measured

_NO_MEMORY = ("out of memory", "failed to allocate", "unable to allocate", "cannot allocate")
_DRIVER = ("cuda error", "no cuda-capable", "driver version", "failed to initialize cuda", "rocm error")
_LAST = 5
_ERROR = 4


class Asked(msgspec.Struct):
    path: str
    options: dict[str, Any] = {}


class Problem(msgspec.Struct, frozen=True):
    """``cause``: one of hybridd's causes of a failed load."""

    cause: str
    message: str


class Refused(msgspec.Struct, frozen=True):
    failure: Problem


class _Log:
    """Everything that llama.cpp logs, and its last errors."""

    def __init__(self, lib: Any) -> None:
        self.lines: list[str] = []
        self.errors: list[str] = []
        self._kept = lib.llama_log_callback(self._note)  # or it would be freed while llama.cpp still calls it
        lib.llama_log_set(self._kept, None)

    def _note(self, level: int, text: bytes, _: object) -> None:
        line = (text or b"").decode("utf-8", "replace")
        self.lines.append(line)
        if level == _ERROR and line.strip():
            self.errors.append(" ".join(line.split()))

    def problem(self, stage: str, what: str) -> Problem:
        said = "; ".join(self.errors[-_LAST:]) or "llama.cpp gave no reason"
        text = said.lower()
        if any(words in text for words in _DRIVER):
            cause = "driver"
        elif any(words in text for words in _NO_MEMORY):
            cause = "weights" if stage == "model" else "kv"
        else:
            cause = "bad_file" if stage == "model" else "runtime"
        return Problem(cause, f"llama.cpp cannot load {what}: {said}")


def look(asked: Asked) -> Measured | Problem:
    """Blocks for as long as llama.cpp takes to read the vocabulary and to build its graphs."""
    from llama_cpp import llama_cpp as lib

    log = _Log(lib)
    lib.llama_backend_init()
    options = asked.options
    wanted = lib.llama_model_default_params()
    wanted.no_alloc = True
    wanted.load_mode = lib.LLAMA_LOAD_MODE_NONE  # nothing may be mapped either
    wanted.n_gpu_layers = int(options.get("gpu_layers", 0))
    # One GPU takes all, or none is touched: without layers there it would still compute large batches.
    wanted.split_mode = lib.LLAMA_SPLIT_MODE_NONE
    wanted.main_gpu = int(options.get("gpu", 0)) if wanted.n_gpu_layers else -1
    model = lib.llama_model_load_from_file(os.fsencode(asked.path), wanted)
    if not model:
        return log.problem("model", os.path.basename(asked.path))
    try:
        context = lib.llama_init_from_model(model, parameters(lib, model, options))
        if not context:
            return log.problem("context", f"a context of {options.get('context', 0)} tokens")
        lines = list(log.lines)  # before the context says good-bye
        lib.llama_free(context)
    finally:
        lib.llama_model_free(model)
    return measured(lines)


def parameters(lib: Any, model: Any, options: dict[str, Any]) -> Any:
    """Those of the context that the engine makes for a model and the daemon's ``LoadOptions``."""
    kinds = {
        "f32": lib.GGML_TYPE_F32, "f16": lib.GGML_TYPE_F16, "bf16": 30, "q8_0": lib.GGML_TYPE_Q8_0,
        "q5_1": lib.GGML_TYPE_Q5_1, "q5_0": lib.GGML_TYPE_Q5_0, "q4_1": lib.GGML_TYPE_Q4_1,
        "q4_0": lib.GGML_TYPE_Q4_0, "iq4_nl": lib.GGML_TYPE_IQ4_NL,
    }  # fmt: skip
    wanted = lib.llama_context_default_params()
    embeds = not lib.llama_model_has_decoder(model) or _pooled(lib, model)
    wanted.n_ctx = int(options.get("context", 4096))
    wanted.n_batch = int(options.get("batch", 2048))
    wanted.n_ubatch = min(wanted.n_batch, int(options.get("micro_batch", 512)))
    wanted.n_seq_max = int(options.get("sequences", 1))
    wanted.n_outputs_max = 0 if embeds else int(options.get("outputs", 0))
    wanted.kv_unified = bool(options.get("unified", True))
    wanted.type_k = kinds[str(options.get("type_k", "f16"))]
    wanted.type_v = kinds[str(options.get("type_v", "f16"))]
    wanted.flash_attn_type = int(bool(options.get("flash_attention", True)))
    wanted.swa_full = False
    wanted.embeddings = embeds
    if embeds:  # as the engine does: a text is seen as a whole, by all sequences alike
        least = min(wanted.n_ctx, max(wanted.n_batch, int(options.get("micro_batch", 512))))
        wanted.n_batch = wanted.n_ubatch = least + -least % wanted.n_seq_max
    return wanted


def _pooled(lib: Any, model: Any) -> bool:
    import ctypes

    text = ctypes.create_string_buffer(64)
    architecture = ctypes.create_string_buffer(64)
    if lib.llama_model_meta_val_str(model, b"general.architecture", architecture, 64) < 0:
        return False
    length = lib.llama_model_meta_val_str(model, architecture.value + b".pooling_type", text, 64)
    return length > 0 and text.value not in (b"0", b"")


def main() -> int:
    os.environ.setdefault("GGML_NO_BACKTRACE", "1")  # an abort would start a debugger first
    asked = msgspec.json.decode(sys.stdin.buffer.read(), type=Asked)
    found = look(asked)
    answer = Refused(found) if isinstance(found, Problem) else found
    sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")
    sys.stdout.buffer.flush()
    return 1 if isinstance(found, Problem) else 0


if __name__ == "__main__":
    sys.exit(main())
