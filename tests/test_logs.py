"""The whole of logging: what leaves through standard error and the two files, and what never does."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hybridd import logs
from hybridd.logs import redactor
from hybridd.logs.sinks import RotatingFile, Sink, Stream

CANARY = "sk-canary-1234567890abcdef"
REGISTERED = "canary plain words"  # nothing but registration can recognise this one


class Output:
    """Everything that reached a sink, once the sinks were closed."""

    def __init__(self, folder: Path) -> None:
        self.stderr = folder / "stderr"
        self.usage = folder / "logs" / "ml_usage.log"
        self.alerts = folder / "logs" / "ml_alerts.log"
        self._fd = os.open(self.stderr, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def configure(self, *, as_json: bool = True, **more: Any) -> None:
        logs.configure("debug", as_json, self.usage, self.alerts, fd=self._fd, **more)

    def text(self) -> str:
        logs.close()
        return "\n".join(path.read_text() for path in (self.stderr, self.usage, self.alerts) if path.exists())

    def lines(self) -> list[dict[str, Any]]:
        logs.close()
        return [json.loads(line) for line in self.stderr.read_text().splitlines()]


@pytest.fixture
def output(tmp_path: Path) -> Iterator[Output]:
    root = logging.getLogger()
    level = root.level
    out = Output(tmp_path)
    yield out
    logs.close()
    logs.forget_secrets()
    root.setLevel(level)
    os.close(out._fd)


def plant(canary: str) -> None:
    """Puts the canary everywhere a key can be."""
    log = logs.get_logger("hybridd.test")
    log.info(f"event with {canary}")
    log.info("kwargs", value=canary, url=f"https://user:{canary}@host/?key={canary}", api_key=canary)
    log.info("nested", data={"a": [{"b": {"c": canary}}], canary: 1}, pair=("authorization", canary))
    log.info("bytes", raw=canary.encode(), argv=["run", "--api-key", canary])
    log.info("positional %s", canary)
    log.bind(bound=canary).warning("bound")
    log.info("plugin stderr", lines=[f"Traceback: key {canary} refused"], plugin="groq")
    log.info({"event is a mapping": canary})  # type: ignore[arg-type]  # people do it
    secret_local = canary  # must not be rendered with the traceback
    try:
        try:
            raise KeyError(canary)
        except KeyError as error:
            raise RuntimeError(f"wrapped {canary}") from error
    except RuntimeError as error:
        log.exception("exception", error=error)
        logging.getLogger("uvicorn.error").exception("from uvicorn")
    logging.getLogger("apscheduler.executors").error("job %s failed", canary)
    logging.getLogger("websockets.server").error("frame", extra={"headers": {"Authorization": canary}})
    logging.getLogger("anything").warning(canary, stack_info=True)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn(f"a warning about {secret_local}", stacklevel=1)
    logs.usage({"request_id": "1", "error": f"upstream said {canary}", "nested": {"token": canary}, canary: 1})
    logs.alert({"key": "quota", "message": f"{canary} in a message", "data": {"url": f"https://{canary}@host"}})
    thread = threading.Thread(target=lambda: (_ for _ in ()).throw(ValueError(canary)))
    thread.start()
    thread.join()


@pytest.mark.parametrize("as_json", [True, False])
@pytest.mark.parametrize("canary", [CANARY, REGISTERED, "ghp_canary1234567890", 'quoted"canary\\value-1'])
def test_no_canary_reaches_any_sink(output: Output, canary: str, as_json: bool) -> None:
    """A key planted in every place a log call knows is in none of the three outputs, on a console or as JSON."""
    output.configure(as_json=as_json)
    logs.register_secret(canary)
    plant(canary)
    text = output.text()
    assert canary not in text
    assert json.dumps(canary)[1:-1] not in text
    assert "canary plain" not in text
    assert "1234567890" not in text
    assert text.count(redactor.MASK) >= 20
    for expected in ("kwargs", "from uvicorn", "wrapped", "a warning about", "uncaught exception in a thread"):
        assert expected in text
    assert len(output.usage.read_text().splitlines()) == len(output.alerts.read_text().splitlines()) == 1


def test_without_the_redactor_the_canary_leaks(output: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: with the redactor switched off the same calls leak into every output."""
    monkeypatch.setattr(redactor, "redact_value", lambda value, depth=0: value)
    monkeypatch.setattr(redactor, "suspicious", lambda text: False)
    output.configure()
    plant(CANARY)
    output.text()
    for path in (output.stderr, output.usage, output.alerts):
        assert CANARY in path.read_text()


def test_local_variables_are_never_rendered(output: Output) -> None:
    """A traceback shows source lines, not what the variables held."""
    output.configure()
    hidden = "".join(["local", "-value-", "of-a-variable"])
    try:
        raise ValueError(len(hidden))
    except ValueError:
        logs.get_logger().exception("failed")
    assert hidden not in output.text()


def test_json_lines_carry_level_logger_time_and_fields(output: Output) -> None:
    """Each line is one JSON object with event, level, logger, at and the given fields; libraries look the same."""
    output.configure()
    logs.get_logger("hybridd.x").info("ready", socket=Path("/run/s"), n=1)
    logging.getLogger("a.library").info("Started %s", "server")
    first, second = output.lines()
    assert {name: first[name] for name in ("event", "level", "logger", "n")} == {
        "event": "ready",
        "level": "info",
        "logger": "hybridd.x",
        "n": 1,
    }
    assert first["at"].endswith("Z")
    assert "/run/s" in first["socket"]
    assert (second["event"], second["level"], second["logger"]) == ("Started server", "info", "a.library")


def test_levels_filter_and_change_at_run_time(output: Output) -> None:
    """Below the level nothing is written; set_level applies to loggers that already exist."""
    output.configure()
    logs.set_level("warning")
    log = logs.get_logger("hybridd.levels")
    log.info("one")
    log.warning("two")
    logs.set_level("info")
    log.info("three")
    logging.getLogger("apscheduler.scheduler").info("job added")
    logging.getLogger("uvicorn.access").info("GET /")
    assert [line["event"] for line in output.lines()] == ["two", "three"]


def test_an_unknown_level_is_named() -> None:
    """A wrong level is refused with the right ones."""
    with pytest.raises(ValueError, match="log level 'loud' is not one of debug, info"):
        logs.configure("loud")


def test_console_lines_are_plain_text(output: Output) -> None:
    """On a terminal a line reads as text, not as JSON."""
    output.configure(as_json=False)
    logs.get_logger().info("ready", port=1)
    text = output.text()
    assert "ready" in text
    assert not text.startswith("{")


def test_a_value_that_cannot_be_shown_does_not_break_the_caller(output: Output) -> None:
    """A field with a broken repr is logged as such, and the caller goes on."""

    class Broken:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    output.configure()
    logs.get_logger().info("odd", value=Broken(), more={"x": Broken()})
    logs.usage({"value": Broken()})
    assert "cannot be shown" in output.lines()[0]["value"]
    assert "log_line_lost" in output.usage.read_text()


def test_relative_paths_resolve_like_the_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The default paths lie under HYBRIDD_BASE, private to the user."""
    monkeypatch.setenv("HYBRIDD_BASE", str(tmp_path))
    logs.configure(json=True)
    logs.usage({"request_id": 1})
    logs.alert({"key": "k"})
    logs.close()
    usage = tmp_path / "logs" / "ml_usage.log"
    assert json.loads(usage.read_text()) == {"request_id": 1}
    assert usage.stat().st_mode & 0o777 == 0o600
    assert usage.parent.stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "logs" / "ml_alerts.log").exists()


def test_without_configure_records_go_nowhere(tmp_path: Path) -> None:
    """usage() and alert() before configure() are no error."""
    logs.usage({"a": 1})
    logs.alert({"a": 1})
    assert logs.dropped() == {}


def test_rotation_keeps_whole_lines_and_the_given_number_of_files(tmp_path: Path) -> None:
    """Files turn over at the size, no line is lost or split among those kept, and the oldest files go."""
    path = tmp_path / "a.log"
    file = RotatingFile(path, max_bytes=100, backups=2)
    for number in range(100):
        file.write(b"line %04d\n" % number)
    file.close()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.log", "a.log.1", "a.log.2"]
    kept = b"".join((tmp_path / name).read_bytes() for name in ("a.log.2", "a.log.1", "a.log")).splitlines()
    assert kept == [b"line %04d" % number for number in range(100 - len(kept), 100)]
    assert len(kept) >= 20


def test_a_moved_or_deleted_file_is_made_anew(tmp_path: Path) -> None:
    """An outside logrotate, or a careless rm, does not end the log."""
    path = tmp_path / "a.log"
    file = RotatingFile(path)
    file.write(b"1\n")
    path.rename(tmp_path / "moved")
    file.write(b"2\n")
    path.unlink()
    file.write(b"3\n")
    path.rename(tmp_path / "moved again")
    path.write_bytes(b"made by logrotate\n")
    file.write(b"4\n")
    file.close()
    assert path.read_bytes() == b"made by logrotate\n4\n"


def test_a_link_in_place_of_the_file_is_not_followed(tmp_path: Path) -> None:
    """A symbolic link planted at the log's path does not make the daemon write elsewhere."""
    (tmp_path / "a.log").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match=os.strerror(errno.ELOOP)):
        RotatingFile(tmp_path / "a.log").write(b"x\n")
    assert not (tmp_path / "victim").exists()


def test_a_full_disk_loses_lines_says_so_and_recovers() -> None:
    """Lines a full disk refuses are counted and announced once; after it recovers the count is in the file."""

    class Disk:
        full = True
        data = b""

        def write(self, data: bytes) -> None:
            if self.full:
                raise OSError(errno.ENOSPC, "No space left on device")
            self.data += data

        def close(self) -> None:
            pass

    disk, told = Disk(), threading.Event()
    reasons: list[str] = []

    def trouble(reason: str) -> None:
        reasons.append(reason)
        told.set()

    sink = Sink("x", disk, lambda n: b"%d\n" % n, notice=lambda _, n: -n, on_trouble=trouble, gather_seconds=0.001)
    sink.put(1)
    assert told.wait(5)
    disk.full = False
    sink.put(2)
    assert sink.close(5)
    assert reasons == ["x: No space left on device"]
    assert disk.data.split() == [b"2", b"-1"]
    assert sink.dropped == 1


def test_dev_full_is_survived(tmp_path: Path) -> None:
    """The kernel's own full device: nothing raises, the lines are counted."""
    fd = os.open("/dev/full", os.O_WRONLY)
    sink = Sink("full", Stream(fd), lambda text: text, gather_seconds=0)
    sink.put(b"x\n")
    assert sink.close(5)
    os.close(fd)
    assert sink.dropped == 1


def test_a_reader_that_stopped_reading_holds_nothing_but_its_own_queue() -> None:
    """With a full pipe on the other side put() still returns at once, the queue stays bounded, and what was lost is
    counted and said when the reader comes back."""
    read_end, write_end = os.pipe()
    sink = Sink(
        "pipe",
        Stream(write_end),
        lambda text: text,
        capacity=100,
        notice=lambda _, n: b"lost %d\n" % n,
        gather_seconds=0,
    )
    line = b"x" * 1000 + b"\n"
    accepted = sum(sink.put(line) for _ in range(2000))
    assert accepted < 2000
    assert sink.dropped == 2000 - accepted
    assert not sink.close(timeout=0.05)
    received = b""
    while b"lost" not in received:
        received += os.read(read_end, 65536)
    sink._thread.join(5)
    assert received.count(line) == accepted
    assert f"lost {2000 - accepted}".encode() in received
    os.close(read_end)
    os.close(write_end)


async def test_logging_never_blocks_the_loop(tmp_path: Path) -> None:
    """A terminal that hangs does not delay a callback of the event loop."""
    read_end, write_end = os.pipe()
    logs.configure("info", True, None, None, fd=write_end)
    loop = asyncio.get_running_loop()
    turned = loop.create_future()
    log = logs.get_logger("hybridd.flood")
    for _ in range(300):
        log.info("x" * 1000)
    loop.call_soon(turned.set_result, None)
    await asyncio.wait_for(turned, 5)
    drain = threading.Thread(target=lambda: [None for _ in iter(lambda: os.read(read_end, 65536), b"")])
    drain.start()
    logs.close(5)
    os.close(write_end)
    drain.join(5)
    os.close(read_end)


def test_a_foreign_handler_is_put_aside_and_given_back(output: Output) -> None:
    """While hybridd logs, no other root handler sees the raw record; afterwards it is there again."""
    seen: list[logging.LogRecord] = []

    class Foreign(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(record)

    foreign = Foreign()
    logging.getLogger().addHandler(foreign)
    output.configure()
    logs.get_logger().warning("a", api_key=CANARY)
    assert CANARY not in output.text()
    assert seen == []
    assert foreign in logging.getLogger().handlers
    logging.getLogger().removeHandler(foreign)


def test_a_second_configure_replaces_the_first(output: Output) -> None:
    """Configuring twice writes each line once."""
    output.configure()
    output.configure()
    logs.get_logger().info("once")
    assert len(output.lines()) == 1


def test_import_is_light_and_leaves_rich_usable() -> None:
    """Importing hybridd.logs loads no structlog; configuring does, without rich, which can be imported afterwards."""
    code = (
        "import sys, hybridd.logs as l; assert 'structlog' not in sys.modules; l.configure('info', True, None, None);"
        "l.get_logger().info('x'); assert 'structlog' in sys.modules and 'rich' not in sys.modules;"
        "l.close(); import rich; print(rich.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "rich"), done.stderr


def test_an_uncaught_exception_is_logged_masked_and_flushed_at_exit() -> None:
    """A crash of the main thread goes through the redactor, and the last lines are written before the process ends."""
    code = (
        "import hybridd.logs as l; l.configure('info', True, None, None); l.get_logger().info('before');"
        f"raise RuntimeError('api_key={CANARY}')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    events = [json.loads(line) for line in done.stderr.splitlines()]
    assert [event["event"] for event in events] == ["before", "uncaught exception"]
    assert "RuntimeError" in events[1]["exception"]
    assert CANARY not in done.stderr
    assert done.returncode == 1
