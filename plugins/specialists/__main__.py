"""``python -m plugins.specialists``."""

from __future__ import annotations

from hybridd.plugin import Plugin, PluginConfig, Provider, run
from plugins.specialists.provider import Specialists


def providers(config: PluginConfig) -> list[Provider]:
    return [Specialists(name, settings) for name, settings in (config.providers or {"specialists": {}}).items()]


def main() -> None:
    run(Plugin("specialists", "1", providers))


if __name__ == "__main__":
    main()
