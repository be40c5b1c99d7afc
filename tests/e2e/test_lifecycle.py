"""Starting, reloading, failing and stopping: what is wrong is said in one sentence, and nothing is lost."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.support import (
    PRICED,
    QUOTAS,
    Events,
    chat_bytes,
    connected,
    error_of,
    plugin_of,
    provider_of,
    quiet,
    read_all,
    recorded,
    until,
    used,
)
from tests.fakes.upstream import SENTENCE, FakeUpstream, rule
from tests.house import House, lab

EXIT_CONFIG, EXIT_STATE = 3, 7


@pytest.fixture(scope="module")
def upstream():
    with FakeUpstream() as fake:
        yield fake


@pytest.fixture(autouse=True)
def _clean(upstream):
    upstream.reset()


@pytest.fixture(scope="module")
def house(upstream):
    """One daemon for the tests that leave it running."""
    with House({"providers": {"lab": lab(upstream.base_url)}}) as running:
        yield running


@pytest.fixture
def own(upstream):
    """A house of the test's own, not started."""
    built = House({"providers": {"lab": lab(upstream.base_url, models={"m1": PRICED}, quotas=QUOTAS)}})
    yield built
    built.__exit__(None, None, None)


def refused(house: House, **env: str) -> tuple[int, str]:
    """Exit status and standard error of a daemon that is expected not to start."""
    command = [sys.executable, "-m", "hybridd.cli.main", "serve", "--config", str(house.config_path)]
    done = subprocess.run(
        command, env={**house.env, **env}, cwd=house.home, capture_output=True, text=True, timeout=20, check=False
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stderr


# -- who may run


def test_a_second_daemon_on_the_same_socket(house):
    """Refused with the pid of the first, which keeps serving."""
    status, said = refused(house, HYBRIDD_STATE_DIR=str(house.home / "other"))
    assert status == EXIT_STATE
    assert f"another hybridd (pid {house.pid}) already serves {house.socket}" in said
    assert house.chat("lab:m1").status_code == 200
    assert not (house.home / "other" / "hybridd.db").exists()


def test_a_second_daemon_on_the_same_state(house):
    """Refused although its socket is another one; the first keeps serving, and the second leaves no socket behind."""
    other = house.home / "run" / "second.sock"
    status, said = refused(house, HYBRIDD_SOCKET=str(other))
    assert status == EXIT_STATE
    assert f"process {house.pid} already runs hybridd with the state directory {house.state}" in said
    assert not other.exists()
    assert house.chat("lab:m1").status_code == 200


def test_a_stale_socket(own):
    """What a killed daemon left behind does not keep the next one from starting."""
    own.start()
    own.kill()
    assert own.socket.is_socket()
    own.start()
    assert own.chat("lab:m1").status_code == 200


@pytest.mark.parametrize("kind", ["file", "directory", "link"])
def test_a_path_that_is_no_socket(own, kind):
    """It is left alone, and said."""
    own.socket.parent.mkdir(mode=0o700)
    target = own.home / "precious"
    target.write_text("data")
    if kind == "file":
        own.socket.write_text("data")
    elif kind == "directory":
        own.socket.mkdir()
    else:
        own.socket.symlink_to(target)
    status, said = refused(own)
    assert status == EXIT_STATE
    assert str(own.socket) in said
    assert "is left alone" in said
    assert target.read_text() == "data"
    assert os.path.lexists(own.socket)


def test_a_socket_path_that_is_too_long(own):
    """The limit is named, and what to set."""
    status, said = refused(own, HYBRIDD_SOCKET=str(own.home / ("x" * 120)))
    assert status == EXIT_STATE
    assert "at most 107" in said
    assert "HYBRIDD_SOCKET" in said


# -- configuration


BROKEN: dict[str, tuple[Any, tuple[str, ...]]] = {
    "no-json": ('{"providers": {', (":1:16: not valid JSON",)),
    "not-an-object": ("[1]", ("object",)),
    "not-utf8": (b'{"tasks": "\xff"}', ("UTF-8",)),
    "unknown-section": ({"provders": {}}, ("provders", "providers")),
    "unknown-key": ({"optimization": {"auto_falback": True}}, ("optimization.auto_falback", "auto_fallback")),
    "wrong-type": ({"monitoring": {"check_interval_seconds": "30"}}, ("monitoring.check_interval_seconds",)),
    "negative": ({"monitoring": {"check_interval_seconds": -1}}, ("monitoring.check_interval_seconds",)),
    "unknown-provider": ({"tasks": {"t": ["nobody:m"]}}, ("tasks.t", "nobody")),
    "bad-window": (
        {"providers": {"p": {"plugin": "x", "quotas": [{"unit": "requests", "window": "1 day", "limit": 5}]}}},
        ("providers.p.quotas[0].window",),
    ),
    "a-key": ({"providers": {"p": {"plugin": "x", "headers": {"a": "sk-abcdefghijklmnop1234"}}}}, ("headers.a",)),
    "reserved-name": ({"providers": {"auto": {"plugin": "x"}}}, ("providers.auto",)),
}


def write(house: House, content: Any) -> None:
    if isinstance(content, bytes):
        house.config_path.write_bytes(content)
    else:
        house.config_path.write_text(content if isinstance(content, str) else json.dumps(content))


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_configuration_at_start(own, name):
    """Exit status 3; the sentence names the file, the key and what is wrong. Nothing is created."""
    content, said = BROKEN[name]
    write(own, content)
    status, message = refused(own)
    assert status == EXIT_CONFIG, message
    for part in (str(own.config_path), *said):
        assert part in message
    assert "sk-abcdefghijklmnop1234" not in message
    assert not own.state.exists()


def test_a_configuration_that_is_not_there(own):
    """A file that was asked for must exist."""
    own.config_path.unlink()
    status, message = refused(own)
    assert (status, str(own.config_path) in message) == (EXIT_CONFIG, True)


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_configuration_at_reload(house, name):
    """Refused with the same sentence, over HTTP and on SIGHUP; the old settings go on."""
    content, said = BROKEN[name]
    good = house.config_path.read_text()
    try:
        write(house, content)
        answer = house.http.post("/v1/reload")
        assert (answer.status_code, error_of(answer)["code"]) == (400, "config_invalid")
        for part in said:
            assert part in error_of(answer)["message"]
        assert house.chat("lab:m1").status_code == 200
        house.process.send_signal(signal.SIGHUP)
        until(lambda: house.log.count("reload refused") >= 1)
        assert house.chat("lab:m1").status_code == 200
    finally:
        house.config_path.write_text(good)
    assert house.http.post("/v1/reload").status_code == 200


def stream(house: House, model: str) -> Iterator[str]:
    """The text of a stream, word by word."""
    body = {"model": model, "stream": True, "messages": [{"role": "user", "content": "x"}]}
    with house.http.stream("POST", "/v1/chat/completions", json=body) as answer:
        assert answer.status_code == 200
        for line in answer.iter_lines():
            if line.startswith("data: {"):
                event = json.loads(line[6:])
                assert "error" not in event, event
                yield event["choices"][0]["delta"].get("content") or ""
            elif line == "data: [DONE]":
                yield "[DONE]"


def test_a_reload_drops_nothing(own, upstream):
    """While a stream runs its provider's quotas change, another provider comes and its own one goes: it ends whole."""
    own.start()
    upstream.script([rule({"chunk_interval_s": 0.05}, model="m1")])
    words = stream(own, "lab:m1")
    taken = [next(words), next(words)]
    base = own.config_path.read_text()
    config = json.loads(base)
    config["providers"]["new"] = lab(upstream.base_url, models={"n1": {}})
    config["providers"]["lab"]["quotas"] = [{"unit": "requests", "window": "3600s", "limit": 1}]
    own.write_config(config)
    assert own.http.post("/v1/reload").json()["reloaded"]
    assert own.chat("new:n1").status_code == 200
    assert own.chat("lab:m1").status_code == 429, "the running stream counts against the new quota"
    config["providers"] = {"new": {**config["providers"]["new"], "timeout_seconds": 7}}
    own.write_config(config)
    own.process.send_signal(signal.SIGHUP)
    until(lambda: "lab" not in [one["name"] for one in own.http.get("/v1/status").json()["providers"]])
    assert own.chat("lab:m1").status_code == 404
    taken += words
    assert "".join(taken) == f"{SENTENCE}[DONE]"
    own.config_path.write_text(base)
    own.http.post("/v1/reload")
    assert quiet(own)["in_flight"] == 0
    assert used(own, "lab")["requests"] == (1, 0), "history counts for a quota that comes back"


def test_many_reloads_at_once(house, upstream):
    """Reloads are one after the other, calls go on meanwhile."""
    with ThreadPoolExecutor(8) as pool:
        reloads = [pool.submit(house.cli, "reload", "--json") for _ in range(3)]
        calls = [pool.submit(house.chat, "lab:m1") for _ in range(40)]
        assert [reload.result().returncode for reload in reloads] == [0, 0, 0]
        assert {call.result().status_code for call in calls} == {200}


# -- stopping


@pytest.mark.parametrize(("number", "seconds"), [(signal.SIGTERM, 3.5), (signal.SIGINT, 0.6)])
def test_a_stop_finishes_what_is_in_flight(own, upstream, number, seconds):
    """Calls and streams in flight end whole, new ones are told, the exit status is 0 and the socket is gone. (Plugins
    alone would wait 3 s for their calls.)"""
    own.start()
    upstream.script([rule({"delay_s": seconds}, stream=False), rule({"chunk_interval_s": 0.08}, stream=True)])
    with ThreadPoolExecutor(1) as pool, connected(own) as late:
        whole = pool.submit(own.chat, "lab:m1")
        words = stream(own, "lab:m1")
        first = next(words)
        upstream.wait(arrivals=2)
        own.process.send_signal(number)
        until(lambda: own.http.get("/ready").status_code == 503)
        late.sendall(chat_bytes("lab:m1"))
        told = read_some(late)
        assert b"503" in told
        assert b'"code":"stopping"' in told
        assert whole.result(10).status_code == 200
        assert "".join([first, *words]) == f"{SENTENCE}[DONE]"
    assert own.process.wait(10) == 0
    assert not own.socket.exists()


def read_some(connection: socket.socket) -> bytes:
    data = b""
    while b"}}" not in data:
        part = connection.recv(65536)
        assert part
        data += part
    return data


def test_a_stop_cuts_what_takes_too_long(own, upstream):
    """At the deadline calls are cut and counted in full; the next start knows them."""
    config = json.loads(own.config_path.read_text())
    own.write_config({**config, "server": {"shutdown_seconds": 0.5}})
    own.start()
    upstream.script([rule({"hang": True}, times=1)])
    with connected(own) as connection:
        connection.sendall(chat_bytes("lab:m1", max_tokens=50))
        upstream.wait(arrivals=1)
        began = time.monotonic()
        assert own.stop() == 0
        assert time.monotonic() - began < 6
        assert b"503" in read_all(connection)[:20]
    own.start()
    figures = used(own, "lab")
    assert figures["requests"] == (1, 0)
    assert figures["total_tokens"][0] > 50


def test_a_stop_with_readers_of_events(own):
    """Readers of events, one of them stuck, do not hold up the stop; the one that reads is told."""
    own.start()
    with connected(own) as stuck, connected(own) as reader:
        for connection in (stuck, reader):
            connection.sendall(b"GET /v1/events?kinds=request HTTP/1.1\r\nhost: x\r\n\r\n")
            while b"snapshot" not in connection.recv(100_000):
                continue
            if connection is stuck:
                with connected(own) as caller:  # more than the stuck reader's connection holds
                    wrong = chat_bytes("nope").replace(b"host: x", b"host: x\r\nconnection: keep-alive")
                    caller.sendall(wrong * 1500 + b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
                    assert read_all(caller).count(b"HTTP/1.1 404") == 1500
        began = time.monotonic()
        assert own.stop() == 0
        assert time.monotonic() - began < 6
        assert b'"kind":"dropped","data":{"reason":"hybridd is stopping"}' in read_all(reader)
        assert own.log.count("a reader of /v1/events was cut off") == 1


def test_only_our_own_socket_is_unlinked(own):
    """A path that somebody else has taken over meanwhile is not ours to remove."""
    own.start()
    own.socket.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(own.socket))
        assert own.stop() == 0
        assert own.socket.is_socket()


def test_no_plugin_survives_a_killed_daemon(own):
    """Plugins end with the daemon, however it ends."""
    own.start()
    until(lambda: plugin_of(own, "openai_compatible")["state"] == "ready")
    pid = plugin_of(own, "openai_compatible")["pid"]
    ended = os.pidfd_open(pid)
    try:
        own.kill()
        assert select.select([ended], [], [], 10)[0], "the plugin outlived the daemon"
    finally:
        os.close(ended)


# -- state


def test_a_restart_forgets_nothing(own, upstream):
    """Used quotas, tombstones, parked providers, hints, open alerts and records are there again."""
    config = json.loads(own.config_path.read_text())
    for name in ("dead", "parked", "limited"):
        config["providers"][name] = lab(upstream.base_url, models={name: {}})
    own.write_config(config)
    upstream.script([
        rule({"preset": "github_brownout_410"}, model="dead"),
        rule({"status": 401}, model="parked"),
        rule({"preset": "github_429"}, model="limited"),
    ])  # fmt: skip
    own.start()
    first = own.chat("lab:m1")
    for name in ("dead", "parked", "limited"):
        assert own.chat(f"{name}:{name}").status_code != 200
    before = used(own, "lab")
    alert_keys = until(
        lambda: (
            {"provider_retired:dead", "provider_parked:parked"}
            <= (keys := {alert["key"] for alert in own.http.get("/v1/alerts?state=live").json()["alerts"]})
            and keys
        )
    )
    recorded(own, first)
    assert own.stop() == 0
    upstream.clear_log()
    own.start()
    assert used(own, "lab") == before
    for name, state in (("dead", "retired"), ("parked", "parked"), ("limited", "cooling")):
        until(lambda: plugin_of(own, "openai_compatible")["state"] == "ready")
        assert provider_of(own, name)["state"] == state
        assert own.chat(f"{name}:{name}").status_code in (429, 503)
    assert upstream.count(60, method="POST").total == 0
    again = {alert["key"] for alert in own.http.get("/v1/alerts?state=live").json()["alerts"]}
    assert again >= alert_keys
    assert recorded(own, first.headers["x-hybridd-request-id"])["status"] == 200


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("hybridd.db*"))}


@pytest.mark.parametrize("damage", ["garbage", "truncated", "another-program", "newer"])
def test_a_database_that_cannot_be_used(own, damage):
    """Exit status 7 with a sentence that names the file and the remedy; the file is left as it was."""
    own.start()
    assert own.chat("lab:m1").status_code == 200
    assert own.stop() == 0
    database = own.state / "hybridd.db"
    if damage == "garbage":
        database.write_bytes(b"this is not a database, but a letter to a friend. " * 100)
    elif damage == "truncated":
        database.write_bytes(database.read_bytes()[:5000])
    else:
        with contextlib.closing(sqlite3.connect(database)) as connection, connection:
            if damage == "newer":
                connection.execute("UPDATE alembic_version SET version_num = '9999'")
            else:
                connection.execute("DROP TABLE alembic_version")
    before = contents(own.state)
    status, said = refused(own)
    assert status == EXIT_STATE, said
    assert str(database) in said
    remedy = {"newer": "upgrade hybridd", "another-program": "move it aside"}.get(damage, "move hybridd.db")
    assert remedy in said
    assert contents(own.state) == before
    assert not own.socket.exists()


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to mount a read-only file system")
def test_a_read_only_state_directory(own):
    """The start is refused with a sentence; a mount that is writable again is all it needs."""
    own.state.mkdir(mode=0o700)
    with mounted(own.state, "ro"):
        status, said = refused(own)
        assert (status, str(own.state) in said) == (EXIT_STATE, True)
        subprocess.run(["mount", "-o", "remount,rw", str(own.state)], check=True)
        own.start()
        assert own.chat("lab:m1").status_code == 200
        assert own.stop() == 0


@contextlib.contextmanager
def mounted(path: Path, options: str) -> Iterator[None]:
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size=16m,{options}", "tmpfs", str(path)], check=False)
    if mount.returncode != 0:
        pytest.skip("mounting is not allowed here")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def largest_file(pid: int, size: int) -> None:
    """No file of the process may grow beyond that: writes then fail as they do on a full disk (EFBIG for ENOSPC)."""
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))


def test_a_full_disk(own, upstream):
    """Nothing leaves unrecorded: calls are refused with a reason until the disk takes writes again, then it recovers by
    itself; reads go on."""
    own.start()
    recorded(own, own.chat("lab:m1"))
    upstream.clear_log()
    largest_file(own.pid, 0)
    answers = [own.chat("lab:m1") for _ in range(3)]
    for answer in answers:
        assert answer.status_code == 503, answer.text
        error = error_of(answer)
        codes = {error["code"]} | {item["code"] for item in error.get("details") or []}
        assert "storage_failed" in codes
        assert int(answer.headers["retry-after"]) >= 1
    assert upstream.count(60, method="POST").total == 0
    ready = own.http.get("/ready")
    assert (ready.status_code, error_of(ready)["code"]) == (503, "storage_failed")
    assert own.http.get("/v1/status").json()["storage"]
    assert own.http.get("/v1/requests").json()["requests"]
    alerts = own.http.get("/v1/alerts?state=live").json()["alerts"]
    assert "StorageFailed" in [alert["name"] for alert in alerts]
    largest_file(own.pid, resource.RLIM_INFINITY)
    until(lambda: own.http.get("/ready").status_code == 200)
    assert own.chat("lab:m1").status_code == 200
    quiet(own)
    assert used(own, "lab")["requests"] == (2, 0)


def test_a_disk_that_fills_up_during_a_call(own, upstream):
    """The end of a call that was already sent is kept in memory and written when the disk allows it."""
    own.start()
    upstream.script([rule({"delay_s": 0.3})])
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(own.chat, "lab:m1", max_tokens=50)
        upstream.wait(arrivals=1)
        largest_file(own.pid, 0)
        answer = call.result(10)
    assert answer.status_code == 200
    until(lambda: own.http.get("/ready").status_code == 503)
    largest_file(own.pid, resource.RLIM_INFINITY)
    until(lambda: own.http.get("/ready").status_code == 200)
    (settled,) = recorded(own, answer)["calls"]
    assert settled["state"] == "settled"
    assert settled["output_tokens"] == len(SENTENCE.split())


# -- what the daemon is made of


HEAVY = (
    "mlflow", "sklearn", "numpy", "scipy", "skops", "llama_cpp", "textual", "alembic", "aiohttp", "huggingface_hub",
)  # fmt: skip


def test_the_daemon_stays_light(own, upstream):
    """After a start, routed calls, a specialist's answer, checks and a reload none of the heavy libraries is loaded."""
    listing = own.home / "modules"
    own.env["HYBRIDD_MODULES_FILE"] = str(listing)
    own.module = "tests.e2e.modules_at_exit"
    config = json.loads(own.config_path.read_text())
    own.write_config({**config, "monitoring": {"check_interval_seconds": 0.2}})
    own.start()
    assert own.chat("lab:m1").status_code == 200
    assert own.chat("task:sentiment_analysis", "I love it").status_code == 200
    with Events(own, "host") as events:
        assert events.next()["kind"] == "host"
    assert own.http.post("/v1/reload").status_code == 200
    maps = Path(f"/proc/{own.pid}/maps").read_text()
    assert [name for name in HEAVY if f"/{name}/" in maps] == []
    rss = next(line for line in Path(f"/proc/{own.pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    assert int(rss.split()[1]) < 110 * 1024, rss
    assert own.stop() == 0
    modules = {name.partition(".")[0] for name in listing.read_text().splitlines()}
    assert modules & set(HEAVY) == set()
    assert {"uvloop", "httptools", "hybridd"} <= modules
