"""A table of which somebody else holds, filters and sorts the rows: more of them come as the end is near."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from textual.message import Message

from hybridd.i18n import _
from tui.text import Line
from tui.widgets.columns import Column, T, layout
from tui.widgets.table import Rows

NEAR_END = 50


class PagedRows(Rows[T]):
    """``items`` are shown as given. At the top the cursor stays on the first row (``pinned``); anywhere else new rows
    above move nothing of what is seen. ``downwards``: columns whose largest values come first when sorted by.
    ``waiting``: rows are being looked for."""

    class Asked(Message):
        """Another filter or another order is wanted."""

    class Seen(Message):
        """Other rows are in view."""

        def can_replace(self, message: Message) -> bool:
            return isinstance(message, type(self))

    def __init__(
        self,
        columns: Sequence[Column[T]],
        *,
        key: Callable[[T], str],
        record: Callable[[T], Any],
        downwards: Collection[str] = (),
        id: str | None = None,  # Textual's name
    ) -> None:
        super().__init__(columns, key=key, record=record, id=id)
        self.downwards = frozenset(downwards)
        self.pinned = True
        self.waiting = False

    @property
    def cursor(self) -> int:
        return min(self._row, len(self.shown) - 1)

    @property
    def near_end(self) -> bool:
        """Fewer than :data:`NEAR_END` rows follow what is seen."""
        seen = self.scroll_offset.y + self.scrollable_content_region.height
        return len(self.shown) - max(seen, self.cursor) < NEAR_END

    def _arrange(self) -> None:
        top = self.scroll_offset.y
        anchor = self.key_of(self.shown[top]) if 0 < top < len(self.shown) else None
        self.shown = self.items
        keys = [self.key_of(item) for item in self.shown]
        at = {key: row for row, key in enumerate(keys)} if anchor is not None or not self.pinned else {}
        row = 0 if self.pinned else at.get(self.cursor_key or "", min(self._row, len(keys) - 1))
        self._row = max(0, row)
        self.cursor_key = keys[self._row] if keys else None
        self.redraw()
        if anchor is not None and at.get(anchor, top) != top:
            self.scroll_to(y=at[anchor], animate=False, immediate=True)

    def _seen(self) -> list[Line]:
        lines = super()._seen()
        if lines and not self.shown and self.waiting:
            lines[-1] = [(self.signs.of(_("Looking further back…")), "dim")]
        return lines

    def move_to(self, row: int) -> None:
        self.pinned = row <= 0
        super().move_to(row)

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        if new_value > 0:
            self.pinned = False  # the wheel: who looks further down does not want the rows to run away
        self.post_message(self.Seen())

    # ---- asking --------------------------------------------------------------------------------------------------

    def set_filter(self, text: str) -> None:
        if text != self.filter_text:
            self.filter_text = text
            self.post_message(self.Asked())

    def sort_by(self, key: str, *, backwards: bool = False) -> None:
        self.sort_key, self.backwards = key, backwards
        self.post_message(self.Asked())

    @property
    def sortable(self) -> list[str]:
        shown = layout(self.columns, self.scrollable_content_region.width)
        return ["", *(column.key for column, _width in shown if column.sort is not None)]

    def action_sort(self, forward: int) -> None:
        keys = self.sortable
        if not forward or self.sort_key not in keys:
            super().action_sort(forward)
            return
        key = keys[(keys.index(self.sort_key) + 1) % len(keys)]
        self.sort_by(key, backwards=key in self.downwards)
