"""What only a process of its own shows: signals, pipes, encodings, time."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from hybridd import errors
from tests.client.canned import Answer, CannedDaemon, sse

HYBRIDD = [sys.executable, "-m", "hybridd.cli.main"]


def environment(canned: CannedDaemon, **more: str) -> dict[str, str]:
    return {**os.environ, "HYBRIDD_SOCKET": str(canned.socket), "COLUMNS": "80", **more}


def test_interrupting_a_stream_cancels_it(canned: CannedDaemon) -> None:
    """Ctrl-C in the middle of an answer exits with 130, prints no traceback, and closes the connection."""
    hold = threading.Event()
    canned.routes["POST", "/v1/chat/completions"] = Answer(
        pieces=[sse("first", explained=None, done=False)], kind="text/event-stream", hold=hold
    )
    process = subprocess.Popen(
        [*HYBRIDD, "call", "--prompt", "tell me"],
        env=environment(canned),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.read(5) == b"first"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    hold.set()
    assert (process.returncode, out, err) == (errors.EXIT_INTERRUPTED, b"\n", b"")


def test_a_broken_pipe_is_quiet(canned: CannedDaemon) -> None:
    """When the reader of a pipe leaves, the command ends without a word."""
    event = b'{"seq": 1, "kind": "host", "data": "' + b"x" * 1000 + b'"}\n'
    canned.routes["GET", "/v1/events"] = Answer(pieces=[event] * 1000, kind="application/x-ndjson")
    process = subprocess.Popen(
        [*HYBRIDD, "events"], env=environment(canned), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read(10)
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(20) == errors.EXIT_OK
    process.stderr.close()


def test_ascii_locales_get_ascii(canned: CannedDaemon) -> None:
    """Where stdout is not UTF-8, bars are ASCII, JSON is escaped, and no character ends the program."""
    ascii_only = environment(canned, LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0", PYTHONIOENCODING="ascii")
    limits = subprocess.run([*HYBRIDD, "limits"], env=ascii_only, capture_output=True, check=True)
    assert b"# used" in limits.stdout
    assert limits.stdout.isascii()
    events = subprocess.run([*HYBRIDD, "events"], env=ascii_only, capture_output=True, check=True)
    assert b'"\\u00e9"' in events.stdout
    call = subprocess.run([*HYBRIDD, "call", "--prompt", "abc"], env=ascii_only, capture_output=True, check=True)
    assert call.stdout == b"Ol?, mundo\n"


def test_no_colour_without_a_terminal(canned: CannedDaemon) -> None:
    """Piped output has no escape sequences."""
    done = subprocess.run([*HYBRIDD, "status"], env=environment(canned), capture_output=True, check=True)
    assert b"\x1b" not in done.stdout


def test_status_is_fast(canned: CannedDaemon) -> None:
    """`hybridd status` takes less than 150 ms of processor time, start of Python included (the best of five)."""
    took = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([*HYBRIDD, "status"], env=environment(canned), capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        took.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(took) < 0.150


def test_bridge_needs_a_program(canned: CannedDaemon) -> None:
    """`plugin bridge` without a program is a usage error that shows how."""
    done = subprocess.run([*HYBRIDD, "plugin", "bridge"], env=environment(canned), capture_output=True, check=False)
    assert done.returncode == errors.EXIT_USAGE
    assert b"hybridd plugin bridge -- " in done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_completes(canned: CannedDaemon, shell: str) -> None:
    """The script names our variable, and a completion request through it lists commands and options."""
    script = subprocess.run([*HYBRIDD, "completion", shell], capture_output=True, text=True, check=True).stdout
    assert f"_HYBRIDD_COMPLETE={shell}_complete" in script
    word = "op" if shell == "fish" else "1"
    asked = environment(canned, _HYBRIDD_COMPLETE=f"{shell}_complete", COMP_WORDS="hybridd op", COMP_CWORD=word)
    done = subprocess.run(HYBRIDD, env=asked, capture_output=True, text=True, check=True)
    assert "optimize" in done.stdout


def test_doctor_fix_writes_a_configuration_that_loads(tmp_path: Path) -> None:
    """On a fresh machine `doctor --fix` makes private folders and the default configuration; again, all is well."""
    names = ("STATE", "DATA", "CACHE", "CONFIG")
    fresh = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("HYBRIDD_", "XDG_"))},
        **{f"XDG_{name}_HOME": str(tmp_path / name.lower()) for name in names},
        "HOME": str(tmp_path),
    }
    config = tmp_path / "config" / "hybridd" / "hybrid_config.json"
    before = subprocess.run([*HYBRIDD, "doctor", "--json"], env=fresh, capture_output=True, text=True, check=False)
    assert not config.exists(), before.stdout
    first = subprocess.run([*HYBRIDD, "doctor", "--fix"], env=fresh, capture_output=True, text=True, check=False)
    assert first.returncode == 0, first.stdout + first.stderr
    shipped = Path(__file__).parents[2] / "config" / "ml" / "hybrid_config.json"
    assert config.read_text(encoding="utf-8") == shipped.read_text(encoding="utf-8")
    assert (tmp_path / "state" / "hybridd").stat().st_mode & 0o777 == 0o700
    again = subprocess.run([*HYBRIDD, "doctor"], env=fresh, capture_output=True, text=True, check=False)
    assert again.returncode == 0
    assert "fixed" not in again.stdout
