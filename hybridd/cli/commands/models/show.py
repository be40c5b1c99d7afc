"""``hybridd models show``"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec

from hybridd.cli import output, text
from hybridd.cli.commands.models import common
from hybridd.cli.options import command, socket_option
from hybridd.client.stdlib import Api
from hybridd.config.settings import Settings
from hybridd.contracts.units import size
from hybridd.local import library
from hybridd.local.facts import ModelFacts
from hybridd.local.types import Plan


@command("hybridd models show tiny-Q4_K_M", "hybridd models show tiny-Q4_K_M --json")
@common.model_argument
@common.config_option
@socket_option
def cli(api: Api, as_json: bool, name: str, config: Path | None) -> None:
    """One model: where its file came from, what its header says, and how it would be loaded on this machine now.

    `hybridd models plan` shows the plan in full. Works without a daemon.
    """
    view = common.resident(api)
    model = library.find(library.models(common.folders(config, view)), name)
    state = common.loaded(view).get(model.id)
    facts = asyncio.run(_facts(Path(model.path)))
    plan = _plan(model, facts, common.settings(config, api)) if isinstance(facts, ModelFacts) else None
    if as_json:
        output.emit_json(
            {
                "model": msgspec.to_builtins(model),
                "state": state or "on disk",
                "facts": _summary(facts) if isinstance(facts, ModelFacts) else None,
                "problem": facts if isinstance(facts, str) else None,
                "plan": msgspec.to_builtins(plan) if plan else None,
            }
        )
        return
    for label, value in _lines(model, state, facts, plan):
        for number, part in enumerate(output.wrap(value, output.columns() - 15)):
            output.emit(f"{label if number == 0 else '':<14} {part}")


async def _facts(path: Path) -> ModelFacts | str:
    """What the header says, or why it says nothing; read in a child process."""
    from hybridd.local.inspect import inspect

    return (await inspect([path]))[path]


def _plan(model: library.Model, facts: ModelFacts, settings: Settings) -> Plan:
    """As `models plan` and the daemon make it: the model's own settings, the learned margin, what was measured."""
    from hybridd.local.machine import look
    from hybridd.local.planning import planned, request_of

    named = msgspec.structs.replace(facts, id=model.id)
    return planned(named, look(), request_of(settings, model.id))


def _summary(facts: ModelFacts) -> dict[str, Any]:
    """The facts without the tables by layer, which `models plan --json` has."""
    whole: dict[str, Any] = msgspec.to_builtins(facts)
    return {key: value for key, value in whole.items() if not isinstance(value, (list, dict))}


def _lines(
    model: library.Model, state: str | None, facts: ModelFacts | str, plan: Plan | None
) -> list[tuple[str, str]]:
    source = f"{model.repo} at {model.revision}" if model.repo and model.revision else model.repo or model.source
    lines = [("model", model.id), ("state", state or "on disk"), ("from", source), ("file", model.path)]
    if model.links_to and model.source != "hub":
        lines.append(("links to", model.links_to))
    if len(model.files) > 1 or model.missing:
        lines.append(("parts", f"{len(model.files)}, missing: {', '.join(model.missing) or 'none'}"))
    if model.aliases:
        lines.append(("also called", ", ".join(model.aliases)))
    lines.append(("size", f"{size(model.bytes)} ({model.bytes:,} bytes)"))
    lines.append(("digest", f"sha256 {model.sha256}" if model.sha256 else "not recorded; `hybridd models verify`"))
    if isinstance(facts, str):
        return [*lines, ("problem", facts)]
    lines += [
        ("architecture", f"{facts.architecture} ({facts.kind}), {common.short(facts.parameters)} parameters"),
        ("quantization", facts.quantization),
        ("layers", str(facts.layers_all)),
        ("trained for", f"{text.number(facts.trained_context)} tokens of context"),
        ("template", "yes" if facts.has_template else "none: chat needs one"),
        ("takes", "text; local models do not look at images"),
    ]
    if plan is not None:
        lines.append(("fits", _fits(plan)))
    return lines


def _fits(plan: Plan) -> str:
    if plan.options is None:
        return "no: " + "; ".join(plan.reasons)
    where = (
        f"on {plan.gpu}, {plan.options.gpu_layers} of {plan.layers + 1} layers" if plan.target == "gpu" else "in memory"
    )
    taken = size(plan.memory.device.total + plan.memory.host.total)
    return f"{where}: {plan.options.context:,} tokens of context, {taken} in all"
