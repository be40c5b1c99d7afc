"""``hybridd tui``"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import click

from hybridd import locations
from hybridd.cli import diagnostics, output
from hybridd.errors import EXIT_OK, HybriddError
from hybridd.i18n import _

_EXAMPLE = """\b
Example:
  hybridd tui
  hybridd tui --read-only --theme hybridd-contrast
  hybridd tui --record day.ndjson
  hybridd tui --replay day.ndjson --speed 10
  hybridd tui --web --read-only
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
@click.option("--web", is_flag=True, help="Serve it to a browser on this machine; prints the address, which is a key.")
@click.option("--port", type=click.IntRange(0, 65_535), default=0, metavar="N", help="Of --web; default: a free one.")
def cli(socket: Path | None, web: bool, port: int, **given: object) -> int:
    """The live dashboard: providers, limits, requests, local models and alerts in the terminal.

    With --web the same in a browser: only this machine is served, and only whoever has the address that is printed.
    """
    for module in ("textual", "textual_serve") if web else ("textual",):
        if find_spec(module) is None:
            raise HybriddError(f"The dashboard needs {module}: pip install 'hybridd[tui]'", code="not_installed")
    if web:
        options = import_module("tui.settings").Options(socket=socket or locations.socket_path(), **given)
        import_module("tui.web").run(options, port, _tell)
        return EXIT_OK
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise click.UsageError("the dashboard needs a terminal; 'hybridd status' and 'hybridd events' print instead")
    # A package of its own, found by name: the command line does not depend on it.
    settings, main = import_module("tui.settings"), import_module("tui.__main__")
    result: int = main.run(settings.Options(socket=socket or locations.socket_path(), **given))
    return result


def _tell(address: str) -> None:
    diagnostics.note(_("Open this in a browser on this machine; Ctrl-C ends it."))
    output.emit_now(address)
