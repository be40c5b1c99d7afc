"""``hybridd optimize``"""

from __future__ import annotations

from typing import Any

import click

from hybridd.cli import output, text
from hybridd.cli.options import check_task, command, socket_option
from hybridd.client import wire
from hybridd.client.stdlib import Api
from hybridd.contracts.validation import TIERS
from hybridd.errors import EXIT_NO_PROVIDER, EXIT_OK
from hybridd.i18n import _


@command(
    "hybridd optimize --task code_generation", 'hybridd optimize --prompt "Write a function that sorts" --tier premium'
)
@click.option("--task", callback=check_task, help="A task of the routing table; absent: found from the prompt.")
@click.option("--prompt", help="The question; its length counts against limits and contexts.")
@click.option("--model", help="provider:model, a plain model, auto or task:NAME, as a call would name it.")
@click.option("--max-tokens", type=int, help="The longest answer wanted.")
@click.option("--user", help="Who asks (A/B tests assign users).")
@click.option("--tier", type=click.Choice(TIERS), help="The user's tier.")
@socket_option
def cli(
    api: Api,
    as_json: bool,
    task: str | None,
    prompt: str | None,
    model: str | None,
    max_tokens: int | None,
    user: str | None,
    tier: str | None,
) -> int:
    """Which model would be chosen, and why. Calls nothing.

    Exits with 5 when no candidate can answer now.
    """
    if task is None and prompt is None and model is None:
        raise click.UsageError(_("give --task, --prompt or --model"))
    choice = api.send(wire.route(task, prompt, max_tokens=max_tokens, user=user, tier=tier, model=model))
    if as_json:
        output.emit_json(choice)
    else:
        show(choice)
    return EXIT_OK if choice.get("chosen_model") else EXIT_NO_PROVIDER


def show(choice: dict[str, Any]) -> None:
    """Task, chosen provider:model, provider, reason; then what was passed over."""
    none = _("none")
    facts = [
        (_("task:"), choice.get("task") or "-"),
        (_("chosen:"), chosen(choice) or none),
        (_("provider:"), choice.get("provider") or none),
        (_("reason:"), choice.get("reason") or "-"),
    ]
    defaults = {key: value for key, value in (choice.get("defaults") or {}).items() if value is not None}
    if defaults:
        facts.append((_("defaults:"), ", ".join(f"{key} {value}" for key, value in defaults.items())))
    size = max(text.width(name) for name in (_("provider:"), _("defaults:"))) + 2
    for name, value in facts:
        output.emit(f"{name.ljust(size)}{value}")
    rejected = choice.get("rejected") or []
    if rejected:
        output.emit(_("rejected:"))
        for one in rejected:
            retry = one.get("retry_after")
            again = _("possible again in {span}")
            later = f" ({again.format(span=text.span(retry))})" if retry is not None else ""
            output.paragraph(f"{one['candidate']}: {one['reason']}{later}")


def chosen(choice: dict[str, Any]) -> str | None:
    """``provider:model``."""
    model, provider = choice.get("chosen_model"), choice.get("provider")
    if not model or not provider or str(model).startswith(f"{provider}:"):
        return model
    return f"{provider}:{model}"
