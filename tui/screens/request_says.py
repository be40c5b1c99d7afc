"""The line above the requests: what is shown of them, in which order, and how far back it reaches. Pure functions."""

from __future__ import annotations

from typing import Any

from hybridd.i18n import N_, _
from tui.house import House
from tui.listing import MOST, Listing
from tui.text import Glyphs, Line, clock, moment
from tui.widgets.paged import PagedRows

_ORDERS = {
    "at": (N_("oldest first"), N_("newest first")),
    "text": (N_("from A on"), N_("from Z on")),
    "number": (N_("smallest first"), N_("largest first")),
}
"""How a column is sorted: upwards, downwards."""


def mood(house: House, rows: PagedRows[Any], new: int | None, signs: Glyphs) -> Line:
    """Following, sorted, in the past or paused with ``new`` requests since (None: not paused); and the filter."""
    if new is not None:
        told = _("{count} new, p goes on").format(count=f"{new:,}")
        said: Line = [(f" {_('PAUSED')}", "warn"), (f": {told}", "dim")]
    elif house.as_of is not None and not rows.sort_key:
        said = [(f" {_('up to {time}').format(time=clock(house.as_of))}", "warn"), _also(_("newest first"))]
    elif rows.sort_key:
        column = next(one for one in rows.columns if one.key == rows.sort_key)
        title = _(column.title).partition("|")[0].lower()
        words = _ORDERS["at" if column.key == "at" else "number" if column.align == "right" else "text"]
        said = [(f" {_('by {column}').format(column=title)}", "accent"), _also(_(words[rows.backwards]))]
    elif rows.pinned:
        said = [(f" {_('following')}", "good"), _also(_("newest first"))]
    else:
        said = [(f" {_('newest first')} {signs.between} {_('f follows again')}", "dim")]
    if rows.filter_text:
        said += [(f"   {_('filter')} ", "dim"), (signs.of(rows.filter_text), "accent")]
    return said


def _also(text: str) -> tuple[str, str]:
    return f", {text}", "dim"


def extent(listing: Listing, rows: PagedRows[Any], now: float, *, asking: bool) -> Line:
    """How many are shown, and whether there are more."""
    shown = f"{len(rows.shown):,}"
    if asking:
        return [(_("{count} so far").format(count=shown), "dim")]
    if listing.full:
        return [(_("the first {count}; filter to see others").format(count=f"{MOST:,}"), "warn")]
    if listing.more and listing.asked and listing.reached is not None and rows.near_end:
        said = _("{count}, searched back to {time}; End goes on")
        return [(said.format(count=shown, time=moment(listing.reached, now)), "dim")]
    return [((_("{count} and older ones") if listing.more else _("all {count}")).format(count=shown), "dim")]
