"""``hybridd report``"""

from __future__ import annotations

from typing import Any

import click

from hybridd.cli import output, text
from hybridd.cli.options import command, list_options, period_options, socket_option
from hybridd.client import wire
from hybridd.client.stdlib import Api
from hybridd.i18n import N_, _

# group → title
_TITLES = {
    "provider": N_("PROVIDER"),
    "model": N_("MODEL"),
    "task": N_("TASK"),
    "client": N_("CLIENT"),
    "day": N_("DAY"),
    "hour": N_("HOUR"),
}
GROUPS = tuple(_TITLES)
_LEAST_CELLS = 10
_WHEN_NOT_ZERO = {"failed_requests", "cache_hits"}
# key of the answer → title, and how it is shown; a key the daemon does not send is left out.
_COLUMNS: dict[str, tuple[str, Any]] = {
    "requests": (N_("REQUESTS"), text.number),
    "failed_requests": (N_("FAILED"), text.number),
    "cache_hits": (N_("CACHED"), text.number),
    "input_tokens": (N_("TOKENS IN"), text.number),
    "output_tokens": (N_("OUT"), text.number),
    "cost_usd": (N_("COST"), text.money),
    "latency_ms": (N_("MEAN"), text.milliseconds),
}


@command("hybridd report --since 7d", "hybridd report --group-by day --group-by provider --plot cost_usd")
@click.option(
    "--group-by",
    multiple=True,
    type=click.Choice(GROUPS),
    help="One or several; default: provider and model.",
)
@click.option("--provider", help="Only this provider.")
@click.option("--model", help="Only this model.")
@click.option("--task", help="Only this task.")
@click.option(
    "--plot",
    "plotted",
    type=click.Choice(list(_COLUMNS)),
    default="requests",
    metavar="KEY",
    help=f"What the bars show: {', '.join(_COLUMNS)}.",
)
@period_options
@list_options
@socket_option
def cli(
    api: Api,
    as_json: bool,
    group_by: tuple[str, ...],
    provider: str | None,
    model: str | None,
    task: str | None,
    plotted: str,
    since: float | None,
    until: float | None,
    filter_: str | None,
    sort: str | None,
) -> None:
    """Usage, cost and trend by provider, model, task, client, day or hour."""
    groups = list(group_by) or ["provider", "model"]
    report = api.send(
        wire.get("/v1/report", group_by=groups, since=since, until=until, provider=provider, model=model, task=task)
    )
    report["rows"] = output.select(report["rows"], filter_, sort)
    if as_json:
        output.emit_json(report)
        return
    if not report["rows"]:
        output.emit(_("Nothing was recorded in that time."))
        return
    _show(report, groups, plotted)


def _show(report: dict[str, Any], groups: list[str], plotted: str) -> None:
    rows = report["rows"]
    used = [key for key in _COLUMNS if any(row.get(key) is not None for row in rows)]
    shown = [key for key in used if key not in _WHEN_NOT_ZERO or any(row.get(key) for row in rows)]
    titles = [output.Column(_TITLES[group], flexible=True) for group in groups]
    titles += [output.Column(_COLUMNS[key][0], right=True) for key in shown]
    lines = [_line(row, groups, shown) for row in rows]
    total = report.get("total") or {}
    if len(rows) > 1 and total:
        lines.append(_line({**total, groups[0]: _("total")}, groups, shown))
    output.table(titles, lines)
    _plot(rows, groups, plotted)
    _trend(report.get("trend") or {})


def _plot(rows: list[dict[str, Any]], groups: list[str], plotted: str) -> None:
    """Bars of one figure, one for each row, when there is something to compare."""
    largest = max(float(row.get(plotted) or 0) for row in rows)
    if len(rows) < 2 or largest <= 0:
        return
    title, shown = _(_COLUMNS[plotted][0]), _COLUMNS[plotted][1]
    labels = [" ".join(_line(row, groups, [])) for row in rows]
    figures = [shown(row.get(plotted)) for row in rows]
    cells = output.columns() - max(map(text.width, [title, *labels])) - max(map(len, figures)) - 4
    output.emit()
    bars = [
        text.plot(float(row.get(plotted) or 0), largest, max(_LEAST_CELLS, cells), rich=text.utf8()) for row in rows
    ]
    columns = [output.Column(title, flexible=True), output.Column("", right=True), output.Column("")]
    output.table(columns, list(zip(labels, figures, bars, strict=True)))


def _line(row: dict[str, Any], groups: list[str], shown: list[str]) -> list[str]:
    names = [str(row.get(group) if row.get(group) is not None else "-") for group in groups]
    return names + [_COLUMNS[key][1](row.get(key)) for key in shown]


def _trend(trend: dict[str, Any]) -> None:
    """How it compares with the period before, in the daemon's words."""
    if trend.get("summary"):
        output.emit()
        output.paragraph(f"{_('trend:')} {trend['summary']}", "")
