"""The command line. Each command lives in its own module and is imported when it is used."""

from __future__ import annotations

import os
import sys
from importlib import import_module

import click

from hybridd._version import __version__
from hybridd.cli import diagnostics

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
    "reload": "reload",
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


class LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = COMMANDS.get(cmd_name)
        if module is None:
            return None
        command: click.Command = import_module(f"hybridd.cli.commands.{module}").cli
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            from difflib import get_close_matches

            near = get_close_matches(args[0], COMMANDS, n=1)
            hint = f"; the nearest is '{near[0]}'" if near else ""
            raise click.UsageError(f"there is no command '{args[0]}'{hint}", ctx)
        return super().resolve_command(ctx, args)


@click.group(
    cls=LazyGroup,
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
    sys.exit(diagnostics.run(program, sys.argv[1:]))


if __name__ == "__main__":
    main()
