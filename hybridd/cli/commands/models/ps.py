"""``hybridd models ps``"""

from __future__ import annotations

from typing import Any

from hybridd.cli import output, text
from hybridd.cli.options import command, list_options, socket_option
from hybridd.client import wire
from hybridd.client.stdlib import Api
from hybridd.contracts.units import size
from hybridd.i18n import _


@command("hybridd models ps", "hybridd models ps --filter state=ready --sort -load_seconds --json")
@list_options
@socket_option
def cli(api: Api, as_json: bool, filter_: str | None, sort: str | None) -> None:
    """What is loaded now: where, how, with how much memory, and when it leaves."""
    answer = api.send(wire.get("/v1/local/resident"))
    models = output.select(answer["models"], filter_, sort)
    if as_json:
        output.emit_json({**answer, "models": models})
        return
    if not models:
        output.emit(_("No model matches.") if answer["models"] else _("No model is loaded."))
        return
    titles = [
        output.Column("MODEL", flexible=True),
        output.Column("STATE"),
        output.Column("PID", right=True),
        output.Column("GPU", right=True),
        output.Column("RAM", right=True),
        output.Column("LAYERS ON GPU", right=True),
        output.Column("CONTEXT", right=True),
        output.Column("CALLS", right=True),
        output.Column("LEAVES"),
    ]
    output.table(titles, [_row(one) for one in models])


def _row(one: dict[str, Any]) -> tuple[str, ...]:
    memory, options, loaded = one["memory"], one["options"] or {}, one["loaded"]
    layers = loaded.get("layers") or one["plan"]["layers"] + 1
    state = one["state"] if one["fraction"] is None else f"{one['state']} {one['fraction']:.0%}"
    return (
        one["model"],
        state,
        str(one["pid"] or "-"),
        size(sum(memory["device"].values())) if any(memory["device"].values()) else "-",
        size(sum(memory["host"].values())),
        _("{some} of {all}").format(some=loaded.get("gpu_layers", options.get("gpu_layers", 0)), all=layers),
        f"{loaded.get('context') or options.get('context') or 0:,}",
        str(one["in_flight"]),
        _leaves(one),
    )


def _leaves(one: dict[str, Any]) -> str:
    if one["in_flight"]:
        return _("when idle")
    return _("never") if one["leaves_in"] is None else _("in {span}").format(span=text.span(one["leaves_in"]))
