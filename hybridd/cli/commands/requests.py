"""``hybridd requests``"""

from __future__ import annotations

import time
from typing import Any

import click

from hybridd.cli import output, text
from hybridd.cli.options import command, period_options, socket_option
from hybridd.client import wire
from hybridd.client.stdlib import Api


@command("hybridd requests --status failed --since 1d", "hybridd requests --filter groq --sort -cost_usd --limit 20")
@click.option("--provider", help="Only answered by this provider.")
@click.option("--model", help="Only answered by this model.")
@click.option("--task", help="Only of this task.")
@click.option("--status", help="Only with this HTTP status.")
@click.option("--filter", "filter_", metavar="TEXT", help="Only with this text in it.")
@click.option("--sort", metavar="KEY", help="Sort by a key of the JSON; -KEY for descending (default: newest first).")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="Rows on a page.")
@click.option("--cursor", help="The following page: the cursor that the page before ended with.")
@period_options
@socket_option
def cli(
    api: Api,
    as_json: bool,
    provider: str | None,
    model: str | None,
    task: str | None,
    status: str | None,
    filter_: str | None,
    sort: str | None,
    limit: int,
    cursor: str | None,
    since: float | None,
    until: float | None,
) -> None:
    """Recorded requests, newest first. `hybridd why ID` explains one."""
    page = api.send(
        wire.get(
            "/v1/requests",
            provider=provider,
            model=model,
            task=task,
            status=status,
            since=since,
            until=until,
            q=filter_,
            sort=sort,
            limit=limit,
            cursor=cursor,
        )
    )
    if as_json:
        output.emit_json(page)
        return
    if not page["requests"]:
        output.emit("No request matches.")
        return
    now = time.time()
    titles = [
        output.Column("REQUEST"),
        output.Column("AGE", right=True),
        output.Column("TASK", flexible=True),
        output.Column("ANSWERED BY", flexible=True),
        output.Column("STATUS", flexible=True),
        output.Column("TOOK", right=True),
        output.Column("COST", right=True),
    ]
    rows = [_row(one, now) for one in page["requests"]]
    if not any(one.get("cost_usd") for one in page["requests"]):
        titles, rows = titles[:-1], [row[:-1] for row in rows]  # room for what differs
    output.table(titles, rows)
    if page.get("next"):
        output.emit(f"more: --cursor {page['next']}")


def _row(one: dict[str, Any], now: float) -> tuple[str, ...]:
    answered = f"{one['provider']}:{one['model']}" if one.get("provider") else "-"
    cached = " (cache)" if one.get("cache") == "hit" else ""
    return (
        one["id"],
        " ".join(text.span(now - one["at"]).split()[:2]),  # the larger unit is enough
        one.get("task") or "-",
        answered + cached,
        str(one["status"]) + (f" {one['error_code']}" if one.get("error_code") else ""),
        text.milliseconds(one.get("latency_ms")),
        text.money(one.get("cost_usd")),
    )
