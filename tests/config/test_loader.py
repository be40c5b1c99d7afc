"""Every mistake in the file is named: where, which key, and what would be right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridd.config import loader
from hybridd.config.jsonfile import Document
from hybridd.config.settings import Settings
from hybridd.errors import ConfigError
from tests.config.conftest import Load

CANARY = "canary-0123456789-secret"


def refused(load: Load, text: str | None = None, **members: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load(text, **members)
    assert caught.value.exit_code == 3
    return caught.value.message


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("", "1:1", "empty"),
        ("  \n ", "1:1", "empty"),
        ("[]", "1:1", "must be an object"),
        ('{\n "flags": {},\n}', "2:13", "comma must not stand before a closing bracket"),
        ('{"tasks": {"a": ["local:*",]}}', "1:27", "comma must not stand before a closing bracket"),
        ("{'a': 1}", "1:2", "double quotes"),
        ('{"flags": {} // later\n}', "1:14", "comments are not allowed"),
        ('{"flags": {}', "1:13", "ends too early"),
        ('{"flags', "1:2", "no closing quote"),
        ('{"flags": tru}', "1:11", "expecting value"),
        ('{"flags": {}}\n{}', "2:1", "extra data"),
        ('{\n"flags": {},\n"flags": {}}', "3:1", "flags: this key is given twice"),
        ('{"flags": {"use_ollama": true,\n  "use_\\u006fllama": false}}', "2:3", "flags.use_ollama: this key is given"),
        ('{"flags": {"ollama_percentage": NaN}}', "", "NaN is not a JSON number"),
        ('{"flags": {"ollama_percentage": 1e999}}', "1:12", "flags.ollama_percentage: must be a finite number"),
        ('{"flags": "\\ud800"}', "", "half of a surrogate pair"),
        ('{"a":' + "[" * 100_000, "", "nested too deeply"),
        ('{"a": ' + "9" * 5000 + "}", "", "4300"),
    ],
)
def test_broken_json_is_named_with_line_and_column(
    load: Load, tmp_path: Path, text: str, place: str, words: str
) -> None:
    """Syntax errors name file:line:column and say what is wrong, never with a traceback."""
    message = refused(load, text)
    expected = f"{tmp_path / 'hybrid_config.json'}:{place}"
    assert message.startswith(expected if place else str(tmp_path))
    assert words in message


def test_invalid_utf8_and_marks_are_named(tmp_path: Path) -> None:
    """Invalid UTF-8 is located to the byte; a byte order mark and UTF-16 are called what they are."""
    path = tmp_path / "c.json"
    for raw, words in (
        (b'{\n "fl\xffgs": {}}', f"{path}:2:5: byte 0xff is not valid UTF-8"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
        ('{"flags": {}}'.encode("utf-16"), "save it as UTF-8"),
    ):
        path.write_bytes(raw)
        with pytest.raises(ConfigError) as caught:
            loader.read(path)
        assert words in caught.value.message


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    """An absent file, a folder and a file past the size cap are errors that name the path."""
    big = tmp_path / "big.json"
    big.write_bytes(b" " * (8 * 1024 * 1024 + 1))
    for path, words in ((tmp_path / "none.json", "no such file"), (tmp_path, "not a regular file"), (big, "at most")):
        with pytest.raises(ConfigError, match=words) as caught:
            loader.load(path)
        assert str(path) in caught.value.message


@pytest.mark.parametrize(
    ("members", "key", "words"),
    [
        ({"flags": {"use_olama": True}}, "flags.use_olama", 'nearest known key is "use_ollama"'),
        ({"flagz": {}}, "flagz", 'nearest known key is "flags"'),
        ({"check_interval_seconds": 5}, "check_interval_seconds", '"monitoring.check_interval_seconds"'),
        ({"github_models": {"rate-limit-buffer": 5}}, "github_models.rate-limit-buffer", '"rate_limit_buffer"'),
        ({"providers": {"a": {"plugin": "mine", "baseurl": "x"}}}, "providers.a.baseurl", '"base_url"'),
        ({"providers": {"a": {"plugin": "mine", "quotas": [{"unit": "requests", "limit": 1, "windw": "60s"}]}}},
         "providers.a.quotas[0].windw", '"window"'),
        ({"tasks": {"t": {"candidates": ["local:*"], "temprature": 1}}}, "tasks.t.temprature", '"temperature"'),
        ({"experiments": {"e": {"arms": {"local:*": 1}, "sallt": "x"}}}, "experiments.e.sallt", '"salt"'),
    ],
)  # fmt: skip
def test_unknown_keys_name_the_nearest(load: Load, members: dict[str, Any], key: str, words: str) -> None:
    """An unknown key at any depth names the file's place, the dotted key and the nearest known one."""
    message = refused(load, **members)
    assert f": {key}: unknown key" in message
    assert words in message


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"flags": {"use_ollama": "yes"}}, 'flags.use_ollama: must be true or false, not the text "yes"'),
        ({"flags": {"use_ollama": 1}}, "flags.use_ollama: must be true or false, not 1"),
        ({"flags": {"ollama_percentage": 1.5}}, "flags.ollama_percentage: must be at most 1, not 1.5"),
        ({"github_models": {"rate_limit_buffer": True}}, "must be a whole number, not true"),
        ({"github_models": {"rate_limit_buffer": 1.5}}, "must be a whole number, not 1.5"),
        ({"github_models": {"rate_limit_buffer": -1}}, "must be at least 0, not -1"),
        ({"github_models": {"rate_limit_buffer": "100"}}, 'must be a whole number, not the text "100"'),
        ({"github_models": None}, "github_models: must be an object, {…}, not null"),
        ({"monitoring": {"check_interval_seconds": 0}}, "must be greater than 0, not 0"),
        ({"tasks": {"t": "local:*"}}, "tasks.t: must be a list"),
        ({"tasks": {"t": {}}}, "tasks.t.candidates: this key is missing"),
        ({"tasks": {"t": [5]}}, "tasks.t[0]: must be a text, not 5"),
        ({"providers": {"a": {}}}, "providers.a.plugin: this key is missing"),
        ({"providers": {"a": {"plugin": "mine", "start": "later"}}}, 'must be one of "eager" or "on_demand"'),
        ({"experiments": {"e": {"arms": {}}}}, "experiments.e.arms: must not be empty"),
        ({"experiments": {"e": {"arms": {"local:*": 0}}}}, "must be greater than 0"),
    ],
)
def test_wrong_values_say_what_would_be_right(load: Load, members: dict[str, Any], words: str) -> None:
    """A value of the wrong type or out of range names the key, what is wanted and what was found."""
    assert words in refused(load, **members)


def test_several_mistakes_are_listed_together(load: Load) -> None:
    """Every mistake of form is listed, each on its own line with its place."""
    message = refused(load, '{\n"flags": {"a": 1},\n"local": {"vram_limit_mb": "x"}}')
    assert sorted(line.split(": ")[1] for line in message.splitlines()) == ["flags.a", "local.vram_limit_mb"]


def provider(**members: Any) -> dict[str, Any]:
    return {"providers": {"lab": {"plugin": "openai_compatible", "base_url": "http://127.0.0.1:1/v1", **members}}}


@pytest.mark.parametrize(
    "members",
    [
        provider(api_key=CANARY),
        provider(api_key={"env": f"{CANARY}!"}),
        provider(api_key={"key": CANARY}),
        provider(api_key={"env": "A", "file": CANARY}),
        provider(api_key=["x", CANARY]),
        provider(api_key={"command": CANARY}),
        provider(headers=CANARY),
        provider(headers={"Authorization": f"Bearer {CANARY}"}),
        provider(headers={"X-Api-Key": CANARY}),
        provider(options={"nested": [{"token": CANARY}]}),
        provider(base_url=f"http://user:{CANARY}@host/v1"),
        provider(base_url=f"http://host/v1?key={CANARY}"),
        provider(apikey=CANARY),
        provider(env=[f"{CANARY}="]),
        provider(options={"note": f"sk-{'a1' * 20}{CANARY}"}),
        {"github_models": {"api_key": CANARY}},
        {"hugging_face": {"bill_to": f"hf_{CANARY}"}},
    ],
)
def test_a_literal_key_is_refused_and_not_echoed(load: Load, members: dict[str, Any]) -> None:
    """A key where only a reference may stand is an error that does not repeat the key."""
    message = refused(load, **members)
    assert CANARY not in message


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"providers": {"auto": {"plugin": "mine"}}}, 'providers.auto: "auto" is a reserved word'),
        ({"providers": {"task": {"plugin": "mine"}}}, 'providers.task: "task" is a reserved word'),
        ({"providers": {"local": {"plugin": "llama_cpp"}}}, 'in the section "local"'),
        ({"providers": {"specialists": {"plugin": "mine"}}}, 'in the section "specialists"'),
        ({"providers": {"a:b": {"plugin": "mine"}}}, "a name has up to 64"),
        ({"providers": {"": {"plugin": "mine"}}}, "a name has up to 64"),
        ({"providers": {"a": {"plugin": "openai_compatible"}}}, 'needs "base_url" or "preset"'),
        ({"providers": {"a": {"plugin": "openai_compatible", "preset": "groc"}}}, 'nearest is "groq"'),
        ({"providers": {"a": {"plugin": "openai_compatible", "preset": "azure"}}}, 'needs "base_url" as well'),
        ({"providers": {"a": {"plugin": "openai-compatable"}}}, 'nearest is "openai_compatible"'),
        ({"providers": {"a": {"plugin": "mine", "command": []}}}, "must start with a program"),
        (provider(base_url="ftp://host"), "must be an http:// or https:// address"),
        (provider(base_url="http://host:99999/v1"), "not a valid URL"),
        (provider(headers={"X Y": "1"}), "not a valid HTTP header"),
        (provider(headers={"X": "a\nb"}), "not a valid HTTP header"),
        (provider(quotas=[{"unit": "requests", "window": "60", "limit": 1}]), 'must be "<n>s"'),
        (provider(quotas=[{"unit": "requests", "window": "0s", "limit": 1}]), 'must be "<n>s"'),
        (provider(quotas=[{"unit": "requests", "limit": 1}]), "a window is needed"),
        (provider(quotas=[{"unit": "concurrent", "window": "60s", "limit": 1}]), "which has none"),
        (provider(quotas=[{"unit": "requests", "window": "60s", "limit": 1, "buffer": 2}]), "larger than limit"),
        (provider(quotas=[{"unit": "requests", "window": "60s", "limit": 1.5}]), "whole number of requests"),
        (provider(quotas=[{"unit": "requests", "window": "day", "limit": 1, "zone": "Mars/X"}]), 'time zone "Mars/X"'),
        (provider(quotas=[{"unit": "requests", "window": "day", "limit": 1, "zone": "../etc"}]), "unknown time zone"),
        (provider(quotas=[{"unit": "requests", "window": "60s", "limit": n} for n in (1, 2)]), "repeats quotas[0]"),
        (provider(quotas=[{"unit": "requests", "window": "60s", "limit": 1, "models": []}]), "at least one model"),
        ({"tasks": {"code": ["groq:*"]}}, 'task "code": "groq:*": there is no provider "groq"'),
        ({"tasks": {"code": ["auto"]}}, "cannot be a candidate"),
        ({"tasks": {"code": ["local:"]}}, "names no model"),
        ({"tasks": {"code": ["llama3.2:3b"]}}, 'there is no provider "llama3.2"'),
        ({"tasks": {"code": ["gpt-4o"]}}, 'write "provider:model"'),
        ({"tasks": {"code": []}}, "at least one candidate"),
        ({"tasks": {"a b": ["local:*"]}}, "a name has up to 64"),
        ({"experiments": {"e": {"arms": {"lab:*": 1}}}}, 'there is no provider "lab"'),
        ({"experiments": {"e": {"arms": {"local:*": 1}, "tasks": ["code_genration"]}}}, '"code_generation"'),
    ],
)
def test_what_cannot_mean_anything_is_refused(load: Load, members: dict[str, Any], words: str) -> None:
    """Names, references between sections, URLs and quotas are checked for meaning, with the remedy in the sentence."""
    assert words in refused(load, **members)


def test_the_missions_files_load_unmodified(load: Load) -> None:
    """The mission's first block is the shipped configuration, and its second block loads beside it."""
    shipped = Path(__file__).parents[2] / "config" / "ml" / "hybrid_config.json"
    resolved = loader.load(shipped)
    assert resolved.path == str(shipped)
    both = json.loads(shipped.read_text(encoding="utf-8")) | json.loads(MISSION_SECOND_BLOCK)
    again = load(**both)
    assert [str(candidate) for candidate in again.tasks["code_generation"].candidates] == [
        "lab:m1",
        "groq:*",
        "local:*",
    ]
    assert again.experiments["hybrid_80_20"].arms == {"local:*": 0.8, "lab:m1": 0.2}


def test_an_empty_file_of_settings_is_all_defaults(load: Load) -> None:
    """``{}`` means exactly the defaults, and so does the mission's first block; ``$schema`` changes nothing."""
    shipped = Path(__file__).parents[2] / "config" / "ml" / "hybrid_config.json"
    assert load("{}").settings == Settings() == loader.read(shipped) == load('{"$schema": "x.json"}').settings


def test_the_default_place_is_used_when_there_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a path: defaults when nothing is there, the file at HYBRIDD_CONFIG or the XDG place when it is."""
    assert loader.load().path is None
    place = tmp_path / "config" / "hybridd" / "hybrid_config.json"
    place.parent.mkdir(parents=True)
    place.write_text('{"flags": {"use_ollama": false}}')
    assert loader.load().flags.use_ollama is False
    other = tmp_path / "other.json"
    other.write_text("{}")
    monkeypatch.setenv("HYBRIDD_CONFIG", str(other))
    assert loader.load().path == str(other)
    other.unlink()
    with pytest.raises(ConfigError, match="no such file"):
        loader.load()


def test_the_working_directory_is_never_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hybrid_config.json in the working directory is not read (its command keys run programs)."""
    inside = tmp_path / "cwd" / "config" / "ml"
    inside.mkdir(parents=True)
    for place in (inside, tmp_path / "cwd"):
        (place / "hybrid_config.json").write_text("{broken")
    monkeypatch.chdir(tmp_path / "cwd")
    assert loader.load().path is None


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
_KNOWN = st.sampled_from([*Settings.model_fields])


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(_KNOWN, _JSON, max_size=4), st.dictionaries(st.text(max_size=6), _JSON, max_size=2))
def test_any_json_loads_or_is_refused(known: dict[str, Any], unknown: dict[str, Any]) -> None:
    """Whatever the file holds, it loads or raises ConfigError that names the file: nothing else ever escapes."""
    try:
        text = json.dumps({**unknown, **known})
        loader.parse(Document("any.json", text))
    except ConfigError as error:
        assert error.message.startswith("any.json")  # noqa: PT017  # both endings are fine, this one has a form


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_load_or_are_refused(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    """Whatever bytes the file holds, reading gives settings or a ConfigError."""
    path = tmp_path_factory.getbasetemp() / "bytes.json"
    path.write_bytes(raw)
    try:
        assert isinstance(loader.read(path), Settings)
    except ConfigError as error:
        assert error.message.startswith(str(path))  # noqa: PT017  # both endings are fine, this one has a form


MISSION_SECOND_BLOCK = """{"providers": {
   "groq": {"plugin": "openai_compatible", "preset": "groq", "api_key": {"env": "GROQ_API_KEY"}},
   "lab":  {"plugin": "openai_compatible", "base_url": "http://127.0.0.1:9000/v1", "enabled": true,
            "models": {"m1": {"context": 8192, "price": {"input_per_million_usd": 0.15, "output_per_million_usd": 0.60, "per_request_usd": 0}}},
            "quotas": [{"unit": "requests", "window": "60s", "limit": 15, "buffer": 1},
                       {"unit": "requests", "window": "86400s", "limit": 150, "model": "m1"},
                       {"unit": "total_tokens", "window": "60s", "limit": 6000},
                       {"unit": "usd", "window": "month", "limit": 5, "zone": "UTC"},
                       {"unit": "concurrent", "limit": 5}],
            "timeout_seconds": 60}},
 "tasks": {"code_generation": ["lab:m1", "groq:*", "local:*"], "sentiment_analysis": ["specialists:sentiment", "lab:m1"]},
 "local": {"vram_limit_mb": 4096, "models_dir": "…", "default_model": "…"},
 "flags": {"use_ollama": true, "enable_caching": true, "a_b_test_active": false, "ollama_percentage": 0.8, "enable_monitoring": true},
 "experiments": {"hybrid_80_20": {"unit": "user", "salt": "2026-11", "arms": {"local:*": 0.8, "lab:m1": 0.2}, "tasks": ["text_generation"]}}}
"""  # noqa: E501  # the mission's text as it stands
