"""``hybridd status``"""

from __future__ import annotations

import time
from typing import Any

from hybridd.cli import output, text
from hybridd.cli.options import command, list_options, socket_option
from hybridd.client import wire
from hybridd.client.stdlib import Api
from hybridd.i18n import _, ngettext


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
        output.emit(_("plugin {name}: {state}: {reason}").format(**plugin))


def _daemon(status: dict[str, Any]) -> None:
    up = _("up {span}").format(span=text.span(status.get("uptime_s")))
    output.emit(f"hybridd {status.get('version')}  {status.get('state')}  pid {status.get('pid')}  {up}")
    alerts = status.get("alerts_open", 0)
    calls = _("{in_flight} in flight, {waiting} waiting").format(
        in_flight=status.get("in_flight", 0), waiting=status.get("waiting", 0)
    )
    open_alerts = ngettext("{count} open alert", "{count} open alerts", alerts).format(count=alerts)
    hint = " (hybridd alerts)" if alerts else ""
    facts = [(_("socket"), status.get("socket")), (_("database"), status.get("database"))]
    if status.get("config"):
        facts.append((_("config"), status["config"]))
    facts.append((_("calls"), f"{calls}; {open_alerts}{hint}"))
    stopped = _("storage")
    size = max(text.width(name) for name in [stopped, *(name for name, value in facts)]) + 2
    for name, value in facts:
        output.emit(f"{name.ljust(size)}{value}")
    if status.get("storage"):
        why = _("nothing is dispatched: {reason}").format(reason=status["storage"])
        output.emit_styled(output.styled(text.clean(f"{stopped.ljust(size)}{why}"), fg="red"))


def _reason(provider: dict[str, Any]) -> str:
    until = provider.get("until")
    left = f" ({_('for {span}').format(span=text.span(until - time.time()))})" if until and until > time.time() else ""
    return f"{provider.get('reason') or ''}{left}".strip()
