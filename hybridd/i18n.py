"""The texts for people in their language: English, and what has a catalogue under ``hybridd/locale``.

``_("…")`` translates when it is called; ``N_("…")`` only marks a text of a constant, which is translated where it is
shown. Figures are put in afterwards (``_("{count} calls").format(count=…)``): an f-string cannot be translated. JSON,
codes, logs and what the daemon says are English everywhere and never go through here.

The language is that of :func:`use` (the setting ``tui.language``), else the first of ``LANGUAGE``, ``LC_ALL``,
``LC_MESSAGES`` and ``LANG`` that is set, as gettext has it. A catalogue is a ``.po`` file, read when the first text is
asked for: there is nothing to compile and nothing that can be out of date. English reads nothing.
``scripts/messages.py`` holds the catalogues complete.
"""

from __future__ import annotations

import os
from collections.abc import Callable

LOCALE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "locale")
LANGUAGES = ("en", "pt_BR")
_VARIABLES = ("LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG")


class Catalogue:
    """``texts``: message to translations, one for each plural form (one alone for a message without)."""

    def __init__(self, texts: dict[str, list[str]], form: Callable[[int], int]) -> None:
        self.texts = texts
        self.form = form


class _State:
    """What this process speaks. ``asked``: by :func:`use`; ``ask``: where the setting is, looked up once if needed."""

    asked: str | None = None
    ask: Callable[[], str | None] | None = None
    known = False
    name = "en"
    catalogue: Catalogue | None = None


def match(name: str) -> str | None:
    """The language that serves ``pt-BR``, ``pt_BR.UTF-8``, ``pt`` or ``C``; None: there is none."""
    plain = name.partition(".")[0].partition("@")[0].replace("-", "_").lower()
    if plain in {"c", "posix"} or plain.split("_")[0] == "en":
        return "en"
    exact = (language for language in LANGUAGES if language.lower() == plain)
    near = (language for language in LANGUAGES if language.lower().split("_")[0] == plain.split("_")[0])
    return next(exact, None) or next(near, None)


def use(name: str | None) -> None:
    """Speak this language from now on; None, or one that there is not: the environment's."""
    _State.asked, _State.known = name, False


def ask_setting(ask: Callable[[], str | None]) -> None:
    """Where to look for the setting when the first text is wanted and :func:`use` was not called."""
    _State.ask, _State.known = ask, False


def language() -> str:
    """``en`` or the name of a catalogue."""
    if not _State.known:
        _find()
    return _State.name


def _find() -> None:
    wished = _State.asked
    if wished is None and _State.ask is not None:
        wished = _State.ask()
    name = match(wished) if wished else None
    _State.name = name or _of_environment()
    _State.catalogue = None if _State.name == "en" else read(path(_State.name))
    _State.known = True


def _of_environment() -> str:
    for variable in _VARIABLES:
        value = os.environ.get(variable)
        if value:
            names = value.split(":") if variable == "LANGUAGE" else [value]
            return next((found for found in map(match, names) if found), "en")
    return "en"


def path(name: str) -> str:
    """The catalogue of a language."""
    return os.path.join(LOCALE, name, "LC_MESSAGES", "hybridd.po")


def _(message: str) -> str:
    """In the user's language; as it is when there is no translation."""
    if not _State.known:
        _find()
    if _State.catalogue is None or not message:
        return message
    found = _State.catalogue.texts.get(message)
    return found[0] if found else message


def N_(message: str) -> str:
    """Marks a text for the catalogues, and leaves it as it is."""
    return message


def ngettext(one: str, many: str, count: float) -> str:
    """The form for ``count``, to be formatted with it."""
    if not _State.known:
        _find()
    catalogue = _State.catalogue
    found = catalogue.texts.get(one) if catalogue is not None else None
    if catalogue is None or not found or len(found) < 2:
        return one if count == 1 else many
    return found[min(catalogue.form(int(count) if float(count).is_integer() else 2), len(found) - 1)]


# ---- catalogues ----------------------------------------------------------------------------------------------------


def read(place: str) -> Catalogue:
    """A ``.po`` file: ``msgid``, ``msgid_plural``, ``msgstr``, ``msgstr[n]``, strings over several lines, comments.

    Raises:
        ValueError: a line is none of these.
    """
    from gettext import c2py  # the standard library's reader of ``Plural-Forms``

    texts: dict[str, list[str]] = {}
    with open(place, encoding="utf-8") as lines:
        for fields in entries(lines.read()):
            translated = [text for name, text in fields if name.startswith("msgstr")]
            if all(translated):
                texts[fields[0][1]] = translated
    header = texts.pop("", [""])[0]
    rule = next((line for line in header.split("\n") if line.startswith("Plural-Forms:")), "plural=n!=1;")
    return Catalogue(texts, c2py(rule.partition("plural=")[2].rstrip().rstrip(";")))


def entries(text: str) -> list[list[tuple[str, str]]]:
    """The entries of a ``.po`` file as (field, text), without comments. Raises ValueError."""
    made: list[list[tuple[str, str]]] = []
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        name, _space, quoted = ("", "", line) if line.startswith('"') else line.partition(" ")
        if len(quoted) < 2 or quoted[0] != '"' or quoted[-1] != '"' or not (name.startswith("msg") or not name):
            raise ValueError(f"not a line of a catalogue: {line!r}")
        piece = _unescape(quoted[1:-1])
        if name == "msgid":
            made.append([(name, piece)])
        elif name:
            made[-1].append((name, piece))
        else:
            made[-1][-1] = (made[-1][-1][0], made[-1][-1][1] + piece)
    return made


def _unescape(text: str) -> str:
    if "\\" not in text:
        return text
    parts = text.split("\\\\")
    return "\\".join(part.replace('\\"', '"').replace("\\n", "\n").replace("\\t", "\t") for part in parts)
