"""The real thing: the command in a real terminal on a real daemon, with real keys, read from the screen."""

from __future__ import annotations

import json
import re

import pytest

from tests.fakes.upstream import FakeUpstream
from tests.house import House, lab
from tests.tui.snapshots import RECORDING
from tests.tui.tmux import MISSING, Tmux
from tui.screens import SCREENS

pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING)


def test_a_round_through_the_screens(house: House) -> None:
    """Each number shows its screen, ? the keys, / narrows, Esc leads back, q gives the shell its screen back."""
    with Tmux([], house.env) as terminal:
        terminal.until(lambda: "● live" in terminal.lines[0] and "lab" in terminal.text)
        for spec in SCREENS.values():
            terminal.keys(spec.key)
            terminal.until(lambda: spec.title in terminal.lines[0])  # noqa: B023  # called before the next one
            if spec.title == "Playground":
                terminal.keys("Escape")  # its prompt keeps the digits until Esc
                terminal.shows("? help")
        terminal.keys("1")
        terminal.until(lambda: "Overview" in terminal.lines[0])
        terminal.keys("?")
        terminal.shows("On this screen")
        terminal.keys("Escape")
        terminal.until(lambda: "On this screen" not in terminal.text)
        terminal.keys("/")
        terminal.shows("filter: words")
        terminal.keys("s", "p", "e", "c")
        terminal.until(lambda: "specialists" in terminal.text and "github_models" not in terminal.text)
        terminal.keys("Enter")
        terminal.keys("Escape")
        terminal.shows("github_models")
        terminal.keys("q")
        terminal.shows("ended with 0")
        assert "PROVIDER" not in terminal.text


def test_it_follows_the_daemon(house: House) -> None:
    """A call made elsewhere appears by itself, with its model."""
    with Tmux([], house.env) as terminal:
        terminal.until(lambda: "● live" in terminal.lines[0])
        terminal.keys("3")
        terminal.until(lambda: "Requests" in terminal.lines[0])
        house.chat("lab:m1", "hello", max_tokens=3, headers={"x-hybridd-client": "tmux"})
        terminal.until(lambda: re.search(r"lab:m1", terminal.lines[3]))


def test_sizes(house: House) -> None:
    """A window that is too small says what it needs; the screen returns with the room."""
    with Tmux([], house.env) as terminal:
        terminal.shows("specialists")
        terminal.resize(50, 12)
        terminal.shows("needs 60×20")
        terminal.resize(160, 50)
        terminal.until(lambda: "─ ALERTS ─" in terminal.text and "specialists" in terminal.text)


def test_copies_reach_the_terminal(house: House) -> None:
    """y puts the row and Y its JSON where tmux's own paste finds it (OSC 52)."""
    with Tmux([], house.env) as terminal:
        terminal.shows("specialists")
        terminal.keys("y")
        terminal.until(lambda: terminal.buffer)
        assert terminal.buffer.split("\n")[0].strip()
        terminal.keys("Y")
        terminal.until(lambda: terminal.buffer.startswith("{"))
        assert json.loads(terminal.buffer)["provider"]["name"]


def test_a_daemon_that_goes_and_comes(upstream: FakeUpstream) -> None:
    """Its end is said and the data stay; when it is back, r connects again."""
    with (
        House({"providers": {"lab": lab(upstream.base_url)}}) as house,
        Tmux([], house.env) as terminal,
    ):
        terminal.until(lambda: "● live" in terminal.lines[0] and "lab" in terminal.text)
        house.stop()
        terminal.shows("DISCONNECTED")
        assert "lab" in terminal.text
        house.start()
        terminal.keys("r")
        terminal.until(lambda: "● live" in terminal.lines[0] and "DISCONNECTED" not in terminal.text)


def test_every_screen_says_that_it_shows_the_past(house: House) -> None:
    """[ goes back, and each screen stands under the banner with the keys that lead out; G ends it."""
    with Tmux([], house.env) as terminal:
        terminal.until(lambda: "● live" in terminal.lines[0] and "lab" in terminal.text)
        terminal.keys("[")
        terminal.shows("PAUSED at")
        for spec in SCREENS.values():
            terminal.keys(spec.key)
            terminal.until(lambda: spec.title in terminal.lines[0] and "PAUSED at" in terminal.lines[1])  # noqa: B023
            assert "G returns to now" in terminal.lines[1]
            assert "Not recorded" in terminal.lines[2]
            if spec.title == "Playground":
                terminal.keys("Escape")  # its prompt keeps the digits
                terminal.shows("i write")
        terminal.keys("G")
        terminal.until(lambda: "● live" in terminal.lines[0] and "PAUSED" not in terminal.text)


def test_without_colour_and_beyond_ascii(house: House) -> None:
    """NO_COLOR paints no colour; --ascii paints nothing but ASCII; a recording needs no daemon."""
    arguments = ["--replay", str(RECORDING), "--speed", "0", "--ascii"]
    with Tmux(arguments, {**house.env, "NO_COLOR": "1"}) as terminal:
        terminal.shows("END of the recording")
        terminal.shows("openrouter")
        assert terminal.text.isascii()
        greys = re.findall(r"\x1b\[[0-9;]*?[34]8;2;(\d+);(\d+);(\d+)", terminal.coloured)
        assert all(max(map(int, grey)) - min(map(int, grey)) <= 3 for grey in greys)
        assert not re.search(r"\x1b\[(?:\d+;)*3[1-6]m", terminal.coloured)
        terminal.keys("q")
        terminal.shows("ended with 0")
