"""Each command against a real HTTP server on a Unix socket."""

from __future__ import annotations

import io
import json
import sys
from typing import Any

import pytest

from hybridd import errors
from hybridd.cli import diagnostics
from hybridd.cli.main import COMMANDS, program
from tests.cli.support import Done, Run
from tests.client.canned import (
    ALERT,
    CHOICE,
    EVENTS,
    EXPLAINED,
    LIMITS,
    PLUGINS,
    REPORT,
    REQUEST,
    STATUS,
    Answer,
    CannedDaemon,
    error,
    sse,
)


@pytest.fixture
def run(canned: CannedDaemon, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command line in this process, against the canned daemon."""
    monkeypatch.setenv("HYBRIDD_SOCKET", str(canned.socket))
    monkeypatch.setenv("COLUMNS", "80")

    def execute(*arguments: str, stdin: bytes | None = None) -> Done:
        if stdin is not None:
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8"))
        code = diagnostics.run(program, list(arguments))
        captured = capfd.readouterr()
        return Done(code, captured.out, captured.err)

    return execute


READS = {
    "status": ("status",),
    "limits": ("limits",),
    "optimize": ("optimize", "--task", "code_generation"),
    "report": ("report",),
    "requests": ("requests",),
    "why": ("why", REQUEST["id"]),
    "alerts": ("alerts",),
    "alerts list": ("alerts", "list"),
    "ack": ("alerts", "ack", "12"),
    "silence": ("alerts", "silence", "12", "--for", "2h"),
    "plugin list": ("plugin", "list"),
    "feedback": ("feedback", str(REQUEST["id"]), "-0.5"),
    "reload": ("reload",),
    "version": ("version",),
    "completion": ("completion", "zsh"),
    "call": ("call", "--prompt", "sort a list", "--task", "code_generation"),
}


@pytest.mark.parametrize("name", sorted(READS))
def test_every_command_prints_json_and_readable_text(run: Run, name: str) -> None:
    """With --json stdout is one JSON document and stderr is empty; without, every line fits 80 columns."""
    as_json = run(*READS[name], "--json")
    assert as_json.code == 0
    assert as_json.err == ""
    assert as_json.json
    plain = run(*READS[name])
    assert plain.code == 0
    assert plain.out
    if name != "completion":
        assert max(len(line) for line in plain.out.splitlines()) <= 80


def test_limits_show_use_rest_reset_drift_and_forecast(run: Run) -> None:
    """`limits` shows the bar, what is left, and in sentences drift and forecast."""
    out = run("limits").out
    assert "5,000 requests/h" in out
    assert "4,648" in out
    assert "$5.00/month (m1)" in out
    assert "$3.75" in out
    assert "the provider counts 40 more than we do (something else uses this account)" in " ".join(out.split())
    assert "runs out in" in out
    assert "▓" in out
    assert run("limits", "--json").json == {"limits": LIMITS}


def test_limits_filter_and_sort(run: Run) -> None:
    """--filter takes a text or KEY=VALUE; --sort a key, descending with a minus; an unknown key is an error."""
    assert [one["provider"] for one in run("limits", "--filter", "unit=usd", "--json").json["limits"]] == ["lab"]
    assert [one["provider"] for one in run("limits", "--filter", "GITHUB", "--json").json["limits"]] == [
        "github_models"
    ]
    ascending = [one["limit"] for one in run("limits", "--sort", "limit", "--json").json["limits"]]
    assert ascending == sorted(ascending)
    assert [one["limit"] for one in run("limits", "--sort", "-limit", "--json").json["limits"]] == ascending[::-1]
    wrong = run("limits", "--sort", "limits")
    assert (wrong.code, wrong.out) == (2, "")
    assert "known: account, buffer" in wrong.err
    assert run("limits", "--filter", "nothing").out == "No limit matches.\n"


def test_optimize_prints_task_choice_provider_reason_and_rejected(run: Run, canned: CannedDaemon) -> None:
    """Text mode names task, chosen provider:model, provider, reason, then what was passed over; nothing is called."""
    done = run("optimize", "--task", "code_generation", "--max-tokens", "50")
    assert done.out.splitlines() == [
        "task:      code_generation",
        "chosen:    lab:m1",
        "provider:  lab",
        "reason:    first feasible candidate of the task",
        "rejected:",
        "  github_models:copilot-chat: no key",
    ]
    assert [asked.path for asked in canned.asked] == ["/v1/route"]
    assert canned.last.body == {"task": "code_generation", "max_tokens": 50}


def test_optimize_without_a_choice_exits_with_5(run: Run, canned: CannedDaemon) -> None:
    """No feasible candidate is explained on stdout, and the exit code says so."""
    nobody = {**CHOICE, "chosen_model": None, "provider": None, "reason": "no candidate is feasible"}
    canned.routes["POST", "/v1/route"] = Answer(nobody)
    done = run("optimize", "--task", "code_generation")
    assert done.code == errors.EXIT_NO_PROVIDER
    assert "chosen:    none" in done.out
    assert run("optimize").code == errors.EXIT_USAGE


def test_call_streams_to_stdout_and_explains_on_stderr(run: Run, canned: CannedDaemon) -> None:
    """stdout is the answer alone; stderr says which model answered, why, and what it took."""
    done = run("call", "--task", "code_generation", "--prompt", "sort a list", "--tier", "free", "--user", "u")
    assert done.out == "Olá, mundo\n"
    lines = done.err.splitlines()
    assert lines[0] == "answered by lab:m1: first feasible candidate of the task"
    assert lines[1] == "  passed over github_models:copilot-chat: no key"
    assert lines[2] == "  req_65bfdedd6c000  tokens 7 in, 3 out  $0.000012  12 ms  cache miss"
    asked = canned.last
    assert asked.body is not None
    assert (asked.body["stream"], asked.body["model"]) == (True, "task:code_generation")
    assert (asked.headers["x-hybridd-tier"], asked.headers["x-hybridd-user"]) == ("free", "u")


def test_call_without_stream_and_as_json(run: Run, canned: CannedDaemon) -> None:
    """--no-stream prints the same; --json prints the documented result."""
    assert run("call", "--prompt", "sort a list", "--no-stream").out == "Olá, mundo\n"
    assert canned.last.body is not None
    assert "stream" not in canned.last.body
    assert run("call", "--prompt", "sort a list", "--json").json == {"response": "Olá, mundo", **EXPLAINED}


@pytest.mark.parametrize("arguments", [(), ("--prompt", "-")])
def test_call_reads_standard_input(run: Run, canned: CannedDaemon, arguments: tuple[str, ...]) -> None:
    """Without --prompt, or with '-', the question comes from standard input."""
    assert run("call", *arguments, "--system", "Be brief.", stdin="Olá,\nmundo\n".encode()).code == 0
    assert canned.last.body is not None
    assert canned.last.body["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Olá,\nmundo"},
    ]


@pytest.mark.parametrize(
    ("arguments", "stdin", "words"),
    [
        (("--prompt", "hi"), None, "at least 3 characters"),
        ((), b"\xff\xfe\x00", "not UTF-8"),
        ((), b"", "at least 3 characters"),
        (("--prompt", "sort", "--max-tokens", "0"), None, "at least 1"),
        (("--prompt", "sort", "--max-tokens", "-5"), None, "at least 1"),
        (("--prompt", "sort", "--max-tokens", "many"), None, "not a valid integer"),
        (("--prompt", "sort", "--tier", "gold"), None, "gold"),
        (("--prompt", "sort", "--temperature", "3"), None, "0<=x<=2"),
        (("--prompt", "sort", "--task", " "), None, "name of a task"),
    ],
)
def test_call_refuses_wrong_requests_before_sending(
    run: Run, canned: CannedDaemon, arguments: tuple[str, ...], stdin: bytes | None, words: str
) -> None:
    """A wrong question, number or tier is exit code 2 with one sentence, and nothing is sent."""
    done = run("call", *arguments, stdin=stdin)
    assert (done.code, done.out) == (errors.EXIT_USAGE, "")
    assert words in done.err
    assert canned.asked == []


def test_a_failure_after_the_first_token_keeps_stdout_clean(run: Run, canned: CannedDaemon) -> None:
    """A cut stream prints what came, ends the line, and fails with the provider's exit code."""
    canned.routes["POST", "/v1/chat/completions"] = Answer(pieces=[sse("half", explained=None, done=False)])
    done = run("call", "--prompt", "tell me")
    assert (done.code, done.out) == (errors.EXIT_PROVIDER, "half\n")
    assert "before the answer was complete" in done.err


@pytest.mark.parametrize(
    ("status", "code", "exit_code"),
    [
        (503, "no_feasible_provider", errors.EXIT_NO_PROVIDER),
        (502, "provider_error", errors.EXIT_PROVIDER),
        (504, "deadline_exceeded", errors.EXIT_TIMEOUT),
        (404, "model_not_found", errors.EXIT_USAGE),
        (503, "storage_failed", errors.EXIT_STATE),
        (500, "config_invalid", errors.EXIT_CONFIG),
        (500, "surprise", errors.EXIT_FAILURE),
    ],
)
def test_errors_have_stable_exit_codes(run: Run, canned: CannedDaemon, status: int, code: str, exit_code: int) -> None:
    """The daemon's error decides the exit code; stderr has the sentence, or with --json the error as one object."""
    details = [{"candidate": "lab:m1", "reason": "15 of 15 requests are used", "code": "quota", "retry_after": 7}]
    reasons = " lab:m1: 15 of 15 requests are used" if code == "no_feasible_provider" else ""
    body = error(f"Nobody can.{reasons}", code, details=details)
    answer = Answer(body, status=status, headers={"retry-after": "7"})
    for path in ("/v1/chat/completions", "/v1/reload"):
        canned.routes["POST", path] = answer
    done = run("call", "--prompt", "sort a list")
    assert (done.code, done.out) == (exit_code, "")
    assert done.err.startswith("error: Nobody can.\n")
    assert ("lab:m1: 15 of 15 requests are used" in done.err) == (code == "no_feasible_provider")
    assert "trying again can help in 7 s" in done.err
    as_json = run("reload", "--json")
    assert (as_json.code, as_json.out) == (exit_code, "")
    assert json.loads(as_json.err)["error"]["code"] == code


def test_events_are_ndjson(run: Run, canned: CannedDaemon) -> None:
    """`events` prints one JSON object on each line, asks for the kinds, and stops after --count."""
    done = run("events", "--kinds", "snapshot,request")
    assert [json.loads(line) for line in done.out.splitlines()] == EVENTS
    assert canned.last.query == {"kinds": "snapshot,request"}
    assert len(run("events", "--count", "1").out.splitlines()) == 1
    assert run("events", "--kinds", "nonsense").code == errors.EXIT_USAGE


def test_report_groups_plots_and_totals(run: Run, canned: CannedDaemon) -> None:
    """`report` sends grouping and period, shows totals, bars and the trend."""
    done = run("report", "--since", "7d", "--provider", "lab")
    assert canned.last.query["group_by"] == "provider,model"
    assert canned.last.query["provider"] == "lab"
    assert float(canned.last.query["since"]) > 1e9
    assert "█" in done.out
    assert "total" in done.out
    assert "trend: requests +25% against the 7 days before" in done.out
    assert run("report", "--json").json == REPORT
    assert run("report", "--since", "yesterday").code == errors.EXIT_USAGE


def test_requests_pass_filters_to_the_daemon(run: Run, canned: CannedDaemon) -> None:
    """`requests` lets the daemon filter, sort and page."""
    done = run("requests", "--filter", "groq", "--sort", "-cost_usd", "--limit", "5", "--task", "t", "--cursor", "c")
    assert canned.last.query == {"q": "groq", "sort": "-cost_usd", "limit": "5", "task": "t", "cursor": "c"}
    assert done.out.splitlines()[-1] == "more: --cursor c2"


def test_why_shows_choice_and_attempts(run: Run) -> None:
    """`why` names who answered, why, who was passed over, and every attempt with its error."""
    out = run("why", str(REQUEST["id"])).out
    for words in ("answered:  lab:m1", "passed over github_models:copilot-chat", "groq:x", "HTTP 429"):
        assert words in out
    assert run("why", "req_0").code == errors.EXIT_USAGE


def test_status_shows_states_and_reasons(run: Run) -> None:
    """`status` shows daemon, providers with reasons, and broken plugins."""
    out = run("status").out
    for words in ("up 1 h 2 min", "not_configured", "no key: GITHUB_TOKEN", "1 open alert", "exited with 1"):
        assert words in out
    assert run("status", "--json").json == STATUS


def test_alert_commands_send_what_they_say(run: Run, canned: CannedDaemon) -> None:
    """silence sends seconds; list sends the state; a text filter that finds nothing says so."""
    run("alerts", "silence", "12", "--for", "1h30m")
    assert canned.last.body == {"seconds": 5400.0}
    run("alerts", "list", "--state", "open")
    assert canned.last.query == {"state": "open"}
    run("alerts", "list", "--state", "all")
    assert canned.last.query == {}
    assert run("alerts", "--json").json == {"alerts": [ALERT]}
    assert canned.last.query == {"state": "live"}
    assert run("alerts", "list", "--filter", "nothing").out == "No alert matches.\n"
    assert run("alerts", "silence", "12", "--for", "soon").code == errors.EXIT_USAGE


def test_plugin_list_shows_last_words(run: Run) -> None:
    """A failed plugin's last lines of stderr are shown."""
    assert "last words" in run("plugin", "list").out
    assert run("plugin", "list", "--json").json == {"plugins": PLUGINS}


def test_text_from_elsewhere_cannot_steer_the_terminal(run: Run, canned: CannedDaemon) -> None:
    """Escape sequences in a provider's reason are made visible in tables."""
    evil = {**STATUS, "providers": [{**STATUS["providers"][0], "reason": "\x1b]0;title\x07\x1b[31mred"}]}  # type: ignore[index]
    canned.routes["GET", "/v1/status"] = Answer(evil)
    assert "\x1b" not in run("status").out


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_help_with_an_example(run: Run, name: str) -> None:
    """--help ends with an Example section, for groups and their subcommands too."""
    done = run(name, "--help")
    assert done.code == 0
    assert "Example:" in done.out
    for line in done.out.split("Commands:")[-1].split("Example:")[0].splitlines() if "Commands:" in done.out else ():
        if line.strip():
            assert "Example:" in run(name, line.split()[0], "--help").out


def test_unknown_commands_name_the_nearest(run: Run) -> None:
    """A typing mistake in a command is exit code 2 with the nearest command."""
    done = run("limit")
    assert (done.code, done.out) == (errors.EXIT_USAGE, "")
    assert "'limits'" in done.err
    assert run("--nonsense").code == errors.EXIT_USAGE
    assert run("--version").out.startswith("hybridd ")
    alone = run()
    assert (alone.code, alone.err) == (0, "")
    assert alone.out == run("--help").out


def test_no_daemon_is_exit_4(run: Run, canned: CannedDaemon) -> None:
    """Without a daemon every command says where it looked and how to start one."""
    for name, arguments in READS.items():
        if name in {"version", "completion"}:
            continue
        done = run(*arguments, "--socket", str(canned.socket) + ".gone")
        assert (done.code, done.out) == (errors.EXIT_UNREACHABLE, ""), name
        expected = f"error: No daemon answers at {canned.socket}.gone. Start it with: hybridd serve\n"
        assert done.err == expected


def test_serve_check_needs_no_daemon(run: Run, tmp_path: Any) -> None:
    """`serve --check` reads the configuration, says what it means, and fails with 3 when it is broken."""
    path = tmp_path / "c.json"
    path.write_text('{"tasks": {"t": ["local:*"]}}')
    assert run("serve", "--check", "--config", str(path), "--json").json["tasks"]["t"] == ["local:*"]
    assert "local:*" in run("serve", "--check", "--config", str(path)).out
    path.write_text('{"flags": {"use_olama": true}}')
    done = run("serve", "--check", "--config", str(path))
    assert done.code == errors.EXIT_CONFIG
    assert f'{path}:1:12: flags.use_olama: unknown key "use_olama"' in done.err
