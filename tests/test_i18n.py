"""Languages: which one is spoken, the catalogues' form, and that nothing shown is left without a translation."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hybridd import i18n
from hybridd.i18n import _, ngettext
from scripts import messages, unmarked
from tests.house import ROOT


@pytest.fixture(autouse=True)
def _english_again() -> Iterator[None]:
    yield
    i18n.use(None)


@pytest.mark.parametrize(
    ("environment", "spoken"),
    [
        ({}, "en"),
        ({"LANG": "pt_BR.UTF-8"}, "pt_BR"),
        ({"LANG": "pt_PT@euro"}, "pt_BR"),
        ({"LANG": "C.UTF-8"}, "en"),
        ({"LANG": "de_DE.UTF-8"}, "en"),
        ({"LANG": "de_DE.UTF-8", "LC_MESSAGES": "pt_BR.UTF-8"}, "pt_BR"),
        ({"LANG": "pt_BR.UTF-8", "LC_ALL": "en_GB.UTF-8"}, "en"),
        ({"LANG": "en_US.UTF-8", "LANGUAGE": "fr:pt:en"}, "pt_BR"),
        ({"LANG": "pt_BR.UTF-8", "LANGUAGE": ""}, "pt_BR"),
    ],
)
def test_the_environment_decides(environment: dict[str, str], spoken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """LANGUAGE, LC_ALL, LC_MESSAGES and LANG count in this order; a language without a catalogue is English."""
    for name in ("LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    i18n.use(None)
    assert i18n.language() == spoken


def test_a_setting_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """``use`` wins, what there is no catalogue for does not; the setting is looked up once and only when needed."""
    monkeypatch.setenv("LANGUAGE", "en")
    looked = []
    i18n.ask_setting(lambda: looked.append(1) or "pt-BR")  # type: ignore[func-returns-value]
    try:
        assert not looked
        assert [_("never"), _("never")] == ["nunca", "nunca"]
        assert looked == [1]
        i18n.use("en")
        assert _("never") == "never"
        i18n.use("xx")
        assert i18n.language() == "en"
    finally:
        i18n.ask_setting(lambda: None)


def test_plural_forms() -> None:
    """English by its own rule, Portuguese by its catalogue's: nothing and one are singular there."""
    counts = (0, 1, 2)
    one, many = "{count} open alert", "{count} open alerts"
    i18n.use("en")
    assert [ngettext(one, many, count).format(count=count) for count in counts] == [
        "0 open alerts", "1 open alert", "2 open alerts",
    ]  # fmt: skip
    i18n.use("pt_BR")
    assert [ngettext(one, many, count).format(count=count) for count in counts] == [
        "0 alerta aberto", "1 alerta aberto", "2 alertas abertos",
    ]  # fmt: skip


def test_what_has_no_translation_stays_english() -> None:
    """A text that no catalogue knows, and the empty one (which is the catalogue's header), come back as they are."""
    i18n.use("pt_BR")
    assert (_("so far unheard of"), _("")) == ("so far unheard of", "")
    assert ngettext("{n} zebra", "{n} zebras", 2) == "{n} zebras"


def test_the_form_of_a_catalogue(tmp_path: Path) -> None:
    """Comments, strings over several lines and escapes are read; another line is named; an empty text is none."""
    path = tmp_path / "x.po"
    path.write_text(
        'msgid ""\nmsgstr "Plural-Forms: nplurals=2; plural=(n > 1);\\n"\n# note\n#: a.py\nmsgid "one"\n" two\\n"\n'
        'msgstr "um\\\\n \\"dois\\""\n\nmsgid "three"\nmsgstr ""\n'
    )
    assert i18n.read(str(path)).texts == {"one two\n": ['um\\n "dois"']}
    path.write_text("msgid nothing\n")
    with pytest.raises(ValueError, match="msgid nothing"):
        i18n.read(str(path))


def test_every_text_that_is_shown_is_translated() -> None:
    """Each catalogue has what the sources mark, with the same places for figures, and nothing more.

    ``python -m scripts.messages --update`` brings the new texts into the catalogue, to be translated there.
    """
    assert {language: messages.problems(language) for language in i18n.LANGUAGES[1:]} == {"pt_BR": []}


def test_nothing_is_marked_that_cannot_be_translated(tmp_path: Path) -> None:
    """No f-string is marked, and no function that translates has a variable ``_``; both are found."""
    assert [mistake for path in messages.sources() for mistake in messages.mistakes(path)] == []
    wrong = ROOT / "tui" / "text.py"
    assert wrong in messages.sources()
    bad = tmp_path / "bad.py"
    bad.write_text("def f(n):\n    for _ in n: pass\n    return _('x')\ndef g(n):\n    return _(f'{n}')\n")
    found = list(messages.mistakes(bad, tmp_path))
    assert [line.partition(": ")[0] for line in found] == ["bad.py:1", "bad.py:5"]


def test_nothing_that_people_read_is_left_unmarked() -> None:
    """Every sentence and every piece of a line in the dashboard goes through the catalogues."""
    marked = messages.messages()
    assert [line for path in unmarked.sources() for line in unmarked.unmarked(path, marked)] == []


def test_an_unmarked_text_is_found(tmp_path: Path) -> None:
    """Sentences in calls and in f-strings, pieces of lines in any form; nothing else."""
    source = tmp_path / "a.py"
    source.write_text(
        '"""Documentation of this."""\n'
        "X_CSS = 'width of it'\nassert x, 'never shown here'\n"
        "notify('a b'), notify('This is read'), Failed(f'{n} of these calls')\n"
        "line = [('word', 'dim'), (f'{n} left', ''), ('now' if n else 'then', 'bad'), ('x', 'dim'), ('CPU', 'head')]\n"
        "_('marked text here').format(why='not marked text'), {'code of it': 1}, 'part of it' in x\n"
    )
    found = [line.partition(": ")[2] for line in unmarked.unmarked(source, {"code of it"}, tmp_path)]
    assert found == ["' of these calls'", "'This is read'", "' left'", "'now'", "'then'", "'word'", "'not marked text'"]


def test_finds_what_is_shown(tmp_path: Path) -> None:
    """Marked texts, titles of columns and the descriptions of keys are found; other texts are not."""
    source = tmp_path / "a.py"
    source.write_text(
        "x = _('a'), N_('b'), ngettext('c', 'd', 2), output.Column('E'), Column('key', 'F', cell, 3)\n"
        "y = Binding('k', 'run', 'G', id='h'), ScreenSpec('1', 'I', 'm', 'C', about='J'), print('K'), Column('k', '')\n"
    )
    found = messages.messages([source], tmp_path)
    assert set(found) == {"a", "b", "c", "E", "F", "G", "I", "J"}
    assert found["c"].many == "d"


def test_english_reads_no_catalogue() -> None:
    """Speaking English imports neither gettext nor a catalogue, and opens no file."""
    program = (
        "import sys; from hybridd import i18n\n"
        "opened = []; sys.addaudithook(lambda event, given: opened.append(given) if event == 'open' else None)\n"
        "assert i18n._('never') == 'never' and i18n.ngettext('a', 'b', 2) == 'b'\n"
        "assert not opened and 'gettext' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT, env={"LANG": "en_US.UTF-8"})
