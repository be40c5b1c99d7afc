"""The terminal pictures of the README, taken from real runs: a fake upstream, a daemon of its own, real commands.

``scripts/screenshots [FOLDER]`` writes limits.svg, call.svg and the dashboard's there (docs/images by default). The
dashboard plays the recording that the snapshot tests show, too; ``scripts/recording.py`` says how that was made.
"""

from __future__ import annotations

import asyncio
import io
import os
import pty
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from tests.fakes.upstream import FakeUpstream, rule
from tests.house import House
from tests.tui.snapshots import played, show, surroundings

CHEAP_CALLS = 28
PAID_CALLS = 3
ANSWER = "def reverse(items: list[int]) -> list[int]:\n    return items[::-1]"
# The eight colours of a terminal and their bright forms.
_PLAIN = "484f58 ff7b72 3fb950 d29922 58a6ff bc8cff 39c5cf b1bac4"
_BRIGHT = "6e7681 ffa198 56d364 e3b341 79c0ff d2a8ff 56d4dd ffffff"


def _colours(hexadecimal: str) -> list[tuple[int, int, int]]:
    return [(one[0], one[1], one[2]) for one in map(bytes.fromhex, hexadecimal.split())]


THEME = TerminalTheme((22, 27, 34), (230, 237, 243), _colours(_PLAIN), _colours(_BRIGHT))
# rich's own format fetches its font from another host, where a picture in a repository must stand alone, and cuts the
# last line's descenders off.
FORMAT = """\
<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{
  font-family: ui-monospace, "DejaVu Sans Mono", "Liberation Mono", Menlo, Consolas, monospace;
  font-size: {char_height}px; line-height: {line_height}px; font-variant-east-asian: full-width;
}}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: sans-serif; }}
{styles}
</style>
<defs>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})">
{backgrounds}
<g class="{unique_id}-matrix" xml:space="preserve">
{matrix}
</g>
</g>
</svg>
"""


def configuration(url: str) -> dict[str, Any]:
    def host(price: tuple[float, float], quotas: list[dict[str, Any]], **models: int) -> dict[str, Any]:
        prices = {"input_per_million_usd": price[0], "output_per_million_usd": price[1]}
        return {
            "plugin": "openai_compatible",
            "base_url": url,
            "models": {
                name.replace("_", "-"): {"context": context, "price": prices} for name, context in models.items()
            },
            "quotas": quotas,
        }

    return {
        "github_models": {"enabled": False},
        "hugging_face": {"enabled": False},
        "providers": {
            "groq": host(
                (0, 0),
                [
                    {"unit": "requests", "window": "60s", "limit": 30, "buffer": 2},
                    {"unit": "requests", "window": "86400s", "limit": 1000, "buffer": 50},
                    {"unit": "total_tokens", "window": "60s", "limit": 40_000},
                ],
                gpt_oss_120b=131_072,
            ),
            "openrouter": host(
                (60, 240),
                [
                    {"unit": "usd", "window": "month", "limit": 5, "buffer": 0.5, "zone": "UTC"},
                    {"unit": "concurrent", "limit": 8},
                ],
                qwen3_coder=262_144,
            ),
            "office": host((0, 0), [{"unit": "concurrent", "limit": 5}], phi4=16_384),
        },
        "tasks": {
            "code_generation": ["groq:gpt-oss-120b", "openrouter:qwen3-coder", "office:phi4"],
            "text_generation": ["office:phi4", "groq:gpt-oss-120b"],
        },
    }


def drain(house: House, upstream: FakeUpstream) -> None:
    """Traffic as on a busy morning: the first host's minute is used up, the paid one has cost something."""
    upstream.script(
        [
            rule({"usage": {"prompt_tokens": 900, "completion_tokens": 310}}, model="gpt-oss-120b"),
            rule({"usage": {"prompt_tokens": 41, "completion_tokens": 1950}}, model="qwen3-coder"),
        ]
    )
    for _ in range(CHEAP_CALLS):
        ask(house, "groq:gpt-oss-120b", "Why is the sky blue?", 400)
    for _ in range(PAID_CALLS):
        ask(house, "openrouter:qwen3-coder", "Rewrite the parser.", 2000)
    upstream.script(
        [
            rule({"delay_s": 60}, model="phi4"),
            rule({"content": ANSWER}, model="qwen3-coder"),
        ]
    )


def ask(house: House, model: str, prompt: str, max_tokens: int) -> None:
    answer = house.chat(model, prompt, max_tokens=max_tokens)
    if answer.status_code != 200:
        raise SystemExit(f"{model} answered {answer.status_code}: {answer.text}")


def terminal(house: House, arguments: list[str], columns: int) -> str:
    """What a command shows on a terminal of that width."""
    ours, theirs = pty.openpty()
    program = [sys.executable, "-m", "hybridd.cli.main", *arguments]
    environment = {**house.env, "COLUMNS": str(columns), "TERM": "xterm-256color", "LANG": "C.UTF-8", "TZ": "UTC"}
    with subprocess.Popen(
        program, env=environment, cwd=house.home, stdin=theirs, stdout=theirs, stderr=theirs
    ) as running:
        os.close(theirs)
        shown = b""
        while True:
            try:
                shown += os.read(ours, 65536)
            except OSError:  # how a terminal says that the last writer has gone
                break
        if running.wait() != 0:
            raise SystemExit(f"{' '.join(program)} failed:\n{shown.decode()}")
    os.close(ours)
    return shown.decode().replace("\r\n", "\n")


def folded(shown: str, columns: int) -> Text:
    """As a terminal breaks it: after the last column, wherever that is."""
    whole = Text.from_ansi(shown.rstrip("\n"))
    lines = [line.divide(range(columns, len(line), columns)) for line in whole.split("\n")]
    return Text("\n").join(piece for pieces in lines for piece in pieces)


def picture(path: Path, title: str, columns: int, screens: list[tuple[str, str]]) -> None:
    """Writes the SVG of a terminal in which these commands were typed."""
    console = Console(record=True, width=columns, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    for number, (typed, shown) in enumerate(screens):
        if number:
            console.print()
        console.print(Text.assemble(("$ ", "bold green"), (typed, "bold")))
        console.print(folded(shown, columns), highlight=False, soft_wrap=True)
    console.print()  # room for the last line's descenders
    _write(path, title, console)


def _write(path: Path, title: str, console: Console) -> None:
    drawing = console.export_svg(title=title, theme=THEME, code_format=FORMAT, unique_id=path.stem)
    path.write_text("".join(f"{line.rstrip()}\n" for line in drawing.splitlines()), encoding="utf-8")
    sys.stderr.write(f"{path}\n")


DASHBOARD = (100, 30)
SCREENS = {"overview": "dashboard", "requests": "dashboard-requests", "models": "dashboard-models"}
"""Screens that are drawn, and the pictures' names."""


async def dashboard(folder: Path) -> None:
    """The last moment of the recording, on each of :data:`SCREENS`."""
    columns, rows = DASHBOARD
    async with played(DASHBOARD) as driver:
        for screen, name in SCREENS.items():
            await show(driver, screen)
            console = Console(
                record=True, width=columns, height=rows, file=io.StringIO(), force_terminal=True,
                color_system="truecolor", legacy_windows=False,
            )  # fmt: skip
            console.print(driver.app.screen._compositor.render_update(full=True, simplify=True))
            _write(folder / f"{name}.svg", "hybridd tui", console)


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/images")
    folder.mkdir(parents=True, exist_ok=True)
    with (
        FakeUpstream() as upstream,
        House(configuration(upstream.base_url)) as house,
        ThreadPoolExecutor(2) as open_calls,
    ):
        drain(house, upstream)
        for _ in range(2):
            open_calls.submit(house.chat, "office:phi4", "Summarise this meeting.", max_tokens=500)
        upstream.wait(arrivals=CHEAP_CALLS + PAID_CALLS + 2)
        picture(folder / "limits.svg", "hybridd limits", 80, [("hybridd limits", terminal(house, ["limits"], 80))])
        prompt = "A function that reverses a list"
        asked = ["call", "--task", "code_generation", "--prompt", prompt]
        typed = f'hybridd call --task code_generation --prompt "{prompt}"'
        picture(folder / "call.svg", "hybridd call", 100, [(typed, terminal(house, asked, 100))])
        house.kill()  # the two slow answers are not worth waiting for
    with surroundings():
        asyncio.run(dashboard(folder))


if __name__ == "__main__":
    main()
