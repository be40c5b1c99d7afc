"""Where the time of one request went: a bar for each call on one scale, from the request's arrival to its end."""

from __future__ import annotations

from hybridd.contracts.views import AttemptView, RequestView
from hybridd.i18n import N_, _
from tui.text import Glyphs, Line, fit, fit_line, milliseconds
from tui.widgets.lines import Lines

_STATES = {
    "settled": (N_("answered"), ""),
    "released": (N_("not counted"), "warn"),
    "unknown": (N_("outcome unknown"), "warn"),
    "dispatched": (N_("no end known"), "warn"),
}
"""The ledger's words for how a call ended."""
_FIGURE = 8
_NAME = 18
_SAYS = 22


def span(start: float, length: float, whole: float, cells: int) -> tuple[int, int]:
    """The first cell and the number of cells (at least one) of a part of ``whole``, never beyond the last cell."""
    if whole <= 0 or cells <= 0:
        return 0, max(0, cells)
    first = min(cells - 1, int(min(start, whole) / whole * cells))
    end = max(first + 1, round(min(start + length, whole) / whole * cells))
    return first, end - first


def waterfall_lines(view: RequestView, width: int, signs: Glyphs) -> list[Line]:
    """A scale, a bar for each call, and what passed outside the one that answered.

    ``▒`` is waiting for the first token, ``▓`` receiving; a call that was not streamed is all waiting. What stands free
    between two bars is the time in which another candidate was sought.
    """
    calls = view.calls or []
    whole = max([view.latency_ms, *(_offset(view, call) + call.duration_ms for call in calls)], default=0.0)
    names = min(_NAME if width < 100 else 34, max([7, *(len(call.candidate) for call in calls)]))
    words = _SAYS
    cells = width - names - _FIGURE - words - 3
    if cells < 10:  # the words give way to the bars
        words, cells = 0, max(4, width - names - _FIGURE - 2)
    lines = [_scale(whole, names, cells, signs)]
    for number, call in enumerate(calls):
        first = view.first_token_ms if number == len(calls) - 1 and view.stream else None
        lines.append(_bar(view, call, whole, (names, cells, words), first, signs))
    where = (
        _("{time} until the call that answered was sent") if view.stream else _("{time} outside the call that answered")
    )
    own = where.format(time=milliseconds(view.overhead_ms)) if view.overhead_ms is not None else ""
    if not calls:
        unknown = view.calls is None and view.attempts
        none = _("when its calls were made is not known here") if unknown else _("no call was made")
        why = _("answered from the cache") if view.cache == "hit" else none
        own = f"{why}; {_('{time} in hybridd').format(time=milliseconds(view.overhead_ms))}" if own else why
    if own:
        lines.append([(" " * (names + 1), ""), (own, "dim")])
    return [fit_line(line, width, ellipsis=signs.ellipsis) for line in lines]


def _offset(view: RequestView, call: AttemptView) -> float:
    """Milliseconds from the request's arrival to the call."""
    return max(0.0, (call.started - view.at) * 1000)


def _scale(whole: float, names: int, cells: int, signs: Glyphs) -> Line:
    end = milliseconds(whole)
    middle = signs.rule * max(0, cells - len(end) - 3)
    return [(" " * (names + 1), ""), (f"0 {middle} {end}", "dim")]


def _bar(
    view: RequestView, call: AttemptView, whole: float, widths: tuple[int, int, int], first: float | None, signs: Glyphs
) -> Line:
    """``widths``: of the name, the bar and what is said of it."""
    names, cells, words = widths
    start = _offset(view, call)
    at, size = span(start, call.duration_ms, whole, cells)
    waited = size
    if first is not None:
        waited = min(size, max(0, round(first / whole * cells) - at)) if whole else 0
    word, style = _STATES.get(call.state, (call.state, "warn"))
    says = _(word)
    if call.error_code:
        says, style = call.error_code, "bad"
    elif first is not None:
        says = _("first token {time}").format(time=milliseconds(first))
    return [
        (fit(call.candidate, names, ellipsis=signs.ellipsis), ""),
        (" " * (at + 1), ""),
        (signs.held * waited, style or "accent"),
        (signs.used * (size - waited), style or "accent"),
        (" " * (cells - at - size + 1), ""),
        (fit(milliseconds(call.duration_ms), _FIGURE, "right"), ""),
        (f" {fit(says, words, ellipsis=signs.ellipsis)}" if words else "", style or "dim"),
    ]


class Waterfall(Lines):
    """The same as a block of its own."""

    def draw(self, view: RequestView) -> None:
        self.show(waterfall_lines(view, self.size.width or self.app.size.width, self.signs))
