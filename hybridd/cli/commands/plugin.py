"""``hybridd plugin``"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import click

from hybridd.cli import output, text
from hybridd.cli.options import command, group, list_options, socket_option
from hybridd.client import wire
from hybridd.client.stdlib import Api


@group("hybridd plugin list", "hybridd plugin check ./my_plugin", "hybridd plugin bridge -- ./provider.sh")
@click.pass_context
def cli(context: click.Context) -> None:
    """Provider plugins: list the running ones, and tools for authors."""
    if context.invoked_subcommand is None:
        output.emit(context.get_help())


@command("hybridd plugin list --sort -restarts")
@list_options
@socket_option
def list_(api: Api, as_json: bool, filter_: str | None, sort: str | None) -> None:
    """The daemon's plugins and how they are."""
    answer = api.send(wire.get("/v1/plugins"))
    plugins = output.select(answer["plugins"], filter_, sort)
    if as_json:
        output.emit_json({**answer, "plugins": plugins})
        return
    titles = [
        output.Column("PLUGIN"),
        output.Column("STATE"),
        output.Column("PID", right=True),
        output.Column("RESTARTS", right=True),
        output.Column("PROVIDERS", flexible=True),
        output.Column("REASON", flexible=True),
    ]
    output.table(titles, [_row(one) for one in plugins])
    for one in plugins:
        for line in (one.get("stderr") or [])[-3:] if one.get("state") == "failed" else ():
            output.emit(f"{one['name']}: {text.clean(line)}")


def _row(one: dict[str, Any]) -> tuple[str, ...]:
    return (
        one["name"],
        one["state"],
        str(one.get("pid") or "-"),
        str(one.get("restarts", 0)),
        ", ".join(one.get("providers") or []) or "-",
        one.get("reason") or "",
    )


@command("hybridd plugin check ./my_plugin", "hybridd plugin check ./my_plugin --json")
@click.argument("path", type=click.Path(path_type=Path))
def check(path: Path, as_json: bool) -> int:
    """Start the plugin at PATH by itself and see whether it keeps the protocol. Works without a daemon."""
    result: int = import_module("hybridd.providers.check").main(path, as_json)
    return result


@click.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    epilog="\b\nExample:\n  hybridd plugin bridge -- ./provider.sh --model tiny",
)
@click.argument("argv", nargs=-1, type=click.UNPROCESSED, metavar="-- CMD [ARGUMENT]...")
def bridge(argv: tuple[str, ...]) -> int:
    """Let any program be a plugin: CMD speaks the protocol's messages as NDJSON on its standard streams."""
    if not argv:
        raise click.UsageError("write the program after --, as in: hybridd plugin bridge -- ./provider.sh")
    result: int = import_module("hybridd.plugin.bridge").main(list(argv))
    return result


@command("hybridd plugin schema > protocol.schema.json")
def schema(as_json: bool) -> None:
    """The JSON Schema of every message of the plugin protocol. Works without a daemon."""
    output.emit_json(import_module("hybridd.plugin.schema").schema())


cli.add_command(list_, "list")
cli.add_command(check, "check")
cli.add_command(bridge, "bridge")
cli.add_command(schema, "schema")
