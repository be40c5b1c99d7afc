"""The bottom line: the screens and the keys that matter here, made from the bindings."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len
from textual import events

from tui.text import Glyphs, Line, Piece, fit_line
from tui.widgets.lines import Lines

Key = tuple[str, str, str]
"""What to press, what it does, the action to run."""

Word = tuple[Piece, str]
"""A piece of the line and what a click on it runs; "": nothing."""

GAP = 2


def footer_words(screens: Sequence[Key], keys: Sequence[Key], current: str, width: int) -> list[Word]:
    """The screens left, the keys right. Where more than one key would be left out, the other screens are numbers alone;
    the last key (help) is the last to go."""
    left = _screens(screens, current, titles=True)
    chosen = _fitting(keys, width - _width(left))
    if len(chosen) < len(keys) - 1 or (keys and not chosen):
        left = _screens(screens, current, titles=False)
        chosen = _fitting(keys, width - _width(left))
    right = [word for number, key in enumerate(chosen) for word in _words(key, gap=number > 0)]
    space = width - _width(left) - _width(right)
    return [*left, ((" " * max(0, space), ""), ""), *right]


def _fitting(keys: Sequence[Key], room: int) -> list[Key]:
    room += 1  # the titles end with half a gap, which must do where room is short
    chosen: list[Key] = [*keys[-1:]] if keys and _size(keys[-1]) <= room else []
    for key in keys[:-1]:
        if sum(map(_size, chosen)) + _size(key) <= room:
            chosen.insert(max(0, len(chosen) - 1), key)
    return chosen


def _screens(screens: Sequence[Key], current: str, *, titles: bool) -> list[Word]:
    made: list[Word] = [((" ", ""), "")]
    for key, title, name in screens:
        here = name == current
        action = f"app.screen('{name}')"
        shown = f" {title} " if titles or here else " "
        made += [((key, "accent"), action), ((shown, "bold" if here else "dim"), action)]
    return made


def _words(key: Key, *, gap: bool) -> list[Word]:
    pressed, title, action = key
    between: list[Word] = [((" " * GAP, ""), "")] if gap else []
    return [*between, ((pressed, "accent"), action), ((f" {title}", "dim"), action)]


def _size(key: Key) -> int:
    """With the gap before it."""
    return GAP + cell_len(key[0]) + 1 + cell_len(key[1])


def _width(words: Sequence[Word]) -> int:
    return sum(cell_len(text) for (text, _style), _action in words)


def footer_line(screens: Sequence[Key], keys: Sequence[Key], current: str, width: int, signs: Glyphs) -> Line:
    words = footer_words(screens, keys, current, width)
    return fit_line([(signs.of(text), style) for (text, style), _action in words], width, ellipsis=signs.ellipsis)


class Footer(Lines):
    """Click a word to do it."""

    DEFAULT_CSS = "Footer { height: 1; background: $panel; }"
    _words: Sequence[Word] = ()

    def draw(self, screens: Sequence[Key], keys: Sequence[Key], current: str) -> None:
        width = self.size.width or self.app.size.width
        self._words = footer_words(screens, keys, current, width)
        self.show([footer_line(screens, keys, current, width, self.signs)])

    async def on_click(self, event: events.Click) -> None:
        at = 0
        for (text, _style), action in self._words:
            at += cell_len(text)
            if event.x < at:
                if action:
                    await self.screen.run_action(action)
                return
