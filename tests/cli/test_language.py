"""The command line in Portuguese, as a user starts it, against a real daemon."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.upstream import FakeUpstream
from tests.house import House, lab

QUOTAS = [{"unit": "requests", "window": "86400s", "limit": 50, "buffer": 5}]
PORTUGUESE = {"LANGUAGE": "", "LC_ALL": "", "LC_MESSAGES": "pt_BR.UTF-8", "PYTHONIOENCODING": "utf-8"}


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    with FakeUpstream() as upstream, House({"providers": {"lab": lab(upstream.base_url, quotas=QUOTAS)}}) as running:
        running.chat("lab:m1", max_tokens=3)
        yield running


def said(house: House, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hybridd.cli.main", *words],
        env={**os.environ, **house.env, **PORTUGUESE, **environment}, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["limits"], ["PROVEDOR", "RESTA", "requests/dia", "usado", "margem"]),
        (["status"], ["ativo há", "banco ", "em andamento", "aberto", "MOTIVO"]),
        (["optimize", "--model", "lab:m1"], ["tarefa:", "escolhido:", "provedor:", "lab:m1"]),
        (["report"], ["PEDIDOS", "CUSTO"]),
        (["alerts", "list", "--state", "silenced"], ["Nenhum alerta."]),
        (["models", "ps"], ["Nenhum modelo está carregado."]),
        (["models", "list"], ["Nenhum arquivo GGUF"]),
    ],
)
def test_human_text_is_translated(house: House, words: list[str], shown: list[str]) -> None:
    """Titles, labels and sentences are in the language of LC_MESSAGES."""
    done = said(house, *words)
    assert done.returncode == 0, done.stderr
    for text in shown:
        assert text in done.stdout, done.stdout


def test_a_call_is_explained_in_portuguese(house: House) -> None:
    """The answer is untouched on stdout; the explanation on stderr is translated."""
    done = said(house, "call", "--model", "lab:m1", "--prompt", "Bom dia", "--max-tokens", "3")
    assert "respondido por lab:m1" in done.stderr
    assert "de entrada" in done.stderr


def test_an_error_keeps_its_exit_status_and_its_code(house: House) -> None:
    """The frame of an error is translated; the exit status and the JSON are the same in every language."""
    wrong = ["optimize", "--json"]
    english, portuguese = said(house, *wrong, LANGUAGE="en"), said(house, *wrong)
    assert english.returncode == portuguese.returncode == 2
    assert json.loads(english.stderr)["error"]["code"] == json.loads(portuguese.stderr)["error"]["code"]
    assert said(house, "optimize").stderr.startswith("erro: indique --task")
    assert "veja: hybridd optimize --help" in said(house, "optimize").stderr


@pytest.mark.parametrize("words", [["limits"], ["report"], ["alerts"], ["models", "ps"], ["models", "list"]])
def test_json_is_never_translated(house: House, words: list[str]) -> None:
    """The same keys and words in both languages."""
    english, portuguese = (said(house, *words, "--json", LANGUAGE=name).stdout for name in ("en", "pt_BR"))
    assert json.loads(english).keys() == json.loads(portuguese).keys()
    for word in ("PROVEDOR", "provedor", "pronto", "usado"):
        assert word not in portuguese


def test_the_setting_goes_before_the_environment(house: House, tmp_path: Path) -> None:
    """tui.language of the user's configuration decides; a broken configuration does not stand in the way."""
    path = tmp_path / "c.json"
    path.write_text(json.dumps({"tui": {"language": "pt-BR"}}))
    assert "PROVEDOR" in said(house, "limits", LANGUAGE="en", HYBRIDD_CONFIG=str(path)).stdout
    path.write_text("{")
    assert "PROVIDER" in said(house, "limits", LANGUAGE="en", HYBRIDD_CONFIG=str(path)).stdout
