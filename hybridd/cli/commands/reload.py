"""``hybridd reload``"""

from __future__ import annotations

from hybridd.cli import output
from hybridd.cli.options import command, socket_option
from hybridd.client import wire
from hybridd.client.stdlib import Api


@command("hybridd reload")
@socket_option
def cli(api: Api, as_json: bool) -> None:
    """Read the configuration again. No request is dropped; a broken file is refused and the old settings stay."""
    answer = api.send(wire.post("/v1/reload"))
    if as_json:
        output.emit_json(answer)
        return
    output.emit("The configuration was read again.")
    for key, value in answer.items() if isinstance(answer, dict) else ():
        if value and not isinstance(value, bool):
            output.emit(f"{key}: {', '.join(map(str, value)) if isinstance(value, list) else value}")
