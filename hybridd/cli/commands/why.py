"""``hybridd why``"""

from __future__ import annotations

from typing import Any

import click

from hybridd.cli import output, text
from hybridd.cli.commands.optimize import chosen
from hybridd.cli.options import command, socket_option
from hybridd.client import wire
from hybridd.client.stdlib import Api


@command("hybridd why req_65bfdedd6c000")
@click.argument("request_id")
@socket_option
def cli(api: Api, as_json: bool, request_id: str) -> None:
    """Why a recorded request was answered by the model that answered it."""
    request = api.send(wire.get(f"/v1/requests/{wire.segment(request_id)}"))
    if as_json:
        output.emit_json(request)
        return
    _facts(request)
    choice = request.get("choice")
    if choice:
        output.emit()
        output.emit(f"chosen:    {chosen(choice) or 'none'}")
        output.emit(f"reason:    {choice.get('reason') or '-'}")
        for one in choice.get("rejected") or []:
            output.paragraph(f"passed over {one['candidate']}: {one['reason']}")
    _attempts(request.get("calls") or [])


def _facts(request: dict[str, Any]) -> None:
    answered = f"{request['provider']}:{request['model']}" if request.get("provider") else "nobody"
    outcome = f"{request['status']}" + (f" {request['error_code']}" if request.get("error_code") else "")
    tokens = f"{text.number(request.get('input_tokens'))} in, {text.number(request.get('output_tokens'))} out"
    facts = {
        "request": request["id"],
        "at": text.clock_time(request.get("at")),
        "task": request.get("task") or "-",
        "asked for": request.get("requested") or "-",
        "answered": answered,
        "status": outcome,
        "tokens": tokens,
        "cost": text.money(request.get("cost_usd")),
        "latency": text.milliseconds(request.get("latency_ms")),
        "cache": request.get("cache") or "-",
    }
    if request.get("score") is not None:
        facts["rated"] = f"{request['score']:+g}"
    for name, value in facts.items():
        output.emit(f"{name + ':':<10} {value}")


def _attempts(calls: list[dict[str, Any]]) -> None:
    if not calls:
        return
    output.emit()
    titles = [
        output.Column("ATTEMPT"),
        output.Column("STATE"),
        output.Column("TOOK", right=True),
        output.Column("COST", right=True),
        output.Column("ERROR", flexible=True),
    ]
    output.table(
        titles,
        [
            (
                one["candidate"],
                one["state"],
                text.milliseconds(one.get("duration_ms")),
                text.money(one.get("cost_usd")),
                one.get("error") or one.get("error_code") or "",
            )
            for one in calls
        ],
    )
