"""The bottom line: the screens and the keys that matter here, made from the bindings."""

from __future__ import annotations

from collections.abc import Sequence

from textual import events

from tui.text import Glyphs, Line, fit_line
from tui.widgets.lines import Lines

Key = tuple[str, str, str]
"""What to press, what it does, the action to run."""


def footer_line(screens: Sequence[Key], keys: Sequence[Key], current: str, width: int, signs: Glyphs) -> Line:
    """The screens left, as many keys as fit right."""
    short = width < 76
    left: Line = [(" ", "")]
    for key, title, name in screens:
        here = name == current
        left.append((key, "accent"))
        left.append((f" {title[:4] if short and not here else title} ", "bold" if here else "dim"))
    used = sum(len(text) for text, _ in left)
    right: Line = []
    taken = 0
    for key, title, _action in keys:
        size = len(key) + len(title) + 1 + (2 if right else 0)
        if used + taken + size > width:
            continue
        right += [("  " if right else "", ""), (key, "accent"), (f" {title}", "dim")]
        taken += size
    return [*fit_line(left, max(0, width - taken), ellipsis=signs.ellipsis), *right]


class Footer(Lines):
    """Click a word to do it."""

    DEFAULT_CSS = "Footer { height: 1; background: $panel; }"

    def draw(self, screens: Sequence[Key], keys: Sequence[Key], current: str) -> None:
        self._actions = {title: action for _, title, action in keys} | {
            title: f"app.screen('{name}')" for _, title, name in screens
        }
        self.show([footer_line(screens, keys, current, self.size.width or self.app.size.width, self.signs)])

    async def on_click(self, event: events.Click) -> None:
        at = 0
        for text, _ in self.text_line(0):
            at += len(text)
            if event.x < at or (event.x == at and text.strip()):
                word = text.strip()
                action = next((run for title, run in self._actions.items() if word and title.startswith(word)), None)
                if action is not None:
                    await self.screen.run_action(action)
                return
