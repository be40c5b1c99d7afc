"""Themes and the style sheet. Colour never says anything alone: a word or a sign always stands beside it.

``hybridd`` and ``hybridd-light`` are the usual ones, ``hybridd-contrast`` has only strong contrasts, ``hybridd-safe``
uses colours that people with any of the usual colour-vision deficiencies tell apart (the palette of Okabe and Ito);
``ansi-dark`` and ``ansi-light`` (Textual's) use the terminal's own sixteen colours and its background.
"""

from __future__ import annotations

from textual.theme import Theme

DEFAULT = "hybridd"
THEMES = (
    Theme(
        name="hybridd", dark=True, primary="#7aa2c8", secondary="#8a94a6", accent="#7aa2c8", success="#8fb573",
        warning="#d9a441", error="#e06c75", foreground="#d6d9de", background="#14171c", surface="#1a1e25",
        panel="#232933",
    ),
    Theme(
        name="hybridd-light", dark=False, primary="#1f5f99", secondary="#5b6472", accent="#1f5f99", success="#3a7a2a",
        warning="#946200", error="#b3261e", foreground="#22262b", background="#fbfbf9", surface="#f2f2ee",
        panel="#e4e5e0",
    ),
    Theme(
        name="hybridd-contrast", dark=True, primary="#ffffff", secondary="#ffffff", accent="#00ffff", success="#00ff66",
        warning="#ffff00", error="#ff8080", foreground="#ffffff", background="#000000", surface="#000000",
        panel="#202020", text_alpha=1.0,
    ),
    Theme(
        name="hybridd-safe", dark=True, primary="#56b4e9", secondary="#999999", accent="#56b4e9", success="#009e73",
        warning="#f0e442", error="#e69f00", foreground="#dddddd", background="#15171a", surface="#1b1e22",
        panel="#262a30",
    ),
)  # fmt: skip
NAMES = (*(theme.name for theme in THEMES), "ansi-dark", "ansi-light")

CSS = """
App { background: $background; color: $foreground; }
HouseScreen { background: $background; color: $foreground; layers: base over; }
Toast { width: 60; max-width: 90%; }
CommandPalette SearchIcon { display: none; }
Input { border: none; height: 1; padding: 0 1; background: $surface; }
Input:focus { border: none; background: $panel; }

.lines--dim { color: $foreground 55%; }
.lines--good { color: $success; }
.lines--warn { color: $warning; }
.lines--bad { color: $error; text-style: bold; }
.lines--accent { color: $accent; }
.lines--head { color: $foreground 70%; text-style: bold; }
.lines--bold { text-style: bold; }
.lines--cursor { background: $accent 25%; text-style: bold; }
App:ansi .lines--dim { color: ansi_default; text-style: dim; }
App:ansi .lines--head { color: ansi_default; text-style: bold; }
App:ansi .lines--cursor { background: ansi_default; text-style: reverse; }
Screen.-nocolour .lines--cursor { text-style: reverse; }
Screen.-stale .lines--dim, Screen.-stale .lines--good, Screen.-stale .lines--warn { color: $foreground 45%; }
Screen.-stale Lines, Screen.-stale Rows { color: $foreground 45%; text-style: dim; }
Screen.-stale Banner { color: $foreground; text-style: none; }
RowsView, VerticalScroll {
    scrollbar-color: $secondary 50%; scrollbar-color-hover: $secondary; scrollbar-color-active: $accent;
    scrollbar-background: $surface; scrollbar-background-hover: $surface; scrollbar-background-active: $surface;
}
App.-ascii Toast, App.-ascii CommandPalette * { border: none; }
"""
