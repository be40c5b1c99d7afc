"""The README's curl commands are run as a reader would paste them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess

import pytest

from tests.house import ROOT, House

MARK = "<!-- run by tests/e2e/test_readme.py -->\n```sh\n"


def commands() -> list[str]:
    """The commands of the marked block, separated by blank lines."""
    _, found, rest = (ROOT / "README.md").read_text(encoding="utf-8").partition(MARK)
    assert found, "the README has no marked block"
    return [command.strip() for command in rest.partition("\n```")[0].split("\n\n")]


@pytest.fixture(scope="module")
def house():
    """What a new user has: no configuration to speak of, no key, no network."""
    with House({}) as running:
        yield running


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("command", commands(), ids=lambda command: re.findall(r"http://\S*?(/v1/[a-z/]+)", command)[0])
def test_a_command_of_the_readme(house, command):
    """It is answered without an error; a stream ends with [DONE]."""
    assert command.startswith("curl ")
    assert '--unix-socket "$HYBRIDD_SOCKET"' in command
    done = subprocess.run(
        ["sh", "-eu", "-c", command],
        env=house.env,
        cwd=house.home,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done
    if '"stream": true' in command:
        events = [line.removeprefix("data: ") for line in done.stdout.splitlines() if line]
        assert events[-1] == "[DONE]"
        answers = [json.loads(event) for event in events[:-1]]
        assert "".join(answer["choices"][0]["delta"].get("content") or "" for answer in answers) == "negative"
    else:
        answers = [json.loads(done.stdout)]
    assert [answer for answer in answers if "error" in answer] == []


def test_the_block_covers_the_main_paths():
    """Models, a chat, a stream and the records are shown."""
    text = "\n".join(commands())
    for part in ("/v1/models", "/v1/chat/completions", '"stream": true', "/v1/requests"):
        assert part in text
