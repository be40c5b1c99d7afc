"""Models, Alerts and Playground in Portuguese: every word of theirs, in the room that English has."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.cells import cell_len

from hybridd import i18n
from hybridd.i18n import _
from tests.tui.snapshots import played, settled, show
from tests.tui.test_alerts import NOW, QUOTA, alert
from tests.tui.test_models_lines import PLAN, about, house, resident
from tui.screens import alert_lines, model_lines, model_rows
from tui.shapes import LocalFile
from tui.text import RICH, plain

ROOT = Path(alert_lines.__file__).parents[1]
OWN = ("screens/model*.py", "screens/pick_model.py", "screens/alert*.py", "screens/playground.py", "chat.py", "ask.py",
       "confirm.py", "widgets/turn.py", "widgets/pane.py", "widgets/prompt.py")  # fmt: skip
_SAYS = {"notify", "Ask", "Confirm", "rule", "_sure", "act"}


@pytest.fixture(autouse=True)
def portuguese() -> Iterator[None]:
    i18n.use("pt_BR")
    yield
    i18n.use(None)


def _bare(path: Path) -> Iterator[str]:
    """Texts that are handed to whatever says them without being translated."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            for part in node.args if name in _SAYS else []:
                texts = [one for one in ast.walk(part) if isinstance(one, ast.JoinedStr)] + [part]
                for one in texts:
                    pieces = one.values if isinstance(one, ast.JoinedStr) else [one]
                    said = "".join(str(piece.value) for piece in pieces if isinstance(piece, ast.Constant))
                    if " " in said.strip():
                        yield f"{path.name}:{node.lineno}: {said!r}"


def test_nothing_is_said_untranslated() -> None:
    """No notice, question or title of these screens is a bare English text."""
    paths = [path for pattern in OWN for path in ROOT.glob(pattern)]
    assert len(paths) > 12
    assert [found for path in paths for found in _bare(path)] == []


def test_labels_and_states_keep_their_columns() -> None:
    """A translated label never touches what it labels, a state is never cut."""
    said = about(house(resident(in_flight=1)), {"plan": PLAN}).split("\n")
    said += about(house(library={"m": LocalFile("m", path="/x", keep_alive=0.0)}), {"plan": PLAN}).split("\n")
    said += [
        plain(line) for line in alert_lines.detail_lines(alert(data=QUOTA, silenced_until=NOW + 60), NOW, 100, RICH)
    ]
    for label in (*alert_lines._LABELS.values(), "silenced", "opened", "ended", "seen"):
        assert cell_len(_(label)) < alert_lines.LABEL, label
    labels = ["failed", "plan", "loaded", "context", "budget", "why", "passed", "file", "path", "keeps"]
    for label in (*labels, "on GPU", "in RAM", "no room"):
        assert cell_len(_(label)) < model_lines.LABEL, label
    assert any("limite" in line for line in said)
    width = next(column.width for column in model_rows.COLUMNS if column.key == "state")
    loading = resident(state="loading", fraction=0.43)
    for one in (loading, resident(in_flight=12), resident(state="draining", in_flight=3), resident()):
        assert cell_len(model_rows.state_text(model_rows.rows(house(one))[0])[0]) <= width


@pytest.mark.parametrize(
    ("name", "words", "english"),
    [
        ("models", ("MEMÓRIA", "MODELOS", "SOBRE", "pesos", "no disco"), ("MEMORY", "MODELS", "ABOUT", "weights")),
        ("alerts", ("ALERTAS", "ESTADO", "SOBRE", "aberto"), ("ALERTS", "STATE", "ABOUT")),
        ("playground", ("Escreva abaixo", "Pergunte algo", "F2 pergunta a outro"), ("Write below", "Ask something")),
    ],
)
async def test_the_screen_is_portuguese(name: str, words: tuple[str, ...], english: tuple[str, ...]) -> None:
    """The recorded day, at 80×24, in full."""
    async with played((80, 24)) as driver:
        i18n.use("pt_BR")
        await show(driver, name)
        driver.screen.show_all()
        await settled(driver)
        for word in words:
            assert word in driver.text, f"{word}\n{driver.text}"
        for word in english:
            assert word not in driver.text, f"{word}\n{driver.text}"
        assert max(map(cell_len, driver.lines)) <= 80
