"""The bottom line: what is shortened and left out as the terminal gets narrower, and what a click does."""

from __future__ import annotations

import pytest

from tests.house import House as Daemon
from tests.tui.support import dashboard
from tui.screens import SCREENS
from tui.text import RICH, plain
from tui.widgets.footer import Footer, footer_line, footer_words

TITLES = [(spec.key, spec.title, name) for name, spec in SCREENS.items()]
KEYS = [("l", "load", "a"), ("u", "unload", "b"), ("w", "what if", "c"), ("/", "filter", "d"), ("?", "help", "e")]


@pytest.mark.parametrize("width", range(60, 181, 5))
def test_help_is_always_there_and_nothing_overlaps(width: int) -> None:
    """The line is exactly as wide as the terminal, ends with the help's key, and keeps the current title whole."""
    line = plain(footer_line(TITLES, KEYS, "models", width, RICH))
    assert len(line) == width
    assert line.endswith(" ? help")
    assert "4 Models " in line
    for key, _title, _name in TITLES:
        assert f" {key} " in line


def test_titles_give_way_before_keys_do() -> None:
    """With room for all everything is whole; with less the other screens are numbers; then keys go, the last first."""
    assert "3 Requests" in plain(footer_line(TITLES, KEYS, "models", 160, RICH))
    narrow = plain(footer_line(TITLES, KEYS, "models", 80, RICH))
    assert " 1 2 3 4 Models 5 7 8 " in narrow
    assert all(f"{key} {title}" in narrow for key, title, _action in KEYS)
    least = plain(footer_line(TITLES, KEYS, "models", 50, RICH))
    assert "l load" in least
    assert "/ filter" not in least


def test_each_word_knows_its_action() -> None:
    """A key and its title both run it; the gaps between run nothing."""
    found = {text.strip(): action for (text, _style), action in footer_words(TITLES, KEYS, "models", 160)}
    assert (found["l"], found["load"]) == ("a", "a")
    assert found["3"] == found["Requests"] == "app.screen('requests')"
    assert found[""] == ""


async def test_a_click_shows_another_screen(house: Daemon) -> None:
    """On the key and on the title alike."""
    async with dashboard(house.socket) as driver:
        for word in ("5", "1"):
            at = driver.lines[-1].index(word)
            await driver.pilot.click(driver.app.screen.query_one(Footer), offset=(at, 0))
            title = "Alerts" if word == "5" else "Overview"
            await driver.until(lambda: title in driver.lines[0])  # noqa: B023  # called before the next one


def test_help_stays_even_under_a_long_key() -> None:
    """Moved to a key with a long name, it still has its place in the narrowest terminal."""
    keys = [*KEYS[:-1], ("Shift+F1", "ajuda", "e")]
    assert plain(footer_line(TITLES, keys, "overview", 60, RICH)).endswith(" Shift+F1 ajuda")
