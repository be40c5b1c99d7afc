"""The providers of the Overview as rows, ordered by trouble and then by name. Pure functions of the house."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rich.cells import cell_len

from hybridd.contracts.views import LimitView, ProviderView
from hybridd.i18n import N_, _, ngettext
from tui.house import Cost, House
from tui.text import Glyphs, age, amount, bar, clock, fit, moment, money, quota_name, size_pair, spark
from tui.widgets.columns import Cell, Column, Rest

STATE_WORDS = {
    "not_configured": N_("not set up"), "disconnected": N_("offline"), "ready": N_("ready"), "idle": N_("idle"),
    "starting": N_("starting"), "cooling": N_("cooling"), "parked": N_("parked"), "failed": N_("failed"),
    "retired": N_("retired"), "disabled": N_("disabled"), "not kept": N_("not kept"),
}  # fmt: skip
_STATE_STYLES = {
    "ready": "good", "idle": "dim", "starting": "accent", "cooling": "warn", "parked": "bad", "failed": "bad",
    "disconnected": "bad", "retired": "dim", "not_configured": "dim", "disabled": "dim",
}  # fmt: skip
_STATE_TROUBLE = {
    "failed": 0, "parked": 0, "disconnected": 0, "cooling": 1, "starting": 4, "ready": 5, "idle": 5, "retired": 4,
    "not_configured": 6, "disabled": 7,
}  # fmt: skip
_OUT_OF_USE = frozenset({"failed", "parked", "disconnected", "retired", "not_configured", "disabled"})
RECORDED = "recorded"
"""The source of a limit as it was: forecasts are not recorded, so nothing is said of them."""
LOW = 0.1
"""A quota with less than this part left is trouble by itself."""


@dataclass(frozen=True, slots=True)
class Row:
    """One quota of a provider, or the provider without one. ``first``: the provider's name stands here.

    ``figures``: used and whole of the memory of local models, in bytes.
    """

    key: str
    provider: ProviderView
    first: bool
    now: float
    limit: LimitView | None = None
    says: str = ""
    cost: Cost | None = None
    burn: tuple[float, ...] = ()
    state: str = ""
    figures: tuple[str, float, float] | None = None


def limit_trouble(limit: LimitView) -> int:
    """0: used up, 1: runs out before its reset or is low, 2: somebody else spends it, 5: fine."""
    if limit.remaining <= 0 and limit.limit > 0:
        return 0
    usable = limit.limit - limit.buffer
    if limit.forecast is not None and limit.forecast.exhausted_at is not None:
        return 1
    if usable > 0 and limit.remaining / usable < LOW and limit.unit != "concurrent":
        return 1
    return 2 if limit.drift and limit.drift > 0 else 5


def trouble(provider: ProviderView, limits: Sequence[LimitView]) -> int:
    """How much this provider needs a look: 0 most. A quota matters only while the provider could be used."""
    own = _STATE_TROUBLE.get(provider.state, 3)
    if provider.state in _OUT_OF_USE:
        return own
    return min([own, *(limit_trouble(limit) + 1 for limit in limits)])


def provider_rows(house: House, most: int = 3, room: int | None = None) -> list[Row]:
    """Every provider with at most ``most`` of its quotas, the worst ones; where ``room`` lines do not hold them, those
    that are fine give way, from below, until every provider has its line or all that is left needs a look."""
    by_provider: dict[str, list[LimitView]] = {}
    for limit in house.limits.values():
        by_provider.setdefault(limit.provider, []).append(limit)
    views = house.providers.values()
    order = sorted(views, key=lambda one: (trouble(one, by_provider.get(one.name, [])), one.name))
    groups = [_rows_of(house, view, by_provider.get(view.name, []), most) for view in order]
    over = 0 if room is None else sum(map(len, groups)) - room
    for group in reversed(groups):
        while over > 0 and len(group) > 1 and group[-1].limit is not None and limit_trouble(group[-1].limit) == 5:
            group.pop()
            over -= 1
    return [row for group in groups for row in group]


def _rows_of(house: House, view: ProviderView, limits: list[LimitView], most: int) -> list[Row]:
    cost = house.costs.get(view.name)
    state = _(STATE_WORDS.get(view.state, view.state))
    if view.state in _OUT_OF_USE:
        return [Row(view.name, view, True, house.now, says=_sentence(view), cost=cost, state=state)]
    rows: list[Row] = []
    if view.state == "cooling":
        rows.append(Row(view.name, view, True, house.now, says=_sentence(view), cost=cost, state=state))
    if view.name == "local" and house.local:
        rows.append(_memory_row(house, view, cost))
    limits.sort(key=lambda one: (limit_trouble(one), _left(one), one.key))
    for limit in limits[:most]:
        burn = tuple(value for _at, value in house.burn.get(limit.key, ()))
        key = f"{view.name}|{limit.key}"
        rows.append(Row(key, view, not rows, house.now, limit, cost=cost, burn=burn, state=state))
    if not rows:
        models = [model.id for model in view.models]
        known = ngettext("no limits · {count} model: {names}", "no limits · {count} models: {names}", len(models))
        says = known.format(count=len(models), names=", ".join(models))
        says = says if models else _("no limits") if house.as_of is None else _("not recorded")
        rows.append(Row(view.name, view, True, house.now, says=says, cost=cost, state=state))
    return rows


def _left(limit: LimitView) -> float:
    return limit.remaining / limit.limit if limit.limit else 1.0


def _sentence(view: ProviderView) -> str:
    if view.until is not None and view.state in {"cooling", "parked"}:
        return _("until {time}: {reason}").format(time=clock(view.until), reason=view.reason)
    return view.reason


def _memory_row(house: House, view: ProviderView, cost: Cost | None) -> Row:
    ready = sum(one.state in {"ready", "draining"} for one in house.local.values())
    loading = len(house.local) - ready
    gpus = house.machine.get("gpus") or []
    side, whole = ("device", gpus[0]["total"]) if gpus else ("host", house.machine.get("ram_total") or 0)
    used = sum(_bytes(one.memory.get(side)) for one in house.local.values())
    state = (
        _("{count} loaded").format(count=ready)
        if not loading
        else _("{counts} load").format(counts=f"{ready}+{loading}")
    )
    figures = ("VRAM" if gpus else "RAM", float(used), float(whole))
    return Row(f"{view.name}|memory", view, True, house.now, cost=cost, state=state, figures=figures, says="")


def _bytes(parts: object) -> int:
    if isinstance(parts, dict):
        return sum(_bytes(part) for part in parts.values())
    return int(parts) if isinstance(parts, (int, float)) else 0


# ---- cells ---------------------------------------------------------------------------------------------------------


def _name(row: Row, width: int, signs: Glyphs) -> Cell:
    return (row.provider.name, "bold" if trouble(row.provider, []) < 6 else "dim") if row.first else ""


def _state(row: Row, width: int, signs: Glyphs) -> Cell:
    return (row.state, _STATE_STYLES.get(row.provider.state, "")) if row.first else ""


def _quota(row: Row, width: int, signs: Glyphs) -> Cell:
    if row.figures is not None:
        return row.figures[0]
    if row.limit is None:
        return Rest([(signs.of(row.says), "dim" if row.provider.state in {"not_configured", "disabled"} else "")])
    name = quota_name(row.limit.unit, row.limit.window)
    return f"{name} {row.limit.models[0]}" if row.limit.models and width > 14 else name


def _bar(row: Row, width: int, signs: Glyphs) -> Cell:
    if row.figures is not None:
        return bar(row.figures[1], 0, 0, row.figures[2], width, signs, "accent")
    limit = row.limit
    if limit is None:
        return ""
    style = {0: "bad", 1: "warn"}.get(limit_trouble(limit), "accent")
    return bar(limit.used, limit.reserved, limit.buffer, limit.limit, width, signs, style)


def used_text(limit: LimitView, width: int) -> str:
    """``9+2/15``, ``$0.04/0.10``, or per cent where figures would not fit."""
    if limit.unit == "usd":
        text = f"${limit.used + limit.reserved:.2f}/{limit.limit:.2f}"
    else:
        held = f"+{amount(limit.reserved, limit.unit)}" if limit.reserved else ""
        text = f"{amount(limit.used, limit.unit)}{held}/{amount(limit.limit, limit.unit)}"
    if limit.limit >= 10_000 or len(text) > width:
        return f"{(limit.used + limit.reserved) / limit.limit * 100:.0f} %" if limit.limit else "-"
    return text


def _used(row: Row, width: int, signs: Glyphs) -> Cell:
    if row.figures is not None:
        return size_pair(row.figures[1], row.figures[2], width)
    return used_text(row.limit, width) if row.limit is not None else ""


def forecast_text(limit: LimitView, now: float, width: int, signs: Glyphs) -> tuple[str, str]:
    """What happens to it, as long as it fits, and the style. What needs a look ends with ``!``."""
    if limit.remaining <= 0 and limit.limit > 0:
        used_up = _("used up")
        if limit.reset is None:
            return f"{used_up} !", "bad"
        back = _("back {time}").format(time=moment(limit.reset, now))
        return _fitting(width, f"{used_up}, {back} !", f"{back} !", f"{moment(limit.reset, now)} !"), "bad"
    forecast = limit.forecast
    if forecast is not None and forecast.exhausted_at is not None:
        at = moment(forecast.exhausted_at, now)
        out = _("out {time}").format(time=at)
        shorter = (f"{out} !", f"{at} !")
        if forecast.earliest is None or forecast.latest is None or forecast.exhausted_at - now >= 86_400:
            return _fitting(width, *shorter), "warn"
        spread = _short(max(60.0, (forecast.latest - forecast.earliest) / 2))
        return _fitting(width, f"{out} {signs.plusminus}{spread} !", *shorter), "warn"
    if limit_trouble(limit) == 1:
        return f"{_('low')} !", "warn"
    if limit.drift:
        sign, style = ("+", "warn") if limit.drift > 0 else ("-", "dim")
        return f"{_('drift')} {sign}{amount(abs(limit.drift), limit.unit)}", style
    return ("-" if limit.source == RECORDED else _("ok")), "dim"


def _fitting(width: int, *texts: str) -> str:
    """The first that fits, else the last."""
    return next((text for text in texts if cell_len(text) <= width), texts[-1])


def _short(seconds: float) -> str:
    return age(seconds).replace(" min", "m").replace(" ", "")


def _forecast(row: Row, width: int, signs: Glyphs) -> Cell:
    if row.limit is None:
        return ""
    text, style = forecast_text(row.limit, row.now, width, signs)
    if width < 8:
        return ("!", style) if text.endswith("!") else ("~" if row.limit.drift else "", style)
    return (text, style)


def _burn(row: Row, width: int, signs: Glyphs) -> Cell:
    if row.limit is None or not row.burn:
        return ""
    return (fit(spark(row.burn[-width:], signs, top=row.limit.limit), width, "right"), "dim")


def _today(row: Row, width: int, signs: Glyphs) -> Cell:
    return (money(row.cost.today), "") if row.cost is not None and row.first else ""


def _month(row: Row, width: int, signs: Glyphs) -> Cell:
    return (money(row.cost.month), "") if row.cost is not None and row.first else ""


def _forecast_value(row: Row) -> float | None:
    """UTC seconds when it runs out."""
    return row.limit.forecast.exhausted_at if row.limit is not None and row.limit.forecast is not None else None


WIDE = 104
BURN_WIDE = 88
COLUMNS: list[Column[Row]] = [
    Column("provider", "PROVIDER", _name, 13, share=1, value=lambda row: row.provider.name),
    Column("state", "STATE", _state, 10, value=lambda row: row.provider.state),
    Column("today", "TODAY", _today, 7, align="right", least=WIDE, value=lambda row: row.cost and row.cost.today),
    Column("month", "MONTH", _month, 7, align="right", least=WIDE, value=lambda row: row.cost and row.cost.month),
    Column("quota", "QUOTA", _quota, 9, share=1, value=lambda row: row.limit.key if row.limit else row.says),
    Column(
        "used_bar",
        "USED ▓ HELD ▒ BUFFER ░|USED▓ HELD▒ BUF░|USED▓HELD▒░",
        _bar,
        12,
        share=4,
        value=lambda row: row.limit and row.limit.used,
    ),
    Column("used", "OF LIMIT", _used, 11, align="right", value=lambda row: row.limit and row.limit.limit),
    Column("left", "LEFT", _burn, 12, least=BURN_WIDE, value=lambda row: row.limit and row.limit.remaining),
    Column("forecast", "FORECAST", _forecast, 15, share=1, least=78, value=_forecast_value),
]


def columns(width: int) -> list[Column[Row]]:
    """Below 78 columns the forecast is only a mark."""
    if width >= 78:
        return COLUMNS
    mark = Column("forecast", "", _forecast, 1, value=_forecast_value)
    return [*(replace(one, width=8) if one.key == "quota" else one for one in COLUMNS[:-1]), mark]
