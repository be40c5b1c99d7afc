"""The command line. Each command lives in its own module and is imported when it is used."""

from __future__ import annotations

import os
import sys

import click

from hybridd import i18n, locations
from hybridd._version import __version__
from hybridd.cli import diagnostics
from hybridd.cli.lazy import LazyGroup

COMPLETE_VARIABLE = "_HYBRIDD_COMPLETE"  # click's convention, in the scripts of `hybridd completion`

# name → module of hybridd.cli.commands; the order is the order of the help.
COMMANDS = {
    "serve": "serve",
    "status": "status",
    "limits": "limits",
    "optimize": "optimize",
    "call": "call",
    "report": "report",
    "requests": "requests",
    "why": "why",
    "feedback": "feedback",
    "alerts": "alerts",
    "events": "events",
    "logs": "logs",
    "tui": "tui",
    "reload": "reload",
    "models": "models",
    "plugin": "plugin",
    "doctor": "doctor",
    "completion": "completion",
    "version": "version",
}


_EXAMPLE = """\b
Example:
  hybridd serve
  hybridd call --task sentiment_analysis --prompt "Este produto é incrível!"
"""


@click.group(
    cls=LazyGroup,
    package="hybridd.cli.commands",
    modules=COMMANDS,
    no_args_is_help=False,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=_EXAMPLE,
)
@click.version_option(__version__, prog_name="hybridd", message="%(prog)s %(version)s")
@click.pass_context
def cli(context: click.Context) -> None:
    """The local switchboard for model requests: one socket, exact limits, automatic fallback."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def language_setting() -> str | None:
    """``tui.language`` of the default configuration, looked up when the first text is shown; mistakes are the
    daemon's and the doctor's to name."""
    import json

    try:
        document = json.loads(locations.config_path().read_bytes())
        language = document["tui"]["language"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return language if isinstance(language, str) else None


def program(arguments: list[str]) -> object:
    """Run one command. Not through ``cli.main``: that one has its own ideas about broken pipes and interrupts."""
    instruction = os.environ.get(COMPLETE_VARIABLE)
    if instruction:
        from click.shell_completion import shell_complete

        return shell_complete(cli, {}, "hybridd", COMPLETE_VARIABLE, instruction)
    with cli.make_context("hybridd", list(arguments)) as context:
        return cli.invoke(context)


def main() -> None:
    """Entry point of the console script."""
    i18n.ask_setting(language_setting)
    sys.exit(diagnostics.run(program, sys.argv[1:]))


if __name__ == "__main__":
    main()
