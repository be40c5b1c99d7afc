"""The book of alerts: one alert per key, no flapping, nothing missed."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from hybridd.monitor import rules
from hybridd.monitor.book import QUIET_CHECKS, REOPEN_SECONDS, Alert, Book
from hybridd.monitor.conditions import Condition
from tests.monitor.helpers import limit

T0 = 1000.0


def condition(key: str = "k", severity: Any = "warning", message: str = "m", name: str = "QuotaLow") -> Condition:
    return Condition(key, name, severity, message)


def whats(changes: Any) -> list[str]:
    return [change.what for change in changes]


def test_opens_at_once_and_once() -> None:
    """The first check with the condition opens; further ones say nothing."""
    book = Book()
    assert whats(book.check([condition()], T0)) == ["opened"]
    assert book.check([condition()], T0 + 30) == []
    assert book.check([condition(), condition()], T0 + 60) == []


def test_resolves_after_two_quiet_checks() -> None:
    """One check without the condition is not enough, two are; an extra look in between does not count."""
    book = Book()
    book.check([condition()], T0)
    assert book.check([], T0 + 30) == []
    assert book.check([], T0 + 31, counts=False) == []
    (change,) = book.check([], T0 + 60)
    assert (change.what, change.alert.state, change.alert.resolved_at) == ("resolved", "resolved", T0 + 60)
    assert book.live(T0 + 60) == []


def test_a_condition_that_comes_back_soon_is_the_same_alert() -> None:
    """Within ten minutes the alert opens again with its count; later it is a new one."""
    book = Book()
    (first,) = book.check([condition()], T0)
    for step in (1, 2):
        book.check([], T0 + step)
    (again,) = book.check([condition()], T0 + 100)
    assert (again.what, again.alert.id, again.alert.count, again.alert.opened_at) == ("reopened", first.alert.id, 2, T0)
    for step in (1, 2):
        book.check([], T0 + 100 + step)
    (later,) = book.check([condition()], T0 + 102 + REOPEN_SECONDS)
    assert (later.what, later.alert.id, later.alert.count) == ("opened", first.alert.id + 1, 1)


def test_acknowledged_alerts_resolve_and_open_afresh() -> None:
    """Seen is not solved: it still resolves by itself, and coming back it is unseen again; twice changes nothing."""
    book = Book()
    (opened,) = book.check([condition()], T0)
    assert whats(book.acknowledge(opened.alert.id, T0 + 1)) == ["acknowledged"]
    assert book.acknowledge(opened.alert.id, T0 + 2) == []
    assert book.live(T0 + 2)[0].state == "acknowledged"
    for step in (3, 4):
        book.check([], T0 + step)
    assert book.acknowledge(opened.alert.id, T0 + 5) == []
    book.check([condition()], T0 + 6)
    assert book.live(T0 + 6)[0].state == "open"
    assert book.acknowledge(999, T0) == []


def test_worse_speaks_up_again() -> None:
    """A graver severity is told at once and takes the acknowledgement back."""
    book = Book()
    (opened,) = book.check([condition()], T0)
    book.acknowledge(opened.alert.id, T0)
    (change,) = book.check([condition(severity="critical", message="worse")], T0 + 1)
    assert (change.what, change.alert.state, change.alert.message) == ("worse", "open", "worse")


def test_moving_figures_are_rewritten_now_and_then() -> None:
    """A message that changes at every check is current in memory, and told again only after five minutes."""
    book = Book()
    book.check([condition(message="1")], T0)
    told = [step for step in range(1, 31) if book.check([condition(message=f"{step}")], T0 + 30 * step)]
    assert told == [10, 20, 30]
    assert book.live(T0)[0].message == "30"


def test_silence_is_quiet_until_its_end() -> None:
    """Openings under a silence are not loud; when it ends while the condition holds, that is told."""
    book = Book()
    (opened,) = book.check([condition()], T0)
    (change,) = book.silence("k", T0 + 100, T0 + 1)
    assert (change.what, change.alert.state, change.alert.silenced_until) == ("silenced", "silenced", T0 + 100)
    changes = [*book.check([], T0 + 2), *book.check([], T0 + 3), *book.check([condition()], T0 + 4)]
    assert [(c.what, c.loud) for c in changes] == [("resolved", False), ("reopened", False)]
    (ended,) = book.check([condition()], T0 + 100)
    assert (ended.what, ended.loud, ended.alert.state, ended.alert.id) == ("unsilenced", True, "open", opened.alert.id)


def test_a_silence_can_be_taken_back() -> None:
    """A moment in the past ends it; ending what is not there says nothing."""
    book = Book()
    book.check([condition()], T0)
    book.silence("k", T0 + 100, T0)
    assert whats(book.silence("k", T0, T0 + 1)) == ["unsilenced"]
    assert book.silence("k", T0, T0 + 1) == []
    assert book.silence("unknown", T0 + 100, T0) == []
    assert book.silenced_until("unknown") == T0 + 100


def test_alerts_by_hand_stay_until_resolved_by_hand() -> None:
    """Checks do not resolve what they did not open; raising again counts."""
    book = Book()
    job = condition("job", name="SpecialistRetrainingJobFailed", severity="critical")
    assert whats(book.raise_(job, T0)) == ["opened"]
    (again,) = book.raise_(job, T0 + 10)
    assert again.alert.count == 2
    for step in range(5):
        assert book.check([], T0 + 20 + step) == []
    assert whats(book.resolve("job", T0 + 30)) == ["resolved"]
    assert book.resolve("job", T0 + 31) == []


def test_open_now_only_opens() -> None:
    """The quick path opens what is not open and leaves the rest to the check."""
    book = Book()
    assert whats(book.open_now(condition(), T0)) == ["opened"]
    assert book.open_now(condition(severity="critical"), T0) == []
    assert "k" in book


def test_loaded_alerts_go_on() -> None:
    """Alerts of the run before are open, keep their numbers and resolve like others."""
    old = Alert(7, "k", "QuotaLow", "warning", "m", None, opened_at=1, updated_at=1)
    gone = Alert(6, "g", "QuotaLow", "warning", "m", None, opened_at=1, updated_at=1, resolved_at=T0 - 10)
    book = Book(next_id=8, alerts=[old, gone], silences={"k": T0 + 50})
    assert book.live(T0)[0].state == "silenced"
    assert whats(book.check([condition(), condition("g"), condition("n")], T0)) == ["reopened", "opened"]
    assert [view.id for view in book.live(T0)] == [8, 7, 6]


@given(st.lists(st.floats(-24, 24), min_size=1, max_size=60))
def test_noise_around_the_line_never_flaps(noise: list[float]) -> None:
    """However the remaining amount trembles within a quarter of the line around it, there is at most one opening and no
    resolution after it."""
    book, line, seen = Book(), 100.0, []
    for step, offset in enumerate(noise):
        view = limit(line + offset)
        found = rules.quota_low(view, T0, held="quota_low:groq/requests/day" in book)
        seen += whats(book.check([found] if found else [], T0 + 30 * step))
    assert seen.count("opened") <= 1
    assert "resolved" not in seen
    assert "reopened" not in seen
    assert ("opened" in seen) == any(line + offset <= line for offset in noise)


@given(st.lists(st.floats(0, 1000), min_size=1, max_size=60))
def test_truly_low_is_always_open(path: list[float]) -> None:
    """After any check that saw the quota at or below its line the alert is open; it is closed only after two checks in
    a row clear of the margin."""
    book, clear = Book(), 0
    for step, remaining in enumerate(path):
        held = "quota_low:groq/requests/day" in book
        found = rules.quota_low(limit(remaining), T0, held=held)
        book.check([found] if found else [], T0 + 30 * step)
        is_open = "quota_low:groq/requests/day" in book
        clear = clear + 1 if remaining > 125 else 0
        if remaining <= 100:
            assert is_open
        if held and not is_open:
            assert clear >= QUIET_CHECKS


class Bookkeeping(RuleBasedStateMachine):
    """Any order of events: one live alert per key, ids never reused for another key, counts never fall."""

    @initialize()
    def begin(self) -> None:
        self.book, self.now = Book(), T0
        self.owner: dict[int, str] = {}
        self.counts: dict[int, int] = {}

    @rule(keys=st.sets(st.sampled_from("abc")), step=st.floats(0, 700), counts=st.booleans())
    def check(self, keys: set[str], step: float, counts: bool) -> None:
        self.now += step
        self._look(self.book.check([condition(key) for key in sorted(keys)], self.now, counts=counts))
        assert keys <= self.book.open_keys

    @rule(key=st.sampled_from("abc"))
    def open_now(self, key: str) -> None:
        self._look(self.book.open_now(condition(key), self.now))

    @rule(key=st.sampled_from("abc"))
    def raise_(self, key: str) -> None:
        self._look(self.book.raise_(condition(key), self.now))

    @rule(key=st.sampled_from("abc"))
    def resolve(self, key: str) -> None:
        self._look(self.book.resolve(key, self.now))

    @rule(key=st.sampled_from("abc"), ahead=st.floats(-10, 500))
    def silence(self, key: str, ahead: float) -> None:
        self._look(self.book.silence(key, self.now + ahead, self.now))

    @rule(alert=st.integers(1, 5))
    def acknowledge(self, alert: int) -> None:
        self._look(self.book.acknowledge(alert, self.now))

    def _look(self, changes: Any) -> None:
        for change in changes:
            view = change.alert
            assert self.owner.setdefault(view.id, view.key) == view.key
            assert view.count >= self.counts.get(view.id, 1)
            self.counts[view.id] = view.count
            silenced = (self.book.silenced_until(view.key) or 0) > self.now
            assert change.loud or silenced

    @invariant()
    def one_alert_for_each_key(self) -> None:
        live = self.book.live(self.now)
        assert len({view.key for view in live}) == len(live)
        assert all(view.state != "resolved" for view in live)


TestBookkeeping = Bookkeeping.TestCase
TestBookkeeping.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)
