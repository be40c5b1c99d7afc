"""``hybridd feedback``"""

from __future__ import annotations

import click

from hybridd.cli import output
from hybridd.cli.options import command, socket_option
from hybridd.client import wire
from hybridd.client.stdlib import Api


@command(
    "hybridd feedback req_65bfdedd6c000 1",
    'hybridd feedback req_65bfdedd6c000 --comment "wrong language" -- -0.5',
    settings={"ignore_unknown_options": True},
)
@click.argument("request_id")
@click.argument("score", type=click.FloatRange(-1, 1))
@click.option("--subject", help="Whom the feedback is about or from.")
@click.option("--comment", help="In words.")
@socket_option
def cli(api: Api, as_json: bool, request_id: str, score: float, subject: str | None, comment: str | None) -> None:
    """How good an answer was: SCORE from -1 (wrong) to 1 (right)."""
    answer = api.send(wire.feedback(request_id, score, subject, comment))
    if as_json:
        output.emit_json(answer)
    else:
        output.emit(f"Stored for {request_id}.")
