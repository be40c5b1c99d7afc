"""``hybridd models import``"""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from hybridd.cli import output
from hybridd.cli.commands.models import common
from hybridd.cli.options import command, socket_option
from hybridd.client.stdlib import Api
from hybridd.contracts.units import size
from hybridd.errors import NotFound
from hybridd.local import imports
from hybridd.local.imports import Imported


@command(
    "hybridd models import --dry-run",
    "hybridd models import ollama",
    "hybridd models import lm-studio --from ~/.lmstudio/models --hard",
)
@click.argument("source", type=click.Choice(["ollama", "lm-studio", "all"]), default="all")
@click.option("--from", "root", type=click.Path(path_type=Path), help="Their folder (default: where they keep it).")
@click.option("--hard", is_flag=True, help="Hard links: the model stays when the other program removes it.")
@click.option("--dry-run", is_flag=True, help="Only say what would be linked.")
@common.config_option
@socket_option
def cli(
    api: Api, as_json: bool, source: str, root: Path | None, hard: bool, dry_run: bool, config: Path | None
) -> None:
    """Take over the models of Ollama and LM Studio by links: nothing is copied, nothing of theirs is changed. Doing it
    again links what is new. Works without a daemon."""
    if root is not None and source == "all":
        raise click.UsageError("--from needs a source: ollama or lm-studio")
    target = common.folders(config, common.resident(api)).models
    done: list[Imported] = []
    sought = []
    if source in {"ollama", "all"}:
        folder = root or imports.ollama_folder()
        sought.append("Ollama")
        done += imports.ollama(folder, target, hard=hard, dry_run=dry_run) if folder else []
    if source in {"lm-studio", "all"}:
        folder = root or imports.lm_studio_folder()
        sought.append("LM Studio")
        done += imports.lm_studio(folder, target, hard=hard, dry_run=dry_run) if folder else []
    if not done and root is None and source != "all":
        raise NotFound(f"no models of {sought[0]} were found; --from names their folder")
    _show(done, as_json, dry_run)


def _show(done: list[Imported], as_json: bool, dry_run: bool) -> None:
    if as_json:
        output.emit_json({"models": msgspec.to_builtins(done), "dry_run": dry_run})
        return
    if not done:
        output.emit("No models of Ollama or LM Studio were found; --from names a folder.")
        return
    titles = [output.Column("THERE", flexible=True), output.Column("STATE"), output.Column("HERE", flexible=True)]
    output.table(titles, [(one.name, one.state, one.reason or Path(one.link).name) for one in done])
    linked = [one for one in done if one.state in {"linked", "updated"}]
    verb = "would be linked" if dry_run else "linked"
    output.emit(f"{len(linked)} {verb}, {size(sum(one.bytes for one in linked))} shared; {len(done)} looked at.")
