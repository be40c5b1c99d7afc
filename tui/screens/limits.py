"""Limits: what is left of every quota, until when, and is it ours or somebody else's spending?"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from textual import on
from textual.widget import Widget

from hybridd.contracts.views import LimitView
from hybridd.i18n import _
from tui import topics
from tui.house import House
from tui.screens.base import HouseScreen
from tui.screens.overview_rows import forecast_text, limit_trouble, used_text
from tui.text import Glyphs, amount, bar, clock, fit, moment, quota_name, spark
from tui.widgets.columns import Cell, Column
from tui.widgets.table import Rows


@dataclass(frozen=True, slots=True)
class Quota:
    """One quota as a row. ``burn``: what remained in the last minutes."""

    view: LimitView
    now: float
    burn: tuple[float, ...] = ()


def quotas(house: House) -> list[Quota]:
    """By trouble, then by what is left, then by name."""
    made = []
    for view in house.limits.values():
        # The present counts by the minute, so that a row is the same until something about it changes.
        burn = tuple(value for _at, value in house.burn.get(view.key, ()))
        made.append(Quota(view, house.now // 60 * 60, burn))
    return sorted(made, key=lambda one: (limit_trouble(one.view), _left(one.view), one.view.key))


def _left(view: LimitView) -> float:
    return view.remaining / view.limit if view.limit else 1.0


def name_of(view: LimitView) -> str:
    """``req/min m1,m2``."""
    name = quota_name(view.unit, view.window)
    return f"{name} {','.join(view.models)}" if view.models else name


def returns_text(view: LimitView, now: float) -> str:
    """When capacity next returns: by the second where that is near."""
    if view.reset is None:
        return "-"
    if view.reset - now >= 7 * 86_400:
        return f"{datetime.fromtimestamp(view.reset):%Y-%m-%d}"
    return clock(view.reset) if 0 <= view.reset - now < 3600 else moment(view.reset, now)


def _bar(row: Quota, width: int, signs: Glyphs) -> Cell:
    view = row.view
    style = {0: "bad", 1: "warn"}.get(limit_trouble(view), "accent")
    return bar(view.used, view.reserved, view.buffer, view.limit, width, signs, style)


def _drift(row: Quota, width: int, signs: Glyphs) -> Cell:
    drift = row.view.drift
    if drift is None:
        return ("-", "dim")
    text = f"{'+' if drift >= 0 else '-'}{amount(abs(drift), row.view.unit)}"
    return (text, "warn" if drift > 0 else "dim")


def _forecast(row: Quota, width: int, signs: Glyphs) -> Cell:
    text, style = forecast_text(row.view, row.now, width, signs)
    if width < 8:
        return ("!", style) if text.endswith("!") else ("~" if row.view.drift else "", style)
    return (text, style)


def _burn(row: Quota, width: int, signs: Glyphs) -> Cell:
    top = max(row.view.limit - row.view.buffer, 0.0)
    return (fit(spark(row.burn[-width:], signs, top=top), width, "right"), "dim") if row.burn else ""


def _exhausted(row: Quota) -> float | None:
    return row.view.forecast.exhausted_at if row.view.forecast is not None else None


BURN_WIDE = 110
COLUMNS: list[Column[Quota]] = [
    Column("provider", "PROVIDER", lambda row, width, signs: row.view.provider, 13, share=1,
           sort=lambda row: row.view.provider, value=lambda row: row.view.provider),
    Column("quota", "QUOTA", lambda row, width, signs: name_of(row.view), 10, share=2,
           sort=lambda row: name_of(row.view), value=lambda row: name_of(row.view)),
    Column("used_bar", "USED▓ HELD▒ BUF░|USED▓HELD▒░|USED▓▒░", _bar, 8, share=4, sort=lambda row: -_left(row.view),
           value=lambda row: row.view.used),
    Column("used", "OF LIMIT", lambda row, width, signs: used_text(row.view, width), 10, align="right",
           sort=lambda row: row.view.limit, value=lambda row: row.view.limit),
    Column("left", "LEFT", lambda row, width, signs: amount(row.view.remaining, row.view.unit), 7, align="right",
           least=78, sort=lambda row: row.view.remaining, value=lambda row: row.view.remaining),
    Column("reserved", "LAST MINUTES", _burn, 14, share=1, least=BURN_WIDE, value=lambda row: row.view.reserved),
    Column("returns", "RETURNS", lambda row, width, signs: (returns_text(row.view, row.now), "dim"), 10,
           align="right", sort=lambda row: row.view.reset, value=lambda row: row.view.reset),
    Column("drift", "DRIFT", _drift, 6, align="right", least=92, sort=lambda row: row.view.drift,
           value=lambda row: row.view.drift),
    Column("source", "SOURCE", lambda row, width, signs: (row.view.source, "dim"), 8, least=120,
           value=lambda row: row.view.source),
    Column("forecast", "FORECAST", _forecast, 15, share=1, least=78, sort=_exhausted, value=_exhausted),
]  # fmt: skip


def columns(width: int) -> list[Column[Quota]]:
    """Below 78 columns the forecast is only a mark."""
    if width >= 78:
        return COLUMNS
    return [*COLUMNS[:-1], Column("forecast", "", _forecast, 1, value=_exhausted)]


class Limits(HouseScreen):
    """Every quota; Enter opens one."""

    NAME = "limits"
    TITLE: ClassVar[str | None] = "Limits"
    TOPICS = frozenset({topics.LIMITS, topics.CLOCK})

    def body(self) -> Iterable[Widget]:
        self.rows = Rows(columns(0), key=lambda row: row.view.key, record=lambda row: row.view, id="limits")
        yield self.rows

    def refresh_from(self, house: House, changed: frozenset[str]) -> None:
        self.rows.empty = self.empty_text(
            _("No limits yet: a provider's 'quotas' in the configuration, or its answers, bring them.")
        )
        if self.size.width >= BURN_WIDE:
            self.dashboard.ask_burn(house.limits)
        made = quotas(house)
        shown = columns(self.size.width)
        if len(shown[-1].title) != len(self.rows.columns[-1].title):
            self.rows.columns = shown
        elif changed == {topics.CLOCK} and made == self.rows.items:
            return
        self.rows.fill(made)

    @on(Rows.Opened, "#limits")
    def _open(self, event: Rows.Opened) -> None:
        quota: Quota = event.item
        self.open_detail(quota.view.key)

    def arrive(self, target: str) -> None:
        self.rows.select(target)
        self.open_detail(target)

    def open_detail(self, key: str) -> None:
        from tui.screens.limit_detail import LimitDetail

        self.app.push_screen(LimitDetail(key))
