"""What can be done with local models: load, unload, plan, pull, measure, remove. What interrupts or deletes is asked
before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from textual import work
from textual.binding import Binding, BindingType
from textual.message import Message

from hybridd.client import wire
from hybridd.client.wire import Call
from hybridd.errors import DeadlineExceeded, HybriddError
from hybridd.i18n import N_, _, ngettext
from tui.ask import Ask, duration
from tui.confirm import Confirm
from tui.house import Job
from tui.messages import Failed
from tui.screens.base import HouseScreen
from tui.screens.model_jobs import subject
from tui.screens.model_lines import empty_text, parse_wish, removal_text, wish_text
from tui.screens.model_pull import PullScreen, parse_repo
from tui.screens.model_rows import Row
from tui.widgets.table import Rows

LOAD_SECONDS = 20.0
"""How long one call waits for a load; the load itself goes on, and its progress comes as events."""
_BENCH_HINT = N_("Nothing else may use the device meanwhile: idle models leave, a busy one is a refusal.")
_WISH_HINT = N_("Tokens (8192, 8k), requests at once (x4), a goal: quality, context, throughput. Loads nothing.")
_REPO_HINT = N_("owner/name, owner/name:Q4_K_M or owner/name/file.gguf; it is planned before anything is downloaded.")


class Detail(Message):
    """What the daemon says of one model; ``asked``: the wish its plan is for, "" as configured."""

    def __init__(self, model: str, asked: str, body: dict[str, Any]) -> None:
        super().__init__()
        self.model = model
        self.asked = asked
        self.body = body


class ModelActions(HouseScreen):
    """The keys of the Models screen, which shows ``rows`` and ``jobs`` and keeps what was said of each model."""

    WRITES = frozenset({"load", "unload", "bench", "end_job", "remove"})
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("l", "load", "load", id="models.load"),
        Binding("p", "pull", "pull", id="models.pull"),
        Binding("u", "unload", "unload", id="models.unload"),
        Binding("w", "plan", "what if", id="models.plan"),
        Binding("b", "bench", "bench", id="models.bench"),
        Binding("D,delete", "remove", "remove", id="models.remove"),
        Binding("x", "end_job", "End a download or measurement", id="models.end_job", show=False),
    ]

    rows: Rows[Row]
    jobs: Rows[Job]

    def __init__(self) -> None:
        super().__init__()
        self.details: dict[str, tuple[str, dict[str, Any]]] = {}

    # ---- what is loaded ------------------------------------------------------------------------------------------

    def _chosen(self) -> Row | None:
        row = self.rows.selected
        if row is None:
            self.notify(empty_text(self.house), timeout=5)
        return row

    def action_load(self) -> None:
        row = self._chosen()
        if row is None:
            return
        if row.state in {"ready", "loading"}:
            told = _("{model} is loaded already.") if row.loaded else _("{model} is being loaded already.")
            self.notify(told.format(model=row.id), timeout=3)
            return
        self.notify(_("Loading {model}").format(model=row.id), timeout=3)
        call = wire.post("/v1/local/load", model=row.id, timeout_seconds=LOAD_SECONDS)
        done, still = _("{model} is loaded."), _("{model} is still being loaded; that goes on.")
        self._long(call, done.format(model=row.id), still.format(model=row.id))

    def action_unload(self) -> None:
        row = self._chosen()
        if row is None:
            return
        if row.resident is None:
            self.notify(_("{model} is not loaded.").format(model=row.id), timeout=3)
            return
        self._unload(row.id)

    @work(exclusive=True, group="unload")
    async def _unload(self, model: str) -> None:
        """Asks first whether somebody is being answered: calls begin without an event."""
        try:
            body = await self.dashboard.query_daemon(wire.get("/v1/local/resident"))
        except HybriddError as error:
            self.app.post_message(Failed(error.message))
            return
        now: dict[str, Any] = next((one for one in body["models"] if one["model"] == model), {})
        call = wire.post("/v1/local/unload", model=model)
        done = _("{model} is unloaded.").format(model=model)
        still = _("{model} still answers; it is unloaded after that.").format(model=model)
        calls = now.get("in_flight", 0)
        if now.get("state") == "loading":
            what = _("Give up loading {model}?").format(model=model)
            self._sure(what, _("give it up"), lambda: self._long(call, done, still))
        elif calls:
            form = ngettext("{model} answers {count} call now. Unload it when it has ended?",
                            "{model} answers {count} calls now. Unload it when they have ended?", calls)  # fmt: skip
            what = form.format(model=model, count=calls)
            self._sure(what, _("unload"), lambda: self._long(call, done, still))
        else:
            self._long(call, done, still)

    @work(group="residency")
    async def _long(self, call: Call, done: str, still: str) -> None:
        """An action that may outlast one call."""
        if self.dashboard.locked:
            self.dashboard.act(call, done)  # which refuses it with the reason
            return
        try:
            await self.dashboard.query_daemon(call)
        except DeadlineExceeded:
            self.notify(still, timeout=5)
            return
        except HybriddError as error:
            self.app.post_message(Failed(error.message))
            return
        self.dashboard.ask("resident")
        self.notify(done, timeout=3)

    # ---- what lies on the disk -----------------------------------------------------------------------------------

    def action_remove(self) -> None:
        row = self._chosen()
        if row is None:
            return
        if row.resident is not None:
            self.notify(_("{model} is loaded; u unloads it first.").format(model=row.id), timeout=4)
            return
        self._remove(row.id)

    @work(exclusive=True, group="remove")
    async def _remove(self, model: str) -> None:
        """Asks first, with what would go; one that was linked frees nothing."""
        try:
            body = await self.dashboard.query_daemon(wire.post("/v1/local/remove", model=model, dry_run=True))
        except HybriddError as error:
            self.app.post_message(Failed(error.message))
            return
        what = removal_text(model, int(body["freed"]), list(body["aliases"]))
        done = _("{model} is removed.").format(model=model)

        def removed(_body: object) -> None:
            self.dashboard.ask("library")

        call = wire.post("/v1/local/remove", model=model)
        self._sure(what, _("remove"), lambda: self.dashboard.act(call, done, removed))

    def _sure(self, question: str, yes: str, then: Callable[[], object]) -> None:
        def answered(sure: bool | None) -> None:
            if sure:
                then()

        self.app.push_screen(Confirm(question, yes), answered)

    # ---- plans, downloads, measurements --------------------------------------------------------------------------

    def action_plan(self) -> None:
        row = self._chosen()
        if row is None:
            return

        def planned(text: str | None) -> None:
            if text is not None:
                self._what_if(row.id, parse_wish(text))

        question = _("How would {model} be loaded for …").format(model=row.id)
        self.app.push_screen(Ask(question, _(_WISH_HINT), parse_wish), planned)

    @work(exclusive=True, group="what_if")
    async def _what_if(self, model: str, wish: dict[str, Any]) -> None:
        try:
            plan = await self.dashboard.query_daemon(wire.post("/v1/local/plan", model=model, **wish))
        except HybriddError as error:
            self.app.post_message(Failed(error.message))
            return
        self.post_message(Detail(model, wish_text(wish), {"plan": plan}))

    def action_pull(self) -> None:
        if self.dashboard.feed is None or self.house.as_of is not None:
            self.notify(_("Nothing can be pulled here: this is not the present."), severity="warning")
            return

        def named(text: str | None) -> None:
            if text is not None:
                self.app.push_screen(PullScreen(*parse_repo(text)))

        self.app.push_screen(Ask(_("Pull which model from the Hub?"), _(_REPO_HINT), parse_repo), named)

    def action_bench(self) -> None:
        row = self._chosen()
        if row is None:
            return

        def timed(text: str | None) -> None:
            if text is not None:
                call = wire.post("/v1/local/bench", model=row.id, seconds=duration(text))
                self.dashboard.act(call, _("Measuring {model}").format(model=row.id))

        question = _("Measure {model} for how long?").format(model=row.id)
        if self.house.local:
            leave = ", ".join(self.house.local)
            question += " " + _("Loaded now, and to be unloaded: {models}.").format(models=leave)
        self.app.push_screen(Ask(question, _(_BENCH_HINT), duration, given="2m"), timed)

    def action_end_job(self) -> None:
        job = self.jobs.selected if self.jobs.has_focus else next(iter(self.jobs.items), None)
        if job is None or job.state != "running":
            self.notify(_("No download and no measurement is running."), timeout=3)
            return
        call = Call("POST", f"/v1/local/jobs/{wire.segment(job.id)}/cancel", {})
        pull = _("End the download of {name}? What has arrived is kept, the next pull goes on from there.")
        question = pull if job.kind == "pull" else _("End the measurement of {name}?")
        self._sure(question.format(name=subject(job)), _("end it"), lambda: self.dashboard.act(call, ""))
