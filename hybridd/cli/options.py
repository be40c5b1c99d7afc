"""What the commands share: options, the connection to the daemon, help with an example."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from hybridd.client.stdlib import Api
from hybridd.contracts.when import parse_duration, parse_when

Function = Callable[..., Any]


def json_option(function: Function) -> Function:
    """``--json``, as ``as_json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(function)


def command(*examples: str, settings: dict[str, Any] | None = None) -> Callable[[Function], click.Command]:
    """A command whose help ends with an example, and which takes ``--json``."""
    shown = "\b\nExample:\n" + "\n".join(f"  {example}" for example in examples)

    def wrap(function: Function) -> click.Command:
        return click.command(epilog=shown, context_settings=settings)(json_option(function))

    return wrap


def socket_option(function: Function) -> Function:
    """``--socket``, as an :class:`~hybridd.client.stdlib.Api` named ``api``."""

    def connect(_context: click.Context, _parameter: click.Parameter, value: Path | None) -> Api:
        return Api(value)

    return click.option(
        "--socket",
        "api",
        type=click.Path(path_type=Path),
        callback=connect,
        help="The daemon's socket (default: HYBRIDD_SOCKET or the user's runtime directory).",
    )(function)


def list_options(function: Function) -> Function:
    """``--filter`` and ``--sort``."""
    function = click.option("--sort", metavar="KEY", help="Sort by a key of the JSON; -KEY for descending.")(function)
    return click.option("--filter", "filter_", metavar="TEXT", help="Only rows with this text, or KEY=VALUE.")(function)


class Moment(click.ParamType[float]):
    """A time: ``7d`` ago, a date, a date and time. Seconds since the epoch."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            return parse_when(str(value), time.time(), local=True)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Duration(click.ParamType[float]):
    """A duration in seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            return parse_duration(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


def period_options(function: Function) -> Function:
    """``--since`` and ``--until``."""
    function = click.option("--until", type=Moment(), help="Only before: 1d ago, or a date.")(function)
    return click.option("--since", type=Moment(), help="Only after: 7d ago, or a date.")(function)


def check_task(_context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if value is not None and (not value.strip() or not value.isascii() or not value.isprintable()):
        raise click.BadParameter("must be the name of a task", param=parameter)
    return value


def group(*examples: str) -> Callable[[Function], click.Group]:
    """A group whose help ends with an example; without a subcommand it runs itself."""
    shown = "\b\nExample:\n" + "\n".join(f"  {example}" for example in examples)
    return click.group(invoke_without_command=True, epilog=shown)
