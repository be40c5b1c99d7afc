"""NOW, LAST and ALERTS of the Overview. Pure functions of the house."""

from __future__ import annotations

from rich.cells import cell_len

from hybridd.contracts.views import AlertView
from hybridd.i18n import _
from tui.house import House, Request
from tui.text import Glyphs, Line, clock, count, fit, fit_line, milliseconds, money, percent, size_pair, spark
from tui.widgets.columns import Cell, Column, Rest


def rule(title: str, width: int, signs: Glyphs, hint: str = "") -> Line:
    """``─ NOW ─────``; ``hint`` stands at the right end, where there is room for it."""
    left = cell_len(title) + 3
    tail = f" {hint} " if hint and left + cell_len(hint) + 3 <= width else ""
    line: Line = [
        (f"{signs.rule} ", "dim"),
        (title, "head"),
        (f" {signs.rule * max(0, width - left - cell_len(tail))}", "dim"),
        (tail, "dim"),
    ]
    return fit_line([piece for piece in line if piece[0]], width, ellipsis=signs.ellipsis)


def now_lines(house: House, width: int, signs: Glyphs) -> list[Line]:
    """Two lines: traffic, then machine and money. Every figure has its width; sparklines go below 72 columns."""
    rates, now = house.rates, house.now
    cells = 0 if width < 72 else 12 if width < 120 else min(60, (width - 60) // 2)
    cells = min(cells, 60)

    def graph(values: list[float] | list[float | None]) -> Line:
        return [(spark(values, signs), "accent"), (" ", "")] if cells else []

    traffic: Line = [
        (f"{_('calls/s')} ", "dim"), *graph(rates.calls(now, cells)),
        (fit(f"{rates.per_second(now):.1f}", 6, "right"), ""),
        (f"   {_('latency p50')} ", "dim"), *graph(rates.latencies(now, max(0, cells - 2))),
        (fit(milliseconds(rates.latency(now)), 8, "right"), ""),
        (f"   {_('cache')} ", "dim"), (fit(percent(rates.cache_share(now)), 5, "right"), ""),
    ]  # fmt: skip
    host = house.host
    total, free = host.memory_total, host.memory_available
    ram = size_pair(total - free, total, 12) if total and free is not None else "-"
    cpu = f"{host.cpu_percent:.0f} %" if host.cpu_percent is not None else "-"
    cost = house.costs.get("")
    machine: Line = [
        ("CPU ", "dim"), (fit(cpu, 5, "right"), ""), ("  RAM ", "dim"), (fit(ram, 12, "right"), ""),
        *_gpu(house), (f"  {_('today')} ", "dim"), (fit(money(cost.today if cost else None), 8, "right"), ""),
        (f"  {_('month')} ", "dim"), (fit(money(cost.month if cost else None), 8, "right"), ""),
    ]  # fmt: skip
    return [traffic, machine]


def _gpu(house: House) -> Line:
    gpus = house.host.gpus
    if not gpus:
        return [("  GPU ", "dim"), (fit(_("none"), 12, "right"), "dim")]
    gpu = gpus[0]
    busy = f"{gpu.utilization:.0f} %" if gpu.utilization is not None else "-"
    warm = f"{gpu.temperature:.0f} °C" if gpu.temperature is not None else ""
    return [("  GPU ", "dim"), (fit(f"{fit(busy, 5, 'right')} {fit(warm, 6, 'right')}", 12), "")]


# ---- LAST ----------------------------------------------------------------------------------------------------------


def answered_by(request: Request) -> str:
    return f"{request.provider}:{request.model}" if request.provider else request.requested


def _tokens(request: Request, width: int, signs: Glyphs) -> Cell:
    """In and out; or what went wrong, in the place of all figures."""
    if request.status >= 400:
        return Rest([(_("failed: {code}").format(code=request.error_code or request.status), "bad")])
    if request.fell_back:
        return Rest([(signs.of(_("fell back: {reason}").format(reason=request.fell_back)), "warn")])
    if request.input_tokens is None and request.output_tokens is None:
        return ""
    unit = " tok" if width >= _WITH_UNIT else ""
    return f"{count(request.input_tokens)}{signs.arrow}{count(request.output_tokens)}{unit}"


def _took(request: Request, width: int, signs: Glyphs) -> Cell:
    return _("cached") if request.cache == "hit" else milliseconds(request.latency_ms)


_WITH_UNIT = 15
LAST_COLUMNS: list[Column[Request]] = [
    Column("at", "TIME", lambda one, width, signs: (clock(one.at), "dim"), 8, value=lambda one: one.at),
    Column("task", "TASK", lambda one, width, signs: one.task or "-", 15, least=70),
    Column("model", "MODEL", lambda one, width, signs: answered_by(one), 18, share=1, value=answered_by),
    Column("tokens", "TOKENS", _tokens, 11, share=2, align="right"),
    Column("took", "TOOK", _took, 8, align="right", value=lambda one: one.latency_ms),
]


# ---- ALERTS --------------------------------------------------------------------------------------------------------


def _message(alert: AlertView, width: int, signs: Glyphs) -> Cell:
    state = {"acknowledged": _("acknowledged:") + " ", "silenced": _("silenced:") + " "}.get(alert.state, "")
    style = {"critical": "bad", "warning": "warn"}.get(alert.severity, "") if not state else "dim"
    mark = "!" if alert.severity != "info" and not state else signs.between
    return [(f"{mark} ", style), (f"{state}{signs.of(alert.message)}", style if style == "dim" else "")]


ALERT_COLUMNS: list[Column[AlertView]] = [
    Column("message", "ALERT", _message, 20, share=1, value=lambda one: one.message),
]


def heights(rows: int, providers: int, alerts: int, *, now: bool) -> tuple[int, int, int]:
    """Rows for providers (their head included), requests and alerts of ``rows``, each block's own title taken off.

    Alerts are shown first of all, then providers, then requests; what nobody needs goes to the requests.
    """
    left = rows - (3 if now else 0) - 2
    for_alerts = min(max(1, alerts), max(2, left // 5))
    for_last = min(3, max(1, (left - for_alerts) // 4))
    for_providers = max(3, min(providers + 1, left - for_alerts - for_last))
    return for_providers, max(1, left - for_alerts - for_providers), for_alerts
