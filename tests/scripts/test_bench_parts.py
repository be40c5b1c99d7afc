"""The bench's processes and its command line."""

import asyncio
import json
import os
import time

import httpx
import pytest

from hybridd.config.loader import load
from scripts.bench_parts import main as bench
from scripts.bench_parts import report
from scripts.bench_parts.cpu import CpuMeter
from scripts.bench_parts.daemon_process import Control, Daemon, Scratch, StartFailed, configuration, environment
from scripts.bench_parts.house import House
from scripts.bench_parts.loadgen import chat_request, run
from scripts.bench_parts.proc import children, cpu_seconds, rss_mib
from scripts.bench_parts.streaming import complete_stream
from tests.fakes.upstream import InProcessUpstream, rule


@pytest.fixture
def scratch():
    with Scratch() as made:
        yield made


async def test_the_control_is_a_proxy(scratch):
    """The bare control passes answers, streams and error statuses through unchanged, and ends with its block."""
    async with InProcessUpstream() as fake:
        fake.script([rule({"chunks": 100}, stream=True), rule({"status": 429}, model="no")])
        control = await asyncio.to_thread(Control, scratch.home(), fake.url)
        try:
            transport = httpx.AsyncHTTPTransport(uds=str(control.socket))
            async with httpx.AsyncClient(transport=transport, base_url="http://c", timeout=10) as client:
                body = {"model": "m1", "messages": [{"role": "user", "content": "hi"}]}
                answer = await client.post("/v1/chat/completions", json=body)
                assert answer.json()["choices"][0]["finish_reason"] == "stop"
                assert (await client.post("/v1/chat/completions", json={**body, "model": "no"})).status_code == 429
            request = chat_request("m1", stream=True)
            result = await run(control.target(), request, callers=4, calls=12, check=complete_stream())
            assert (result.answered, result.described()) == (12, "12 × 200")
            assert rss_mib(control.pid) > 5
            assert cpu_seconds(control.pid) > 0
            assert control.pid in children(os.getpid())
        finally:
            status = await asyncio.to_thread(control.stop)
        assert status in (0, -15)
        assert rss_mib(control.pid) == 0


def test_the_configuration_is_a_valid_one(scratch):
    """The generated file loads, and every quota binds: no call of the bench is free of the ledger."""
    path = scratch.home() / "config.json"
    path.write_text(json.dumps(configuration("http://127.0.0.1:9/v1")))
    lab = load(path).providers["lab"]
    assert {quota.unit for quota in lab.quotas} == {"requests", "total_tokens", "usd", "concurrent"}
    assert set(lab.models) == {"m1", "slow", "four"}


def test_no_key_reaches_the_daemon(scratch, monkeypatch):
    """Nothing of the measuring person's settings or keys is in the daemon's environment."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary")
    monkeypatch.setenv("HYBRIDD_CONFIG", "/elsewhere")
    home = scratch.home()
    given = environment(home)
    assert "OPENAI_API_KEY" not in given
    assert "HYBRIDD_CONFIG" not in given
    assert given["HOME"] == str(home)
    assert len(given["HYBRIDD_SOCKET"]) < 100


def test_a_daemon_that_cannot_start_says_why(scratch):
    """A refused configuration is one StartFailed with the daemon's own words, and no process stays."""
    daemon = Daemon(scratch.home(), {"nonsense": 1})
    with pytest.raises(StartFailed, match="nonsense"):
        daemon.start()
    assert not any("hybridd.cli.main" in _command(pid) for pid in children(os.getpid()))


def _command(pid):
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        return file.read().replace(b"\0", b" ").decode()


def test_processor_time_is_booked_on_who_used_it(scratch):
    """The generator's own work shows as its own, and no share is outside 0..1."""
    with House() as house:
        meter = CpuMeter(house)
        until = time.process_time() + 0.1
        while time.process_time() < until:
            pass
        own, others = meter.read()
    assert own["generator"] >= 0.08
    assert 0 <= others <= 1


def test_an_unknown_name_lists_the_known_ones(capsys):
    """A figure that does not exist is a wrong command line, answered with the names there are."""
    with pytest.raises(SystemExit) as ended:
        bench.main(["rooted"])
    assert ended.value.code == 2
    assert "routed" in capsys.readouterr().err


def test_an_empty_group_says_so(monkeypatch, capsys):
    """A group without figures is not an error and not silent."""
    monkeypatch.setitem(bench.GROUPS, "none", ())
    assert bench.main(["none"]) == 0
    assert "No figures" in capsys.readouterr().out


def test_every_part_is_in_one_group():
    """What has a name of its own is measured with its group, too, and only there."""
    assert sorted(name for group in bench.GROUPS.values() for name in group) == sorted(bench.PARTS)


def test_a_broken_part_leaves_the_others(monkeypatch, tmp_path, capsys):
    """A part that cannot run is a failed line and exit status 1; the rest is measured, printed and written."""
    monkeypatch.setitem(bench.PARTS, "broken", ("main", "nothing_of_this_name"))
    monkeypatch.setitem(bench.PARTS, "fine", ("startup", "fine"))

    async def fine(house):
        return [report.at_most("fine", "seconds", house.seconds, 1, "s")]

    monkeypatch.setattr("scripts.bench_parts.startup.fine", fine, raising=False)
    target = tmp_path / "figures.json"
    assert bench.main(["broken", "fine", "--quick", "--seconds", "0.5", "--json", str(target)]) == 1
    out = capsys.readouterr().out
    assert "failed" in out
    assert "1 of 2 targets met; not met: broken" in out
    figures = json.loads(target.read_text())["figures"]
    assert [figure["verdict"] for figure in figures if figure["verdict"]] == ["failed", "met"]
