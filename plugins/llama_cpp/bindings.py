"""llama-cpp-python's low-level half, without the other one.

Importing the package runs its ``__init__``, which brings the chat formats, servers' types and more along: 25 ms of each
load and 3 MB of each worker that nothing here uses. Its low-level module needs none of that.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from typing import TYPE_CHECKING, Any

__all__ = ["lib"]

# llama.cpp's threads wait for each other in OpenMP barriers, by default spinning for milliseconds. With as many
# threads as cores, and a daemon and its callers beside them, a core spins for a thread that it keeps from running:
# beside one busy process that took four times the CPU time at a quarter of the speed. Alone it makes no difference.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # read when the library is loaded
os.environ.setdefault("GGML_NO_BACKTRACE", "1")  # or an abort first runs a debugger on this process


def _low_level() -> Any:
    if "llama_cpp" in sys.modules:
        return importlib.import_module("llama_cpp.llama_cpp")
    spec = importlib.util.find_spec("llama_cpp")
    if spec is None:
        raise ModuleNotFoundError("No module named 'llama_cpp'", name="llama_cpp")
    sys.modules["llama_cpp"] = importlib.util.module_from_spec(spec)  # it knows where its parts are, that is all
    try:
        return importlib.import_module("llama_cpp.llama_cpp")
    finally:
        # Whoever imports the package itself gets the whole of it, with this same low-level module in it.
        del sys.modules["llama_cpp"]


if TYPE_CHECKING:
    from llama_cpp import llama_cpp as lib
else:
    lib = _low_level()
