"""The table: sorting, filtering, copying, exporting, and drawing no more than what changed."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual.app import App, ComposeResult
from textual.geometry import Region

from tui.export import as_csv, as_json, write
from tui.text import RICH, plain
from tui.widgets.columns import Column, Rest, head_line, layout, matches, row_line
from tui.widgets.table import Rows


@dataclass(frozen=True)
class Thing:
    name: str
    size: int


COLUMNS: list[Column[Thing]] = [
    Column("name", "NAME", lambda one, width, signs: one.name, 8, share=1, sort=lambda one: one.name),
    Column("size", "SIZE", lambda one, width, signs: str(one.size), 6, align="right", sort=lambda one: one.size,
           value=lambda one: one.size),
]  # fmt: skip
THINGS = [Thing("beta", 2), Thing("alpha", 30), Thing("gamma", 1)]


class Holder(App[None]):
    def compose(self) -> ComposeResult:
        yield Rows(COLUMNS, key=lambda one: one.name, record=lambda one: {"name": one.name}, empty="Add something.")

    @property
    def rows(self) -> Rows[Thing]:
        return self.query_one(Rows)


def names(app: Holder) -> list[str]:
    return [one.name for one in app.rows.shown]


async def test_sorting_filtering_and_the_cursor() -> None:
    """The cursor stays on its thing through another order, a filter and new things before it."""
    app = Holder()
    async with app.run_test(size=(40, 10)) as pilot:
        app.rows.fill(THINGS)
        app.rows.focus()
        await pilot.press("down")
        assert app.rows.selected == Thing("alpha", 30)
        await pilot.press("s")
        assert (names(app), app.rows.cursor) == (["alpha", "beta", "gamma"], 0)
        await pilot.press("s", "S")
        assert (names(app), app.rows.cursor) == (["alpha", "beta", "gamma"], 0)
        app.rows.fill([Thing("zero", 99), *THINGS])
        assert (names(app)[0], app.rows.selected) == ("zero", Thing("alpha", 30))
        app.rows.set_filter("size=3")
        assert names(app) == ["alpha"]
        app.rows.set_filter("a be")
        assert names(app) == ["beta"]
        app.rows.set_filter("nothing like it")
        assert "Nothing matches" in plain(app.rows.text_line(1))
        app.rows.fill([])
        app.rows.set_filter("")
        assert plain(app.rows.text_line(1)) == "Add something."
        await pilot.press("down", "enter", "y")


async def test_only_what_changed_is_drawn() -> None:
    """One other figure redraws one line; the same list again redraws nothing."""
    app = Holder()
    async with app.run_test(size=(40, 10)) as pilot:
        app.rows.fill(THINGS)
        await pilot.pause()
        drawn: list[Any] = []

        def refresh(*regions: Region, **_more: Any) -> Rows[Thing]:
            drawn.extend(regions)
            return app.rows

        app.rows.refresh = refresh  # type: ignore[method-assign]  # a spy
        app.rows.fill([Thing("beta", 2), Thing("alpha", 31), Thing("gamma", 1)])
        assert [(region.y, region.height) for region in drawn] == [(2, 1)]
        drawn.clear()
        app.rows.fill([Thing("beta", 2), Thing("alpha", 31), Thing("gamma", 1)])
        assert drawn == []


async def test_only_what_is_seen_is_computed() -> None:
    """A hundred thousand rows cost no more lines than fit; the end is one key away."""
    app = Holder()
    async with app.run_test(size=(40, 10)) as pilot:
        app.rows.fill([Thing(f"n{number:06}", number) for number in range(100_000)])
        app.rows.focus()
        await pilot.press("end")
        assert app.rows.text_lines() == 10
        assert app.rows.selected == Thing("n099999", 99_999)
        assert "n099999" in plain(app.rows.text_line(9))
        await pilot.press("home", "pagedown")
        assert app.rows.cursor == 8


async def test_copying_the_row_and_its_json() -> None:
    """y copies what is seen, Y the thing's plain data; both go to the terminal's clipboard."""
    app = Holder()
    async with app.run_test(size=(40, 10)) as pilot:
        app.rows.fill(THINGS)
        app.rows.focus()
        await pilot.press("y")
        assert app.clipboard.split() == ["beta", "2"]
        await pilot.press("Y")
        assert json.loads(app.clipboard) == {"name": "beta"}


async def test_the_mouse_selects_sorts_and_leaves_text_selectable() -> None:
    """A click moves the cursor, one on a title sorts, a drag selects text that can be copied."""
    app = Holder()
    async with app.run_test(size=(40, 10)) as pilot:
        app.rows.fill(THINGS)
        await pilot.click(Rows, offset=(2, 3))
        assert app.rows.selected == Thing("gamma", 1)
        await pilot.click(Rows, offset=(2, 0))
        assert names(app) == ["alpha", "beta", "gamma"]
        await pilot.mouse_down(Rows, offset=(0, 1))
        await pilot.hover(Rows, offset=(5, 1))
        await pilot.mouse_up(Rows, offset=(5, 1))
        assert app.screen.get_selected_text() in {"alpha", "alpha "}


@given(st.lists(st.tuples(st.integers(1, 30), st.integers(0, 3)), min_size=1, max_size=8), st.integers(1, 200))
def test_a_layout_fits(given_columns: list[tuple[int, int]], width: int) -> None:
    """The shown columns and the spaces between them never take more than there is, and all of it when one may grow."""
    made: list[Column[Any]] = [
        Column(str(at), "", lambda one, w, s: "", size, share=share) for at, (size, share) in enumerate(given_columns)
    ]
    shown: list[tuple[Column[Any], int]] = layout(made, width)
    taken = sum(size for _, size in shown) + len(shown) - 1
    if width >= 2 * len(made):
        assert taken <= width
        if any(share for _, share in given_columns):
            assert taken == width


def test_a_sentence_takes_the_rest() -> None:
    """A cell may take the room of every column after it."""
    columns: list[Column[Thing]] = [
        Column("name", "", lambda one, width, signs: one.name, 6),
        Column("says", "", lambda one, width, signs: Rest([("not set up because", "")]), 3),
        Column("more", "", lambda one, width, signs: "never seen", 12),
    ]
    assert plain(row_line(THINGS[0], layout(columns, 24), RICH)) == "beta   not set up beca…"


def test_filter_words() -> None:
    """Every word must be found; column=part looks into that column; an unknown column is just a word."""
    values = {"model": "groq:llama", "status": "200"}
    text = "groq:llama 200 a=b"
    assert matches(text, lambda: values, ["llama", "200"])
    assert matches(text, lambda: values, ["status=20"])
    assert not matches(text, lambda: values, ["status=4"])
    assert matches(text, lambda: values, ["a=b"])


@given(st.lists(st.lists(st.text(max_size=6) | st.integers() | st.none(), min_size=2, max_size=2), max_size=5))
def test_csv_reads_back(rows: list[list[Any]]) -> None:
    """What was written is what is read, but for the quote before what a spreadsheet would run."""
    head, *read = csv.reader(io.StringIO(as_csv(["a", "b"], rows), newline=""))
    assert head == ["a", "b"]
    for written, back in zip(rows, read, strict=True):
        for value, text in zip(written, back, strict=True):
            expected = "" if value is None else str(value)
            assert text in {expected, f"'{expected}"}
            assert not (isinstance(value, str) and text.startswith(("=", "+", "@")))


def test_files_are_never_overwritten(tmp_path) -> None:
    """A second export of the same second gets another name."""
    first = write(tmp_path, "limits", "csv", "a", 0.0)
    second = write(tmp_path, "limits", "csv", "b", 0.0)
    assert (first.read_text(), second.read_text()) == ("a", "b")
    assert as_json([1]) == "[\n  1\n]"
    with pytest.raises(OSError, match="none"):
        write(tmp_path / "none", "x", "csv", "a", 0.0)


async def test_what_to_do_next_is_read_to_its_end() -> None:
    """An empty table's sentence goes on below where it is wider than the table."""
    app = Holder()
    async with app.run_test(size=(24, 10)) as pilot:
        app.rows.empty = "Nothing was asked yet. Try: hybridd call, or 7 for the playground."
        app.rows.fill([])
        await pilot.pause()
        shown = [plain(app.rows.text_line(y)).rstrip() for y in range(app.rows.text_lines())]
        assert " ".join(shown[1:]) == app.rows.empty
        assert max(map(len, shown)) <= 24


@pytest.mark.parametrize("width", [4, 5, 9])
def test_the_sorted_column_is_marked_even_under_a_title_that_fills_it(width: int) -> None:
    """The arrow is never what is cut off."""
    columns: list[Column[Thing]] = [Column("size", "SIZE", lambda one, w, s: "", width, align="right")]
    for backwards, mark in ((False, RICH.up), (True, RICH.down)):
        assert plain(head_line(layout(columns, width), RICH, "size", backwards=backwards)).rstrip().endswith(mark)
