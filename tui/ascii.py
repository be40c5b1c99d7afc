"""``--ascii``: what Textual itself draws beyond ASCII, replaced for the process."""

from __future__ import annotations

from typing import Any, ClassVar

from textual.app import App
from textual.scrollbar import ScrollBar, ScrollBarRender


class PlainBar(ScrollBarRender):
    """Scroll bars in whole cells: colour, and no part of a block."""

    VERTICAL_BARS: ClassVar[list[str]] = [" "] * 8
    HORIZONTAL_BARS: ClassVar[list[str]] = [" "] * 8


def use_ascii(app: App[Any]) -> None:
    ScrollBar.renderer = PlainBar
    app.add_class("-ascii")
