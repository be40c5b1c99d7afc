"""The recording that the dashboard's pictures and its snapshot tests show: seventy seconds of a real daemon.

``python -m scripts.recording FILE`` has a daemon with a fake upstream answer scripted traffic and the dashboard record
what it is told (``hybridd tui --record``); the local engine runs two made models. The hour before stands in the
daemon's own tables. Only renew it when the event stream has changed: every picture and every snapshot changes with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sqlite3
import sys
import time
from pathlib import Path
from typing import Any

from tests.fakes.model_zoo import make_model
from tests.fakes.upstream import FakeUpstream, rule
from tests.house import House
from tui.app import Dashboard
from tui.settings import Options

SECONDS = 70.0
SEED = 4
SIZE = (160, 50)
"""Wide enough that the dashboard asks for the past of the quotas."""
HOME = "/home/you"
_TASKS = ("code_generation", "text_generation", "text_classification", "summarization", "question_answering")
LOADED = ("qwen3-tiny-Q8_0", "llama-tiny-f16")
"""Made models that the real engine runs; a third file stays on disk."""
_SHAPE: dict[str, Any] = {
    "layers": 10,
    "width": 512,
    "heads": 8,
    "kv_heads": 4,
    "head": 64,
    "feed_forward": 1536,
    "vocabulary": 16_384,
}
_CLIENTS = ("editor", "notebook", "ci")


def configuration(url: str) -> dict[str, Any]:
    def host(model: str, price: tuple[float, float], *quotas: dict[str, Any], **more: Any) -> dict[str, Any]:
        prices = {"input_per_million_usd": price[0], "output_per_million_usd": price[1]}
        models = {model: {"context": 131_072, "price": prices}}
        return {"plugin": "openai_compatible", "base_url": url, "models": models, "quotas": [*quotas], **more}

    return {
        "github_models": {"enabled": False},
        "hugging_face": {"enabled": False},
        "providers": {
            "groq": host(
                "gpt-oss-120b", (0, 0),
                {"unit": "requests", "window": "60s", "limit": 30, "buffer": 2},
                {"unit": "total_tokens", "window": "day", "limit": 200_000, "buffer": 5_000, "zone": "UTC"},
            ),
            "openrouter": host(
                "qwen3-coder", (0.6, 2.4),
                {"unit": "usd", "window": "month", "limit": 5, "buffer": 0.5, "zone": "UTC"},
                {"unit": "concurrent", "limit": 8},
            ),
            "office": host("phi4", (0, 0), {"unit": "concurrent", "limit": 5}),
            "mistral": host("mistral-small", (0.1, 0.3), {"unit": "requests", "window": "60s", "limit": 60}),
        },
        "tasks": {
            "code_generation": ["groq:gpt-oss-120b", "openrouter:qwen3-coder"],
            "text_generation": ["office:phi4", "groq:gpt-oss-120b"],
            "text_classification": ["mistral:mistral-small", "groq:gpt-oss-120b", "office:phi4"],
            "summarization": ["openrouter:qwen3-coder"],
            "question_answering": [f"local:{LOADED[0]}"],
        },
        "monitoring": {"check_interval_seconds": 5},
    }  # fmt: skip


def script(upstream: FakeUpstream) -> None:
    upstream.script([
        rule({"delay_s": 0.34, "usage": {"prompt_tokens": 412, "completion_tokens": 1188}}, model="gpt-oss-120b"),
        rule({"delay_s": 0.9, "usage": {"prompt_tokens": 2041, "completion_tokens": 950}}, model="qwen3-coder"),
        rule({"delay_s": 0.6, "usage": {"prompt_tokens": 188, "completion_tokens": 96}}, model="phi4"),
        rule({"status": 401, "body": {"error": {"message": "Invalid API key"}}}, model="mistral-small"),
    ])  # fmt: skip


def write_the_past(house: House, now: float) -> None:
    """The hour before as the daemon's monitor writes it, a sample a minute: one quota was in use, nothing was spent."""
    (path,) = house.state.glob("*.db")
    rows: list[tuple[str, float, float]] = []
    chance = random.Random(SEED)
    for minute in range(60):
        at = now - 60 * (60 - minute)
        rows.append(("quota.groq/requests/60s.remaining", at, float(chance.randint(4, 28))))
        rows.append(("quota.groq/total_tokens/day.remaining", at, 195_000.0))
        rows.append(("quota.openrouter/usd/month.remaining", at, 4.5))
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.executemany("INSERT INTO samples (name, at, value) VALUES (?, ?, ?)", rows)


def write_models(folder: Path) -> None:
    """Files of real architectures with random weights."""
    folder.mkdir()
    for name, kind, weights in (
        (LOADED[0], "qwen3", "q8_0"),
        (LOADED[1], "llama", "f16"),
        ("gemma3-tiny-Q4_0", "gemma3", "q4_0"),
    ):
        scale = _SHAPE | {"context": 8192}
        make_model(folder / f"{name}.gguf", kind, weights=weights, never_ends=True, name=name, **scale)


async def traffic(house: House, seconds: float) -> None:
    """Calls of three programs, now denser and now rarer, the same ones at every run."""
    chance = random.Random(SEED)
    ends = time.monotonic() + seconds
    async with house.async_http() as http, asyncio.TaskGroup() as calls:
        while time.monotonic() < ends:
            task = chance.choice(_TASKS)
            body = {
                "model": f"task:{task}",
                "messages": [{"role": "user", "content": f"Why is the sky blue? ({chance.random()})"}],
                "max_tokens": 40 if task == "question_answering" else 1500,
            }
            headers = {"x-hybridd-client": chance.choice(_CLIENTS)}
            calls.create_task(http.post("/v1/chat/completions", json=body, headers=headers))
            left = (ends - time.monotonic()) / seconds
            await asyncio.sleep(chance.expovariate(0.4 + 1.6 * abs(left - 0.5)))


async def record(house: House, path: Path, seconds: float) -> None:
    app = Dashboard(Options(socket=house.socket, config=house.config_path, record=path))
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("4")  # the local library is only told to who looks at it
        await pilot.pause(2.0)
        await pilot.press("1")
        await traffic(house, seconds)
        await pilot.pause(2.0)  # the last figures of the month are on their way
        await pilot.press("8")  # what the daemon has logged before belongs into it, too
        await pilot.pause(1.0)


def main() -> None:
    target = Path(sys.argv[1])
    with FakeUpstream() as upstream, House(configuration(upstream.base_url), env={"TZ": "UTC"}) as house:
        script(upstream)
        house.stop()
        folder = house.home / "models"
        write_models(folder)
        house.write_config(configuration(upstream.base_url) | {"local": {"models_dir": str(folder)}})
        write_the_past(house, time.time())
        house.start()
        for name in LOADED:
            house.http.post("/v1/local/load", json={"model": name}, timeout=60).raise_for_status()
        tape = house.home / "tape"
        asyncio.run(record(house, tape, float(os.environ.get("HYBRIDD_RECORDING_SECONDS", SECONDS))))
        text = tape.read_text(encoding="utf-8")
        words = {str(house.home): HOME, upstream.base_url: "http://127.0.0.1:8000/v1"}
    for found, better in words.items():
        text = text.replace(found, better)
    target.write_text(text, encoding="utf-8")
    sys.stderr.write(f"{target}: {text.count(chr(10))} events, {len(text) / 1024:.0f} KiB\n")


if __name__ == "__main__":
    main()
