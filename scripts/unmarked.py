"""Texts of the dashboard that people read and that nobody marked for translation.

A text counts as read when it holds two words in a row, or when it is a piece of a line: ``("text", "style")``. Left out
are what no screen shows: documentation, style sheets, assertions, and :data:`NOT_SHOWN`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("tui",)
NOT_SHOWN = {
    "tui/__main__.py": "help pages of the commands are English",
    "tui/reference.py": "writes a page of the documentation",
}
"""Files whose texts are in no catalogue, and why."""

NEVER = frozenset({
    "hybridd",  # a name
    "Enter", "Esc",  # written on the keyboard
    "CPU", "RAM", "GPU", "VRAM", "KV",
})  # fmt: skip
_MARKS = frozenset({"_", "N_", "ngettext", "Binding", "ScreenSpec", "Column"})
_STYLES = frozenset({"", "dim", "good", "warn", "bad", "accent", "head", "bold", "cursor"})
_WORDS = re.compile(r"[A-Za-z]{2,}[,;:.]? +[A-Za-z]{2,}")
_LETTERS = re.compile(r"[A-Za-z]{2,}")
_CODE = re.compile(r"default-src|document\.")
_CONSTANTS = re.compile(r"CSS$")


def sources() -> list[Path]:
    found = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
    return [path for path in found if path.relative_to(ROOT).as_posix() not in NOT_SHOWN]


def unmarked(path: Path, marked: Collection[str] = (), root: Path = ROOT) -> Iterator[str]:
    """``file:line: 'text'`` for each, in order. What is ``marked`` elsewhere is a code here, and translated there."""
    seen = sorted(set(_visit(ast.parse(path.read_text(encoding="utf-8")))))
    where = path.relative_to(root).as_posix()
    yield from (f"{where}:{line}: {text!r}" for line, text in seen if text not in marked)


def _visit(node: ast.AST) -> Iterator[tuple[int, str]]:
    for child in ast.iter_child_nodes(node):
        if _is_skipped(child):
            continue
        if isinstance(child, ast.Call) and _name(child) in _MARKS:
            yield from _inside([*child.args, *(word.value for word in child.keywords)])
            continue
        if isinstance(child, ast.Compare):
            yield from _inside([child.left, *child.comparators])
            continue
        if isinstance(child, ast.AnnAssign):  # not its annotation
            yield from _visit(ast.Tuple([child.value] if child.value else [], ast.Load()))
            continue
        if _is_piece(child):
            yield from _texts(child)
        if isinstance(child, ast.Constant) and isinstance(child.value, str) and _is_sentence(child.value):
            yield child.lineno, child.value
        yield from _visit(child)


def _inside(parts: list[ast.expr]) -> Iterator[tuple[int, str]]:
    """Of these parts, what is not a plain text."""
    for part in parts:
        if not isinstance(part, ast.Constant):
            yield from _visit(part)


def _is_skipped(node: ast.AST) -> bool:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return True  # documentation
    if isinstance(node, (ast.Assign, ast.AnnAssign)):
        target = node.targets[0] if isinstance(node, ast.Assign) else node.target
        return isinstance(target, ast.Name) and bool(_CONSTANTS.search(target.id))
    return isinstance(node, ast.Assert)


def _is_sentence(text: str) -> bool:
    return bool(_WORDS.search(text)) and not _CODE.search(text)


def _is_word(text: str) -> bool:
    return bool(_LETTERS.search(text)) and text.strip() not in NEVER


def _is_piece(node: ast.AST) -> bool:
    if not (isinstance(node, ast.Tuple) and len(node.elts) == 2):
        return False
    style = node.elts[1]
    return isinstance(style, ast.Constant) and style.value in _STYLES


def _texts(piece: ast.AST) -> Iterator[tuple[int, str]]:
    """The texts of a piece: of a constant, of an f-string its fixed parts, of a choice both."""
    assert isinstance(piece, ast.Tuple)
    waiting: list[ast.expr] = [piece.elts[0]]
    while waiting:
        text = waiting.pop()
        if isinstance(text, ast.JoinedStr):
            waiting += text.values
        elif isinstance(text, ast.IfExp):
            waiting += [text.body, text.orelse]
        elif isinstance(text, ast.Constant) and isinstance(text.value, str) and _is_word(text.value):
            yield text.lineno, text.value


def _name(call: ast.Call) -> str:
    function = call.func
    return (
        function.id if isinstance(function, ast.Name) else function.attr if isinstance(function, ast.Attribute) else ""
    )
