"""``hybridd models gc``"""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from hybridd.cli import output
from hybridd.cli.commands.models import common
from hybridd.cli.options import command, socket_option
from hybridd.client.stdlib import Api
from hybridd.contracts.units import size
from hybridd.local import removal


@command("hybridd models gc --dry-run", "hybridd models gc --json")
@click.option("--dry-run", is_flag=True, help="Only say what would go, with the bytes.")
@common.config_option
@socket_option
def cli(api: Api, as_json: bool, dry_run: bool, config: Path | None) -> None:
    """Free what nothing refers to: parts of downloads that ended, contents of the Hub's cache without a name, links to
    nothing. Running downloads and models are left alone. Works without a daemon."""
    where = common.folders(config, common.resident(api))
    found = removal.plan_collection(where)
    done = found if dry_run else removal.remove(found, where)
    freed = sum(one.bytes for one in done)
    if as_json:
        output.emit_json({"removed": msgspec.to_builtins(done), "freed": freed, "dry_run": dry_run})
        return
    for one in done:
        output.emit(f"  {one.path}  {size(one.bytes)}  ({one.why})")
    verb = "Would free" if dry_run else "Freed"
    output.emit(f"{verb} {size(freed)} in {len(done)} entries." if done else "Nothing to free.")
