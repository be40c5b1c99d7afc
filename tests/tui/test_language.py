"""The dashboard in Portuguese: what the screen says, and what stays as it is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from hybridd import i18n
from tests.house import House
from tests.tui.support import dashboard
from tui.settings import Options, with_section
from tui.text import moment, quota_name


@pytest.fixture(autouse=True)
def _english_again() -> Iterator[None]:
    yield
    i18n.use(None)


@pytest.fixture
def portuguese(tmp_path: Path) -> Path:
    path = tmp_path / "c.json"
    path.write_text(json.dumps({"tui": {"language": "pt-BR"}}))
    return path


async def test_the_overview_in_portuguese(house: House, portuguese: Path) -> None:
    """Header, titles, states, footer and help are Portuguese; names, units of figures and ids are not."""
    async with dashboard(house.socket, (160, 60), config=portuguese) as driver:
        await driver.until(lambda: "até " in driver.text)
        for word in ("ao vivo", "PROVEDOR", "PREVISÃO", "pronto", "req/dia", "AGORA", "ÚLTIMOS", "1 Resumo", "? ajuda"):
            assert word in driver.text, word
        for word in ("PROVIDER", "ready", " live", "Overview", "help"):
            assert word not in driver.text, word
        assert "small:m1" in driver.text
        await driver.press("question_mark")
        await driver.until(lambda: "Nesta tela" in driver.text)
        assert "Reconhecer o alerta" in driver.text
        assert "overview.acknowledge" in driver.text


async def test_a_filter_finds_the_word_that_is_read(house: House, portuguese: Path) -> None:
    """A state is found by its Portuguese word and by the code that exports and the command line have."""
    async with dashboard(house.socket, (160, 60), config=portuguese) as driver:
        await driver.until(lambda: "pronto" in driver.text)
        for typed in ("pronto", "ready"):
            await driver.press("slash", *typed, "enter")
            await driver.until(lambda: "github_models" not in driver.text and "pronto" in driver.text)
            await driver.press("escape")
            await driver.until(lambda: "github_models" in driver.text)


async def test_all_of_it_fits_where_english_fits(house: House, portuguese: Path) -> None:
    """At 80×24 every screen's name and the help's key are in the footer, as in English."""
    async with dashboard(house.socket, (80, 24), config=portuguese) as driver:
        await driver.until(lambda: "pronto" in driver.text)
        footer = driver.lines[-1]
        for word in ("Resumo", "2 Limites", "3 Pedidos", "4 Modelos", "5 Alertas", "7 Conversa", "8 Logs", "? ajuda"):
            assert word in footer, footer
        assert len(driver.lines) == 24
        assert all(len(line) <= 80 for line in driver.lines)


async def test_limits_and_requests_in_portuguese(house: House, portuguese: Path) -> None:
    """Tables, drill-downs and their sentences; what the daemon says of its decision stays English."""
    async with dashboard(house.socket, (100, 40), config=portuguese) as driver:
        await driver.press("2")
        await driver.until(lambda: "VOLTA" in driver.text)
        driver.screen.rows.select("lab/requests/60s")
        await driver.press("enter")
        await driver.until(lambda: "code_generation" in driver.text)
        for word in ("Limite ", "pedidos em qualquer minuto", "de margem", "contagens", "RESTANTE EM 15 MINUTOS"):
            assert word in driver.text, word
        for word in ("QUEM USOU NESSE PERÍODO, POR TAREFA", "TAREFA", "CUSTO"):
            assert word in driver.text, word
        await driver.press("3")
        await driver.until(lambda: "seguindo, mais novos primeiro" in driver.text)
        await driver.press("slash", *"por outro", "enter")
        await driver.until(lambda: "filtrar por outro" in driver.text and driver.screen.rows.shown)
        await driver.press("enter")
        await driver.until(lambda: "POR QUÊ" in driver.text)
        for word in ("Pedido", "começou", "preterido (quota)", "PARA ONDE FOI O TEMPO", "fora da chamada", "TEXTO"):
            assert word in driver.text, word
        for word in ("asked for", "passed over", "LEFT", "WHO USED", "waiting", "not needed"):
            assert word not in driver.text, word


def test_short_words_keep_their_room() -> None:
    """Units, periods and moments are translated within the columns that English needs."""
    i18n.use("pt_BR")
    names = [quota_name(unit, "month") for unit in ("requests", "input_tokens", "output_tokens", "total_tokens", "usd")]
    assert names == ["req/mês", "ent/mês", "saí/mês", "tok/mês", "US$/mês"]
    assert moment(86_400 * 20, 0.0) == "dia 21"
    i18n.use("en")
    assert moment(86_400 * 20, 0.0) == "on the 21st"


def test_a_language_that_there_is_not_is_said(tmp_path: Path) -> None:
    """The dashboard goes on in the environment's language and notes what is wrong with the setting."""
    path = tmp_path / "c.json"
    path.write_text(json.dumps({"tui": {"language": "xx"}}))
    assert "there is no 'xx'; there are en, pt_BR" in with_section(Options(config=path)).note
