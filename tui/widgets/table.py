"""The table: a list of things with keys to move, sort, filter, copy and export."""

from __future__ import annotations

from typing import Any, ClassVar

from textual import events
from textual.binding import Binding, BindingType

from hybridd.i18n import _
from tui.text import plain
from tui.widgets.columns import T, layout, row_line, value_of
from tui.widgets.rows_view import RowsView


class Rows(RowsView[T]):
    """Posts :class:`Rows.Opened` for Enter or a double click, :class:`Rows.Moved` when the cursor moves."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "open", "Open", id="table.open", show=False),
        Binding("up,k", "move(-1)", "Up", id="table.up", show=False),
        Binding("down,j", "move(1)", "Down", id="table.down", show=False),
        Binding("pageup", "move_page(-1)", "Page up", id="table.page_up", show=False),
        Binding("pagedown", "move_page(1)", "Page down", id="table.page_down", show=False),
        Binding("home", "move_to(0)", "First row", id="table.first", show=False),
        Binding("end", "move_to(-1)", "Last row", id="table.last", show=False),
        Binding("slash", "filter", "filter", key_display="/", id="table.filter"),
        Binding("s", "sort(1)", "Sort by the next column", id="table.sort", show=False),
        Binding("S", "sort(0)", "Sort the other way", id="table.reverse", show=False),
        Binding("y", "copy", "Copy the row", id="table.copy", show=False),
        Binding("Y", "copy_json", "Copy the row as JSON", id="table.copy_json", show=False),
        Binding("e", "screen.export", "Export", id="table.export", show=False),
    ]

    def action_move(self, rows: int) -> None:
        self.move_to(self.cursor + rows)

    def action_move_page(self, pages: int) -> None:
        self.move_to(self.cursor + pages * max(1, self.scrollable_content_region.height - self.head - 1))

    def action_move_to(self, row: int) -> None:
        self.move_to(len(self.shown) - 1 if row < 0 else row)

    def action_open(self) -> None:
        item = self.selected
        if item is not None:
            self.post_message(self.Opened(self, item))

    def on_click(self, event: events.Click) -> None:
        row = event.y - self.head + self.scroll_offset.y
        if event.y < self.head:
            self._sort_at(event.x)
        elif row < len(self.shown):
            again = row == self.cursor and event.chain > 1
            self.move_to(row)
            if again:
                self.action_open()

    # ---- sorting, copying, filtering -----------------------------------------------------------------------------

    def _sort_at(self, x: int) -> None:
        at = 0
        for column, width in layout(self.columns, self.scrollable_content_region.width):
            at += width + 1
            if x < at:
                if column.sort is not None:
                    self.sort_by(column.key, backwards=column.key == self.sort_key and not self.backwards)
                return

    def sort_by(self, key: str, *, backwards: bool = False) -> None:
        """By that column; "" is the natural order."""
        self.sort_key, self.backwards = key, backwards
        self._arrange()

    @property
    def sortable(self) -> list[str]:
        return ["", *(column.key for column in self.columns if column.sort is not None)]

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return len(self.sortable) > 1 if action == "sort" else True

    def action_sort(self, forward: int) -> None:
        if not forward:
            self.sort_by(self.sort_key, backwards=not self.backwards)
            return
        keys = self.sortable
        at = keys.index(self.sort_key) if self.sort_key in keys else 0
        self.sort_by(keys[(at + 1) % len(keys)])

    def set_filter(self, text: str) -> None:
        self.filter_text = text
        self._arrange()

    def action_filter(self) -> None:
        from tui.widgets.filter import Filter

        found = self.screen.query(Filter)
        if found:
            found.first().open()

    def action_copy(self) -> None:
        item = self.selected
        if item is not None:
            width = self.scrollable_content_region.width
            self._copy(plain(row_line(item, layout(self.columns, width), self.signs)).strip(), _("Copied the row."))

    def action_copy_json(self) -> None:
        from tui.export import as_json

        item = self.selected
        if item is not None:
            self._copy(as_json(self.record_of(item)), _("Copied the row as JSON."))

    def _copy(self, text: str, done: str) -> None:
        self.app.copy_to_clipboard(text)
        self.notify(done, timeout=2)

    def table(self) -> tuple[list[str], list[list[Any]], list[Any]]:
        """For an export: the titles, the values of each shown row, and its plain data."""
        rows = [[value_of(column, item, self.signs) for column in self.columns] for item in self.shown]
        return [column.key for column in self.columns], rows, [self.record_of(item) for item in self.shown]
