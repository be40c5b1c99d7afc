"""``hybridd models search``"""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from hybridd.cli import output
from hybridd.cli.commands.models import common
from hybridd.cli.options import command, list_options, socket_option
from hybridd.client.stdlib import Api
from hybridd.local.hub import Found, Hub, token_of


@command("hybridd models search qwen3 4b instruct", "hybridd models search gemma --limit 50 --sort -likes --json")
@click.argument("words", nargs=-1, required=True)
@click.option("--limit", type=click.IntRange(1, 200), default=20, show_default=True, help="Repositories at most.")
@list_options
@common.config_option
@socket_option
def cli(
    api: Api,
    as_json: bool,
    words: tuple[str, ...],
    limit: int,
    config: Path | None,
    filter_: str | None,
    sort: str | None,
) -> None:
    """Repositories of the Hub (HF_ENDPOINT) with GGUF files and WORDS in their names, most downloaded first.

    `hybridd models plan REPO` says what would fit. Works without a daemon; needs the extra hybridd[local].
    """
    hub = Hub(token_of(common.settings(config, api).hugging_face))
    found = hub.search(" ".join(words), limit=limit)
    rows = output.select([msgspec.to_builtins(one) for one in found], filter_, sort)
    if as_json:
        output.emit_json({"repositories": rows})
        return
    if not rows:
        output.emit("No repository matches.")
        return
    titles = [
        output.Column("REPOSITORY", flexible=True),
        output.Column("DOWNLOADS", right=True),
        output.Column("PARAMS", right=True),
        output.Column("CONTEXT", right=True),
        output.Column("QUANTIZATIONS", flexible=True),
    ]
    output.table(titles, [_row(msgspec.convert(row, Found)) for row in rows])


def _row(one: Found) -> tuple[str, ...]:
    return (
        one.repo + (" (gated)" if one.gated else ""),
        common.short(one.downloads),
        common.short(one.parameters),
        common.short(one.context),
        ", ".join(one.quantizations) or "-",
    )
