"""``hybridd call``"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import click

from hybridd.cli import diagnostics, output, text
from hybridd.cli.commands.optimize import chosen
from hybridd.cli.options import check_task, command, socket_option
from hybridd.client import wire
from hybridd.client.stdlib import Api, Streaming
from hybridd.contracts.validation import TIERS
from hybridd.errors import InvalidRequest
from hybridd.i18n import _

_LARGEST_PROMPT = 32 * 1024 * 1024
_CALL_SECONDS = 600.0


@command(
    'hybridd call --task sentiment_analysis --prompt "Este produto é incrível!"',
    "git diff | hybridd call --model lab:m1 --system 'Write a commit message.'",
)
@click.option("--prompt", help="The question; absent or '-': read from standard input.")
@click.option("--task", callback=check_task, help="A task of the routing table; absent: found from the prompt.")
@click.option("--model", help="provider:model, a plain model, auto or task:NAME.")
@click.option("--system", help="A system message put before the question.")
@click.option("--max-tokens", type=int, help="The longest answer wanted.")
@click.option("--temperature", type=click.FloatRange(0, 2), help="0 for repeatable answers.")
@click.option("--user", help="Who asks (A/B tests assign users).")
@click.option("--tier", type=click.Choice(TIERS), help="The user's tier.")
@click.option("--no-stream", is_flag=True, help="Wait for the whole answer.")
@socket_option
def cli(
    api: Api,
    as_json: bool,
    prompt: str | None,
    task: str | None,
    model: str | None,
    system: str | None,
    max_tokens: int | None,
    temperature: float | None,
    user: str | None,
    tier: str | None,
    no_stream: bool,
) -> None:
    """A routed call. The answer streams to standard output; standard error says which model answered, and why.

    With --json the whole answer is printed as one object: response, model_choice, usage, cost_usd, latency_ms,
    request_id, cache.
    """
    question = read_prompt() if prompt is None or prompt == "-" else prompt
    api.timeout = _CALL_SECONDS
    sent = wire.chat(
        question,
        model=model,
        task=task,
        system=system,
        max_tokens=max_tokens,
        temperature=temperature,
        user=user,
        tier=tier,
        stream=not (no_stream or as_json),
    )
    if as_json:
        output.emit_json(wire.result_of(api.send(sent)))
    elif no_stream:
        result = wire.result_of(api.send(sent))
        write([result["response"]])
        explain(dict(result))
    else:
        streaming = Streaming(api.open(sent))
        write(streaming)
        explain(dict(streaming.result or {}))


def read_prompt() -> str:
    """Standard input as text.

    Raises:
        InvalidRequest: not UTF-8, or more than 32 MiB.
    """
    if sys.stdin.isatty():
        diagnostics.note(_("Type the question; end it with Ctrl-D on a line of its own."))
    raw = sys.stdin.buffer.read(_LARGEST_PROMPT + 1)
    if len(raw) > _LARGEST_PROMPT:
        raise InvalidRequest("the prompt on standard input is larger than 32 MiB", param="prompt")
    try:
        return raw.decode("utf-8").strip("\n")
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"standard input is not UTF-8 text (byte {error.start})", param="prompt") from error


def write(pieces: Iterable[str]) -> None:
    """The answer, piece by piece, ending with a new line. On a terminal, control characters are made visible."""
    terminal = sys.stdout.isatty()
    last = "\n"
    try:
        for piece in pieces:
            last = piece[-1:] or last  # before the write: an interrupt may come right after it
            sys.stdout.write(text.clean(piece) if terminal else piece)
            sys.stdout.flush()
    finally:
        if last != "\n":
            sys.stdout.write("\n")
            sys.stdout.flush()


def explain(result: dict[str, Any]) -> None:
    """On stderr: who answered and why, what it took, who was passed over."""
    choice = result["model_choice"]
    usage = result["usage"]
    tokens = _("tokens {input} in, {output} out").format(
        input=text.number(usage["input_tokens"]), output=text.number(usage["output_tokens"])
    )
    by = _("answered by {model}: {reason}").format(model=chosen(choice), reason=choice["reason"])
    diagnostics.note(text.clean(by))
    for line in diagnostics.rejections(choice.get("rejected")):
        diagnostics.note("  " + text.clean(_("passed over {candidate}").format(candidate=line)))
    diagnostics.note(
        f"  {result['request_id']}  {tokens}  {text.money(result['cost_usd'])}  "
        f"{text.milliseconds(result['latency_ms'])}  {_('cache')} {result['cache']}"
    )
