"""``hybridd alerts``"""

from __future__ import annotations

from typing import Any

import click

from hybridd.cli import output, text
from hybridd.cli.options import Duration, command, group, json_option, list_options, socket_option
from hybridd.client import wire
from hybridd.client.stdlib import Api
from hybridd.i18n import _

STATES = ("live", "open", "acknowledged", "silenced", "resolved", "all")


@group("hybridd alerts", "hybridd alerts list --state resolved --json", "hybridd alerts silence 12 --for 2h")
@json_option
@socket_option
@click.pass_context
def cli(context: click.Context, api: Api, as_json: bool) -> None:
    """What needs attention: list, acknowledge, silence. Alone, it lists."""
    if context.invoked_subcommand is None:
        _list(api, as_json, "live", None, None)


@command("hybridd alerts list --state all --sort severity")
@click.option(
    "--state", type=click.Choice(STATES), default="live", show_default=True, help="Live ones are not resolved."
)
@list_options
@socket_option
def list_(api: Api, as_json: bool, state: str, filter_: str | None, sort: str | None) -> None:
    """Alerts, newest first."""
    _list(api, as_json, state, filter_, sort)


@command("hybridd alerts ack 12")
@click.argument("alert_id", type=click.IntRange(min=0), metavar="ID")
@socket_option
def ack(api: Api, as_json: bool, alert_id: int) -> None:
    """Acknowledge an alert: seen, it stops asking for attention."""
    _changed(
        api.send(wire.post(f"/v1/alerts/{alert_id}/ack")), as_json, _("Alert {id} is acknowledged.").format(id=alert_id)
    )


@command("hybridd alerts silence 12 --for 2h")
@click.argument("alert_id", type=click.IntRange(min=0), metavar="ID")
@click.option("--for", "seconds", type=Duration(), default="1h", show_default=True, help="How long: 30m, 2h, 1d.")
@socket_option
def silence(api: Api, as_json: bool, alert_id: int, seconds: float) -> None:
    """Silence an alert for a while."""
    answer = api.send(wire.silence(alert_id, seconds))
    done = _("Alert {id} is silenced for {span}.").format(id=alert_id, span=text.span(seconds))
    _changed(answer, as_json, done)


def _changed(answer: Any, as_json: bool, sentence: str) -> None:
    if as_json:
        output.emit_json(answer)
    else:
        output.emit(sentence)


def _list(api: Api, as_json: bool, state: str, filter_: str | None, sort: str | None) -> None:
    answer = api.send(wire.get("/v1/alerts", state=None if state == "all" else state))
    alerts = output.select(answer["alerts"], filter_, sort)
    if as_json:
        output.emit_json({**answer, "alerts": alerts})
        return
    if not alerts:
        output.emit(_("No alerts.") if not answer["alerts"] else _("No alert matches."))
        return
    titles = [
        output.Column("ID", right=True),
        output.Column("SEVERITY"),
        output.Column("STATE"),
        output.Column("SINCE"),
        output.Column("TIMES", right=True),
        output.Column("MESSAGE", flexible=True),
    ]
    output.table(titles, [_row(one) for one in alerts])


def _row(one: dict[str, Any]) -> tuple[str, ...]:
    return (
        str(one["id"]),
        one["severity"],
        one["state"],
        text.clock_time(one.get("opened_at"))[5:16],
        str(one.get("count", 1)),
        one["message"],
    )


cli.add_command(list_, "list")
cli.add_command(ack, "ack")
cli.add_command(silence, "silence")
