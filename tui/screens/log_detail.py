"""One record of the log, whole."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.widget import Widget

from hybridd.contracts.views import LogView
from hybridd.i18n import N_, _
from tui import topics
from tui.house import House
from tui.screens.base import HouseScreen
from tui.screens.log_lines import detail_lines, leads
from tui.widgets.footer import Key
from tui.widgets.lines import Lines


class LogDetail(HouseScreen):
    """``beside``: the records of the table as they stood there, to step through."""

    NAME = "logs"
    TITLE: ClassVar[str | None] = N_("Record")
    TOPICS = frozenset({topics.CONNECTION})
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter,o", "follow(0)", "To what it is about", id="log.follow", show=False),
        Binding("O", "follow(1)", "To the other thing it is about", id="log.follow_other", show=False),
        Binding("n,right", "step(1)", "next", id="log.next"),
        Binding("N,left", "step(-1)", "previous", id="log.previous"),
        Binding("y", "copy('text')", "Copy it as text", id="log.copy", show=False),
        Binding("Y", "copy('json')", "Copy it as JSON", id="log.copy_json", show=False),
    ]
    DEFAULT_CSS = "LogDetail VerticalScroll { height: 1fr; scrollbar-size-vertical: 1; }"

    def __init__(self, record: LogView, *, beside: Sequence[LogView] = ()) -> None:
        super().__init__()
        self.record = record
        self.beside = list(beside)

    def body(self) -> Iterable[Widget]:
        self.block = Lines()
        yield VerticalScroll(self.block)

    def refresh_from(self, house: House, changed: frozenset[str]) -> None:
        width = max(20, self.block.size.width or self.size.width)
        self.block.show(detail_lines(self.record, width, self.signs, self.house.now))

    @property
    def leads(self) -> list[tuple[str, str, str]]:
        return leads(self.record, self.dashboard.house)

    def keys(self) -> list[Key]:
        keys = ("Enter", "O")
        return [
            (key, where[2], f"screen.follow({at})")
            for at, (key, where) in enumerate(zip(keys, self.leads, strict=False))
        ]

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "follow":
            return len(self.leads) > int(str(parameters[0]))
        if action == "step":
            return len(self.beside) > 1
        return super().check_action(action, parameters)

    def action_follow(self, number: int) -> None:
        screen, target, _about = self.leads[number]
        self.dashboard.go(screen, target)

    def action_step(self, by: int) -> None:
        ids = [one.id for one in self.beside]
        at = ids.index(self.record.id) + by if self.record.id in ids else 0
        if 0 <= at < len(ids):
            self.record = self.beside[at]
            self.query_one(VerticalScroll).scroll_home(animate=False)
            self.show_all()

    def action_copy(self, what: str) -> None:
        from tui.export import as_json
        from tui.text import plain

        text = as_json(self.record)
        if what == "text":
            lines = detail_lines(self.record, 100_000, self.signs, self.house.now)
            text = "\n".join(plain(line).strip() for line in lines if plain(line).strip())
        self.app.copy_to_clipboard(text)
        self.notify(_("Copied the record.") if what == "text" else _("Copied it as JSON."), timeout=2)
