"""``python -m plugins.llama_cpp``."""

from __future__ import annotations

import importlib

from hybridd.plugin import Plugin, PluginConfig, Provider, run
from plugins.llama_cpp.provider import Local


def providers(config: PluginConfig) -> list[Provider]:
    return [Local(name, settings) for name, settings in (config.providers or {"local": {}}).items()]


def prepare() -> None:
    """What a load imports; most of it is llama.cpp's libraries."""
    importlib.import_module("plugins.llama_cpp.engine")


def main() -> None:
    run(Plugin("llama_cpp", "1", providers), prepare=prepare)


if __name__ == "__main__":
    main()
