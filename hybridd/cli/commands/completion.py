"""``hybridd completion``"""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from hybridd.cli import output
from hybridd.cli.options import command


@command(
    'eval "$(hybridd completion bash)"',
    "hybridd completion fish > ~/.config/fish/completions/hybridd.fish",
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def cli(context: click.Context, as_json: bool, shell: str) -> None:
    """A script that completes commands and options in SHELL. Works without a daemon."""
    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"there is no completion for {shell}")
    root = context.find_root().command
    script = kind(root, {}, "hybridd", "_HYBRIDD_COMPLETE").source()
    if as_json:
        output.emit_json({"shell": shell, "script": script})
    else:
        click.echo(script)
