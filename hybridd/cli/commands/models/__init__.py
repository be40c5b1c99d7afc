"""``hybridd models``: local GGUF models. Each sub-command is a module of this package that exports ``cli``."""

from __future__ import annotations

from importlib.util import find_spec

import click

from hybridd.cli.lazy import LazyGroup

# name → module; the order is the order of the help.
_MODULES = {
    "search": "search",
    "plan": "plan",
    "pull": "pull",
    "import": "import_",
    "list": "list_",
    "show": "show",
    "verify": "verify",
    "rm": "rm",
    "gc": "gc",
    "load": "load",
    "unload": "unload",
    "ps": "ps",
    "bench": "bench",
}

_EXAMPLE = """\b
Example:
  hybridd models plan Qwen/Qwen3-4B-GGUF
  hybridd models plan ./model.gguf --ctx 16384 --goal context
"""


@click.group(
    cls=LazyGroup,
    package=__name__,
    # A build without one of the parts does not offer its command.
    modules={name: module for name, module in _MODULES.items() if find_spec(f"{__name__}.{module}")},
    invoke_without_command=True,
    epilog=_EXAMPLE,
)
@click.pass_context
def cli(context: click.Context) -> None:
    """Local GGUF models: find, plan, download, load and measure them."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())
