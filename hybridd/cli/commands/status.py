"""``hybridd status``"""

from __future__ import annotations

import time
from typing import Any

from hybridd.cli import output, text
from hybridd.cli.options import command, list_options, socket_option
from hybridd.client import wire
from hybridd.client.stdlib import Api


@command("hybridd status", "hybridd status --filter ready --json")
@list_options
@socket_option
def cli(api: Api, as_json: bool, filter_: str | None, sort: str | None) -> None:
    """The daemon, its providers and its plugins."""
    status = api.send(wire.get("/v1/status"))
    providers = output.select(status.get("providers", []), filter_, sort)
    if as_json:
        output.emit_json({**status, "providers": providers})
        return
    _daemon(status)
    rows = [
        (one["name"], one["state"], str(len(one.get("models", []))), str(one.get("in_flight", 0)), _reason(one))
        for one in providers
    ]
    titles = [
        output.Column("PROVIDER"),
        output.Column("STATE"),
        output.Column("MODELS", right=True),
        output.Column("CALLS", right=True),
        output.Column("REASON", flexible=True),
    ]
    output.emit()
    output.table(titles, rows)
    broken = [one for one in status.get("plugins", []) if one.get("reason") and one.get("state") != "ready"]
    for plugin in broken:
        output.emit(f"plugin {plugin['name']}: {plugin['state']}: {plugin['reason']}")


def _daemon(status: dict[str, Any]) -> None:
    output.emit(
        f"hybridd {status.get('version')}  {status.get('state')}  pid {status.get('pid')}  "
        f"up {text.span(status.get('uptime_s'))}"
    )
    output.emit(f"socket    {status.get('socket')}")
    output.emit(f"database  {status.get('database')}")
    if status.get("config"):
        output.emit(f"config    {status['config']}")
    alerts = status.get("alerts_open", 0)
    output.emit(
        f"calls     {status.get('in_flight', 0)} in flight, {status.get('waiting', 0)} waiting"
        f"; {alerts} open alert{'' if alerts == 1 else 's'}" + (" (hybridd alerts)" if alerts else "")
    )
    if status.get("storage"):
        output.emit_styled(output.styled(text.clean(f"storage   nothing is dispatched: {status['storage']}"), fg="red"))


def _reason(provider: dict[str, Any]) -> str:
    until = provider.get("until")
    left = f" (for {text.span(until - time.time())})" if until and until > time.time() else ""
    return f"{provider.get('reason') or ''}{left}".strip()
