"""llama.cpp's own C++ server, by way of the package ``xllamacpp``: `python local_xllamacpp.py '{"path": …, …}'`.

Runs in the rivals' Python, so it imports nothing of this project. Serves until its standard input ends.
"""

from __future__ import annotations

import json
import sys

import xllamacpp  # type: ignore[import-not-found]  # not a dependency


def main() -> None:
    wanted = json.loads(sys.argv[1])
    params = xllamacpp.CommonParams()
    params.model.path = wanted["path"]
    params.n_ctx = wanted["context"]
    params.n_parallel = wanted["sequences"]
    params.kv_unified = wanted["unified"]
    params.n_batch = wanted["batch"]
    params.n_ubatch = wanted["micro_batch"]
    params.cpuparams.n_threads = wanted["threads"]
    params.cpuparams_batch.n_threads = wanted["threads"]
    on = xllamacpp.llama_flash_attn_type
    params.flash_attn_type = (
        on.LLAMA_FLASH_ATTN_TYPE_ENABLED if wanted["flash_attention"] else on.LLAMA_FLASH_ATTN_TYPE_DISABLED
    )
    params.fit_params = False
    params.hostnames = ["127.0.0.1"]
    params.port = wanted["port"]
    server = xllamacpp.Server(params)
    print(server.listening_address, xllamacpp.get_system_info(), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
