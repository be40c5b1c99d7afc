"""Every screen at every size, without colours and without the daemon, looks as it did when somebody last looked."""

from __future__ import annotations

import difflib

import pytest
from rich.cells import cell_len

from tests.tui.snapshots import FOLDER, VARIANTS, Variant, file_of, played, screens, show, surroundings
from tui.screens import SCREENS

RENEW = "if this is meant: python -m tests.tui.snapshots"


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
async def test_screens_look_as_they_did(variant: Variant) -> None:
    """The text of each screen is the stored one, fits the terminal and is the same at every run."""
    columns, rows = variant.size
    wrong: list[str] = []
    for name, text in (await screens(variant)).items():
        lines = text.splitlines()
        assert len(lines) == rows
        assert max(map(cell_len, lines)) <= columns
        path = file_of(name, variant)
        stored = path.read_text(encoding="utf-8") if path.exists() else ""
        wrong += difflib.unified_diff(stored.splitlines(), lines, path.name, "now", lineterm="", n=1)
    assert not wrong, "\n".join([RENEW, *wrong])


async def test_no_colour_means_none() -> None:
    """Under NO_COLOR no cell of any screen is coloured: greys alone, told apart by brightness and by words."""
    with surroundings(colour=False):
        async with played((80, 24)) as driver:
            for name in SCREENS:
                await show(driver, name)
                strips = driver.app.screen._compositor.render_strips(driver.app.size)
                styles = {segment.style for strip in strips for segment in strip if segment.style}
                found = {colour for style in styles for colour in (style.color, style.bgcolor) if colour}
                shades = [colour.get_truecolor() for colour in found if not colour.is_default]
                assert [shade for shade in shades if max(shade) - min(shade) > 3] == []


def test_no_snapshot_is_left_over() -> None:
    """Each stored file belongs to a screen and a variant that exist."""
    assert {path.name for path in FOLDER.iterdir()} == {
        file_of(name, variant).name for name in SCREENS for variant in VARIANTS
    }
