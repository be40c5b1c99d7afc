"""``hybridd models unload``"""

from __future__ import annotations

import click

from hybridd.cli.commands.models import common
from hybridd.cli.options import command, socket_option
from hybridd.client import wire
from hybridd.client.stdlib import Api


@command("hybridd models unload qwen3-4b-q4_k_m", "hybridd models unload --all --json")
@click.argument("name", required=False, metavar="MODEL", shell_complete=common.complete_model)
@click.option("--all", "every", is_flag=True, help="Everything that is loaded.")
@socket_option
def cli(api: Api, as_json: bool, name: str | None, every: bool) -> None:
    """Free a model's memory. Its calls may finish first; when the command returns, its process is gone."""
    if (name is None) != every:
        raise click.UsageError("give a model, or --all")
    names = [name] if name is not None else list(common.loaded(common.resident(api)))
    patient = Api(api.socket, timeout=120.0)
    answers = [patient.send(wire.post("/v1/local/unload", model=one)) for one in names]
    ended = [one["model"] for one in answers if one["unloaded"]]
    if every:
        common.emit_state({"models": answers}, as_json, f"Unloaded: {', '.join(ended) or 'nothing was loaded'}.")
    else:
        said = f"{answers[0]['model']} is unloaded." if ended else f"{answers[0]['model']} was not loaded."
        common.emit_state(answers[0], as_json, said)
