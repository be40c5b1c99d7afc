"""Which model is to answer: ``auto``, a task, one of the models, or whatever is typed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input

from hybridd.contracts.views import ModelView, ProviderView
from hybridd.i18n import _, ngettext
from tui.house import House
from tui.screens.overview_rows import STATE_WORDS
from tui.text import Glyphs
from tui.widgets.columns import Cell, Column
from tui.widgets.lines import Lines
from tui.widgets.table import Rows


@dataclass(frozen=True, slots=True)
class Choice:
    """``name`` is what a request asks for; ``usable``: somebody could answer it now."""

    name: str
    about: str
    usable: bool = True


def choices(house: House) -> list[Choice]:
    """``auto``, the tasks, then the models of every provider; those that can be used first."""
    tasks: dict[str, int] = {}
    models: list[Choice] = []
    for provider in house.providers.values():
        for model in provider.models:
            for task in model.tasks:
                tasks[task] = tasks.get(task, 0) + 1
            models.append(_of_model(house, provider, model))
    for request in house.requests:
        if request.task:
            tasks.setdefault(request.task, 0)
    made = [Choice("auto", _("hybridd sorts it into a task"))]
    for task, count in sorted(tasks.items()):
        can = ngettext("{count} model can", "{count} models can", count).format(count=count)
        made.append(Choice(f"task:{task}", can if count else _("a task")))
    return [*made, *sorted(models, key=lambda one: (not one.usable, one.name))]


def _of_model(house: House, provider: ProviderView, model: ModelView) -> Choice:
    state, reason = (provider.state, provider.reason) if model.state == "ready" else (model.state, model.reason)
    file = (house.library or {}).get(model.id) if provider.name == "local" else None
    if file is not None and file.state == "failed":
        state, reason = "failed", file.reason.removeprefix(f"{file.path}: ")
    usable = state in {"ready", "idle", "starting"}
    word = _(STATE_WORDS.get(state, state.replace("_", " ")))
    told = [] if usable else [f"{word}: {reason}" if reason else word]
    if model.context:
        told.append(_("context {tokens}").format(tokens=f"{model.context:,}"))
    if model.shutdown_date:
        told.append(_("ends {date}").format(date=model.shutdown_date))
    return Choice(f"{provider.name}:{model.id}", ", ".join(told), usable)


def _name(one: Choice, width: int, signs: Glyphs) -> Cell:
    return one.name, "" if one.usable else "dim"


def _about(one: Choice, width: int, signs: Glyphs) -> Cell:
    return signs.of(one.about), "dim" if one.usable else "warn"


COLUMNS: list[Column[Choice]] = [
    Column("name", "MODEL", _name, 36, value=lambda one: one.name),
    Column("about", "ABOUT", _about, 20, share=1, value=lambda one: one.about),
]


class PickModel(ModalScreen[str | None]):
    """Typing narrows the list; Enter takes the marked line, or the text itself where nothing matches."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss", "Keep the model", id="pick.back", priority=True),
        Binding("up", "move(-1)", "Up", id="pick.up", priority=True),
        Binding("down", "move(1)", "Down", id="pick.down", priority=True),
    ]
    DEFAULT_CSS = """
    PickModel { align: center middle; background: $background 60%; }
    PickModel > Vertical { width: 76; max-width: 96%; height: 18; max-height: 90%; background: $panel; padding: 1 2; }
    """

    def __init__(self, house: House, title: str, current: str) -> None:
        super().__init__()
        self.title_text = title
        self.current = current
        self.found = choices(house)

    def compose(self) -> ComposeResult:
        self.rows = Rows(COLUMNS, key=lambda one: one.name, record=lambda one: one.name, head=False, id="choices")
        self.line = Input(placeholder=_("narrow the list, or type a name"), select_on_focus=False)
        self.line.cursor_blink = False
        with Vertical():
            title = Lines()
            title.lines = [
                [
                    (self.title_text, "bold"),
                    (f"   {_('Enter takes it, Esc keeps {model}').format(model=self.current)}", "dim"),
                ]
            ]
            yield title
            yield self.line
            yield self.rows

    def on_mount(self) -> None:
        self.rows.fill(self.found)
        self.rows.select(self.current)
        self.line.focus()
        self.call_after_refresh(self.rows.redraw)

    @on(Input.Changed)
    def _typed(self, event: Input.Changed) -> None:
        event.stop()
        self.rows.set_filter(event.value)

    @on(Input.Submitted)
    def _taken(self, event: Input.Submitted) -> None:
        event.stop()
        chosen = self.rows.selected
        self.dismiss(chosen.name if chosen is not None else event.value.strip() or None)

    @on(Rows.Opened)
    def _clicked(self, event: Rows.Opened) -> None:
        event.stop()
        self.dismiss(event.item.name)

    def action_move(self, by: int) -> None:
        self.rows.action_move(by)
