"""Models: which local models are there, what is loaded, what fits, and what is on its way?"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, ClassVar

from textual import events, on, work
from textual.widget import Widget

from hybridd.client import wire
from hybridd.errors import HybriddError
from hybridd.i18n import _
from tui import topics
from tui.house import House, Job
from tui.screens.model_actions import Detail, ModelActions
from tui.screens.model_jobs import JOB_COLUMNS, outcome, running_text, shown, subject
from tui.screens.model_jobs import record as job_record
from tui.screens.model_lines import about_lines, empty_text
from tui.screens.model_memory import Side, bar_line, legend_lines, loaded_text, sides, speed_line
from tui.screens.model_rows import COLUMNS, record, rows
from tui.screens.overview_blocks import rule
from tui.text import Line, fit
from tui.widgets.lines import Lines
from tui.widgets.rows_view import RowsView
from tui.widgets.table import Rows

SETTLE_SECONDS = 0.15
"""The cursor rests so long before a model's plan is asked for."""
LEAST_ROWS = 4


class Models(ModelActions):
    NAME = "models"
    TITLE: ClassVar[str | None] = "Models"
    TOPICS = frozenset({topics.LOCAL, topics.JOBS, topics.HOST, topics.REQUESTS, topics.RATES, topics.CLOCK,
                        topics.CONNECTION})  # fmt: skip

    def __init__(self) -> None:
        super().__init__()
        self._known: object = None
        self._look = True
        self._requests = 0
        self._seen_running: set[str] = set()
        self._asking = ""
        self._stood = (-1, 0)
        self._alone: dict[str, int] = {}

    def body(self) -> Iterable[Widget]:
        self.memory, self.title_rule = Lines(id="memory"), Lines()
        self.rows = Rows(COLUMNS, key=lambda row: row.id, record=record, id="models")
        self.about_rule, self.about = Lines(), Lines(id="about")
        self.jobs_rule = Lines()
        self.jobs = Rows(JOB_COLUMNS, key=lambda job: job.id, record=job_record, head=False, id="jobs")
        # What runs stands above what is told of a model: notices come up at the bottom.
        yield from (self.memory, self.title_rule, self.rows, self.jobs_rule, self.jobs, self.about_rule, self.about)

    # ---- drawing -------------------------------------------------------------------------------------------------

    def refresh_from(self, house: House, changed: frozenset[str]) -> None:
        self._ask_what_is_old(house)
        if topics.JOBS in changed:
            self._tell_ended(house)
        if changed - {topics.CLOCK, topics.RATES, topics.HOST} or house.local:
            self.rows.empty = self.empty_text(self._empty(house))
            made = rows(house)
            if made != self.rows.items or topics.LOCAL in changed:
                self.rows.fill(made)
        self._draw_blocks()
        if (self.rows.cursor, self.rows.size.height) != self._stood:
            self.call_after_refresh(self._follow)

    def _follow(self) -> None:
        """Shows the cursor where its model has moved to, or when the table has become lower."""
        stands = (self.rows.cursor, self.rows.size.height)
        if stands != self._stood and self.rows.shown:
            self._stood = stands
            self.rows.move_to(self.rows.cursor)

    def _empty(self, house: House) -> str:
        if house.library is not None:
            return empty_text(house)
        if self.dashboard.feed is not None:
            return _("Looking for models …")
        return _("No local models are in this recording.")

    def _draw_blocks(self) -> None:
        width, house, signs = self.size.width, self.house, self.signs
        if not width:
            return
        tall = self.size.height >= 30
        memory: list[Line] = []
        found = sides(house, self._alone)
        for side in found if tall else found[:1]:
            memory += [bar_line(side, width, signs), *legend_lines(side, width, signs)]
        if memory:
            memory.append(speed_line(house, width, signs))
            memory.insert(0, rule(_("MEMORY"), width, signs, _gpu_note(house, found, width - 14)))
        self.memory.show(memory)
        there = len(self.rows.items)
        loaded = sum(row.loaded for row in self.rows.items)
        told = f"{_('{count} here').format(count=there)}, {loaded_text(loaded)}"
        self.title_rule.show([rule(f"{_('MODELS')}  {told}", width, signs)])
        jobs = self._draw_jobs(width, 6 if tall else 2)
        used = len(self.memory.lines) + 1 + jobs + len(self.query_one("#banner", Lines).lines)
        left = self.size.height - 2 - used - 1
        room = left - min(there + 1, max(LEAST_ROWS + 1, left // 2))
        row = self.rows.selected
        lines: list[Line] = []
        if row is not None and room > 0:
            asked, body = self.details.get(row.id, ("", None))
            lines = about_lines(row, body, asked, width, signs)[:room]
            lines += [[("", "")]] * (room - len(lines))  # the table keeps its height when the cursor moves
        title = _("ABOUT {model}").format(model=signs.of(row.id)) if row is not None else ""
        self.about_rule.show([rule(title, width, signs, _("Enter: its calls"))] if lines else [])
        self.about.show(lines)

    def _draw_jobs(self, width: int, most: int) -> int:
        jobs = shown(self.house.jobs.values(), self.house.now)
        height = min(len(jobs), most)
        self.jobs.styles.height = height
        self.jobs.display = bool(height)
        running = sum(job.state == "running" for job in jobs)
        hint = _("x ends one") if running and not self.dashboard.locked else ""
        told = _("JOBS  {count} running").format(count=running)
        self.jobs_rule.show([rule(told, width, self.signs, hint)] if height else [])
        if jobs != self.jobs.items:
            self.jobs.fill(jobs)
        return height + 1 if height else 0

    @on(RowsView.Moved, "#models")
    def _moved(self) -> None:
        self._stood = (self.rows.cursor, self.rows.size.height)
        self._draw_blocks()
        self._ask_detail()

    def on_mount(self) -> None:
        super().on_mount()
        self.rows.focus()

    def on_resize(self, event: events.Resize) -> None:
        super().on_resize(event)
        self.call_after_refresh(self._draw_blocks)

    def on_screen_resume(self) -> None:
        self._look = True  # files may have come and gone while nobody looked
        super().on_screen_resume()

    def arrive(self, target: str) -> None:
        if not self.rows.select(target.removeprefix("local:")):
            self.notify(_("{model} is not among the local models.").format(model=target), timeout=4)
        self.rows.focus()

    # ---- asking --------------------------------------------------------------------------------------------------

    def _ask_what_is_old(self, house: House) -> None:
        """Asks again when something has happened that the answers depend on; nothing is asked by time alone."""
        if house.as_of is not None or house.stale or self.dashboard.feed is None:
            return
        loaded = tuple(sorted((one.model, one.state) for one in house.local.values()))
        ended = tuple(sorted(job.id for job in house.jobs.values() if job.state != "running"))
        known = (loaded, ended, house.connection.since)
        if known != self._known:
            self._known, self._look = known, True
            self.details.clear()
            self._asking = ""
        if self._look:
            self._look = False
            self.dashboard.ask("library")
        newest = house.requests[-1] if house.requests else None
        if newest is not None and newest.provider == "local" and house.rates.total != self._requests and house.local:
            self.dashboard.ask("resident")  # its last use, and so when it leaves, is another one now
        self._requests = house.rates.total
        self._ask_detail()

    def _ask_detail(self) -> None:
        """Has the plan of the model under the cursor told, once."""
        row = self.rows.selected
        if row is None or row.id in self.details or self._asking == row.id:
            return
        if self.house.as_of is None and not self.house.stale and self.dashboard.feed is not None:
            self._asking = row.id
            self._query_detail(row.id)

    @work(exclusive=True, group="detail")
    async def _query_detail(self, model: str) -> None:
        await asyncio.sleep(SETTLE_SECONDS)
        body: dict[str, Any] = {}
        with suppress(HybriddError):  # it may be gone meanwhile: the library says so
            body = await self.dashboard.query_daemon(wire.get(f"/v1/local/models/{wire.segment(model)}"))
        self.post_message(Detail(model, "", body))

    @on(Detail)
    def _detail(self, message: Detail) -> None:
        if self._asking == message.model:
            self._asking = ""
        self.details[message.model] = (message.asked, message.body)
        plan = message.body.get("plan") or {}
        if plan.get("budget") and not self.house.local:
            self._alone = {**self._alone, str(plan.get("target")): int(plan["budget"])}
        self._draw_blocks()

    def _tell_ended(self, house: House) -> None:
        """Says once how each job ended that was seen running."""
        for job in house.jobs.values():
            if job.state == "running":
                self._seen_running.add(job.id)
            elif job.id in self._seen_running:
                self._seen_running.discard(job.id)
                text, style = outcome(job)
                told = f"{subject(job)}: {text.removeprefix('! ')}"
                self.notify(told, severity="error" if style == "warn" else "information", timeout=6)

    # ---- leading on ----------------------------------------------------------------------------------------------

    @on(RowsView.Opened, "#models")
    def _calls(self, event: RowsView.Opened) -> None:
        self.dashboard.go("requests", f"model=local:{event.item.id}")

    @on(RowsView.Opened, "#jobs")
    def _whole(self, event: RowsView.Opened) -> None:
        """What became of it, in full."""
        job: Job = event.item
        told = running_text(job) if job.state == "running" else outcome(job)[0]
        self.notify(f"{subject(job)}: {told}", timeout=8)


def _gpu_note(house: House, found: list[Side], width: int) -> str:
    """Why it is not the GPU's memory, in so many columns."""
    reason = str(house.machine.get("gpu_reason") or "").partition(" (")[0]
    if not reason or not found or found[0].title != "RAM":
        return ""
    return fit(_("no GPU: {reason}").format(reason=reason), width).rstrip()
