"""``hybridd serve``"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import click

from hybridd.cli import output
from hybridd.cli.options import command


@command("hybridd serve", "hybridd serve --config config/ml/hybrid_config.json", "hybridd serve --check --json")
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    help="The configuration (default: HYBRIDD_CONFIG or $XDG_CONFIG_HOME/hybridd/hybrid_config.json).",
)
@click.option("--check", is_flag=True, help="Only read the configuration and say what it means.")
def cli(config: Path | None, check: bool, as_json: bool) -> int:
    """Run the daemon in the foreground, until SIGTERM or Ctrl-C. SIGHUP reloads the configuration."""
    if check:
        _check(config, as_json)
        return 0
    # The daemon is the layer above: it is found by name, so that this module does not depend on it.
    result = import_module("hybridd.daemon").main(config=config)
    return result if isinstance(result, int) else 0


def _check(config: Path | None, as_json: bool) -> None:
    from hybridd.config import loader

    resolved = loader.load(config)
    tasks = {name: [str(candidate) for candidate in task.candidates] for name, task in resolved.tasks.items()}
    providers = {
        name: "disabled" if not spec.enabled else spec.not_configured or "configured"
        for name, spec in resolved.providers.items()
    }
    if as_json:
        output.emit_json({"path": resolved.path, "providers": providers, "tasks": tasks})
        return
    output.emit(f"configuration: {resolved.path or 'none, everything has its default'}")
    output.table(
        [output.Column("PROVIDER"), output.Column("STATE", flexible=True)], [[*pair] for pair in providers.items()]
    )
    output.emit()
    output.table(
        [output.Column("TASK"), output.Column("CANDIDATES", flexible=True)],
        [[name, ", ".join(candidates)] for name, candidates in tasks.items()],
    )
