"""``hybridd tui``"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import click

from hybridd import locations
from hybridd.errors import HybriddError

_EXAMPLE = """\b
Example:
  hybridd tui
  hybridd tui --read-only --theme hybridd-contrast
  hybridd tui --record day.ndjson
  hybridd tui --replay day.ndjson --speed 10
"""


@click.command(epilog=_EXAMPLE)
@click.option(
    "--socket",
    type=click.Path(path_type=Path),
    help="The daemon's socket (default: HYBRIDD_SOCKET or the user's runtime directory).",
)
@click.option("--config", type=click.Path(path_type=Path), help="The configuration whose section 'tui' is used.")
@click.option("--read-only", is_flag=True, help="Change nothing at the daemon.")
@click.option("--ascii", "ascii_only", is_flag=True, help="Draw with ASCII alone.")
@click.option(
    "--theme",
    metavar="NAME",
    help="hybridd, hybridd-light, hybridd-contrast, hybridd-safe, ansi-dark, ansi-light or one of Textual's.",
)
@click.option("--record", type=click.Path(path_type=Path), metavar="FILE", help="Write the event stream to a new file.")
@click.option(
    "--replay", type=click.Path(path_type=Path), metavar="FILE", help="Show a recorded stream instead of a daemon."
)
@click.option(
    "--speed", type=click.FloatRange(min=0), default=1.0, show_default=True, help="Of the replay; 0: all at once."
)
def cli(socket: Path | None, **given: object) -> int:
    """The live dashboard: providers, limits, requests, local models and alerts in the terminal."""
    if find_spec("textual") is None:
        raise HybriddError("The dashboard needs Textual: pip install 'hybridd[tui]'", code="not_installed")
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise click.UsageError("the dashboard needs a terminal; 'hybridd status' and 'hybridd events' print instead")
    # A package of its own, found by name: the command line does not depend on it.
    settings, main = import_module("tui.settings"), import_module("tui.__main__")
    result: int = main.run(settings.Options(socket=socket or locations.socket_path(), **given))
    return result
