"""The catalogues of translations: are they complete, and with ``--update`` the messages that are new or gone.

``.venv/bin/python -m scripts.messages [--update]``. Found in the sources: ``_("…")``, ``N_("…")``, ``ngettext("…", "…",
n)``, and what the tables, the keys and the list of screens show of themselves (the titles of ``Column``, the
descriptions of ``Binding``, the words of ``ScreenSpec``).
"""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hybridd import i18n

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("hybridd/cli", "tui")
# Call → which of its arguments are shown to people. The command line's columns have their title first.
_SHOWN: dict[str, tuple[int | str, ...]] = {
    "_": (0,), "N_": (0,), "ngettext": (0, 1), "output.Column": (0,), "Column": (1,), "Binding": (2,),
    "ScreenSpec": (1, 4, "title", "about"),
}  # fmt: skip
_PLACE = re.compile(r"\{[^}]*\}|`[^`]+`")


@dataclass(frozen=True)
class Message:
    """``many``: the plural, of those that have one. ``where``: the first file it stands in."""

    one: str
    many: str | None
    where: str


def sources() -> list[Path]:
    return sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


def _name(call: ast.Call) -> str:
    function = call.func
    if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
        return f"{function.value.id}.{function.attr}"
    return function.id if isinstance(function, ast.Name) else ""


def _texts(call: ast.Call, shown: tuple[int | str, ...]) -> list[str]:
    named = {keyword.arg: keyword.value for keyword in call.keywords}
    found = []
    for place in shown:
        value = named.get(place) if isinstance(place, str) else call.args[place] if place < len(call.args) else None
        if isinstance(value, ast.Constant) and isinstance(value.value, str) and value.value.strip():
            found.append(value.value)
    return found


def messages(paths: list[Path] | None = None, root: Path = ROOT) -> dict[str, Message]:
    """Every message of the sources, in their order."""
    found: dict[str, Message] = {}
    for path in paths if paths is not None else sources():
        where = path.relative_to(root).as_posix()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            shown = _SHOWN.get(_name(node)) if isinstance(node, ast.Call) else None
            if shown is None or not isinstance(node, ast.Call):
                continue
            texts = _texts(node, shown)
            if _name(node) == "ngettext" and len(texts) == 2:
                found[texts[0]] = Message(texts[0], texts[1], where)
            else:
                for text in texts:
                    found.setdefault(text, Message(text, None, where))
    return found


def mistakes(path: Path, root: Path = ROOT) -> Iterator[str]:
    """Uses of ``_`` that cannot work: on an f-string, or where the function has a variable ``_`` of its own."""
    where = path.relative_to(root).as_posix()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _name(node) in {"_", "N_", "ngettext"}:
            if any(isinstance(part, ast.JoinedStr) for part in node.args):
                yield f"{where}:{node.lineno}: an f-string cannot be translated"
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            own = [part for part in ast.walk(node) if isinstance(part, ast.Name) and part.id == "_"]
            if any(isinstance(part.ctx, ast.Store) for part in own) and any(
                isinstance(call, ast.Call) and _name(call) == "_" for call in ast.walk(node)
            ):
                yield f"{where}:{node.lineno}: {node.name} has a variable called '_' and translates"


def catalogue(language: str) -> dict[str, list[tuple[str, str]]]:
    """The entries of a language's file by message; the header under ""."""
    text = Path(i18n.path(language)).read_text(encoding="utf-8")
    return {fields[0][1]: fields for fields in i18n.entries(text)}


def problems(language: str) -> list[str]:
    """What is missing, left over, or has other places for figures than the message."""
    wanted, have = messages(), catalogue(language)
    found = [f"{one.where}: no translation of {one.one!r}" for one in wanted.values() if not _done(have, one)]
    found += [f"nothing shows {text!r} any more" for text in have if text and text not in wanted]
    for message in wanted.values():
        allowed = [_places(message.one), _places(message.many or message.one)]
        for name, text in have.get(message.one, ())[1:]:
            if name.startswith("msgstr") and text and _places(text) not in allowed:
                found.append(f"{message.where}: {text!r} has other places than {message.one!r}")
    return found


def _done(have: dict[str, list[tuple[str, str]]], message: Message) -> bool:
    forms = [text for name, text in have.get(message.one, ()) if name.startswith("msgstr")]
    return bool(forms) and all(forms) and (len(forms) > 1) == (message.many is not None)


def _places(text: str) -> list[str]:
    return sorted(_PLACE.findall(text))


def update(language: str) -> None:
    """Writes the file anew: every message of the sources with the translation it has, in the order of the sources."""
    have = catalogue(language)
    blocks = ['msgid ""\nmsgstr ""\n' + "\n".join(_quoted(line) for line in have[""][1][1].splitlines(keepends=True))]
    where = ""
    for message in messages().values():
        known = dict(have.get(message.one, ()))
        lines = [f"#: {message.where}"] if message.where != where else []
        where = message.where
        lines.append(f"msgid {_quoted(message.one)}")
        if message.many is None:
            lines.append(f"msgstr {_quoted(known.get('msgstr', ''))}")
        else:
            lines.append(f"msgid_plural {_quoted(message.many)}")
            lines += [f"msgstr[{form}] {_quoted(known.get(f'msgstr[{form}]', ''))}" for form in (0, 1)]
        blocks.append("\n".join(lines))
    Path(i18n.path(language)).write_text("\n\n".join(blocks) + "\n", encoding="utf-8")


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def main() -> int:
    if sys.argv[1:] not in ([], ["--update"]):
        sys.stderr.write("usage: python -m scripts.messages [--update]\n")
        return 2
    found: list[str] = []
    for language in i18n.LANGUAGES[1:]:
        if sys.argv[1:]:
            update(language)
        found += problems(language)
    found += [mistake for path in sources() for mistake in mistakes(path)]
    sys.stdout.writelines(f"{line}\n" for line in found)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
