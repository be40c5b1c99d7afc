"""The columns of the Requests screen. Their keys are the daemon's sort fields."""

from __future__ import annotations

from hybridd.i18n import _
from tui.listing import ORDERS
from tui.listing import outcome as ended
from tui.shapes import Request
from tui.text import Glyphs, clock, count, milliseconds, money
from tui.widgets.columns import Cell, Column

DOWNWARDS = frozenset(
    {"status", "cost_usd", "latency_ms", "first_token_ms", "overhead_ms", "input_tokens", "output_tokens", "attempts"}
)


_STYLES = {"failed": "bad", "cached": "good", "fell back": "warn", "ok": "dim"}


def answered_by(request: Request) -> str:
    return f"{request.provider}:{request.model}" if request.provider else _("nobody")


def outcome(request: Request) -> tuple[str, str]:
    """In a word, with its style."""
    word = ended(request)
    return f"{_(word)} {request.status}" if word == "failed" else _(word), _STYLES[word]


def _model(one: Request, width: int, signs: Glyphs) -> Cell:
    if one.provider:
        return answered_by(one)
    return [(f"{_('nobody')} ", "dim"), (f"({one.requested})", "dim")]


def _client(one: Request, width: int, signs: Glyphs) -> Cell:
    return one.client or "-", "dim"


COLUMNS: list[Column[Request]] = [
    Column("at", "TIME", lambda one, width, signs: (clock(one.at), "dim"), 8, value=lambda one: one.at),
    Column("task", "TASK", lambda one, width, signs: one.task or "-", 11, share=1, least=70),
    Column("model", "ANSWERED BY", _model, 18, share=2, value=answered_by),
    Column("status", "OUTCOME", lambda one, width, signs: outcome(one), 10, value=lambda one: one.status),
    Column("error_code", "ERROR", lambda one, width, signs: (one.error_code or "", "bad"), 12, share=1, least=110,
           value=lambda one: one.error_code),
    Column("requested", "ASKED FOR", lambda one, width, signs: (one.requested, "dim"), 14, share=1, least=128),
    Column("client", "CLIENT", _client, 12, share=1, least=150, value=lambda one: one.client),
    Column("attempts", "TRIES", lambda one, width, signs: count(one.attempts), 5, align="right", least=116),
    Column("input_tokens", "IN", lambda one, width, signs: count(one.input_tokens), 5, align="right", least=66,
           value=lambda one: one.input_tokens),
    Column("output_tokens", "OUT", lambda one, width, signs: count(one.output_tokens), 5, align="right", least=66,
           value=lambda one: one.output_tokens),
    Column("cost_usd", "COST", lambda one, width, signs: money(one.cost_usd), 7, align="right", least=76,
           value=lambda one: one.cost_usd),
    Column("first_token_ms", "FIRST", lambda one, width, signs: (milliseconds(one.first_token_ms), "dim"), 8,
           align="right", least=104, value=lambda one: one.first_token_ms),
    Column("overhead_ms", "OWN", lambda one, width, signs: (milliseconds(one.overhead_ms), "dim"), 7, align="right",
           least=140, value=lambda one: one.overhead_ms),
    Column("latency_ms", "TOOK", lambda one, width, signs: milliseconds(one.latency_ms), 8, align="right",
           value=lambda one: one.latency_ms),
    Column("id", "REQUEST", lambda one, width, signs: (one.id, "dim"), 18, least=170),
]  # fmt: skip
COLUMNS = [
    Column(one.key, one.title, one.cell, one.width, one.share, one.align, one.least, ORDERS[one.key], one.value)
    for one in COLUMNS
]
