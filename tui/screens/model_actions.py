"""What can be done with local models: load, unload, plan, pull, measure. What interrupts is asked before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from textual import work
from textual.binding import Binding, BindingType
from textual.message import Message

from hybridd.client import wire
from hybridd.client.wire import Call
from hybridd.contracts.when import parse_duration
from hybridd.errors import DeadlineExceeded, HybriddError
from tui.ask import Ask
from tui.confirm import Confirm
from tui.house import Job
from tui.messages import Failed
from tui.screens.base import HouseScreen
from tui.screens.model_jobs import subject
from tui.screens.model_lines import empty_text, parse_wish, wish_text
from tui.screens.model_pull import PullScreen, parse_repo
from tui.screens.model_rows import Row
from tui.widgets.table import Rows

LOAD_SECONDS = 20.0
"""How long one call waits for a load; the load itself goes on, and its progress comes as events."""
_BENCH_HINT = "Nothing else may use the device meanwhile: idle models leave, a busy one is a refusal."
_WISH_HINT = "Tokens (8192, 8k), requests at once (x4), a goal: quality, context, throughput. Loads nothing."
_REPO_HINT = "owner/name, owner/name:Q4_K_M or owner/name/file.gguf; it is planned before anything is downloaded."


class Detail(Message):
    """What the daemon says of one model; ``asked``: the wish its plan is for, "" as configured."""

    def __init__(self, model: str, asked: str, body: dict[str, Any]) -> None:
        super().__init__()
        self.model = model
        self.asked = asked
        self.body = body


class ModelActions(HouseScreen):
    """The keys of the Models screen, which shows ``rows`` and ``jobs`` and keeps what was said of each model."""

    WRITES = frozenset({"load", "unload", "bench", "end_job"})
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("l", "load", "load", id="models.load"),
        Binding("p", "pull", "pull", id="models.pull"),
        Binding("u", "unload", "unload", id="models.unload"),
        Binding("w", "plan", "what if", id="models.plan"),
        Binding("b", "bench", "bench", id="models.bench"),
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
            self.notify(f"{row.id} is {'loaded' if row.loaded else 'being loaded'} already.", timeout=3)
            return
        self.notify(f"Loading {row.id}", timeout=3)
        call = wire.post("/v1/local/load", model=row.id, timeout_seconds=LOAD_SECONDS)
        self._long(call, f"{row.id} is loaded.", f"{row.id} is still being loaded; that goes on.")

    def action_unload(self) -> None:
        row = self._chosen()
        if row is None:
            return
        if row.resident is None:
            self.notify(f"{row.id} is not loaded.", timeout=3)
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
        done, still = f"{model} is unloaded.", f"{model} still answers; it is unloaded after that."
        calls = now.get("in_flight", 0)
        if now.get("state") == "loading":
            self._sure(f"Give up loading {model}?", "give it up", lambda: self._long(call, done, still))
        elif calls:
            what = f"{model} answers {calls} call{'s' if calls != 1 else ''} now. Unload it when they have ended?"
            self._sure(what, "unload", lambda: self._long(call, done, still))
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

        self.app.push_screen(Ask(f"How would {row.id} be loaded for …", _WISH_HINT, parse_wish), planned)

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
            self.notify("Nothing can be pulled here: this is not the present.", severity="warning")
            return

        def named(text: str | None) -> None:
            if text is not None:
                self.app.push_screen(PullScreen(*parse_repo(text)))

        self.app.push_screen(Ask("Pull which model from the Hub?", _REPO_HINT, parse_repo), named)

    def action_bench(self) -> None:
        row = self._chosen()
        if row is None:
            return

        def timed(text: str | None) -> None:
            if text is not None:
                call = wire.post("/v1/local/bench", model=row.id, seconds=parse_duration(text))
                self.dashboard.act(call, f"Measuring {row.id}")

        leave = ", ".join(name for name in self.house.local if name) or "nothing"
        question = f"Measure {row.id} for how long? Loaded now, and to be unloaded: {leave}."
        self.app.push_screen(Ask(question, _BENCH_HINT, parse_duration, given="2m"), timed)

    def action_end_job(self) -> None:
        job = self.jobs.selected if self.jobs.has_focus else next(iter(self.jobs.items), None)
        if job is None or job.state != "running":
            self.notify("No download and no measurement is running.", timeout=3)
            return
        kept = " What has arrived is kept, the next pull goes on from there." if job.kind == "pull" else ""
        call = Call("POST", f"/v1/local/jobs/{wire.segment(job.id)}/cancel", {})
        question = f"End the {'download' if job.kind == 'pull' else 'measurement'} of {subject(job)}?{kept}"
        self._sure(question, "end it", lambda: self.dashboard.act(call, ""))
