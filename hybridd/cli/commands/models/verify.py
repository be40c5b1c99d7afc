"""``hybridd models verify``"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import click
import msgspec

from hybridd import errors
from hybridd.cli import output
from hybridd.cli.commands.models import common
from hybridd.cli.commands.models.progress import Progress
from hybridd.cli.options import command, socket_option
from hybridd.client.stdlib import Api
from hybridd.local import index, library
from hybridd.local import verify as checking
from hybridd.local.verify import Checked


@command("hybridd models verify tiny-Q4_K_M", "hybridd models verify --json")
@click.argument("names", nargs=-1, metavar="[MODEL]...", shell_complete=common.complete_model)
@common.config_option
@socket_option
def cli(api: Api, as_json: bool, names: tuple[str, ...], config: Path | None) -> int:
    """Read models from end to end (all of them, when none is named): is the content the one that was downloaded, and
    is the header a model's? A file without a recorded digest gets one. Exits with 1 when something is wrong. Works
    without a daemon."""
    entries = index.read()
    where = common.folders(config, common.resident(api))
    known = library.models(where, entries)
    wanted = [library.find(known, name) for name in names] or known
    problems = asyncio.run(_headers([Path(model.path) for model in wanted]))
    checked: list[Checked] = []
    total = sum(model.bytes for model in wanted)
    before = 0
    with Progress(quiet=as_json) as progress:
        for model in wanted:
            base = before

            def show(file: str, done: int, base: int = base) -> None:
                progress.show(file, base + done, total)

            checked += checking.verify(model, entries, problems.get(Path(model.path), ""), show)
            before += model.bytes
    checking.remember(checked, entries)
    wrong = [one for one in checked if one.state in {"changed", "broken", "missing"}]
    if as_json:
        output.emit_json({"files": msgspec.to_builtins(checked), "wrong": len(wrong)})
    elif not checked:
        output.emit("No models to check.")
    else:
        titles = [output.Column("FILE", flexible=True), output.Column("STATE"), output.Column("DETAIL", flexible=True)]
        output.table(titles, [_row(msgspec.to_builtins(one)) for one in checked])
    return errors.EXIT_FAILURE if wrong else errors.EXIT_OK


async def _headers(paths: list[Path]) -> dict[Path, str]:
    """What is wrong with each header, read in a child process; a right one is not named."""
    from hybridd.local.inspect import inspect

    return {path: found for path, found in (await inspect(paths)).items() if isinstance(found, str)}


def _row(one: dict[str, Any]) -> tuple[str, str, str]:
    name = Path(one["file"]).name
    detail = one["problem"] or (f"as {one['against']} says" if one["against"] else "digest kept for the next time")
    return name, one["state"], detail
