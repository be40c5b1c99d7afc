"""``hybridd models rm``"""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from hybridd.cli import output
from hybridd.cli.commands.models import common
from hybridd.cli.options import command, socket_option
from hybridd.client.stdlib import Api
from hybridd.contracts.units import size
from hybridd.errors import InvalidRequest
from hybridd.local import library, removal


@command("hybridd models rm tiny-Q4_K_M", "hybridd models rm tiny-Q4_K_M --yes --json")
@common.model_argument
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@common.config_option
@socket_option
def cli(api: Api, as_json: bool, name: str, yes: bool, dry_run: bool, config: Path | None) -> None:
    """Remove MODEL from this machine. A model that is loaded is not removed; of one that was linked (`models import`)
    only the link goes. Works without a daemon."""
    view = common.resident(api)
    where = common.folders(config, view)
    model = library.find(library.models(where), name)
    busy = set(common.loaded(view)) & {model.id, *model.aliases}
    if busy:
        raise InvalidRequest(
            f"{model.id} is loaded; `hybridd models unload {sorted(busy)[0]}` first", code="model_loaded", status=409
        )
    doomed = removal.plan_removal(model, where)
    freed = sum(one.bytes for one in doomed)
    if not (yes or dry_run):
        _ask(model, doomed, freed, as_json)
    done = doomed if dry_run else removal.remove(doomed, where)
    freed = sum(one.bytes for one in done)
    also = f"; it stays reachable as {', '.join(model.aliases)}" if model.aliases else ""
    verb = "Would remove" if dry_run else "Removed"
    common.emit_state(
        {"model": model.id, "removed": msgspec.to_builtins(done), "freed": freed, "dry_run": dry_run},
        as_json,
        f"{verb} {model.id}: {size(freed)} freed{also}.",
    )


def _ask(model: library.Model, doomed: list[removal.Removal], freed: int, as_json: bool) -> None:
    if as_json:
        raise click.UsageError("with --json, --yes has to be given: there is nobody to ask")
    for one in doomed:
        output.emit(f"  {one.path}  ({one.why})")
    click.confirm(f"Remove {model.id}, {size(freed)}?", abort=True, err=True)
