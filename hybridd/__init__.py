"""hybridd: the always-on local switchboard for one developer's model requests.

The public Python API is re-exported lazily, so that ``import hybridd`` stays cheap for the command line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hybridd._version import __version__

if TYPE_CHECKING:
    from hybridd.client import AsyncClient, Client, HybridMLOptimizer

__all__ = ["AsyncClient", "Client", "HybridMLOptimizer", "__version__"]


def __getattr__(name: str) -> Any:
    if name in {"AsyncClient", "Client", "HybridMLOptimizer"}:
        import hybridd.client

        return getattr(hybridd.client, name)
    raise AttributeError(f"module 'hybridd' has no attribute {name!r}")
