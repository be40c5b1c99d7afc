"""``hybridd events``"""

from __future__ import annotations

import json
import sys

import click

from hybridd.cli import text
from hybridd.cli.options import command, socket_option
from hybridd.client import wire
from hybridd.client.stdlib import Api

KINDS = ("snapshot", "provider", "quota", "request", "alert", "plugin", "host", "job", "log", "dropped")


@command("hybridd events --kinds request,alert", "hybridd events --count 1 | jq .data.limits")
@click.option("--kinds", help=f"Only these, separated by commas: {', '.join(KINDS)}.")
@click.option("--count", type=click.IntRange(min=1), help="Stop after that many.")
@socket_option
def cli(api: Api, as_json: bool, kinds: str | None, count: int | None) -> None:
    """A snapshot, then everything that happens, one JSON object on each line, until interrupted."""
    wanted = [kind.strip() for kind in kinds.split(",") if kind.strip()] if kinds else []
    for kind in wanted:
        if kind not in KINDS:
            raise click.BadParameter(f"{kind!r} is none of {', '.join(KINDS)}", param_hint="--kinds")
    with api.open(wire.get("/v1/events", kinds=wanted or None), timeout=None) as response:
        for number, event in enumerate(response.json_lines(), 1):
            sys.stdout.write(json.dumps(event, ensure_ascii=not text.utf8()) + "\n")
            sys.stdout.flush()
            if number == count:
                break
