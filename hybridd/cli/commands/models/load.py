"""``hybridd models load``"""

from __future__ import annotations

import click

from hybridd.cli import output, text
from hybridd.cli.commands.models import common
from hybridd.cli.options import Duration, command, socket_option
from hybridd.client import wire
from hybridd.client.stdlib import Api
from hybridd.contracts.units import size


@command("hybridd models load qwen3-4b-q4_k_m", "hybridd models load qwen3-4b-q4_k_m --timeout 5m --json")
@common.model_argument
@click.option(
    "--timeout", type=Duration(), default="10m", show_default=True, help="How long to wait; the load goes on."
)
@socket_option
def cli(api: Api, as_json: bool, name: str, timeout: float) -> None:
    """Load a model into memory now, so that the first request does not wait for it. Models that are not in use leave if
    it needs their room."""
    patient = Api(api.socket, timeout=timeout + 10.0)
    answer = patient.send(wire.post("/v1/local/load", model=name, timeout_seconds=timeout))
    if as_json:
        output.emit_json(answer)
        return
    options = answer.get("options") or {}
    loaded = answer.get("loaded") or {}
    context = loaded.get("context") or options.get("context") or 0
    taken = sum(sum(side.values()) for side in answer["memory"].values())
    seconds = text.number(answer["load_seconds"], 1)
    output.emit(
        f"{answer['model']} is loaded: {context:,} tokens of context, {size(taken)}, pid {answer['pid']}, "
        f"in {seconds} s."
    )
    for reason in (answer.get("plan") or {}).get("reasons") or []:
        output.emit(f"  {reason}")
