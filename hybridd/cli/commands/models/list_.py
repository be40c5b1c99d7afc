"""``hybridd models list``"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from hybridd.cli import output
from hybridd.cli.commands.models import common
from hybridd.cli.options import command, list_options, socket_option
from hybridd.client.stdlib import Api
from hybridd.contracts.units import size
from hybridd.i18n import _
from hybridd.local import library
from hybridd.local.library import Folders


@command("hybridd models list", "hybridd models list --filter source=hub --sort -bytes --json")
@list_options
@common.config_option
@socket_option
def cli(api: Api, as_json: bool, config: Path | None, filter_: str | None, sort: str | None) -> None:
    """Model files on this machine: in the models folder, the Hub's cache, and the configured one. Works without a
    daemon."""
    view = common.resident(api)
    where = common.folders(config, view)
    states = common.loaded(view)
    all_models = [_with_state(model, states) for model in library.models(where)]
    rows = output.select(all_models, filter_, sort)
    if as_json:
        output.emit_json({"models": rows, "folders": {"models_dir": str(where.models), "cache_dir": str(where.hub)}})
        return
    if not rows:
        output.emit(_("No model matches.") if all_models else _empty(where))
        return
    titles = [
        output.Column("MODEL", flexible=True),
        output.Column("SIZE", right=True),
        output.Column("QUANT"),
        output.Column("FROM", flexible=True),
        output.Column("STATE"),
    ]
    output.table(titles, [_row(one) for one in rows])


def _with_state(model: library.Model, states: dict[str, str]) -> dict[str, Any]:
    state = next((states[name] for name in (model.id, *model.aliases) if name in states), None)
    return {**msgspec.to_builtins(model), "state": state or ("incomplete" if model.missing else "on disk")}


def _row(one: dict[str, Any]) -> tuple[str, ...]:
    also = _("also {names}").format(names=", ".join(one["aliases"]))
    name = one["id"] + (f" ({also})" if one["aliases"] else "")
    return (name, size(one["bytes"]), one["quantization"] or "-", one["repo"] or one["source"], one["state"])


def _empty(where: Folders) -> str:
    return _(
        "No GGUF file in {models} or {hub}. `hybridd models search` finds models, `hybridd models pull` fetches one, "
        "`hybridd models import` takes over those of Ollama and LM Studio."
    ).format(models=where.models, hub=where.hub)
