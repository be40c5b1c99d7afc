"""``hybridd limits``"""

from __future__ import annotations

import time
from typing import Any

from hybridd.cli import output, text
from hybridd.cli.options import command, list_options, socket_option
from hybridd.client import wire
from hybridd.client.stdlib import Api
from hybridd.i18n import N_, _

_CELLS = 12
_WINDOWS = {60: "min", 3600: "h", 86_400: N_("day")}


@command("hybridd limits", "hybridd limits --filter provider=groq --sort remaining")
@list_options
@socket_option
def cli(api: Api, as_json: bool, filter_: str | None, sort: str | None) -> None:
    """Every provider's limits: used, remaining, reset time, forecast.

    In the bar, what is used comes first, then what calls in flight have reserved, what is free, and the buffer that is
    kept free.
    """
    answer = api.send(wire.get("/v1/limits"))
    limits = output.select(answer["limits"], filter_, sort)
    if as_json:
        output.emit_json({**answer, "limits": limits})
        return
    if not limits:
        output.emit(_("No limits are known.") if not answer["limits"] else _("No limit matches."))
        return
    now = time.time()
    rich = text.utf8()
    titles = [
        output.Column("PROVIDER", flexible=True),
        output.Column("LIMIT", flexible=True),
        output.Column(""),
        output.Column("USED", right=True),
        output.Column("LEFT", right=True),
        output.Column("RESET"),
    ]
    output.table(titles, [_row(one, now, rich) for one in limits])
    _legend(rich)
    for one in limits:
        for remark in _remarks(one, now):
            output.paragraph(f"{_name(one)}: {remark}", "")


def _row(one: dict[str, Any], now: float, rich: bool) -> tuple[str, ...]:
    unit = one["unit"]
    bar = text.bar(one["used"], one["reserved"], one["buffer"], one["limit"], _CELLS, rich=rich)
    reset = one.get("reset")
    return (
        one["provider"],
        limit_name(one),
        bar,
        text.amount(one["used"] + one["reserved"], unit),
        text.amount(one["remaining"], unit),
        text.span(reset - now) if reset is not None else "-",
    )


def limit_name(one: dict[str, Any]) -> str:
    """``5,000 requests/h``, ``15 requests/min (m1)``, ``5 concurrent``."""
    window = one.get("window") or "none"
    seconds = int(window[:-1]) if window[:-1].isdigit() and window.endswith("s") else None
    per = _(_WINDOWS.get(seconds, window)) if seconds is not None else window
    unit = one["unit"]
    figure = text.amount(one["limit"], unit)
    words = figure if unit == "usd" else f"{figure} {unit.removeprefix('bytes_') if 'bytes' in unit else unit}"
    name = words if per == "none" else f"{words}/{per}"
    return f"{name} ({', '.join(one['models'])})" if one.get("models") else name


def _name(one: dict[str, Any]) -> str:
    return f"{one['provider']} {limit_name(one)}"


def _legend(rich: bool) -> None:
    symbols = "▓▒─░" if rich else "#=-."
    names = (_("used"), _("reserved"), _("free"), _("buffer"))
    output.emit("  ".join(f"{symbol} {name}" for symbol, name in zip(symbols, names, strict=True)))


def _remarks(one: dict[str, Any], now: float) -> list[str]:
    """What a figure in a column cannot say."""
    unit = one["unit"]
    remarks = []
    if one.get("drift"):
        if one["drift"] > 0:
            remark = _("the provider counts {amount} more than we do (something else uses this account)")
        else:
            remark = _("the provider counts {amount} less than we do")
        remarks.append(remark.format(amount=text.amount(abs(one["drift"]), unit)))
    if one.get("debt"):
        remark = _("{amount} over the limit, to be drained first")
        remarks.append(remark.format(amount=text.amount(one["debt"], unit)))
    forecast = one.get("forecast") or {}
    if forecast.get("exhausted_at"):
        remark = _("runs out in {span} at the recent pace").format(span=text.span(forecast["exhausted_at"] - now))
        if forecast.get("earliest") and forecast.get("latest"):
            earliest, latest = forecast["earliest"] - now, forecast["latest"] - now
            between = _("80 %: {earliest} to {latest}")
            remark += f" ({between.format(earliest=text.span(earliest), latest=text.span(latest))})"
        remarks.append(remark)
    return remarks
