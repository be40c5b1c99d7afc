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
from tests.tui.support import said as notices
from tui import commands, keymap, reference, theme
from tui.app import Dashboard, binding_places
from tui.events import Event, encode
from tui.keys import declared, entries
from tui.replay import Player, Recorder, read
from tui.screens import SCREENS
from tui.settings import Options, Section, read_section, with_section
from tui.start import StartScreen
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
    keys = {"app.help": "f1", "app.screen.limits": "l", "app.hepl": "x", "app.past.now": "N"}
    config.write_text(json.dumps({"tui": {"keymap": keys, "theme": "hybridd-safe"}}))
    async with dashboard(house.socket, config=config) as driver:
        assert driver.app.theme == "hybridd-safe"
        assert "F1 help" in driver.lines[-1]
        assert "l Limit" in driver.lines[-1]
        await driver.press("question_mark")
        assert "On this screen" not in driver.text
        await driver.press("f1")
        assert "On this screen" in driver.text
        assert not any("app.hepl" in note.message for note in driver.app._notifications)  # it lay over the help
        await driver.press("escape", "left_square_bracket")
        await driver.until(lambda: "N returns to now" in driver.text)  # hints in sentences follow, too


async def test_what_the_configuration_gets_wrong_is_said(house: Daemon, tmp_path: Path) -> None:
    """One note names each wrong id, key and theme, with what was meant; the rest of the section is used."""
    config = tmp_path / "c.json"
    keys = {"app.hepl": "x", "app.help": "ctrll+q", "app.quit": 7, "app.theme": "f4"}
    config.write_text(json.dumps({"tui": {"keymap": keys, "theme": "hybridd-sade", "read_only": True}}))
    async with dashboard(house.socket, config=config) as driver:
        (note,) = driver.app._notifications
        for part in ("'app.hepl'; the nearest is 'app.help'", "no key 'ctrll+q'; the nearest is 'ctrl+q'",
                     "tui.keymap.app.quit must be a text", "no theme 'hybridd-sade'"):  # fmt: skip
            assert part in note.message, part
        assert driver.app.read_only
        await driver.press("f4")
        await driver.until(lambda: driver.app.theme != theme.DEFAULT)
        await driver.press("escape")
        assert not driver.app._notifications


PLACES = {
    "app.help": keymap.Place("Dashboard", "question_mark"),
    "app.quit": keymap.Place("Dashboard", "q"),
    "app.theme": keymap.Place("Dashboard", "T"),
    "table.sort": keymap.Place("Rows", "s"),
}


@pytest.mark.parametrize(
    ("given", "used", "said"),
    [
        ({"app.hepl": "x"}, {}, "the nearest is 'app.help'"),
        ({"app.quit": " , "}, {}, "names no key"),
        ({"app.quit": "ctrll+x"}, {}, "there is no key 'ctrll+x'"),
        ({"app.quit": "hyperspace"}, {}, "there is no key 'hyperspace'"),
        ({"app.quit": ["f1"]}, {}, "must be a text"),
        ({"app.quit": "?"}, {}, "'question_mark' is the key of 'app.help'"),
        ({"app.quit": "T,x"}, {}, "'T' is the key of 'app.theme'"),
        ({"app.quit": "?", "app.help": "q"}, {"app.quit": "?", "app.help": "q"}, ""),
        ({"app.quit": "s"}, {"app.quit": "s"}, ""),
        ({"app.theme": "f2, ctrl+shift+left, slash, ç"}, {"app.theme": "f2,ctrl+shift+left,slash,ç"}, ""),
    ],
)
def test_keymap_mistakes(given: dict[str, object], used: dict[str, str], said: str) -> None:
    """What is no binding, no key, no text or another's key at the same place is not used and is named."""
    kept, wrong = keymap.check(given, PLACES)
    assert kept == used
    assert (said in "".join(wrong)) if said else not wrong


def test_every_screen_has_its_key_and_its_id() -> None:
    """A keymap can name every screen, and no id means two things."""
    ids = [binding.id for _, binding in declared(reference.sources())]
    assert len(ids) == len(set(ids))
    assert {f"app.screen.{name}" for name in SCREENS} <= set(binding_places())


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


@pytest.mark.parametrize("name", theme.NAMES)
async def test_what_is_selected_can_be_read_and_copied(house: Daemon, name: str) -> None:
    """Dragging the mouse over a row marks it, its text stays readable, Ctrl+C copies it; with nothing selected
    Ctrl+C says which key quits."""
    async with dashboard(house.socket, theme=name) as driver:
        rows = driver.app.screen.query_one("#providers", Rows)
        await driver.pilot.mouse_down(rows, offset=(0, 1))
        await driver.pilot.hover(rows, offset=(11, 1))
        await driver.pilot.mouse_up(rows, offset=(11, 1))
        await driver.until(lambda: driver.app.screen.get_selected_text())
        marked = next(segment for segment in rows.render_line(1) if segment.text.strip())
        assert marked.style is not None
        assert marked.style.bgcolor not in {marked.style.color, rows.rich_style.bgcolor}
        await driver.press("ctrl+c")
        assert driver.app.clipboard.strip() == rows.shown[0].provider.name
        driver.app.screen.clear_selection()
        await driver.press("ctrl+c")
        assert "q quits." in notices(driver)


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


async def test_a_recording_is_shown_at_its_own_time(house: Daemon, tmp_path: Path) -> None:
    """A week later it is still the day it was: clock, ages and the rates' minutes are those of its events."""
    tape = tmp_path / "day.ndjson"
    async with dashboard(house.socket, record=tape) as driver:
        await driver.until(lambda: driver.app.house.machine)
    last = max(event.at for event in read(tape))
    app = Dashboard(Options(replay=tape, speed=0.0), wall=lambda: last + 7 * 86400)
    async with driven(app) as driver:
        await driver.until(lambda: app.house.connection.state == "ended")
        assert app.house.now == last


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
    for content, said in (
        (b"", "no events"),
        (b'{"seq": 1', "no events"),
        (b"[1, 2]\n", "line 1 is not an event"),
        (encode(Event(1, 1.0, "order_placed", {})), "begins with an event 'order_placed'"),
        (encode(Event(1, 1e300, "host", {})), "line 1 is of no time"),
    ):
        bad.write_bytes(content)
        with pytest.raises(InvalidRequest, match=said):
            Player(bad, lambda batch: None)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (b"nonsense\n", "line 4 is not an event"),
        (b'{"seq": 9', "its last line was cut off"),
        (encode(Event(9, 9.0, "of_tomorrow", {})), "1 event was not understood"),
        (b'{"seq": 1, "at": 2.0, "kind": "connection", "data": null}\n', "1 event was not understood"),
        (b'{"seq": 1, "at": 2.0, "kind": "connection", "data": {"state": "odd"}}\n', "1 event was not understood"),
    ],
)
async def test_a_recording_that_breaks_off_shows_what_it_had(tmp_path: Path, more: bytes, said: str) -> None:
    """Everything before the bad place is shown, and the banner says why it ends there."""
    bad = tmp_path / "bad.ndjson"
    lines = (Path(__file__).parent / "day.ndjson").read_bytes().splitlines(keepends=True)
    snapshot = next(number for number, line in enumerate(lines) if b'"kind":"snapshot"' in line)
    bad.write_bytes(lines[0] + lines[0] + lines[snapshot] + more)
    app = Dashboard(Options(replay=bad, speed=0.0))
    async with driven(app) as driver:
        await driver.until(lambda: "END of the recording" in driver.text)
        assert said in app.house.connection.reason or said in driver.text
        assert "openrouter" in driver.text


def test_a_full_disk_ends_the_recording_and_nothing_else(tmp_path: Path) -> None:
    """It is said once; later events are dropped, closing again is harmless."""
    said: list[str] = []
    recorder = Recorder(tmp_path / "tape", said.append)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recorder, "_file", os.open("/dev/full", os.O_WRONLY))
        recorder(Event(1, 1.0, "host", {}))
    recorder(Event(2, 2.0, "host", {}))
    recorder.close()
    assert len(said) == 1
    assert "No space left" in said[0]


def test_what_does_not_go_together_is_refused(tmp_path: Path) -> None:
    """A theme that there is not is named with those that there are; a recording is not recorded."""
    with pytest.raises(InvalidRequest, match=r"no theme 'hybridd-sade'.*hybridd-safe"):
        with_section(Options(theme="hybridd-sade"))
    with pytest.raises(InvalidRequest, match="does not go with --replay"):
        with_section(Options(record=tmp_path / "a", replay=tmp_path / "b"))


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
            await driver.until(lambda: isinstance(app.screen, StartScreen) and "Welcome" in driver.text)
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


async def test_the_offer_is_made_whichever_attempt_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine the first failed attempt may be told of together with the next ones; who waits once, is not
    asked again."""
    changed = Dashboard._connection_changed

    def late(app: Dashboard) -> None:
        app.house.connection.attempt += 2
        changed(app)

    monkeypatch.setattr(Dashboard, "_connection_changed", late)
    app = Dashboard(Options(socket=tmp_path / "nobody"))
    async with driven(app) as driver:
        await driver.until(lambda: isinstance(app.screen, StartScreen))
        await driver.press("escape")
        await driver.until(lambda: not isinstance(app.screen, StartScreen))
        app._connection_changed()
        assert not isinstance(app.screen, StartScreen)


async def test_what_is_said_is_never_markup(house: Daemon) -> None:
    """Brackets of paths and hosts are shown, control characters are not; --ascii holds here, too."""
    async with dashboard(house.socket, ascii_only=True) as driver:
        driver.app.screen.notify("[/b] [red]está\x1b[2J")
        await driver.until(lambda: "[red]" in notices(driver))
        note = list(driver.app._notifications)[-1]  # the first is of the configuration
        assert (note.message, note.markup) == ("[/b] [red]esta [2J", False)


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
