"""Which file of a repository is to be pulled: what each would take here, before anything is downloaded.

The plans come from the daemon, which has the files' headers read over HTTP in a process of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar

import msgspec
from textual import on, work
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widget import Widget

from hybridd.client import wire
from hybridd.errors import HybriddError
from hybridd.i18n import N_, _
from tui import topics
from tui.house import House
from tui.screens.base import HouseScreen
from tui.screens.overview_blocks import rule
from tui.text import Glyphs, age, clean, count, size_of, wrap
from tui.widgets.columns import Cell, Column
from tui.widgets.lines import Lines
from tui.widgets.table import Rows

if TYPE_CHECKING:
    from tui.app import Dashboard

PLAN_SECONDS = 130.0
"""A little longer than the daemon gives it, so that its sentence arrives."""
_NAME = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}", re.ASCII)
_FITS = {"gpu": N_("on the GPU"), "partly": N_("partly GPU"), "memory": N_("in memory"), "no": N_("does not fit")}
_STYLES = {"gpu": "good", "partly": "", "memory": "", "no": "warn"}
_ORDER = {"gpu": 0, "partly": 1, "memory": 2}


class RepoFile(msgspec.Struct, frozen=True):
    """One model of a repository and its plan here, of ``POST /v1/local/plan``. ``taken``: what a pull without a
    file would take."""

    file: str
    quantization: str = ""
    bytes: int = 0
    fit: str = "no"
    gpu_layers: int | None = None
    layers: int = 0
    context: int | None = None
    device: int = 0
    host: int = 0
    taken: bool = False
    reasons: list[str] = []


class RepoPlan(msgspec.Struct):
    repo: str
    files: list[RepoFile]
    revision: str = ""
    reasons: list[str] = []


class Planned(Message):
    """``plan``, or why there is none."""

    def __init__(self, plan: RepoPlan | None, reason: str = "") -> None:
        super().__init__()
        self.plan = plan
        self.reason = reason


def parse_repo(text: str) -> tuple[str, str | None]:
    """``owner/name``, ``owner/name:Q4_K_M``, ``owner/name/file.gguf``.

    Raises:
        ValueError: with a sentence.
    """
    given = text.strip().removeprefix("https://huggingface.co/").removeprefix("hf.co/").strip("/")
    repo, _colon, file = given.partition(":")
    if not file and repo.count("/") > 1:
        owner, name, file = repo.split("/", 2)
        repo = f"{owner}/{name}"
    if not _NAME.fullmatch(repo):
        raise ValueError(_("name a repository of the Hub: owner/name, owner/name:Q4_K_M or owner/name/file.gguf"))
    return repo, file or None


async def ask_plan(dashboard: Dashboard, repo: str) -> tuple[RepoPlan | None, str]:
    """The daemon's answer, or one sentence."""
    call = wire.post("/v1/local/plan", repository=repo)
    try:
        return msgspec.convert(await dashboard.query_daemon(call, seconds=PLAN_SECONDS), RepoPlan), ""
    except HybriddError as error:
        return None, clean(error.message)
    except msgspec.ValidationError as error:
        told = _("The daemon's answer is no plan of a repository: {reason}")
        return None, told.format(reason=clean(str(error))[:200])


def _file(one: RepoFile, width: int, signs: Glyphs) -> Cell:
    mark = (f"{signs.arrow} ", "accent") if one.taken else ("  ", "")
    return [mark, (signs.of(one.file.rpartition("/")[2]), "bold" if one.taken else "")]


def _layers(one: RepoFile, width: int, signs: Glyphs) -> Cell:
    return (f"{min(one.gpu_layers, one.layers)}/{one.layers}" if one.gpu_layers else "-", "dim")


COLUMNS: list[Column[RepoFile]] = [
    Column("file", "FILE", _file, 18, share=3, sort=lambda one: one.file, value=lambda one: one.file),
    Column("quantization", "QUANT", lambda one, width, signs: one.quantization or "-", 8, least=70,
           sort=lambda one: one.quantization, value=lambda one: one.quantization),
    Column("size", "SIZE", lambda one, width, signs: size_of(one.bytes), 8, align="right",
           sort=lambda one: one.bytes, value=lambda one: one.bytes),
    Column("fit", "FITS", lambda one, width, signs: (_(_FITS.get(one.fit, one.fit)), _STYLES.get(one.fit, "")), 12,
           sort=lambda one: _ORDER.get(one.fit, 3), value=lambda one: one.fit),
    Column("layers", "ON GPU", _layers, 6, align="right", least=78, value=lambda one: one.gpu_layers),
    Column("context", "CONTEXT|CTX", lambda one, width, signs: count(one.context), 5, align="right",
           sort=lambda one: -(one.context or 0), value=lambda one: one.context),
    Column("vram", "VRAM", lambda one, width, signs: size_of(one.device) if one.device else "-", 8, align="right",
           least=90, sort=lambda one: one.device, value=lambda one: one.device),
    Column("ram", "RAM", lambda one, width, signs: size_of(one.host) if one.host else "-", 8, align="right", least=60,
           sort=lambda one: one.host, value=lambda one: one.host),
]  # fmt: skip


class PullScreen(HouseScreen):
    """The files of ``repo``; the arrow is before the one that fits best. ``wanted``: a file or a quantisation."""

    NAME = "models"
    TITLE: ClassVar[str | None] = "Pull a model"
    TOPICS = frozenset({topics.CLOCK})
    WRITES = frozenset({"pull_best"})
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("p", "pull_best", "pull the best", id="pull.best"),
        Binding("R", "plan_again", "Plan again", id="pull.again", show=False),
    ]

    def __init__(self, repo: str, wanted: str | None = None) -> None:
        super().__init__()
        self.repo = repo
        self.wanted = wanted
        self.plan: RepoPlan | None = None
        self.reason = ""
        self._since = 0.0

    def body(self) -> Iterable[Widget]:
        self.title_rule, self.about_rule, self.about = Lines(), Lines(), Lines()
        self.rows = Rows(COLUMNS, key=lambda one: one.file, record=msgspec.to_builtins, id="files")
        self.rows.marked = True
        yield from (self.title_rule, self.rows, self.about_rule, self.about)

    def on_mount(self) -> None:
        super().on_mount()
        self.action_plan_again()
        self.rows.focus()

    def refresh_from(self, house: House, changed: frozenset[str]) -> None:
        if self.plan is None and not self.reason:
            self.draw()  # it counts the seconds

    def show_all(self) -> None:
        super().show_all()
        self.draw()

    def draw(self) -> None:
        width, signs = self.size.width, self.signs
        if not width:
            return
        hint = _("Enter pulls this file") if not self.dashboard.locked else _("read-only")
        self.title_rule.show([rule(signs.of(self.repo), width, signs, hint if self.plan is not None else "")])
        if self.plan is None:
            waited = age(house.now - self._since) if (house := self.dashboard.house).now - self._since >= 2 else ""
            busy = _("Reading the headers of the files of {repo} … {waited}").format(repo=self.repo, waited=waited)
            self.rows.empty = _("Nothing was planned; R tries again.") if self.reason else busy.rstrip()
        else:
            self.rows.empty = _("There is no GGUF model in this repository.")
        self.rows.fill(self.plan.files if self.plan is not None else [])
        one = self.rows.selected
        told = [*(self.plan.reasons if self.plan is not None and (one is None or one.taken) else []),
                *(one.reasons if one is not None else [])]  # fmt: skip
        lines = [line for reason in dict.fromkeys(told) for line in wrap(reason, max(20, width - 2))]
        if self.plan is None and self.reason:
            lines = wrap(self.reason, max(20, width - 2))
        self.about_rule.show([rule(_("WHY"), width, signs)] if lines else [])
        self.about.show([[(f" {signs.of(line)}", "")] for line in lines[: max(2, self.size.height // 3)]])

    @on(Rows.Moved)
    def _moved(self) -> None:
        self.draw()

    # ---- asking --------------------------------------------------------------------------------------------------

    def action_plan_again(self) -> None:
        self.plan, self.reason, self._since = None, "", self.dashboard.house.now
        self._ask()
        self.draw()

    @work(exclusive=True, group="plan")
    async def _ask(self) -> None:
        plan, reason = await ask_plan(self.dashboard, self.repo)
        self.post_message(Planned(plan, reason))

    @on(Planned)
    def _planned(self, message: Planned) -> None:
        self.plan, self.reason = message.plan, message.reason
        self.draw()
        files = self.plan.files if self.plan is not None else []
        wanted = (self.wanted or "").lower()
        first = next((one for one in files if wanted and wanted in {one.file.lower(), one.quantization.lower()}), None)
        first = first or next((one for one in files if one.taken), None)
        if first is not None:
            self.rows.select(first.file)

    # ---- pulling -------------------------------------------------------------------------------------------------

    @on(Rows.Opened, "#files")
    def _pull_one(self, event: Rows.Opened) -> None:
        self._pull(event.item.file)

    def action_pull_best(self) -> None:
        """Leaves the choice to the daemon's own plan; also while the headers are still being read."""
        self._pull(self.wanted)

    def _pull(self, file: str | None) -> None:
        call = wire.post("/v1/local/pull", repo=self.repo, file=file)
        self.dashboard.act(call, _("Pulling {name}").format(name=f"{self.repo}:{file}" if file else self.repo))
        if not self.dashboard.locked:
            self.app.pop_screen()
