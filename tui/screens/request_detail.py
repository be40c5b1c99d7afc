"""One request: why it went where it went, where its time went, and who would answer it now."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import ClassVar

import msgspec
from textual import on, work
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.message import Message
from textual.widget import Widget

from hybridd.client import wire
from hybridd.client.wire import Call
from hybridd.contracts.views import ModelChoice, RequestView
from hybridd.errors import HybriddError, NotFound
from hybridd.i18n import N_, _
from tui import topics
from tui.house import House
from tui.screens.base import HouseScreen
from tui.screens.request_lines import detail_lines, now_lines
from tui.shapes import Request
from tui.text import Line
from tui.widgets.lines import Lines

WRITE_SECONDS = 0.3
WRITE_TRIES = 10
"""A request is told a moment before it is written."""


class Loaded(Message):
    """What was recorded of a request, or why that is not known."""

    def __init__(self, request_id: str, view: RequestView | None, error: str = "") -> None:
        super().__init__()
        self.request_id = request_id
        self.view = view
        self.error = error


class Routed(Message):
    """Who would answer such a request now."""

    def __init__(self, request_id: str, choice: ModelChoice | None, error: str = "") -> None:
        super().__init__()
        self.request_id = request_id
        self.choice = choice
        self.error = error


class RequestDetail(HouseScreen):
    """``known``: what the table already shows of it. ``beside``: the ids of the table, to step through."""

    NAME = "requests"
    TITLE: ClassVar[str | None] = N_("Request")
    TOPICS = frozenset({topics.CONNECTION})
    WRITES = frozenset({"repeat", "reroute"})
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("w", "route", "who now", id="request.route"),
        Binding("R", "repeat", "repeat", id="request.repeat"),
        Binding("m", "reroute", "ask another", id="request.reroute"),
        Binding("n,right", "step(1)", "next", id="request.next"),
        Binding("N,left", "step(-1)", "previous", id="request.previous"),
        Binding("y", "copy('id')", "Copy its id", id="request.copy", show=False),
        Binding("Y", "copy('json')", "Copy it as JSON", id="request.copy_json", show=False),
    ]
    DEFAULT_CSS = "RequestDetail VerticalScroll { height: 1fr; scrollbar-size-vertical: 1; }"

    def __init__(self, request_id: str, known: Request | None = None, *, beside: Sequence[str] = ()) -> None:
        super().__init__()
        self.request_id = request_id
        self.beside = list(beside)
        self.view = _view(known) if known is not None else None
        self.error = ""
        self.whole = False
        self.routed: Routed | None = None
        self.routed_at = 0.0

    def body(self) -> Iterable[Widget]:
        self.block = Lines()
        yield VerticalScroll(self.block)

    def on_mount(self) -> None:
        super().on_mount()
        self._load()

    # ---- drawing -------------------------------------------------------------------------------------------------

    def refresh_from(self, house: House, changed: frozenset[str]) -> None:
        if self.error and not self.whole and house.connection.state == "live":
            self._load()  # the daemon was away when it was asked
        self.draw()

    def draw(self) -> None:
        width = max(20, self.block.size.width or self.size.width)
        lines: list[Line] = []
        if self.view is not None:
            turn = self.dashboard.session.find(self.request_id)
            lines = detail_lines(self.view, width, self.signs, self.house.now, turn)
        if self.error:
            lines += [[("", "")], [(f" {self.signs.of(self.error)}", "bad")]]
        elif self.view is None:
            lines = [[("", "")], [(" " + _("Looking for {request}").format(request=self.request_id), "dim")]]
        if self.routed is not None:
            lines += now_lines(self.routed.choice, self.routed.error, width, self.signs, self.routed_at)
        self.block.show(lines)

    # ---- asking --------------------------------------------------------------------------------------------------

    @work(group="request", exclusive=True)
    async def _load(self) -> None:
        request_id = self.request_id
        call = wire.get(f"/v1/requests/{wire.segment(request_id)}")
        for left in range(WRITE_TRIES, 0, -1):
            try:
                body = await self.dashboard.query_daemon(call)
            except NotFound as error:
                if left == 1 or self.view is None:
                    self.post_message(Loaded(request_id, None, error.message))
                    return
                await asyncio.sleep(WRITE_SECONDS)
            except HybriddError as error:
                self.post_message(Loaded(request_id, None, error.message))
                return
            else:
                self.post_message(Loaded(request_id, msgspec.convert(body, RequestView)))
                return

    @on(Loaded)
    def _loaded(self, message: Loaded) -> None:
        if message.request_id != self.request_id:
            return
        self.view, self.error, self.whole = message.view or self.view, message.error, message.view is not None
        self.draw()
        self.draw_footer()

    @work(group="route", exclusive=True)
    async def _route(self, request_id: str, call: Call) -> None:
        try:
            choice = msgspec.convert(await self.dashboard.query_daemon(call), ModelChoice)
            self.post_message(Routed(request_id, choice))
        except HybriddError as error:
            self.post_message(Routed(request_id, None, error.message))

    @on(Routed)
    def _take_route(self, message: Routed) -> None:
        if message.request_id == self.request_id:
            self.routed, self.routed_at = message, self.house.now
            self.draw()
            self.query_one(VerticalScroll).scroll_end(animate=False)

    # ---- actions -------------------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action in {"route", "repeat", "reroute"}:
            return self.view is not None and super().check_action(action, parameters)
        if action == "step":
            return len(self.beside) > 1
        return super().check_action(action, parameters)

    def action_route(self) -> None:
        """Nothing is called: the daemon only says whom it would choose for that task or model."""
        if self.view is not None:
            self._route(self.request_id, route_call(self.view))

    def action_repeat(self) -> None:
        """The same question again, to whom it was put then; where its text is not kept, it is to be typed."""
        if self.view is not None:
            self._ask_again(self.view.requested or "auto")

    def action_reroute(self) -> None:
        """The same question to a task or a model of the user's choice."""
        from tui.screens.pick_model import PickModel

        if self.view is not None:
            title = _("Who is to answer it now?")
            current = f"{self.view.provider}:{self.view.model}" if self.view.provider else self.view.requested
            self.app.push_screen(PickModel(self.house, title, current), self._rerouted)

    def _rerouted(self, model: str | None) -> None:
        if model is not None:
            self._ask_again(model)

    def _ask_again(self, model: str) -> None:
        if self.dashboard.session.find(self.request_id) is not None:
            self.dashboard.go("playground", f"repeat:{self.request_id} {model}")
        else:
            self.dashboard.go("playground", model)
            self.notify(_("Its text is not kept: type it again. It goes to {model}.").format(model=model), timeout=6)

    def action_step(self, by: int) -> None:
        at = self.beside.index(self.request_id) + by if self.request_id in self.beside else 0
        if 0 <= at < len(self.beside):
            self.request_id = self.beside[at]
            self.view, self.error, self.whole, self.routed = None, "", False, None
            self._load()

    def action_copy(self, what: str) -> None:
        from tui.export import as_json

        text = self.request_id if what == "id" else as_json(self.view)
        self.app.copy_to_clipboard(text)
        self.notify(_("Copied its id.") if what == "id" else _("Copied it as JSON."), timeout=2)


def route_call(view: RequestView) -> Call:
    """``auto`` was sorted into a task then; the prompt to sort it again is not kept."""
    task = view.task if view.requested in {"auto", ""} else None
    return wire.route(task, None, tier=view.tier, model=None if task else view.requested or None)


def _view(known: Request) -> RequestView:
    return RequestView(**{name: getattr(known, name) for name in known.__struct_fields__})
