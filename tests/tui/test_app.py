"""The application around the screens: keys, help, palette, themes, exports, recordings, the first run."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from hybridd.cli import diagnostics
from hybridd.cli.commands import tui as command
from hybridd.cli.main import program
from hybridd.errors import InvalidRequest
from tests.house import ROOT
from tests.house import House as Daemon
from tests.tui.support import dashboard, driven
from tui import commands, keymap, reference, theme
from tui.app import Dashboard, binding_ids
from tui.events import Event, encode
from tui.keys import declared, entries
from tui.replay import Player, Recorder, read
from tui.screens import SCREENS
from tui.settings import Options, Section, read_section
from tui.widgets.table import Rows


async def test_help_is_made_from_the_bindings(house: Daemon) -> None:
    """Everything that can be done here stands in the help with its key and its id, and the palette has it too."""
    async with dashboard(house.socket, (120, 60)) as driver:
        known = entries(driver.app.screen)
        assert {"overview.acknowledge", "table.filter", "app.help", "app.screen.limits"} <= {one.id for one in known}
        provider = commands.Actions(driver.app.screen)
        offered = [name for name, _, _ in provider._commands()]
        await driver.press("question_mark")
        for entry in known:
            assert re.search(rf"{re.escape(entry.about)} +{re.escape(entry.id)}", driver.text), entry
            assert entry.about in offered or entry.id == "app.palette"


async def test_the_palette_runs_an_action(house: Daemon) -> None:
    """Typing part of a name and Enter does it."""
    async with dashboard(house.socket) as driver:
        await driver.press("ctrl+p", *"contrast")
        await driver.until(lambda: "hybridd-contrast" in driver.text)
        await driver.press("enter")
        await driver.until(lambda: driver.app.theme == "hybridd-contrast")


async def test_the_keymap_moves_keys(house: Daemon, tmp_path: Path) -> None:
    """A binding named in the configuration listens to other keys; help and footer name them; a mistake is said."""
    config = tmp_path / "c.json"
    keys = {"app.help": "f1", "app.screen.limits": "l", "app.hepl": "x"}
    config.write_text(json.dumps({"tui": {"keymap": keys, "theme": "hybridd-safe"}}))
    async with dashboard(house.socket, config=config) as driver:
        assert driver.app.theme == "hybridd-safe"
        assert "f1 help" in driver.lines[-1]
        assert "l Limits" in driver.lines[-1]
        await driver.press("question_mark")
        assert "On this screen" not in driver.text
        await driver.press("f1")
        assert "On this screen" in driver.text
        assert any("app.hepl" in note.message for note in driver.app._notifications)


def test_keymap_mistakes_name_the_nearest() -> None:
    """An unknown id is not used and says which was meant; a binding without a key neither."""
    used, wrong = keymap.check(
        {"app.hepl": "x", "app.quit": " , ", "app.theme": "f2, f3"}, {"app.help", "app.quit", "app.theme"}
    )
    assert used == {"app.theme": "f2,f3"}
    assert "the nearest is 'app.help'" in wrong[0]
    assert "names no key" in wrong[1]


def test_every_screen_has_its_key_and_its_id() -> None:
    """A keymap can name every screen, and no id means two things."""
    ids = [binding.id for _, binding in declared(reference.sources())]
    assert len(ids) == len(set(ids))
    assert {f"app.screen.{name}" for name in SCREENS} <= binding_ids()


@pytest.mark.parametrize("name", theme.NAMES)
async def test_every_theme_draws(house: Daemon, name: str) -> None:
    """No theme lacks a colour that something needs."""
    async with dashboard(house.socket, theme=name) as driver:
        assert driver.app.theme == name
        assert "PROVIDER" in driver.text
        rows = driver.app.screen.query_one("#providers", Rows)
        here, other = ([segment.style for segment in rows.render_line(y) if segment.style] for y in (1, 2))
        grounds = [{(style.bgcolor, style.reverse) for style in styles} for styles in (here, other)]
        assert not grounds[0] & grounds[1]  # the cursor's row can be told from the others


@pytest.mark.parametrize("name", SCREENS)
async def test_every_screen_opens(house: Daemon, name: str) -> None:
    """Its number key shows it, alive, with its name in the header; 1 leads back."""
    async with dashboard(house.socket) as driver:
        await driver.press(SCREENS[name].key)
        await driver.until(lambda: SCREENS[name].title in driver.lines[0])
        assert "● live" in driver.lines[0]
        await driver.press("escape", "1")  # a prompt keeps its digits until Esc
        await driver.until(lambda: "Overview" in driver.lines[0])


async def test_jump(house: Daemon) -> None:
    """A letter on every row and block; pressing it puts the cursor there."""
    async with dashboard(house.socket) as driver:
        await driver.press("ctrl+o", "s")
        await driver.until(lambda: driver.app.screen.id == driver.app.get_screen_stack()[0].id)
        await driver.until(lambda: driver.app.screen.focused is not None)
        rows = driver.app.screen.query_one("#providers")
        assert rows.cursor == 1  # type: ignore[attr-defined]  # Rows


async def test_exports(house: Daemon, tmp_path: Path) -> None:
    """The table as CSV and JSON, the screen as SVG, in the folder the dashboard was started in."""
    async with dashboard(house.socket) as driver:
        driver.app.folder = tmp_path
        for key in ("c", "j", "s"):
            await driver.press("e", key)
            await driver.until(lambda: len(driver.app.screen_stack) == 1)
        await driver.until(lambda: len(list(tmp_path.iterdir())) == 3)
    csv, table, svg = (next(tmp_path.glob(f"*.{ending}")).read_text() for ending in ("csv", "json", "svg"))
    assert csv.startswith("provider,state,")
    assert "lab" in csv
    assert {one["provider"]["name"] for one in json.loads(table)} >= {"lab", "small"}
    assert svg.startswith("<svg")


async def test_filter_as_you_type(house: Daemon) -> None:
    """/ opens the line, each key narrows the table, Enter keeps it, Esc ends it."""
    async with dashboard(house.socket) as driver:
        await driver.press("slash", *"special")
        await driver.until(lambda: "github_models" not in driver.text)
        assert "specialists" in driver.text
        await driver.press("enter", "escape")
        await driver.until(lambda: "github_models" in driver.text)


async def test_a_recording_plays_again(house: Daemon, tmp_path: Path) -> None:
    """What was recorded shows the same without the daemon, says so, and changes nothing."""
    tape = tmp_path / "day.ndjson"
    async with dashboard(house.socket, record=tape) as driver:
        await driver.until(lambda: driver.app.house.requests and driver.app.house.machine)
        providers = dict(driver.app.house.providers)
        requests = {one.id for one in driver.app.house.requests}
    assert tape.stat().st_mode & 0o777 == 0o600
    app = Dashboard(Options(replay=tape, speed=0.0))
    async with driven(app) as driver:
        await driver.until(lambda: app.house.connection.state == "ended")
        assert set(app.house.providers) == set(providers)
        assert {one.id for one in app.house.requests} >= requests
        await driver.until(lambda: "END of the recording" in driver.text)
        assert "lab" in driver.text
        assert app.locked
        with pytest.raises(InvalidRequest, match="recording"):
            await app.query_daemon(None)  # type: ignore[arg-type]  # never looked at
    with pytest.raises(InvalidRequest, match="exists"):
        Recorder(tape)


async def test_a_replay_keeps_its_pace_and_a_bound(tmp_path: Path) -> None:
    """Batches come at the moments they were recorded at, sped up; a night's silence does not last a night."""
    tape = tmp_path / "t.ndjson"
    moments = [100.0, 100.01, 160.0, 90_000.0]
    tape.write_bytes(b"".join(encode(Event(n, at, "host", {})) for n, at in enumerate(moments)) + b'{"seq": 9')
    slept: list[float] = []
    batches: list[list[Event]] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    player = Player(tape, batches.append, speed=60.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncio, "sleep", sleep)
        await player.play()
    assert slept == [pytest.approx(1.0, abs=0.01), 5.0]
    assert [[event.kind for event in batch] for batch in batches] == [
        ["connection"], ["host", "host"], ["host"], ["host", "connection"],
    ]  # fmt: skip


def test_recordings_that_cannot_be_used(tmp_path: Path) -> None:
    """A file that is none, and a line that is no event, are named."""
    with pytest.raises(InvalidRequest, match="cannot be read"):
        list(read(tmp_path / "none"))
    bad = tmp_path / "bad"
    bad.write_bytes(encode(Event(1, 1.0, "host", {})) + b"nonsense\n")
    with pytest.raises(InvalidRequest, match="line 2"):
        list(read(bad))
    bad.write_bytes(b"")
    with pytest.raises(InvalidRequest, match="no events"):
        Player(bad, lambda batch: None)


async def test_the_first_run_offers_to_start_a_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody answers: the dashboard says so, Enter starts one in the background, and the screen comes alive."""
    house = Daemon()
    for name in ("HOME", "HYBRIDD_STATE_DIR", "HYBRIDD_SOCKET", "PYTHONPATH"):
        monkeypatch.setenv(name, house.env[name])
    monkeypatch.setenv("HYBRIDD_CONFIG", str(house.config_path))
    app = Dashboard(Options(socket=house.socket))
    pid = 0
    try:
        async with driven(app) as driver:
            await driver.until(lambda: "No daemon answers at" in driver.text)
            await driver.press("enter")
            await driver.until(lambda: app.house.connection.state == "live")
            pid = app.house.status.pid
            await driver.until(lambda: "No daemon answers" not in driver.text and "specialists" in driver.text)
    finally:
        if pid:
            ended = os.pidfd_open(pid)
            os.kill(pid, signal.SIGTERM)
            await asyncio.to_thread(os.waitid, os.P_PIDFD, ended, os.WEXITED)
            os.close(ended)
        house.__exit__(None, None, None)


async def test_unfocused_it_rests(house: Daemon) -> None:
    """A terminal that is not looked at gets a tick in ten seconds and at most one update a second."""
    async with dashboard(house.socket) as driver:
        app = driver.app
        assert app.feed is not None
        app.post_message(__import__("textual.events").events.AppBlur())
        await driver.until(lambda: app.feed is not None and app.feed.interval == 1.0)
        app.post_message(__import__("textual.events").events.AppFocus())
        await driver.until(lambda: app.feed is not None and app.feed.interval == 0.1)


def test_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A section that cannot be understood is a note, not a reason to stay dark; none is nothing."""
    config = tmp_path / "c.json"
    assert "does not exist" in read_section(config)[1]
    config.write_text("{")
    assert "cannot be read" in read_section(config)[1]
    config.write_text('{"tui": {"read_only": "yes"}}')
    assert read_section(config)[0] == Section()
    assert "'tui'" in read_section(config)[1]
    config.write_text('{"tui": {"read_only": true}}')
    assert read_section(config) == (Section(read_only=True), "")
    monkeypatch.setenv("HYBRIDD_CONFIG", str(tmp_path / "none.json"))
    assert read_section(None) == (Section(), "")


def test_the_page_lists_the_bindings() -> None:
    """docs/dashboard.md holds the table of keys as the bindings make it."""
    text = (ROOT / "docs" / "dashboard.md").read_text(encoding="utf-8")
    assert reference.page(text) == text
    for spec in SCREENS.values():
        assert f"**{spec.key} {spec.title}**" in text


def test_the_command_line(tmp_path: Path) -> None:
    """Without a terminal the command says what it needs and what to use instead; exit status 2."""
    done = subprocess.run(
        [sys.executable, "-m", "hybridd.cli.main", "tui"], capture_output=True, text=True, stdin=subprocess.DEVNULL,
        timeout=60, check=False, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 2
    assert "needs a terminal" in done.stderr


def test_without_textual_the_command_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A core installation says what to install, and exits with a failure."""
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    assert diagnostics.run(program, ["tui"]) == 1
    assert "hybridd[tui]" in capsys.readouterr().err


def test_a_light_start() -> None:
    """The first paint needs neither httpx nor pydantic nor the other screens."""
    heavy = ("httpx", "pydantic", "sqlite3", "tui.screens.limits", "tui.screens.requests")
    code = (
        "import sys, tui.app; from tui.screens import SCREENS; SCREENS['overview'].load(); "
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    plain = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}  # it brings sqlite3
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=plain, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"


def test_the_daemon_is_left_alone(house: Daemon) -> None:
    """After all that the daemon still answers."""
    assert house.http.get("/health").status_code == httpx.codes.OK
