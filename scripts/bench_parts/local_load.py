"""llama.cpp's own load time: `python -m scripts.bench_parts.local_load '{"path": …, …}'`, a process of its own.

The weights are mapped, a context is made, and one token is computed, so that the weights are really there; nothing of
hybridd takes part. Prints the seconds of each, and of the process before them (the interpreter and its imports).
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any


def main() -> None:
    wanted = json.loads(sys.argv[1])
    from llama_cpp import llama_cpp as lib

    silent = lib.llama_log_callback(lambda *_: None)  # llama.cpp calls it as long as it lives
    lib.llama_log_set(silent, None)
    lib.llama_backend_init()
    began = time.time()
    model: Any = lib.llama_model_load_from_file(os.fsencode(wanted["path"]), lib.llama_model_default_params())
    options = lib.llama_context_default_params()
    options.n_ctx, options.n_seq_max = wanted["context"], wanted["sequences"]
    options.n_batch, options.n_ubatch = wanted["batch"], wanted["micro_batch"]
    options.n_threads = options.n_threads_batch = wanted["threads"]
    options.kv_unified = wanted["unified"]
    context: Any = lib.llama_init_from_model(model, options)
    loaded = time.time()
    tokens = (lib.llama_token * 1)(1)
    code = lib.llama_decode(context, lib.llama_batch_get_one(tokens, 1))
    computed = time.time()
    if code:
        sys.exit(f"llama_decode answered {code}")
    print(json.dumps({"before": began - _born(), "load": loaded - began, "first": computed - loaded}))


def _born() -> float:
    """When this process was started, in seconds since the epoch; 10 ms fine."""
    ticks = int(Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19])
    now = float(Path("/proc/uptime").read_text().split()[0])
    return time.time() - now + ticks / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
