"""The playground on a real daemon: answers stream in, can be stopped, compared and rated."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any, cast

import pytest
from textual import events

from tests.fakes.upstream import SENTENCE, FakeUpstream, rule
from tests.house import House, lab
from tests.tui.support import Driver, dashboard
from tui.screens.playground import Playground
from tui.screens.request_detail import RequestDetail
from tui.widgets.prompt import Prompt
from tui.widgets.turn import Folded, fold


@pytest.fixture(scope="module")
def fake() -> Iterator[FakeUpstream]:
    with FakeUpstream() as running:
        running.script([
            rule({"chunk_interval_s": 0.05, "chunks": 2000}, model="slow"),
            rule({"hang": True}, model="silent"),
            rule({"thoughts": "Hm, a fox. Or a dog?", "content": "The fox."}, model="thinker"),
            rule({"content": "def f():\n    return 1\n\nDone."}, model="coder"),
        ])  # fmt: skip
        yield running


@pytest.fixture(scope="module")
def labs(fake: FakeUpstream) -> Iterator[House]:
    models: dict[str, Any] = {name: {} for name in ("m1", "slow", "silent", "coder", "thinker")}
    providers = {"lab": lab(fake.base_url, models=models), "other": lab(fake.base_url)}
    with House({"providers": providers, "tasks": {"text_generation": ["lab:m1"]}}) as running:
        yield running


def playground(driver: Driver) -> Playground:
    return cast(Playground, driver.app.screen)


async def opened(driver: Driver, model: str = "lab:m1") -> Playground:
    driver.app.go("playground", model)
    await driver.until(lambda: isinstance(driver.app.screen, Playground) and playground(driver).panes[0].model == model)
    await driver.until(lambda: playground(driver).prompt.has_focus)
    return playground(driver)


async def ask(driver: Driver, text: str) -> None:
    playground(driver).query_one(Prompt).insert(text)
    await driver.press("enter")


async def test_an_answer_streams_in(labs: House) -> None:
    """The answer appears with who gave it, its tokens and its cost; the next question carries the conversation."""
    async with dashboard(labs.socket) as driver:
        screen = await opened(driver)
        await ask(driver, "What is new?")
        pane = screen.panes[0]
        await driver.until(lambda: pane.last is not None and pane.last.state == "done")
        assert SENTENCE in driver.text
        assert "lab:m1" in driver.text
        assert "9 tok" in driver.text
        first = pane.last
        assert first is not None
        await ask(driver, "And then?")
        await driver.until(lambda: len(pane.turns) == 2 and pane.last is not None and pane.last.state == "done")
        assert [one["role"] for one in pane.turns[1].messages] == ["user", "assistant", "user"]
        assert (pane.turns[1].input_tokens or 0) > (first.input_tokens or 0)
        assert screen.prompt.earlier == ["What is new?", "And then?"]
        await driver.press("up", "up")
        assert screen.prompt.text == "What is new?"


async def test_escape_stops_a_stream(labs: House) -> None:
    """What had come stays; the daemon sees that nobody listens and ends the call."""
    async with dashboard(labs.socket) as driver:
        screen = await opened(driver, "lab:slow")
        await ask(driver, "Go on and on")
        pane = screen.panes[0]
        await driver.until(lambda: pane.last is not None and pane.last.text)
        await driver.press("escape")
        await driver.until(lambda: not pane.busy)
        assert pane.last is not None
        assert pane.last.state == "stopped"
        assert "stopped" in driver.text
        await driver.until(lambda: [one for one in driver.app.house.requests if one.error_code == "client_gone"])


async def test_escape_stops_before_the_first_word(labs: House) -> None:
    """A model that says nothing at all is stopped as well."""
    async with dashboard(labs.socket) as driver:
        screen = await opened(driver, "lab:silent")
        await ask(driver, "Anybody there?")
        await driver.until(lambda: "waiting for lab:silent" in driver.text)
        await driver.press("escape")
        await driver.until(lambda: not screen.panes[0].busy)
        assert "stopped" in driver.text


async def test_two_side_by_side(labs: House) -> None:
    """One question goes to both; each answer stands under its model."""
    async with dashboard(labs.socket, size=(100, 30)) as driver:
        screen = await opened(driver)
        await driver.press("f9")
        await driver.until(lambda: "Who is to answer in B?" in driver.text)
        await driver.press(*"other", "enter")
        await driver.until(lambda: screen.two and screen.panes[1].model == "other:m1")
        await ask(driver, "Which of you is better?")
        await driver.until(lambda: all(pane.last is not None and pane.last.state == "done" for pane in screen.panes))
        line = next(line for line in driver.lines if "lab:m1 " in line and "other:m1 " in line and "tok" in line)
        assert line.index("lab:m1") < line.index("other:m1")


async def test_a_rating_becomes_feedback(labs: House) -> None:
    """Thumbs down is stored as -1 for that request."""
    async with dashboard(labs.socket) as driver:
        screen = await opened(driver)
        await ask(driver, "Please be bad")
        pane = screen.panes[0]
        await driver.until(lambda: pane.last is not None and pane.last.state == "done")
        await driver.press("escape", "d")
        await driver.until(lambda: pane.last is not None and pane.last.score == -1)
        assert "you rated it bad" in driver.text
        assert pane.last is not None
        number = int(pane.last.request_id.removeprefix("req_"), 16)
        with sqlite3.connect(labs.state / "hybridd.db") as database:
            found = database.execute("SELECT score FROM feedback WHERE request_id = ?", (number,)).fetchall()
        assert found == [(-1.0,)]


async def test_a_rating_is_seen_where_the_request_is(labs: House) -> None:
    """The last score stands in the request's own view, for whoever looks later; ``hybridd why`` prints it too."""
    async with dashboard(labs.socket, size=(100, 30)) as driver:
        screen = await opened(driver)
        await ask(driver, "Please be good")
        pane = screen.panes[0]
        await driver.until(lambda: pane.last is not None and pane.last.state == "done")
        assert pane.last is not None
        await driver.press("escape", "d")
        await driver.until(lambda: pane.last is not None and pane.last.score == -1)
        await driver.press("u")
        await driver.until(lambda: pane.last is not None and pane.last.score == 1)
        await driver.press("enter")
        await driver.until(lambda: any("rated" in line and "+1" in line for line in driver.lines))
        assert "rated:     +1" in labs.cli("why", pane.last.request_id).stdout


async def test_thoughts_are_shown_apart(labs: House) -> None:
    """What a reasoning model thinks is set in above its answer, ``t`` folds it, and it is no part of what is said
    next."""
    async with dashboard(labs.socket) as driver:
        screen = await opened(driver, "lab:thinker")
        await ask(driver, "Which one?")
        pane = screen.panes[0]
        await driver.until(lambda: pane.last is not None and pane.last.state == "done")
        at = driver.lines.index(" thoughts")
        assert driver.lines[at + 1 : at + 3] == ["   Hm, a fox. Or a dog?", " The fox."]
        assert pane.last is not None
        assert (pane.last.thoughts.strip(), pane.last.text) == ("Hm, a fox. Or a dog?", "The fox.")
        assert pane.messages("And?")[1] == {"role": "assistant", "content": "The fox."}
        await driver.press("escape", "t")
        await driver.until(lambda: "thought 6 words; t shows them" in driver.text)
        assert "Or a dog?" not in driver.text


async def test_enter_does_not_overtake_what_was_typed(labs: House) -> None:
    """Letters and Enter that arrive at once, as from a fast typist or a paste, are one question."""
    async with dashboard(labs.socket) as driver:
        screen = await opened(driver)
        for letter in "all of it":
            driver.app.post_message(events.Key("space" if letter == " " else letter, letter))
        driver.app.post_message(events.Key("enter", "\r"))
        await driver.until(lambda: screen.panes[0].last is not None)
        assert screen.panes[0].last is not None
        assert screen.panes[0].last.prompt == "all of it"
        await driver.until(lambda: not screen.panes[0].busy)
        await driver.press("ctrl+j")
        assert screen.prompt.text == "\n"


async def test_why_and_repeat(labs: House) -> None:
    """From an answer to its explanation, and from there the same question again."""
    async with dashboard(labs.socket, size=(100, 30)) as driver:
        screen = await opened(driver)
        await ask(driver, "Tell me once more")
        pane = screen.panes[0]
        await driver.until(lambda: pane.last is not None and pane.last.state == "done")
        assert pane.last is not None
        first = pane.last.request_id
        await driver.press("escape", "enter")
        await driver.until(lambda: isinstance(driver.app.screen, RequestDetail) and "WHY" in driver.text)
        assert first in driver.text
        await driver.until(lambda: "R repeat" in driver.text)
        await driver.press("R")
        await driver.until(lambda: len(pane.turns) == 2 and pane.last is not None and pane.last.state == "done")
        assert pane.last.prompt == "Tell me once more"
        assert pane.last.request_id != first


async def test_an_error_is_said(labs: House) -> None:
    """A model that does not exist: the daemon's sentence, and the prompt is free again."""
    async with dashboard(labs.socket) as driver:
        screen = await opened(driver, "nobody:nothing")
        await ask(driver, "Hello there")
        await driver.until(lambda: screen.panes[0].last is not None and screen.panes[0].last.state == "failed")
        assert "failed:" in driver.text
        assert not screen.panes[0].busy


async def test_code_keeps_its_lines(labs: House) -> None:
    """Line breaks and indentation of an answer are shown as they are."""
    async with dashboard(labs.socket) as driver:
        screen = await opened(driver, "lab:coder")
        await ask(driver, "Write a function")
        await driver.until(lambda: screen.panes[0].last is not None and screen.panes[0].last.state == "done")
        at = next(number for number, line in enumerate(driver.lines) if "def f():" in line)
        assert driver.lines[at + 1].index("return") == driver.lines[at].index("def") + 4


@pytest.mark.parametrize("size", [(60, 20), (80, 24), (160, 50)])
async def test_help_is_at_hand_while_writing(labs: House, size: tuple[int, int]) -> None:
    """? is a letter of the question; the bottom line names the key that is none, and it shows the help."""
    async with dashboard(labs.socket, size) as driver:
        screen = await opened(driver)
        await driver.press("question_mark")
        assert screen.prompt.text == "?"
        assert driver.lines[-1].endswith("F1 help")
        await driver.press("f1")
        await driver.until(lambda: "On this screen" in driver.text)
        await driver.press("f1")
        await driver.until(lambda: driver.app.screen is screen)


async def test_read_only_asks_nothing(labs: House) -> None:
    """In read-only mode nothing is sent, and what was typed is still there."""
    async with dashboard(labs.socket, read_only=True) as driver:
        screen = await opened(driver)
        await ask(driver, "Not to be sent")
        assert screen.panes[0].last is None
        await driver.until(lambda: screen.prompt.text == "Not to be sent")


def test_a_growing_text_folds_like_a_whole_one() -> None:
    """However an answer arrives, it is shown as if it had come at once; no line is too wide."""
    text = "One two three four five\n    indented code that is long enough to break\n\nabcdefghijklmnopqrstuvwxyz"
    folded = Folded(20)
    for end in range(len(text) + 1):
        lines = folded.lines(text[:end])
    assert lines == fold(text, 20)
    assert max(map(len, lines)) <= 20
    assert [line.strip() for line in lines][-2:] == ["abcdefghijklmnopqrst", "uvwxyz"]
