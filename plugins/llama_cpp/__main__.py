"""``python -m plugins.llama_cpp``."""

from __future__ import annotations

from hybridd.plugin import Plugin, PluginConfig, Provider, run
from plugins.llama_cpp.provider import Local


def providers(config: PluginConfig) -> list[Provider]:
    return [Local(name, settings) for name, settings in (config.providers or {"local": {}}).items()]


def main() -> None:
    run(Plugin("llama_cpp", "1", providers))


if __name__ == "__main__":
    main()
