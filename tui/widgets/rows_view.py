"""A list of things drawn line by line, as far as it is seen; each thing is known by its key.

It holds the list itself and no copy in cells: another order or a filter is another list of references, and a new state
redraws the lines that differ. The cursor stays on its thing, wherever that moves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic

from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from hybridd.i18n import N_, _, language
from tui.text import Line, wrap
from tui.widgets.columns import Column, T, head_line, layout, matches, row_line, value_of
from tui.widgets.lines import Painter


class RowsView(Painter, ScrollView, Generic[T], can_focus=True):
    """``key`` gives a thing's key, ``record`` its plain data for JSON. ``sort``: the column sorted by at first, with
    ``-`` in front for descending; "": in the order given. ``empty``: a sentence that says what to do next."""

    DEFAULT_CSS = """
    RowsView { height: 1fr; width: 1fr; overflow-x: hidden; overflow-y: auto; scrollbar-size-vertical: 1; }
    """

    class Picked(Message):
        """About one thing of one table."""

        def __init__(self, rows: RowsView[Any], item: Any) -> None:
            super().__init__()
            self.rows = rows
            self.item = item

        @property
        def control(self) -> RowsView[Any]:
            return self.rows

    class Opened(Picked):
        """Enter, or a second click on a row."""

    class Moved(Picked):
        """The cursor stands on another thing."""

    def __init__(
        self,
        columns: Sequence[Column[T]],
        *,
        key: Callable[[T], str],
        record: Callable[[T], Any],
        sort: str = "",
        empty: str = N_("Nothing here yet."),
        head: bool = True,
        id: str | None = None,  # Textual's name
    ) -> None:
        super().__init__(id=id)
        self.columns = list(columns)
        self.key_of = key
        self.record_of = record
        self.sort_key = sort.removeprefix("-")
        self.backwards = sort.startswith("-")
        self.empty = _(empty)
        self.head = int(head)
        self.filter_text = ""
        self.items: list[T] = []
        self.shown: list[T] = []
        self.cursor_key: str | None = None
        self._lines: list[Line] = []
        self._texts: dict[str, tuple[T, str]] = {}

    # ---- content -------------------------------------------------------------------------------------------------

    def fill(self, items: Iterable[T]) -> None:
        """The whole list, in its natural order."""
        self.items = list(items)
        self._arrange()

    @property
    def cursor(self) -> int:
        """The row of the cursor; -1 without rows."""
        for row, item in enumerate(self.shown):
            if self.key_of(item) == self.cursor_key:
                return row
        return 0 if self.shown else -1

    @property
    def selected(self) -> T | None:
        return self.shown[self.cursor] if self.shown else None

    def _arrange(self) -> None:
        row = self._row
        words = self.filter_text.lower().split()
        self.shown = [item for item in self.items if self._matches(item, words)] if words else self.items[:]
        column = next((one for one in self.columns if one.key == self.sort_key and one.sort is not None), None)
        if column is not None and column.sort is not None:
            order = column.sort
            known = [item for item in self.shown if order(item) is not None]
            known.sort(key=order, reverse=self.backwards)
            self.shown = [*known, *(item for item in self.shown if order(item) is None)]
        keys = {self.key_of(item) for item in self.shown}
        if self.cursor_key not in keys:  # its thing is gone: stay where it was
            self.cursor_key = self.key_of(self.shown[min(row, len(self.shown) - 1)]) if self.shown else None
        self._row = max(0, self.cursor)
        self.redraw()

    _row = 0
    marked = False
    """The cursor is seen without the focus too."""

    def _matches(self, item: T, words: Sequence[str]) -> bool:
        key = self.key_of(item)
        cached = self._texts.get(key)
        if cached is None or cached[0] is not item:
            values = [str(value_of(column, item, self.signs)) for column in self.columns]
            if language() != "en":  # a state is found by its code and by the word that is read
                values += [_(value) for value in values]
            text = " ".join(values).lower()
            self._texts[key] = cached = (item, text)
        signs = self.signs
        return matches(cached[1], lambda: {one.key: str(value_of(one, item, signs)) for one in self.columns}, words)

    # ---- drawing -------------------------------------------------------------------------------------------------

    def redraw(self) -> None:
        """Computes the lines that are seen and draws those that changed."""
        self.virtual_size = Size(self.size.width, len(self.shown) + self.head)
        self._texts = self._texts if len(self._texts) < 2 * len(self.items) + 64 else {}
        old, self._lines = self._lines, self._seen()
        if len(old) != len(self._lines):
            self.refresh()
            return
        changed = [y for y, (before, after) in enumerate(zip(old, self._lines, strict=True)) if before != after]
        if changed:
            self.refresh(*(Region(0, y, self.size.width, 1) for y in changed))

    def _seen(self) -> list[Line]:
        width, height = self.scrollable_content_region.size
        if not width:
            return []
        columns = layout(self.columns, width)
        lines = [head_line(columns, self.signs, self.sort_key, backwards=self.backwards)] if self.head else []
        if not self.shown:
            none = _("Nothing matches '{filter}'; Esc clears the filter.").format(filter=self.filter_text)
            said = none if self.filter_text else self.empty
            return [*lines, *([(self.signs.of(line), "dim")] for line in wrap(said, width))]
        first = self.scroll_offset.y
        here = self.cursor
        for row in range(first, min(len(self.shown), first + height - self.head)):
            line = row_line(self.shown[row], columns, self.signs)
            lines.append([*line, ("", "cursor")] if row == here and (self.has_focus or self.marked) else line)
        return lines

    def text_line(self, y: int) -> Line:
        return self._lines[y] if y < len(self._lines) else []

    def text_lines(self) -> int:
        return len(self._lines)

    def render_line(self, y: int) -> Strip:
        line = self.text_line(y)
        return self.paint(line, self.size.width, y, cursor=bool(line) and line[-1] == ("", "cursor"))

    def on_resize(self) -> None:
        self.redraw()

    def watch_show_vertical_scrollbar(self) -> None:
        self.call_after_refresh(self.redraw)  # the columns have a cell less, or one more

    def on_focus(self) -> None:
        self.redraw()

    def on_blur(self) -> None:
        self.redraw()

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        self._lines = self._seen()
        self.refresh()

    # ---- moving --------------------------------------------------------------------------------------------------

    def move_to(self, row: int) -> None:
        """Puts the cursor there and scrolls it into view."""
        if not self.shown:
            return
        row = max(0, min(row, len(self.shown) - 1))
        self._row = row
        self.cursor_key = self.key_of(self.shown[row])
        room = max(1, self.scrollable_content_region.height - self.head)
        top = self.scroll_offset.y
        if row < top:
            self.scroll_to(y=row, animate=False, immediate=True)
        elif row >= top + room:
            self.scroll_to(y=row - room + 1, animate=False, immediate=True)
        self.redraw()
        self.post_message(self.Moved(self, self.shown[row]))

    def select(self, key: str) -> bool:
        """Puts the cursor on the thing with that key; False: it is not shown."""
        for row, item in enumerate(self.shown):
            if self.key_of(item) == key:
                self.move_to(row)
                return True
        return False
