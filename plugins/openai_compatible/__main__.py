"""``python -m plugins.openai_compatible``: every configured OpenAI-shaped host in this one process."""

from __future__ import annotations

from hybridd.plugin import Plugin, PluginConfig, Provider, run
from plugins.openai_compatible.provider import HostProvider
from plugins.openai_compatible.upstream import Connections


async def providers(config: PluginConfig) -> list[Provider]:
    connections = Connections()
    return [HostProvider(name, settings, connections) for name, settings in config.providers.items()]


def main() -> None:
    run(Plugin("openai_compatible", "1", providers))


if __name__ == "__main__":
    main()
