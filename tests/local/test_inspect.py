"""Model files read in a child with limits, and what is remembered of them."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from hybridd.config.gguf_files import model_name
from hybridd.local import inspect as inspect_module
from hybridd.local import inspect_cache
from hybridd.local.facts import ModelFacts
from hybridd.local.inspect import inspect
from tests.fakes.hostile_gguf import corpus
from tests.fakes.tiny_gguf import make_tiny_gguf


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_tiny_gguf(tmp_path / "tiny.gguf")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "models.json"


def _readers(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The files given to each child that is started from now on."""
    started: list[list[str]] = []
    real = asyncio.create_subprocess_exec

    async def spy(*command: str, **options: object) -> asyncio.subprocess.Process:
        started.append([Path(one).name for one in command[4:]])
        return await real(*command, **options)  # type: ignore[arg-type]  # options go through as they came

    monkeypatch.setattr(asyncio, "create_subprocess_exec", spy)
    return started


def _stand_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, body: str) -> None:
    """Children run ``body`` in place of the reader; ``paths`` are the files, ``say`` answers for one."""
    program = tmp_path / "reader.py"
    program.write_text(
        "import sys, os, json, time, signal\n"
        "paths = sys.argv[sys.argv.index('--') + 1:]\n"
        "def say(path): print(json.dumps({'path': path, 'error': 'fine', 'lasting': True}), flush=True)\n" + body
    )
    starter = tmp_path / "python"
    starter.write_text(f'#!/bin/sh\nshift 2\nexec {sys.executable} {program} "$@"\n')
    starter.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(starter))


async def test_facts_come_from_a_child(model: Path, cache: Path) -> None:
    """A model's facts, in the order asked for; what is no model has a sentence in place of them."""
    other = model.with_name("other.gguf")
    other.write_bytes(b"PK" + bytes(100))
    found = await inspect([other, model, model.with_name("none.gguf")], cache=cache)
    assert [path.name for path in found] == ["other.gguf", "tiny.gguf", "none.gguf"]
    facts = found[model]
    assert isinstance(facts, ModelFacts)
    assert (facts.id, facts.path, facts.architecture, len(facts.layers)) == ("tiny", str(model), "llama", 2)
    assert "begins with b'GGUF'" in str(found[other])
    assert "There is no file" in str(found[model.with_name("none.gguf")])


async def test_an_unchanged_file_is_read_once(model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second time no child is started, for a bad file neither; once a file changed, for that one only."""
    bad = model.with_name("bad.gguf")
    bad.write_bytes(b"GGUF")
    started = _readers(monkeypatch)
    first = await inspect([model, bad], cache=cache)
    assert await inspect([model, bad], cache=cache) == first
    assert started == [["tiny.gguf", "bad.gguf"]]
    shutil.copyfile(model, bad)
    again = await inspect([model, bad], cache=cache)
    assert isinstance(again[bad], ModelFacts)
    assert started[1:] == [["bad.gguf"]]


async def test_a_file_that_could_not_be_opened_is_tried_again(
    model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what the file's bytes say is remembered, not that it was missing or the disk refused."""
    missing = model.with_name("later.gguf")
    started = _readers(monkeypatch)
    assert "no file" in str((await inspect([missing], cache=cache))[missing])
    shutil.copyfile(model, missing)
    assert isinstance((await inspect([missing], cache=cache))[missing], ModelFacts)
    assert len(started) == 2


async def test_other_code_reads_anew(model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What older code found is not believed; neither is a broken cache, which costs reading only."""
    started = _readers(monkeypatch)
    await inspect([model], cache=cache)
    document = json.loads(cache.read_bytes())
    cache.write_text(json.dumps({**document, "made_by": "older"}))
    await inspect([model], cache=cache)
    for broken in (b"", b"{", b"[]", b'{"made_by": 3}', b"\xff\xfe"):
        cache.write_bytes(broken)
        assert isinstance((await inspect([model], cache=cache))[model], ModelFacts)
    assert len(started) == 7
    assert (cache.stat().st_mode & 0o077, os.listdir(cache.parent)) == (0, ["models.json"])


async def test_files_that_are_gone_are_forgotten(model: Path, cache: Path) -> None:
    """The cache does not grow with every file there ever was."""
    other = model.with_name("other.gguf")
    shutil.copyfile(model, other)
    await inspect([model], cache=cache)
    model.unlink()
    await inspect([other], cache=cache)
    assert list(json.loads(cache.read_bytes())["files"]) == [str(other)]


async def test_a_cache_that_cannot_be_written_costs_nothing_else(model: Path, tmp_path: Path) -> None:
    """A disk that refuses the cache leaves the facts as they are."""
    (tmp_path / "file").write_text("")
    found = await inspect([model], cache=tmp_path / "file" / "models.json")
    assert isinstance(found[model], ModelFacts)


async def test_a_change_of_any_part_is_a_change(tmp_path: Path) -> None:
    """The state of a split model covers all its parts; one that is missing leaves nothing to remember."""
    parts = [tmp_path / f"m-0000{number}-of-00002.gguf" for number in (1, 2)]
    for path in parts:
        path.write_bytes(b"x")
    before = inspect_cache.state(parts[0])
    parts[1].write_bytes(b"xy")
    assert before != inspect_cache.state(parts[0])
    assert len(before) == 2
    parts[1].unlink()
    assert inspect_cache.state(parts[0]) == ()


async def test_the_hostile_corpus_brings_nobody_down(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every lie is answered by its sentence, all by one child, and a sound model among them by its facts."""
    paths = []
    for number, case in enumerate(corpus()):
        paths.append(tmp_path / f"{number:03}.gguf")
        paths[-1].write_bytes(case.data)
    paths.insert(60, make_tiny_gguf(tmp_path / "tiny.gguf"))
    started = _readers(monkeypatch)
    found = await inspect(paths, cache=cache)
    assert [path for path in paths if isinstance(found[path], ModelFacts)] == [tmp_path / "tiny.gguf"]
    assert len(started) == 1


async def test_a_file_that_kills_its_reader_costs_that_file(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Death by signal, by processor time, a hang and nonsense: each costs the file at hand; the rest is read."""
    _stand_in(
        monkeypatch,
        tmp_path,
        "for path in paths:\n"
        "    name = os.path.basename(path)\n"
        "    if name == 'dies': os.kill(os.getpid(), signal.SIGSEGV)\n"
        "    if name == 'spins': os.kill(os.getpid(), signal.SIGXCPU)\n"
        "    if name == 'hangs': time.sleep(60)\n"
        "    if name == 'nonsense': print('{\"x\":', flush=True); continue\n"
        "    if name == 'endless': os.write(1, b'a' * 6_000_000)\n"
        "    say(path)\n",
    )
    names = ["a", "dies", "b", "spins", "c", "hangs", "d", "nonsense", "e", "endless", "f"]
    paths = [tmp_path / name for name in names]
    for path in paths:
        path.write_bytes(b"x")
    found = {path.name: str(said) for path, said in (await inspect(paths, cache=cache, seconds=1.0)).items()}
    assert [name for name in names if found[name] == "fine"] == ["a", "b", "c", "d", "e", "f"]
    assert "status -11" in found["dies"]
    assert "processor time" in found["spins"]
    assert "within 1 s" in found["hangs"]
    assert "cannot be used" in found["nonsense"]
    assert "cannot be used" in found["endless"]
    kept = json.loads(cache.read_bytes())["files"]
    assert {Path(path).name for path in kept} == {"a", "b", "c", "d", "e", "f", "spins"}


async def test_a_reader_that_never_works_is_given_up(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three deaths one after the other end it: a broken installation does not start a child for each file."""
    _stand_in(monkeypatch, tmp_path, "open(os.path.dirname(paths[0]) + '/starts', 'a').write('x'); sys.exit(3)\n")
    paths = [tmp_path / f"{number}" for number in range(9)]
    found = await inspect(paths, cache=cache)
    assert all("status 3" in str(found[path]) for path in paths[:3])
    assert all("reads models fails" in str(found[path]) for path in paths[3:])
    assert (tmp_path / "starts").read_text() == "xxx"


async def test_who_gives_up_waiting_leaves_no_child(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cancelled call ends its child."""
    pipe = tmp_path / "a.pid"
    os.mkfifo(pipe)
    _stand_in(
        monkeypatch, tmp_path, "open(paths[0] + '.pid', 'w').write(str(os.getpid())); say(paths[0]); time.sleep(60)\n"
    )
    task = asyncio.ensure_future(inspect([tmp_path / "a", tmp_path / "b"], cache=cache))
    pid = int(await asyncio.to_thread(pipe.read_text))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_names_that_cannot_be_said_are_refused(tmp_path: Path, cache: Path, model: Path) -> None:
    """A name that is no UTF-8 is answered without a child; one that looks like an option is a name."""
    strange, dash = tmp_path / "a\udc80.gguf", tmp_path / "--help.gguf"
    shutil.copyfile(model, dash)
    found = await inspect([strange, dash], cache=cache)
    assert "not UTF-8" in str(found[strange])
    assert isinstance(found[dash], ModelFacts)


def test_the_child_limits_itself(tmp_path: Path) -> None:
    """Its memory, processor time, descriptors and core are limited, and it sees no key of the daemon's."""
    program = (
        "import resource; from hybridd.local import inspect as i; i._limit(); i._more_time();"
        "print([resource.getrlimit(k)[0] for k in"
        " (resource.RLIMIT_AS, resource.RLIMIT_CORE, resource.RLIMIT_NOFILE)],"
        "resource.getrlimit(resource.RLIMIT_CPU)[0])"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, timeout=30, text=True)
    limits, cpu = said.stdout.strip().rsplit(" ", 1)
    assert limits == f"[{inspect_module.MEMORY_BYTES}, 0, 64]"
    assert inspect_module.CPU_SECONDS <= int(cpu) <= inspect_module.CPU_SECONDS + 2


async def test_the_child_gets_no_secrets(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys in the daemon's environment do not reach the process that reads untrusted files."""
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    _stand_in(
        monkeypatch, tmp_path, "open(paths[0] + '.env', 'w').write(json.dumps(dict(os.environ))); say(paths[0])\n"
    )
    await inspect([tmp_path / "a"], cache=cache)
    seen = json.loads((tmp_path / "a.env").read_text())
    assert "secret" not in seen.values()
    assert "PATH" in seen


def test_by_hand_it_prints_a_line_for_each_file(model: Path) -> None:
    """The program prints facts or a refusal as one line of JSON each, and ends well."""
    command = [sys.executable, "-m", "hybridd.local.inspect", str(model), "/etc/passwd"]
    said = subprocess.run(command, capture_output=True, check=True, timeout=30)
    first, second = said.stdout.splitlines()
    assert msgspec.json.decode(first, type=ModelFacts).architecture == "llama"
    assert json.loads(second)["error"].startswith("/etc/passwd: the magic number at byte 0: ")


def test_a_model_is_called_by_its_stem() -> None:
    """The number of a part is not in the name."""
    assert model_name(Path("/x/qwen-Q4_K_M-00001-of-00003.gguf")) == "qwen-Q4_K_M"
    assert model_name(Path("/x/tiny.gguf")) == "tiny"
