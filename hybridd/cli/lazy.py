"""Groups whose commands are modules, each imported when it is used: the command line starts as fast as its lightest
part."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from importlib import import_module
from typing import Any

import click

from hybridd.i18n import _


class LazyGroup(click.Group):
    """``modules``: command to module below ``package``, in the order of the help; each module exports ``cli``."""

    def __init__(self, *args: Any, package: str, modules: Mapping[str, str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.package = package
        self.modules = modules

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.modules)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = self.modules.get(cmd_name)
        if module is None:
            return None
        command: click.Command = import_module(f"{self.package}.{module}").cli
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in self.modules:
            near = get_close_matches(args[0], self.modules, n=1)
            said = _("there is no command '{name}'").format(name=args[0])
            hint = "; " + _("the nearest is '{name}'").format(name=near[0]) if near else ""
            raise click.UsageError(said + hint, ctx)
        return super().resolve_command(ctx, args)
