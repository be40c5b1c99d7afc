"""Models: on a real daemon with real llama.cpp, tiny files and a hub on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.support import until
from tests.fakes.hub import FakeHub
from tests.fakes.tiny_gguf import make_tiny_gguf
from tests.house import House as Daemon
from tests.tui.support import Driver, dashboard, driven, said
from tui.app import Dashboard
from tui.confirm import Confirm
from tui.screens.model_pull import PullScreen
from tui.screens.models import Models
from tui.settings import Options

pytest.importorskip("llama_cpp")

REPO = "acme/tiny-GGUF"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeHub]:
    body = make_tiny_gguf(tmp_path_factory.mktemp("hub") / "tiny.gguf", never_ends=True).read_bytes()
    with FakeHub() as fake:
        fake.add(REPO, {"pulled-Q4_K_M.gguf": body, "pulled-Q8_0.gguf": body + bytes(4096)})
        fake.add("acme/held-GGUF", {"held-Q4_K_M.gguf": body})
        yield fake


@pytest.fixture(scope="module")
def local(hub: FakeHub) -> Iterator[Daemon]:
    """``alone`` and ``long`` can be loaded, ``broken`` cannot."""
    env = {"HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_TELEMETRY": "1"}
    with Daemon({"hugging_face": {"cache_dir": "cache"}}, env=env) as running:
        folder = running.home / "models"
        folder.mkdir()
        make_tiny_gguf(folder / "alone.gguf", never_ends=True)
        make_tiny_gguf(folder / "long.gguf", seed=3, context=8192, never_ends=True)
        (folder / "broken.gguf").write_bytes((folder / "alone.gguf").read_bytes()[:20_000])
        running.write_config({"hugging_face": {"cache_dir": "cache"}, "local": {"models_dir": str(folder)}})
        assert running.http.post("/v1/reload", json={}).status_code == 200
        yield running


@pytest.fixture(autouse=True)
def fresh(local: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is loaded; what the dashboard starts sees the daemon's world."""
    for name in ("HF_ENDPOINT", "HOME", "HYBRIDD_STATE_DIR"):
        monkeypatch.setenv(name, local.env[name])
    for one in local.http.get("/v1/local/resident").json()["models"]:
        local.http.post("/v1/local/unload", json={"model": one["model"]})


async def models(driver: Driver) -> Models:
    """The screen, once the library is there."""
    await driver.press("4")
    await driver.until(lambda: driver.app.house.library is not None and "on disk" in driver.text)
    screen = driver.app.screen
    assert isinstance(screen, Models)
    return screen


async def on(driver: Driver, screen: Models, name: str) -> None:
    assert screen.rows.select(name)
    await driver.until(lambda: name in screen.details)


async def typed(driver: Driver, text: str) -> None:
    await driver.press("ctrl+u", *text, "enter")


def names(text: str) -> set[str]:
    """Models that the table shows."""
    return {word for line in text.split("\n") for word in line.split()[:2] if word in {"alone", "long", "broken"}}


@pytest.mark.parametrize("size", [(60, 20), (80, 24), (160, 50)])
async def test_every_model_is_shown_with_its_state(local: Daemon, size: tuple[int, int]) -> None:
    """What is there, what cannot be loaded and why, the memory there is: at the least, usual and a large size."""
    async with dashboard(local.socket, size) as driver:
        screen = await models(driver)
        assert names(driver.text) == {"alone", "long", "broken"}
        assert "! failed" in driver.text
        assert "RAM" in driver.lines[2]
        await on(driver, screen, "broken")
        await driver.until(lambda: "77,824" in driver.text)
        await on(driver, screen, "long")
        await driver.until(lambda: "8,192 tokens" in driver.text)
        assert max(map(len, driver.lines)) <= size[0]


async def test_load_answer_unload(local: Daemon) -> None:
    """A loaded model stands first with its memory and budget, its last answer's speed and its leaving; `u` ends it."""
    async with dashboard(local.socket, (120, 40)) as driver:
        screen = await models(driver)
        await on(driver, screen, "long")
        await driver.press("l")
        await driver.until(lambda: screen.rows.items[0].id == "long" and screen.rows.items[0].state == "ready")
        assert screen.rows.selected is not None
        assert screen.rows.selected.id == "long"
        await driver.until(lambda: "measured" in driver.text and "budget" in driver.lines[2])
        assert local.chat("local:long", max_tokens=8).status_code == 200
        await driver.until(lambda: screen.rows.items[0].speed)
        await driver.until(lambda: "leaves in" in driver.text)
        await driver.press("l")
        await driver.until(lambda: any("loaded already" in note.message for note in driver.app._notifications))
        await driver.press("u")
        await driver.until(lambda: not driver.app.house.local and "0 loaded" in driver.text)


async def test_the_cursor_is_seen_where_its_model_goes(local: Daemon) -> None:
    """A loaded model moves to the top of a table that is scrolled; its plan for other wishes stands first."""
    folder = local.home / "models"
    extra = [folder / f"more-{number}.gguf" for number in range(3)]
    for path in extra:
        path.write_bytes((folder / "long.gguf").read_bytes())
    try:
        until(lambda: len(local.http.get("/v1/local/models").json()["models"]) >= 6, what="a look into the folder")
        async with dashboard(local.socket, (60, 20)) as driver:
            screen = await models(driver)
            await driver.until(lambda: len(screen.rows.items) >= 6)
            await driver.press("end", "l")
            await driver.until(lambda: screen.rows.items[0].state == "ready" and "measured" in driver.text)
            await driver.until(lambda: any(line.startswith("● more-2") for line in driver.lines))
            await driver.press("w")
            await typed(driver, "2k x2")
            await driver.until(lambda: "for 2,048 tokens" in driver.text)
    finally:
        for path in extra:
            path.unlink()


async def test_a_model_that_cannot_be_loaded_says_why(local: Daemon) -> None:
    """The daemon's own sentence."""
    async with dashboard(local.socket) as driver:
        screen = await models(driver)
        await on(driver, screen, "broken")
        await driver.press("l")
        await driver.until(
            lambda: any("cut short" in note.message and note.severity == "error" for note in driver.app._notifications)
        )


async def test_unloading_a_busy_model_asks_first(local: Daemon) -> None:
    """It answers somebody: only a yes lets it go, after its call."""
    async with dashboard(local.socket, (100, 30)) as driver:
        screen = await models(driver)
        await on(driver, screen, "long")
        local.http.post("/v1/local/load", json={"model": "long"})
        await driver.until(lambda: "1 loaded" in driver.text)
        body = {"model": "local:long", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 8000}
        with local.http.stream("POST", "/v1/chat/completions", json={**body, "stream": True}) as answer:
            lines = answer.iter_lines()  # held: without it the answer would be closed
            next(lines)
            await driver.press("u")
            await driver.until(lambda: isinstance(driver.app.screen, Confirm))
            assert "answers 1 call now" in driver.text
            await driver.press("escape")
            await driver.until(lambda: driver.app.screen is screen)
        assert "long" in driver.app.house.local


async def test_what_if(local: Daemon) -> None:
    """A plan with other wishes is shown as such, and loads nothing; a wish without a meaning keeps the dialogue."""
    async with dashboard(local.socket, (100, 30)) as driver:
        screen = await models(driver)
        await on(driver, screen, "long")
        await driver.press("w")
        await typed(driver, "much")
        await driver.until(lambda: "neither tokens" in driver.text)
        await typed(driver, "2k x2 throughput")
        await driver.until(lambda: "for 2,048 tokens, 2 at once, throughput" in driver.text)
        assert "2,048 tokens for each of 2 requests at once" in driver.text
        assert not driver.app.house.local
        await on(driver, screen, "alone")
        await driver.press("w")
        await typed(driver, "4k x2")
        await driver.until(lambda: "for 4,096 tokens, 2 at once" in driver.text)


async def test_a_pull_is_planned_before_it_is_downloaded(local: Daemon, hub: FakeHub) -> None:
    """Every file of the repository with what it would take here; Enter brings the marked one, which is listed then."""
    async with dashboard(local.socket, (100, 30)) as driver:
        screen = await models(driver)
        await driver.press("p")
        await typed(driver, f"{REPO}:Q4_K_M")
        await driver.until(lambda: "in memory" in driver.text)
        assert "pulled-Q8_0.gguf" in driver.text
        assert not [one for one in hub.requests("cdn") if "range" not in one.headers]  # headers only
        pull = driver.app.screen
        assert isinstance(pull, PullScreen)
        assert pull.rows.selected is not None
        assert pull.rows.selected.quantization == "Q4_K_M"
        await driver.press("enter")
        await driver.until(lambda: screen.rows.select("pulled-Q4_K_M"))
        await driver.until(lambda: any(" is here, " in note.message for note in driver.app._notifications))
        assert "is here, " in driver.text


async def test_a_repository_that_is_not_there_is_a_sentence(local: Daemon) -> None:
    """Of the Hub, on the screen that was to show its files."""
    async with dashboard(local.socket, (100, 30)) as driver:
        await models(driver)
        await driver.press("p")
        await typed(driver, "nobody/nothing")
        await driver.until(lambda: "nobody/nothing" in driver.text and "WHY" in driver.text)
        assert "Traceback" not in driver.text


async def test_a_download_shows_its_progress_and_can_be_ended(local: Daemon, hub: FakeHub) -> None:
    """By events alone; ending it asks first."""
    async with dashboard(local.socket, (100, 30)) as driver:
        screen = await models(driver)
        hub.faults.hold_after = 200_000
        try:
            local.http.post("/v1/local/pull", json={"repo": "acme/held-GGUF", "file": "Q4_K_M"})
            await driver.until(lambda: "JOBS  1 running" in driver.text and " % " in driver.text)
            await driver.press("x")
            await driver.until(lambda: isinstance(driver.app.screen, Confirm))
            assert "End the download of acme/held-GGUF:Q4_K_M?" in driver.text
            await driver.press("enter")
            await driver.until(lambda: "ended by request" in driver.text)
        finally:
            hub.faults.release.set()
            hub.faults.hold_after = None
        assert driver.app.screen is screen


async def test_a_measurement_says_what_leaves_and_what_came_of_it(local: Daemon) -> None:
    """The question names the loaded models; the result stands among the jobs."""
    local.http.post("/v1/local/load", json={"model": "alone"})
    async with dashboard(local.socket, (160, 40)) as driver:
        screen = await models(driver)
        await on(driver, screen, "long")
        await driver.press("b")
        await driver.until(lambda: "unloaded: alone." in driver.text)
        await typed(driver, "1s")
        await driver.until(lambda: "fastest: flash attention" in driver.text)
        assert not driver.app.house.local


async def test_an_answer_tells_its_speed_before_it_ends(local: Daemon) -> None:
    """Tokens per second of a model stand in its row and above while it is still answering."""
    async with dashboard(local.socket, (100, 30)) as driver:
        screen = await models(driver)
        local.http.post("/v1/local/load", json={"model": "long"})
        body = {"model": "local:long", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 8000, "n": 4}
        with local.http.stream("POST", "/v1/chat/completions", json={**body, "stream": True}) as answer:
            lines = answer.iter_lines()
            next(lines)
            await driver.until(
                lambda: screen.rows.items[0].resident and screen.rows.items[0].resident.tokens_per_second
            )
            await driver.until(lambda: "busy 1 call" in driver.text)
            assert screen.rows.items[0].speed
            assert not [one for one in driver.app.house.requests if one.model == "long" and one.output_tokens == 32_000]


async def test_a_model_is_removed_after_a_question(local: Daemon) -> None:
    """The question names what the disk gets back; a no keeps the file, a yes takes it away, a loaded one is refused."""
    path = local.home / "models" / "doomed.gguf"
    path.write_bytes((local.home / "models" / "alone.gguf").read_bytes() + bytes(64))
    assert local.http.get("/v1/local/models/doomed").status_code == 200  # whoever asks by name has it looked for
    async with dashboard(local.socket, (100, 30)) as driver:
        screen = await models(driver)
        await driver.until(lambda: any(row.id == "doomed" for row in screen.rows.items))
        await on(driver, screen, "doomed")
        await driver.press("l")
        await driver.until(lambda: any(row.id == "doomed" and row.loaded for row in screen.rows.items))
        await driver.press("D")
        await driver.until(lambda: any("u unloads it first" in note.message for note in driver.app._notifications))
        await driver.press("u")
        await driver.until(lambda: not driver.app.house.local)
        await driver.press("D")
        await driver.until(lambda: isinstance(driver.app.screen, Confirm))
        assert "Remove doomed from the disk? 465 KiB are freed." in driver.text
        await driver.press("escape")
        await driver.until(lambda: driver.app.screen is screen)
        assert path.exists()
        await driver.press("D")
        await driver.until(lambda: isinstance(driver.app.screen, Confirm))
        await driver.press("enter")
        await driver.until(lambda: not path.exists())
        await driver.until(lambda: not any(row.id == "doomed" for row in screen.rows.items))


async def test_enter_leads_to_its_calls(local: Daemon) -> None:
    """To the Requests screen, filtered by the model."""
    async with dashboard(local.socket) as driver:
        screen = await models(driver)
        await on(driver, screen, "long")
        await driver.press("enter")
        await driver.until(lambda: getattr(driver.app.screen, "NAME", "") == "requests")
        await driver.until(lambda: "model=local:long" in driver.text)


async def test_read_only_plans_but_changes_nothing(local: Daemon) -> None:
    """No key loads, unloads, measures or pulls; a plan is no change."""
    async with dashboard(local.socket, (100, 30), read_only=True) as driver:
        screen = await models(driver)
        await on(driver, screen, "long")
        for key in ("l", "u", "b", "x", "D", "delete"):
            driver.app.clear_notifications()
            await driver.press(key)
            assert said(driver) == "Nothing can be changed here: read-only.", key
        assert not isinstance(driver.app.screen, Confirm)
        driver.app.clear_notifications()
        await driver.press("p")
        await typed(driver, REPO)
        await driver.until(lambda: "in memory" in driver.text)
        await driver.press("p", "enter")
        await driver.until(lambda: any("read-only" in note.message for note in driver.app._notifications))
        assert not driver.app.house.local
        assert isinstance(driver.app.screen, PullScreen)


async def test_without_models_it_says_what_to_do_next(tmp_path: Path) -> None:
    """Pull one, or where to put a file."""
    folder = tmp_path / "gguf"
    folder.mkdir()
    config = {"local": {"models_dir": str(folder)}, "hugging_face": {"cache_dir": str(tmp_path / "cache")}}
    with Daemon(config) as empty:
        async with dashboard(empty.socket, (160, 24)) as driver:
            await driver.press("4")
            await driver.until(lambda: "p pulls one from the Hub" in driver.text)
            assert str(folder) in driver.text


async def test_a_recording_shows_the_models_it_holds(local: Daemon, tmp_path: Path) -> None:
    """The answers are part of it; nothing is asked and nothing can be done."""
    path = tmp_path / "day.ndjson"
    async with dashboard(local.socket, record=path) as driver:
        await models(driver)
    app = Dashboard(Options(replay=path, speed=0.0))
    async with driven(app) as driver:
        await driver.until(lambda: app.house.connection.state == "ended")
        await driver.press("4")
        await driver.until(lambda: names(driver.text) == {"alone", "long", "broken"})
        await driver.press("l", "p")
        assert isinstance(app.screen, Models)
