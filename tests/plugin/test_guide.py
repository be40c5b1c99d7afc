"""The plugin guide, its programs, the schema and the conformance check say the same thing."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import jsonschema  # type: ignore[import-untyped]  # it ships no types
import msgspec
import pytest
from msgspec import Raw

import hybridd.plugin
from hybridd.contracts import protocol as wire
from hybridd.errors import InvalidRequest
from hybridd.plugin import schema
from hybridd.providers import Timing
from hybridd.providers.check import check, main
from hybridd.providers.check_report import command_for, render
from tests.providers.support import ROOT, house

GUIDE = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
PROGRAMS = dict(re.findall(r"<!-- file: (\S+) -->\n```\w+\n(.*?)```", GUIDE, re.DOTALL))
ENVIRON = {**os.environ, "PYTHONPATH": str(ROOT)}
BRIDGE = (sys.executable, "-m", "hybridd.plugin.bridge", "--")


def write(directory: Path, name: str) -> Path:
    path = directory / name
    path.write_text(PROGRAMS[name], encoding="utf-8")
    return path


def verdicts(report):
    return {rule.name: rule.verdict for rule in report.rules}


async def test_python_program_of_the_guide(tmp_path):
    """The guide's Python plugin is about 40 lines and keeps every rule."""
    assert len(PROGRAMS["fortune.py"].splitlines()) <= 45
    report = await check(write(tmp_path, "fortune.py"), environ=ENVIRON)
    assert set(verdicts(report).values()) == {"pass"}, render(report)


async def test_shell_program_of_the_guide(tmp_path):
    """The guide's shell plugin, behind the bridge, keeps every rule with nothing but sh and sed."""
    report = await check([*BRIDGE, "sh", str(write(tmp_path, "clock.sh"))], environ=ENVIRON)
    assert set(verdicts(report).values()) == {"pass"}, render(report)


async def test_programs_of_the_guide_in_a_house():
    """Configured as the guide says, both answer calls, streamed and not, whatever the prompt holds."""
    async with house() as home:
        write(home.directory, "fortune.py")
        write(home.directory, "clock.sh")
        await home.hub.apply(
            {
                "fortune": home.spec("fortune", command=(sys.executable, "fortune.py")),
                "clock": home.spec("clock", command=(*BRIDGE, "sh", "clock.sh")),
            }
        )
        for name in ("fortune", "clock"):
            await home.hub.ensure_connected(name, 10)
            prompt = 'what\'s "the" time,\n{"method":"shutdown","stream":true}\\?'
            result = await home.generate(name, prompt=prompt).result()
            assert isinstance(result.body, Raw)
            assert msgspec.json.decode(result.body)["choices"][0]["message"]["content"]
            assert result.usage is not None
            events: list[Raw] = []
            await home.generate(name, prompt=prompt, on_events=events.extend).result()
            assert events
        assert home.hub.providers["fortune"].quotas[0].limit == 30


async def test_bridge_keeps_a_pretty_printed_body_on_one_line():
    """A request body with line breaks between its tokens still reaches the program as one line."""
    async with house() as home:
        (home.directory / "mirror.py").write_text(MIRROR)
        await home.hub.apply({"mirror": home.spec("mirror", command=(*BRIDGE, sys.executable, "-u", "mirror.py"))})
        await home.hub.ensure_connected("mirror", 10)
        body = b'{\n  "model": "m",\r\n  "messages": ["a\\nb"]\n}'
        params = wire.Generate("mirror", "m", Raw(body))
        deadline = asyncio.get_running_loop().time() + 5
        result = await home.hub.start_call("mirror", "generate", params, deadline=deadline).result()
        assert isinstance(result.body, Raw)
        assert msgspec.json.decode(result.body) == {"model": "m", "messages": ["a\nb"]}


# Answers each call with its own body; every line must be a whole message.
MIRROR = """
import json, sys
def say(**message): print(json.dumps({"jsonrpc": "2.0", **message}))
plugin = {"protocolVersions": ["1"], "plugin": {"name": "mirror"}, "instanceId": "1"}
say(id=1, method="initialize", params=plugin)
for line in sys.stdin:
    message = json.loads(line)
    if message.get("method") == "generate":
        say(id=message["id"], result={"body": message["params"]["body"]})
    elif "method" in message:
        say(id=message["id"], result={})
        if message["method"] == "shutdown":
            break
    elif message["id"] == 1:
        say(id=2, method="provider/register", params={"provider": "mirror", "models": [{"id": "m"}]})
"""


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("exit 5", "sh exited with 5"),
        ("echo hello; sleep 5", "not JSON"),
        ('echo \'{"id":1,"method":"initialize","params":{"protocolVersions":["7"]}}\'; sleep 5', "initialize"),
    ],
)
async def test_bridge_ends_with_a_reason(script, reason):
    """A program that ends, talks nonsense or is refused ends the bridge with one line that says why."""
    async with house() as home:
        await home.hub.apply({"bad": home.spec("bad", command=(*BRIDGE, "sh", "-c", script))})
        await home.until(lambda: home.hub.plugin_views()[0].restarts >= 1, timeout=15)
        view = home.hub.plugin_views()[0]
        assert reason in " ".join([view.reason, *view.stderr])


async def test_bridge_leaves_nothing_of_its_command_behind(tmp_path):
    """What CMD had put into the background ends with the bridge, also when CMD itself has ended in good order."""
    hello = {"protocolVersions": ["1"], "plugin": {"name": "b"}, "instanceId": "b"}
    script = f"""
    sleep 300 & echo $! > {tmp_path / "pid"}
    echo '{json.dumps({"id": 1, "method": "initialize", "params": hello})}'
    read line
    echo '{json.dumps({"id": 2, "method": "provider/register", "params": {"provider": "b", "models": [{"id": "m"}]}})}'
    while read line; do case $line in *shutdown*) exit 0;; esac; done
    """
    async with house() as home:
        await home.hub.apply({"b": home.spec("b", command=(*BRIDGE, "sh", "-c", script))})
        await home.hub.ensure_connected("b", 10)
        left = int((tmp_path / "pid").read_text())
        os.kill(left, 0)
        await home.hub.close(2)
        # A killed orphan stays a zombie where nobody adopts it.
        await home.until(lambda: not Path(f"/proc/{left}").exists() or ") Z" in Path(f"/proc/{left}/stat").read_text())


def test_bridge_command_line(tmp_path):
    """Without a command, without a daemon, and without the program, the bridge says so and ends with an error."""
    environ = {**ENVIRON, "HYBRIDD_SOCKET": str(tmp_path / "none")}
    for arguments, code, said in (
        ((), 2, "usage:"),
        (("true",), 1, "no daemon answers"),
        (("/nowhere/program",), 1, "does not exist"),
    ):
        done = subprocess.run([*BRIDGE, *arguments], capture_output=True, text=True, env=environ, timeout=20)
        assert done.returncode == code
        assert said in done.stderr


# the conformance check

BAD = {
    "connects and initializes": "import time; time.sleep(30)",
    "answers a call": "async def generate(self, request, stream): return {'no': 'choices'}",
    "keeps to its credit": """
async def generate(self, request, stream):
    stream._credit = 10**9
    for _ in range(5):
        await stream.send("word ")
    return Result()
""",
    "answers heartbeats during a call": """
async def generate(self, request, stream):
    import time
    if not request.stream:
        SEEN.append(1)
        if len(SEEN) == 2:
            time.sleep(2.6)
    return "x"
SEEN = []
""",
    "answers once after a cancel": """
async def generate(self, request, stream):
    import asyncio
    if not request.stream:
        SEEN.append(1)
        if len(SEEN) == 3:
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                await asyncio.sleep(30)
    return "x"
SEEN = []
""",
    "answers a probe": "async def probe(self): raise RuntimeError('no')\nasync def generate(self, r, s): return 'x'",
    "shuts down when asked": """
async def generate(self, request, stream):
    return "x"
async def stop(self):
    import os
    os._exit(3)
""",
}


@pytest.mark.parametrize("rule", BAD)
async def test_check_finds_what_is_broken(tmp_path, rule):
    """A plugin that breaks a rule fails that rule and no earlier one."""
    body = BAD[rule]
    source = body
    if "def " in body:
        source = "from hybridd.plugin import Model, Provider, Result, run\nclass Bad(Provider):\n    name = 'bad'\n"
        source += "    async def models(self): return [Model(id='m')]\n" + textwrap.indent(body, "    ")
        source = source.replace("SEEN.append", "Bad.SEEN.append").replace("len(SEEN)", "len(Bad.SEEN)") + "\nrun(Bad)\n"
    path = tmp_path / "bad.py"
    path.write_text(source)
    report = await check(path, environ=ENVIRON, timing=Timing(start=5.0 if "def " in body else 1.0, cancel=0.5))
    failed = [name for name, verdict in verdicts(report).items() if verdict == "fail"]
    assert failed[:1] == [rule], render(report)
    assert not report.ok


async def test_check_skips_what_cannot_be_tried(tmp_path):
    """A provider without a key is not blamed for it: the calls are skipped with its own words."""
    path = tmp_path / "keyless.py"
    path.write_text(
        "from hybridd.plugin import CallFailure, Model, Provider, run\n"
        "class Keyless(Provider):\n"
        "    name = 'keyless'\n"
        "    state, reason = 'not_configured', 'no key'\n"
        "    async def models(self): return [Model(id='m')]\n"
        "    async def generate(self, request, stream): raise CallFailure('auth', 'no key', sent='no')\n"
        "run(Keyless)\n"
    )
    report = await check(path, environ=ENVIRON)
    assert report.ok, render(report)
    assert verdicts(report)["answers a call"] == "skip"


def test_check_command_line(tmp_path, capsys, monkeypatch):
    """The command prints a verdict for each rule, as text or data, and its exit code says whether all were kept."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    assert main(write(tmp_path, "fortune.py")) == 0
    assert "It keeps the protocol." in capsys.readouterr().out
    assert main(write(tmp_path, "fortune.py"), True) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["ok"] is True
    assert {rule["verdict"] for rule in shown["rules"]} == {"pass"}
    with pytest.raises(InvalidRequest, match="does not exist"):
        main(tmp_path / "absent")
    (tmp_path / "dead.py").write_text("raise SystemExit('I refuse')")
    assert main(tmp_path / "dead.py") == 1
    assert "I refuse" in capsys.readouterr().out


def test_what_a_path_runs(tmp_path):
    """Python files and folders run with this interpreter, executables as they are, bundled plugins by name."""
    (tmp_path / "pack").mkdir()
    with pytest.raises(ValueError, match="without __main__"):
        command_for(tmp_path / "pack")
    (tmp_path / "pack" / "__main__.py").write_text("")
    assert command_for(tmp_path / "pack") == [sys.executable, str(tmp_path / "pack")]
    (tmp_path / "tool").write_text("#!/bin/sh\n")
    with pytest.raises(ValueError, match="is not executable"):
        command_for(tmp_path / "tool")
    (tmp_path / "tool").chmod(0o755)
    assert command_for(str(tmp_path / "tool")) == [str(tmp_path / "tool")]
    assert command_for("specialists") == [sys.executable, "-m", "plugins.specialists"]
    assert command_for(["a", "b"]) == ["a", "b"]


# the schema


def test_schema_file_is_generated():
    """docs/protocol.schema.json is what `python -m hybridd.plugin.schema` prints."""
    assert (ROOT / "docs" / "protocol.schema.json").read_text(encoding="utf-8") == schema.text()


def test_schema_covers_every_method():
    """Every method has its message, every request its answer, and the schema itself is valid."""
    made = schema.schema()
    jsonschema.Draft202012Validator.check_schema(made)
    for method, (_, _, result) in wire.METHODS.items():
        assert method in made["$defs"]
        assert (f"{method}.result" in made["$defs"]) == (result is not None)


def test_real_messages_match_the_schema():
    """Messages as they are sent are valid; broken ones are not."""
    validator = jsonschema.Draft202012Validator(schema.schema())

    def of(name, message):
        return validator.evolve(schema={**schema.schema(), "anyOf": [{"$ref": f"#/$defs/{name.replace('/', '~1')}"}]})\
            .is_valid(message)  # fmt: skip

    generate = {"provider": "p", "model": "m", "body": {"messages": []}, "deadlineMs": 5}
    assert of("generate", {"jsonrpc": "2.0", "id": 1, "method": "generate", "params": generate})
    assert not of("generate", {"jsonrpc": "2.0", "method": "generate", "params": generate})
    assert not of("generate", {"jsonrpc": "2.0", "id": 1, "method": "generate", "params": {"provider": "p"}})
    usage = {"inputTokens": 1, "outputTokens": 2}
    assert of("generate.result", {"jsonrpc": "2.0", "id": 1, "result": {"body": {}, "usage": usage, "later": 1}})
    assert not of("generate.result", {"jsonrpc": "2.0", "id": 1, "result": {"usage": {**usage, "inputTokens": -1}}})
    chunk = {"id": 1, "seq": 0, "events": [{}]}
    assert of("stream/chunk", {"jsonrpc": "2.0", "method": "stream/chunk", "params": chunk})
    assert not of("stream/chunk", {"jsonrpc": "2.0", "method": "stream/chunk", "params": {**chunk, "seq": -1}})
    for line in re.findall(r"^ *say '(\{.*\})'$", PROGRAMS["clock.sh"], re.MULTILINE):
        assert validator.is_valid(json.loads(re.sub(r"'(\"\$\w+\"|\$\$)'", "1", line))), line


# the page


def test_the_page_names_what_there_is():
    """Every exported name stands in the guide, and every name and message the guide lists exists."""
    for name in hybridd.plugin.__all__:
        if name not in ("KeyUnavailable", "serve"):
            assert re.search(rf"\b{name}\b", GUIDE), name
    for method in wire.METHODS:
        assert f"`{method}`" in GUIDE, method
    kinds = inspect.getsource(wire)[: inspect.getsource(wire).index("# JSON-RPC error codes")]
    for kind in re.findall(r'"([a-z_]+)",', kinds[kinds.index("ErrorKind") :]):
        assert f"`{kind}`" in GUIDE, kind
