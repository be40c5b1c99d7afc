"""Playground: how does a model answer this?

Questions go to ``auto``, a task or a model, to two of them side by side, and the answers stream in. The conversation
stays in this process: of such a request, as of any other, the daemon keeps that it was made and not what it said.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import ClassVar

from textual import events, message, on
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.widget import Widget

from hybridd.client import wire
from hybridd.client.types import Message
from hybridd.i18n import _
from tui import topics
from tui.chat import Answer
from tui.house import House
from tui.screens.base import HouseScreen
from tui.screens.pick_model import PickModel
from tui.session import Turn
from tui.text import percent
from tui.widgets.footer import Key
from tui.widgets.lines import Lines
from tui.widgets.pane import Pane
from tui.widgets.prompt import Prompt


class Grown(message.Message):
    """An answer has more text, or has ended."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.answer = answer


class Playground(HouseScreen):
    """One conversation, or two with the same questions."""

    NAME = "playground"
    TITLE: ClassVar[str | None] = "Playground"
    TOPICS = frozenset({topics.CONNECTION, topics.CLOCK, topics.LOCAL})
    WRITES = frozenset({"rate"})
    AUTO_FOCUS = "Prompt"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("m,f2", "pick(0)", "model", id="playground.model"),
        Binding("M,f9", "pick(1)", "The model to compare with", id="playground.other", show=False),
        Binding("c,f3", "compare", "compare", id="playground.compare"),
        Binding("u,f4,plus", "rate(1)", "rate good", id="playground.good"),
        Binding("d,f5,minus", "rate(-1)", "rate bad", id="playground.bad"),
        Binding("n,f8", "new", "new chat", id="playground.new"),
        Binding("i", "write", "write", id="playground.write"),
        Binding("enter", "why", "why", id="playground.why"),
        Binding("y", "copy", "Copy the answer", id="playground.copy", show=False),
        Binding("t,f6", "thoughts", "Show or hide thoughts", id="playground.thoughts", show=False),
    ]
    DEFAULT_CSS = """
    Playground #body { layout: vertical; }
    Playground #panes { height: 1fr; }
    Playground #panes.-two Pane.-second { display: block; }
    Playground #ask { height: 1; color: $accent; }
    """

    def __init__(self) -> None:
        super().__init__()
        self.panes = [Pane("A", "F2", "auto"), Pane("B", "F9", "auto")]
        self.two = False
        self.at = 0

    def body(self) -> Iterable[Widget]:
        self.prompt = Prompt()
        yield Horizontal(*self.panes, id="panes")
        yield Lines(id="ask")
        yield self.prompt

    def on_screen_resume(self) -> None:
        self.dashboard.ask("library")  # which of the local models could be asked
        super().on_screen_resume()

    def on_unmount(self) -> None:
        for pane in self.panes:
            pane.stop()

    # ---- drawing -------------------------------------------------------------------------------------------------

    def refresh_from(self, house: House, changed: frozenset[str]) -> None:
        if topics.CONNECTION in changed or any(pane.busy for pane in self.shown):
            self.draw()

    def draw(self) -> None:
        signs = self.signs
        for number, pane in enumerate(self.shown):
            pane.draw(signs, current=number == self.at, alone=not self.two, now=self._now(), note=self._note(pane))
        self.query_one("#ask", Lines).show([[(signs.rule * self.size.width, "dim")]])

    def _now(self) -> float:
        return self.dashboard.house.now

    def _note(self, pane: Pane) -> str:
        """What the answer waits for, where that is known."""
        if not pane.busy or pane.last is None:
            return ""
        kind, _colon, name = pane.last.model.partition(":")
        resident = self.dashboard.house.local.get(name) if kind == "local" else None
        if resident is None or resident.state != "loading":
            return ""
        done = f" {percent(resident.fraction)}" if resident.fraction is not None else ""
        return _("it is being loaded") + done

    @property
    def shown(self) -> list[Pane]:
        return self.panes if self.two else self.panes[:1]

    @property
    def current(self) -> Pane:
        """The one that the keys for an answer are about: the last that had the focus."""
        return self.shown[min(self.at, len(self.shown) - 1)]

    @on(events.DescendantFocus)
    def _pane_focused(self, event: events.DescendantFocus) -> None:
        for number, pane in enumerate(self.panes):
            if event.widget is pane.transcript:
                self.at = number
                self.draw()
        self.draw_footer()

    def keys(self) -> list[Key]:
        return [("Esc", _("stop"), "screen.back")] if any(pane.busy for pane in self.shown) else []

    # ---- asking --------------------------------------------------------------------------------------------------

    @on(Prompt.Sent)
    def _sent(self, event: Prompt.Sent) -> None:
        event.stop()
        if not self.send(event.text):
            self.prompt.text = event.text

    def send(self, text: str) -> bool:
        """Asks every pane that is shown; False: it could not be asked now."""
        return self._ask([(pane, self._turn(text, pane.model, pane.messages(text))) for pane in self.shown])

    def _turn(self, prompt: str, model: str, messages: list[Message]) -> Turn:
        return Turn(prompt, model, messages, began=self._now())

    def _ask(self, asked: list[tuple[Pane, Turn]]) -> bool:
        app = self.dashboard
        if app.locked:
            said = _("Nothing can be asked here: {why}.").format(why=app.locked_by)
            self.notify(said, severity="warning", timeout=4)
            return False
        if any(pane.busy for pane, _turn in asked):
            self.notify(_("An answer is still coming; Esc stops it."), severity="warning", timeout=4)
            return False
        for pane, turn in asked:
            app.session.turns.append(turn)
            pane.ask(turn, app.options.socket, self._grown)
        self.prompt.remember(app.session.prompts())
        self.draw()
        self.draw_footer()
        return True

    def _grown(self, answer: Answer) -> None:
        self.post_message(Grown(answer))

    @on(Grown)
    def _show_growth(self, message: Grown) -> None:
        self.draw()
        if message.answer.ended:
            self.draw_footer()

    def arrive(self, target: str) -> None:
        """``repeat:`` with a request's id (and a model: another one) asks the same again; anything else is a model."""
        kind, _colon, rest = target.partition(":")
        name, _space, model = rest.partition(" ")
        turn = self.dashboard.session.find(name) if kind == "repeat" else None
        if turn is None:
            self.choose(0, target)
            return
        self._ask([(self.panes[0], self._turn(turn.prompt, model or turn.model, turn.messages))])

    # ---- actions -------------------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        last = self.current.last
        if action == "rate" and (last is None or not last.request_id or last.state not in {"done", "stopped"}):
            return False
        if action in {"why", "copy"}:
            return last is not None and bool(last.request_id if action == "why" else last.text)
        if action == "write":
            return not self.prompt.has_focus
        return super().check_action(action, parameters)

    def action_back(self) -> None:
        """Stops what is streaming; else leaves the prompt, so that keys are keys again."""
        if [pane for pane in self.shown if pane.stop()]:
            return
        if self.prompt.has_focus:
            self.current.transcript.focus()
        else:
            super().action_back()

    def action_write(self) -> None:
        self.prompt.focus()

    def action_pick(self, number: int) -> None:
        if number and not self.two:
            self.action_compare()
        pane = self.panes[number]
        title = _("Who is to answer?")
        if self.two:
            title = _("Who is to answer in {pane}?").format(pane=pane.title_text)
        self.app.push_screen(PickModel(self.house, title, pane.model), partial(self._picked, number))

    def _picked(self, number: int, model: str | None) -> None:
        if model is not None:
            self.choose(number, model)

    def choose(self, number: int, model: str) -> None:
        self.panes[number].model = model
        self.draw()
        self.prompt.focus()

    def action_compare(self) -> None:
        self.two = not self.two
        self.panes[1].stop()
        self.query_one("#panes").set_class(self.two, "-two")
        self.at = 0
        self.call_after_refresh(self.draw)
        self.draw_footer()

    def action_rate(self, score: int) -> None:
        turn = self.current.last
        if turn is not None:
            call = wire.feedback(turn.request_id, float(score), None, None)
            done = (_("Rated good: {model}") if score > 0 else _("Rated bad: {model}")).format(model=turn.answered)
            self.dashboard.act(call, done, partial(self._rated, turn, float(score)))

    def _rated(self, turn: Turn, score: float, _stored: object) -> None:
        turn.score = score
        self.draw()

    def action_thoughts(self) -> None:
        for pane in self.panes:
            pane.transcript.hidden = not pane.transcript.hidden
        self.draw()

    def action_new(self) -> None:
        for pane in self.shown:
            pane.forget()
        self.draw()
        self.draw_footer()
        self.prompt.focus()

    def action_why(self) -> None:
        turn = self.current.last
        if turn is not None and turn.request_id:
            self.dashboard.go("requests", turn.request_id)

    def action_copy(self) -> None:
        turn = self.current.last
        if turn is not None:
            self.app.copy_to_clipboard(turn.text)
            self.notify(_("Copied the answer."), timeout=2)
