"""Plugin processes: started, watched, restarted, replaced, stopped; never left behind."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hybridd.errors import HybriddError, ProviderError
from hybridd.providers import CallFailed
from hybridd.providers.registry import MAX_PROVIDERS
from hybridd.providers.spawn import OUTPUT_BYTES, SpawnContext, environment, plans
from tests.providers.support import ECHO, FAST, ROOT, RawPlugin, house

SLOW = """
import asyncio, os
from hybridd.plugin import Model, Provider, run

class Slow(Provider):
    name = "slow"
    async def models(self):
        return [Model(id="m")]
    async def generate(self, request, stream):
        if request.prompt_text == "die":
            os._exit(7)
        if request.prompt_text == "hang":
            await asyncio.sleep(60)
        await asyncio.sleep(0.4)
        return str(os.getpid())

run(Slow)
"""


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def view(home, name):
    return next(one for one in home.hub.plugin_views() if one.name == name)


async def text_of(call):
    return msgspec.json.decode((await call.result()).body)["choices"][0]["message"]["content"]


async def test_starts_answers_and_ends(home):
    """A configured program is started, registers with its token, answers, and is gone after close."""
    await home.hub.apply({"echo": home.spec("echo", ECHO)})
    await home.hub.ensure_connected("echo", 10)
    shown = view(home, "echo")
    assert (shown.state, shown.restarts, shown.providers) == ("ready", 0, ["echo"])
    assert home.hub.providers["echo"].state == "ready"
    assert list(home.hub.providers["echo"].models) == ["m"]
    assert await text_of(home.generate("echo", prompt="bom dia")) == "bom dia"
    assert (await home.hub.probe("echo", 1)).ok
    await home.hub.close(2)
    assert not alive(shown.pid)
    assert view(home, "echo").state == "stopped"


async def test_death_fails_calls_at_once_and_restarts(home):
    """A plugin that dies fails its calls at once with the proof of its death, and comes back by itself."""
    await home.hub.apply({"slow": home.spec("slow", SLOW)})
    await home.hub.ensure_connected("slow", 10)
    first = view(home, "slow").pid
    call, fatal = home.generate("slow", prompt="hang"), home.generate("slow", prompt="die")
    for one in (call, fatal):
        with pytest.raises(CallFailed) as caught:
            await asyncio.wait_for(one.result(), 5)
        assert (caught.value.error.kind, caught.value.error.sent) == ("unavailable", "maybe")
        assert caught.value.owner_gone is not None
        await asyncio.wait_for(caught.value.owner_gone, 5)
    assert not alive(first)
    await home.until(lambda: home.hub.connected("slow"))
    shown = view(home, "slow")
    assert shown.restarts == 1
    assert shown.pid != first


async def test_missing_program_fails_without_a_storm(home):
    """A program that does not exist is a failed plugin with that reason, tried once; a reload tries again."""
    spec = home.spec("gone", command=("/nowhere/plugin",))
    await home.hub.apply({"gone": spec})
    runtime = home.hub.providers["gone"]
    await home.until(lambda: runtime.state == "failed")
    assert "'/nowhere/plugin' does not exist" in runtime.reason
    with pytest.raises(ProviderError, match="does not exist"):
        await home.hub.ensure_connected("gone", 5)
    assert view(home, "gone").restarts == 1
    await home.hub.apply({"gone": home.spec("gone", ECHO)})
    await home.hub.ensure_connected("gone", 10)


async def test_breaker_opens_after_five_deaths(home):
    """A program that dies at once is started five times, then left alone with its last words as the reason."""
    source = "import sys; open('starts', 'a').write('x'); sys.exit('no key, no work')"
    await home.hub.apply({"bad": home.spec("bad", source)})
    runtime = home.hub.providers["bad"]
    await home.until(lambda: runtime.state == "failed")
    assert (home.directory / "starts").read_text() == "xxxxx"
    assert "exited with 1: no key, no work" in runtime.reason
    assert view(home, "bad").stderr == ["no key, no work"]


async def test_a_program_that_never_registers_is_ended():
    """A program that runs but does not register in time is killed and counted as a failure."""
    timing = msgspec.structs.replace(FAST, start=0.3, breaker_failures=2)
    async with house(timing) as home:
        await home.hub.apply({"mute": home.spec("mute", "import time; print('here'); time.sleep(60)")})
        pid = await started(home, "mute")
        await home.until(lambda: view(home, "mute").state == "failed")
        assert "did not register a provider within 0.3 s" in view(home, "mute").reason
        assert not alive(pid)


async def started(home, name):
    await home.until(lambda: view(home, name).pid)
    return view(home, name).pid


async def test_a_slow_start_that_tells_its_progress_is_waited_for():
    """No delay bounds a start as long as it says that it goes on."""
    source = """
    import asyncio
    from hybridd.plugin import Model, Provider, run
    class Slow(Provider):
        name = "slow"
        async def start(self):
            for step in range(8):
                self.progress("load", fraction=step / 8)
                await asyncio.sleep(0.1)
        async def models(self):
            return [Model(id="m")]
    run(Slow)
    """
    timing = msgspec.structs.replace(FAST, start=0.6, breaker_failures=1)
    async with house(timing) as home:
        await home.hub.apply({"slow": home.spec("slow", textwrap.dedent(source))})
        await home.hub.ensure_connected("slow", 10)
        assert view(home, "slow").restarts == 0


async def test_garbage_on_the_socket_is_the_reason():
    """A spawned plugin that breaks the protocol is killed, counted, and shown with the violation as its reason."""
    source = """
    import os, socket, time
    from hybridd.plugin.link import ClientLink
    import asyncio, json
    async def main():
        link = await ClientLink.connect(os.environ["HYBRIDD_SOCKET"], print, 5)
        link.send(b"garbage", flush=True)
        await asyncio.sleep(60)
    asyncio.run(main())
    """
    async with house(msgspec.structs.replace(FAST, breaker_failures=1)) as home:
        await home.hub.apply({"bad": home.spec("bad", textwrap.dedent(source))})
        pid = await started(home, "bad")
        await home.until(lambda: view(home, "bad").state == "failed", timeout=5)
        assert "a message is not valid" in view(home, "bad").reason
        assert not alive(pid)


async def test_stderr_is_kept_bounded_and_redacted():
    """The last 50 lines are kept, long lines cut, and values of referenced variables never shown."""
    source = """
    import os, sys
    print("the key is", os.environ["LAB_KEY"], "and", os.environ["HYBRIDD_PLUGIN_TOKEN"], file=sys.stderr)
    sys.stderr.write("y" * 100_000 + "\\n")
    for number in range(47):
        print("line", number)
    sys.stdout.flush(); sys.stderr.write("unended"); sys.stderr.flush()
    os._exit(3)
    """
    async with house(LAB_KEY="sk-very-secret") as home:
        spec = home.spec("chatty", textwrap.dedent(source), environment=("LAB_KEY", "PYTHONPATH"))
        await home.hub.apply({"chatty": spec})
        await home.until(lambda: view(home, "chatty").restarts >= 1)
        lines = view(home, "chatty").stderr
    assert "the key is [redacted] and [redacted]" in lines
    assert "unended" in lines
    assert len(lines) == 50
    assert max(map(len, lines)) == 500


async def test_a_key_is_redacted_where_a_line_is_cut():
    """A key across the place where a long line is cut leaves no half of itself."""
    source = """
    import os, sys
    key = os.environ["LAB_KEY"]
    sys.stderr.write("y" * 490 + key + "\\n" + "z" * 1995 + key + "\\n")
    sys.stderr.flush()
    os._exit(3)
    """
    async with house(LAB_KEY="sk-very-secret-indeed") as home:
        spec = home.spec("chatty", textwrap.dedent(source), environment=("LAB_KEY", "PYTHONPATH"))
        await home.hub.apply({"chatty": spec})
        await home.until(lambda: view(home, "chatty").restarts >= 1)
        lines = view(home, "chatty").stderr
    assert lines[0] == "y" * 490 + "[redacted]"
    assert not any("sk-" in line for line in lines)


async def test_a_plugin_that_prints_without_end_is_slowed(caplog):
    """Of endless output a bounded part is read and logged; the loop stays free and the plugin answers."""
    noise = b"noise\n" * 10_000
    source = ECHO.replace(
        "run(Echo)",
        f"""
import sys, threading
def shout():
    while True:
        sys.stdout.buffer.write({noise[:6]!r} * 10000)
        open("printed", "ab").write(b"x")
threading.Thread(target=shout, daemon=True).start()
run(Echo)
""",
    )
    caplog.set_level("INFO", "hybridd.plugin.loud")
    async with house() as home:
        began = time.monotonic()
        await home.hub.apply({"loud": home.spec("loud", source)})
        await home.hub.ensure_connected("loud", 10)
        printed = home.directory / "printed"
        await home.until(lambda: printed.exists() and printed.stat().st_size * len(noise) > 2 * OUTPUT_BYTES)
        assert await text_of(home.generate("loud", prompt="still here")) == "still here"
        seconds = time.monotonic() - began
        taken = printed.stat().st_size * len(noise)
        assert len(view(home, "loud").stderr) == 50
    # Each second holds its allowance, the read that crossed it, and what fits the pipe.
    assert taken <= (seconds + 1) * (OUTPUT_BYTES + 512 * 1024)
    assert seconds > 1
    assert any("more than 200 lines a second" in record.getMessage() for record in caplog.records)


async def test_a_new_key_needs_only_a_reload(home, tmp_path):
    """A changed key file, a key program, and a key that was missing replace the process; nothing else does."""
    held = tmp_path / "key"
    held.write_text("one")
    by_file = home.spec("echo", ECHO, plugin_config={"api_key": {"file": str(held)}})
    await home.hub.apply({"echo": by_file})
    await home.hub.ensure_connected("echo", 10)
    first = view(home, "echo").pid
    await home.hub.apply({"echo": by_file})
    assert view(home, "echo").pid == first
    held.write_text("another")
    await home.hub.apply({"echo": by_file})
    await home.until(lambda: home.hub.connected("echo") and view(home, "echo").pid not in (None, first))
    pids = [view(home, "echo").pid]
    by_program = home.spec("echo", ECHO, plugin_config={"api_key": {"command": ["pass", "echo"]}})
    for _ in range(2):
        await home.hub.apply({"echo": by_program})
        await home.until(lambda: home.hub.connected("echo") and view(home, "echo").pid not in (None, *pids))
        pids.append(view(home, "echo").pid)
    source = ECHO.replace("run(Echo)", "Echo.state = 'not_configured'; run(Echo)")
    await home.hub.apply({"bare": home.spec("bare", source)})
    await home.until(lambda: home.hub.providers["bare"].state == "not_configured")
    third = view(home, "bare").pid
    await home.hub.apply({"bare": home.spec("bare", source)})
    await home.until(lambda: view(home, "bare").pid not in (None, third))


def test_environment_is_an_allow_list():
    """Only the basics and the referenced names reach a plugin, plus the socket and its token."""
    world = {
        "PATH": "/bin",
        "HOME": "/h",
        "LC_ALL": "C",
        "OPENAI_API_KEY": "a",
        "GROQ_API_KEY": "b",
        "PYTHONPATH": "/x",
    }
    context = SpawnContext(socket=Path("/s"), environ=world)
    from hybridd.config.resolved import ProviderSpec

    spec = ProviderSpec(name="g", plugin="g", account="g", command=("x",), environment=("GROQ_API_KEY", "ABSENT"))
    passed = environment(context, plans({"g": spec})["g"], "token")
    assert passed == {
        "PATH": f"{Path(sys.executable).parent}:/bin", "HOME": "/h", "LC_ALL": "C", "GROQ_API_KEY": "b",
        "HYBRIDD_SOCKET": "/s", "HYBRIDD_PLUGIN_TOKEN": "token",
    }  # fmt: skip


def test_plans_group_and_leave_out():
    """Providers of one process share a plan; disabled, unconfigured and external ones need none."""
    from hybridd.config.resolved import ProviderSpec

    base: dict[str, Any] = {"plugin": "p", "account": "a", "command": ("x",), "process": "p"}
    specs = {
        "a": ProviderSpec(name="a", start="on_demand", idle_stop_seconds=5, environment=("A",), **base),
        "b": ProviderSpec(name="b", start="on_demand", idle_stop_seconds=9, environment=("B",), **base),
        "off": ProviderSpec(name="off", enabled=False, **{**base, "process": "off"}),
        "keyless": ProviderSpec(name="keyless", not_configured="no key", **{**base, "process": "keyless"}),
        "external": ProviderSpec(name="external", plugin="mine", account="a"),
        "bundled": ProviderSpec(name="bundled", plugin="specialists", account="a", idle_stop_seconds=None),
    }
    made = plans(specs)
    assert set(made) == {"p", "bundled"}
    assert (made["p"].environment, made["p"].on_demand, made["p"].idle_stop) == (("A", "B"), True, 9)
    assert made["bundled"].command[1:] == ("-m", "plugins.specialists")


# names and tokens


async def test_configured_name_needs_its_token(home):
    """A name the configuration gives to a spawned plugin cannot be taken by another process."""
    await home.hub.apply({"echo": home.spec("echo", ECHO, start="on_demand")})
    async with home.raw("thief", register=False) as plugin:
        await plugin.initialize("thief")
        answer = await plugin.register("echo")
        assert "a plugin that the daemon starts" in answer["error"]["message"]
        assert home.hub.providers["echo"].state == "idle"
    other = await RawPlugin.connect(home.socket)
    answer = await other.initialize("x", token="guess")
    assert answer["error"]["message"] == "the token is unknown or was used before"


async def test_token_is_good_once(home):
    """The token of a running plugin cannot be used a second time."""
    source = ECHO.replace(
        "run(Echo)", "import os; open('token', 'w').write(os.environ['HYBRIDD_PLUGIN_TOKEN']); run(Echo)"
    )
    await home.hub.apply({"echo": home.spec("echo", source)})
    await home.hub.ensure_connected("echo", 10)
    other = await RawPlugin.connect(home.socket)
    answer = await other.initialize("echo", token=(home.directory / "token").read_text())
    assert "used before" in answer["error"]["message"]
    assert home.hub.connected("echo")


async def test_connections_leave_no_descriptors(home):
    """Plugins that come and go leave no open files behind."""

    async def visit():
        async with home.raw("guest"):
            assert home.hub.connected("guest")
        await home.until(lambda: not home.hub.connected("guest"))

    source = "import sys; sys.path.insert(0, sys.argv[2])\n" + GUEST
    command = [sys.executable, "-c", source, str(home.socket), str(ROOT)]
    await visit()
    before = len(os.listdir("/proc/self/fd"))
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True)
    assert done.stdout == "5\n", done.stderr
    await home.until(lambda: len(os.listdir("/proc/self/fd")) <= before)


GUEST = """
import asyncio
from tests.providers.support import RawPlugin

async def main():
    done = 0
    for _ in range(5):
        plugin = await RawPlugin.connect(sys.argv[1])
        await plugin.initialize("guest")
        done += "result" in await plugin.register("guest")
        plugin.link.close()
        await plugin.lost()
    print(done, flush=True)
    await asyncio.sleep(0)

asyncio.run(main())
"""


async def test_external_names(home):
    """A plugin that connects by itself gets its settings, may not take reserved or foreign names, and is replaced only
    by its own instance."""
    spec = home.spec("lab", process="", plugin="mine", plugin_config={"base_url": "http://x"})
    await home.hub.apply({"lab": spec})
    assert home.hub.providers["lab"].state == "disconnected"
    async with home.raw("mine", register=False) as plugin, home.raw("rival", register=False) as rival:
        settings = await plugin.initialize("mine")
        assert settings["result"]["providers"] == {"lab": {"base_url": "http://x"}}
        assert (await plugin.register("lab"))["result"] == {}
        assert home.hub.providers["lab"].state == "ready"
        await rival.initialize("rival")
        assert "is registered by mine" in (await rival.register("lab"))["error"]["message"]
        for name in ("auto", "task", "local", "specialists"):
            assert "reserved" in (await rival.register(name))["error"]["message"]
        again = await RawPlugin.connect(home.socket)
        await again.initialize("mine")
        assert (await again.register("lab"))["result"] == {}
        assert "replaced" in await plugin.lost()
        assert home.hub.connected("lab")
        again.link.close()


async def test_names_outside_the_configuration(home, caplog):
    """A provider that the configuration does not name is taken, said to be without effect, and bounded in number."""
    async with home.raw("stray") as plugin:
        await plugin.register("stray")
        assert "does not name it under providers: stray" in view(home, "stray").reason
        assert sum("never chosen" in record.getMessage() for record in caplog.records) == 1
        for number in range(MAX_PROVIDERS - 1):
            assert (await plugin.register(f"p{number}"))["result"] == {}
        assert "at most 256 providers" in (await plugin.register("more"))["error"]["message"]
        assert (await plugin.register("stray"))["result"] == {}
        assert home.hub.connected("stray")


@pytest.mark.parametrize(
    ("params", "reason"),
    [
        ({"models": [{"id": "m"}, {"id": "m"}]}, "registered twice"),
        ({"quotas": [{"unit": "requests", "limit": 5}]}, "a window is needed"),
        ({"quotas": [{"unit": "requests", "limit": 5, "window": "soon"}]}, "neither '<n>s'"),
        ({"quotas": [{"unit": "requests", "limit": 5, "buffer": 9, "window": "60s"}]}, "do not fit"),
        ({"quotas": [{"unit": "apples", "limit": 5}]}, "Invalid enum value"),
        ({"quotas": [{"unit": "requests", "limit": 5, "window": "day", "zone": "Mars/Base"}]}, "zone"),
        ({"models": [{"id": ""}]}, "length >= 1"),
        ({"state": "happy"}, "Invalid enum value"),
    ],
)
async def test_unusable_registration_is_refused(home, params, reason):
    """A registration that cannot be used is refused with the reason; what was registered before stays."""
    async with home.raw() as plugin:
        assert reason in (await plugin.register("raw", **params))["error"]["message"]
        assert list(home.hub.providers["raw"].models) == ["m"]


async def test_registered_states(home):
    """The states a plugin reports are the provider's: degraded still answers, retired and not configured do not."""
    states = []
    home.hub.on_state.append(lambda name: states.append(home.hub.providers[name].state))
    async with home.raw() as plugin:
        runtime = home.hub.providers["raw"]
        await plugin.register("raw", state="degraded", reason="slow")
        assert (runtime.state, runtime.reason, runtime.degraded) == ("ready", "slow", True)
        await plugin.register("raw", state="retired", reason="sunset")
        assert (runtime.state, runtime.reason) == ("retired", "sunset")
        await plugin.register("raw", state="not_configured", reason="no key")
        assert (runtime.state, runtime.reason) == ("not_configured", "no key")
    await home.until(lambda: states[-1] == "disconnected")


# on demand, idle, reconfigured


async def test_on_demand_start_and_idle_stop():
    """An on-demand plugin starts with the first call that needs it, ends when idle, and starts again."""
    async with house() as home:
        await home.hub.apply({"echo": home.spec("echo", ECHO, start="on_demand", idle_stop_seconds=0.2)})
        runtime = home.hub.providers["echo"]
        assert (runtime.state, view(home, "echo").pid) == ("idle", None)
        await home.hub.ensure_connected("echo", 10)
        first = view(home, "echo").pid
        assert await text_of(home.generate("echo", prompt="one")) == "one"
        await home.until(lambda: runtime.state == "idle" and not alive(first))
        assert view(home, "echo").restarts == 0
        assert list(runtime.models) == ["m"]
        await home.hub.ensure_connected("echo", 10)
        assert await text_of(home.generate("echo", prompt="two")) == "two"


async def test_an_eager_plugin_rests_too():
    """An eager plugin with an idle time starts at once, ends when idle, and then waits until it is needed."""
    async with house() as home:
        await home.hub.apply({"echo": home.spec("echo", ECHO, idle_stop_seconds=0.2)})
        runtime = home.hub.providers["echo"]
        await home.until(lambda: runtime.state == "ready")
        first = view(home, "echo").pid
        await home.until(lambda: view(home, "echo").state == "idle" and not alive(first))
        assert (runtime.state, view(home, "echo").pid) == ("idle", None)
        await home.hub.ensure_connected("echo", 10)
        assert await text_of(home.generate("echo", prompt="again")) == "again"


async def test_no_idle_stop_during_a_call():
    """A call longer than the idle time is not cut."""
    async with house() as home:
        await home.hub.apply({"slow": home.spec("slow", SLOW, start="on_demand", idle_stop_seconds=0.1)})
        await home.hub.ensure_connected("slow", 10)
        assert await text_of(home.generate("slow"))


async def test_ensure_connected_is_bounded():
    """Waiting for a plugin ends at the given time, and says what it waited for."""
    async with house() as home:
        await home.hub.apply({"mute": home.spec("mute", "import time; time.sleep(60)")})
        with pytest.raises(HybriddError, match=r"was not ready within 0\.2 s"):
            await home.hub.ensure_connected("mute", 0.2)
        with pytest.raises(ProviderError, match="there is no provider"):
            await home.hub.ensure_connected("stranger", 0.2)


async def test_reconfiguration_loses_no_call():
    """A changed configuration starts a new process while the old one finishes its calls; others keep running."""
    async with house(msgspec.structs.replace(FAST, stop=0.1)) as home:  # shorter than the call
        specs = {"slow": home.spec("slow", SLOW), "echo": home.spec("echo", ECHO)}
        await home.hub.apply(specs)
        await home.hub.ensure_connected("slow", 10)
        await home.hub.ensure_connected("echo", 10)
        old, kept = view(home, "slow").pid, view(home, "echo").pid
        call = home.generate("slow")
        await home.hub.apply({**specs, "slow": msgspec.structs.replace(specs["slow"], plugin_config={"new": 1})})
        assert await text_of(call) == str(old)
        await home.until(lambda: view(home, "slow").pid not in (old, None) and home.hub.connected("slow"))
        assert await text_of(home.generate("slow")) == str(view(home, "slow").pid)
        await home.until(lambda: not alive(old))
        assert view(home, "echo").pid == kept


async def test_removed_and_disabled_providers_stop(home):
    """A provider that is disabled or removed takes no new call at once; its process ends after its calls."""
    spec = home.spec("slow", SLOW)
    await home.hub.apply({"slow": spec})
    await home.hub.ensure_connected("slow", 10)
    pid = view(home, "slow").pid
    call = home.generate("slow")
    await home.hub.apply({"slow": msgspec.structs.replace(spec, enabled=False)})
    assert home.hub.providers["slow"].state == "disabled"
    assert not home.hub.connected("slow")
    assert await text_of(call) == str(pid)
    await home.until(lambda: not alive(pid))
    await home.hub.apply({})
    assert "slow" not in home.hub.providers


# nothing is left behind


async def test_stubborn_plugin_and_its_children_are_killed(home):
    """A plugin that ignores shutdown and SIGTERM is killed with everything in its process group."""
    source = """
    import asyncio, os, signal, subprocess
    from hybridd.plugin import Provider, run
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    class Stubborn(Provider):
        name = "stubborn"
        async def start(self):
            child = subprocess.Popen(["sleep", "60"])
            open("child", "w").write(str(child.pid))
        async def stop(self):
            await asyncio.sleep(60)
    run(Stubborn)
    """
    await home.hub.apply({"stubborn": home.spec("stubborn", textwrap.dedent(source))})
    await home.hub.ensure_connected("stubborn", 10)
    pid, child = view(home, "stubborn").pid, int((home.directory / "child").read_text())
    assert alive(pid)
    assert alive(child)
    await home.hub.close(0.3)
    assert not alive(pid)
    await home.until(lambda: not alive(child))


DAEMON = """
import asyncio, sys
import uvloop
sys.path.insert(0, {root!r})
from tests.providers.support import ECHO, house

async def main():
    async with house() as home:
        await home.hub.apply({{
            "echo": home.spec("echo", ECHO),
            "stuck": home.spec("stuck", "import time; time.sleep(600)"),
            "bridged": home.spec(
                "bridged", command=(sys.executable, "-m", "hybridd.plugin.bridge", "--", "sleep", "600")
            ),
        }})
        await home.hub.ensure_connected("echo", 10)
        await home.until(lambda: all(view.pid for view in home.hub.plugin_views()))
        await asyncio.sleep(0.5)
        print(" ".join(str(view.pid) for view in home.hub.plugin_views()), flush=True)
        await asyncio.sleep(600)

uvloop.run(main())
"""


def descendants(pid: int) -> set[int]:
    found = set()
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found |= {child} | descendants(child)
    return found


def test_no_orphans_after_kill_9():
    """SIGKILL of the daemon ends every plugin process, bridged programs included, within a moment."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", DAEMON.format(root=str(ROOT))], stdout=subprocess.PIPE, env=environ, text=True
    ) as daemon:
        assert daemon.stdout is not None
        plugins = list(map(int, daemon.stdout.readline().split()))
        everyone = descendants(daemon.pid)
        assert set(plugins) <= everyone
        assert len(everyone) == 4
        assert all(map(alive, everyone))
        daemon.send_signal(signal.SIGKILL)
        daemon.wait()
        until = time.monotonic() + 5
        while any(map(alive, everyone)) and time.monotonic() < until:
            time.sleep(0.01)
        assert [pid for pid in everyone if alive(pid)] == []


async def test_spawning_off_the_main_thread_is_refused(home):
    """The death signal belongs to the spawning thread, so only the main thread may start plugins."""
    from hybridd.providers.spawn import SpawnFailed, spawn

    plan = plans({"echo": home.spec("echo", ECHO)})["echo"]

    def elsewhere():
        with asyncio.Runner() as runner:
            runner.run(spawn(home.hub._spawn, plan, "token"))

    with pytest.raises(SpawnFailed, match="main thread"):
        await asyncio.to_thread(elsewhere)


async def test_plugin_events_on_the_bus(home):
    """Changes of a plugin and its provider are published when somebody listens."""
    subscription = home.hub._bus.subscribe(lambda: None, ["plugin", "provider"])
    await home.hub.apply({"echo": home.spec("echo", ECHO)})
    await home.hub.ensure_connected("echo", 10)
    events = subscription.drain()
    assert {event.kind for event in events} == {"plugin", "provider"}
    assert json.loads(msgspec.json.encode(events[-1].data))["key"] == "echo"
    assert [one.name for one in home.hub.provider_views()] == ["echo"]
