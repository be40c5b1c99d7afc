"""Tables as CSV and JSON, the screen as SVG: written to the folder the dashboard was started in."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import ModalScreen

from hybridd.i18n import _
from tui.widgets.lines import Lines

if TYPE_CHECKING:
    from tui.screens.base import HouseScreen

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def as_json(value: Any) -> str:
    return json.dumps(msgspec.to_builtins(value), indent=2, ensure_ascii=False)


def as_csv(titles: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """RFC 4180. A text that a spreadsheet would run as a formula gets a quote in front."""
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\r\n")
    writer.writerow(titles)
    for row in rows:
        writer.writerow([_cell(value) for value in row])
    return written.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return "" if value is None else value


def write(folder: Path, name: str, ending: str, text: str, now: float) -> Path:
    """A new file; never over another one.

    Raises:
        OSError: the folder cannot be written to.
    """
    stamp = datetime.fromtimestamp(now).strftime("%Y%m%d-%H%M%S")
    for number in range(1, 100):
        path = folder / f"hybridd-{name}-{stamp}{f'-{number}' if number > 1 else ''}.{ending}"
        try:
            with path.open("x", encoding="utf-8", newline="") as file:
                file.write(text)
        except FileExistsError:
            continue
        return path
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))


class ExportScreen(ModalScreen[None]):
    """Asks for the format."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("c", "csv", "The table as CSV", id="export.csv"),
        Binding("j", "json", "The table as JSON", id="export.json"),
        Binding("s", "svg", "The screen as SVG", id="export.svg"),
        Binding("escape", "dismiss", "Back", id="export.back"),
    ]
    DEFAULT_CSS = """
    ExportScreen { align: center middle; background: $background 60%; }
    ExportScreen > Lines { width: 46; background: $panel; padding: 1 2; }
    """

    def __init__(self, of: HouseScreen) -> None:
        super().__init__()
        self.of = of

    def compose(self) -> ComposeResult:
        yield Lines()

    def on_mount(self) -> None:
        self.app.clear_notifications()  # they would lie over it
        from tui.keys import key_name

        self.query_one(Lines).show([
            [(_("Export to the folder you started in"), "bold")], [("", "")],
            *([(f"{key_name(active.binding.key):>4}  ", "accent"), (_(active.binding.description), "")]
              for active in self.active_bindings.values() if active.node is self and active.binding.id),
        ])  # fmt: skip

    def action_csv(self) -> None:
        rows = self.of.filtered_rows()
        if rows is not None:
            titles, values, _records = rows.table()
            self._write(rows.id or self.of.NAME, "csv", as_csv(titles, values))

    def action_json(self) -> None:
        rows = self.of.filtered_rows()
        if rows is not None:
            self._write(rows.id or self.of.NAME, "json", as_json(rows.table()[2]) + "\n")

    def action_svg(self) -> None:
        self.dismiss()
        self.of.call_after_refresh(self.of.dashboard.action_screenshot)

    def _write(self, name: str, ending: str, text: str) -> None:
        self.dismiss()
        self.of.dashboard.save(name, ending, text)
