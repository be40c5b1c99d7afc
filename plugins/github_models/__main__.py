"""``python -m plugins.github_models``."""

from __future__ import annotations

from hybridd.plugin import Plugin, PluginConfig, Provider, run
from plugins.github_models.provider import GithubModels
from plugins.openai_compatible.upstream import Connections


async def providers(config: PluginConfig) -> list[Provider]:
    connections = Connections()
    return [GithubModels(name, settings, connections) for name, settings in config.providers.items()]


def main() -> None:
    run(Plugin("github_models", "1", providers))


if __name__ == "__main__":
    main()
