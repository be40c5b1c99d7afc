"""``docs/dashboard.md``'s table of keys, made from the bindings. ``python -m tui.reference --write`` writes it."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from textual.dom import DOMNode

from tui.keys import declared, key_name
from tui.screens import SCREENS

BEGIN = "<!-- keys: made by `python -m tui.reference --write`; a test holds it equal -->"
END = "<!-- /keys -->"
_ELSEWHERE = ("tui.widgets.table:Rows", "tui.widgets.filter:Filter", "tui.export:ExportScreen", "tui.help:HelpScreen",
              "tui.jump:JumpScreen", "tui.start:StartScreen", "tui.ask:Ask",
              "tui.screens.limit_detail:LimitDetail", "tui.screens.log_detail:LogDetail",
              "tui.screens.request_detail:RequestDetail",
              "tui.screens.model_pull:PullScreen", "tui.confirm:Confirm")  # fmt: skip


def sources() -> list[type[DOMNode]]:
    """Every class that declares bindings: the application, the screens and what their modules define, the rest."""
    from tui.app import Dashboard

    found: list[type[DOMNode]] = [Dashboard]
    modules = [f"tui.screens.{spec.module}" for spec in SCREENS.values() if find_spec(f"tui.screens.{spec.module}")]
    for name in modules:
        found += _defined(import_module(name))
    for place in _ELSEWHERE:
        name, _, kind = place.partition(":")
        found.append(getattr(import_module(name), kind))
    return found


def _defined(module: object) -> list[type[DOMNode]]:
    return [
        kind
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, DOMNode) and kind.__module__.startswith("tui.")
    ]


def markdown() -> str:
    """The table of every binding: its id for ``tui.keymap``, its keys, what it does."""
    rows = ["| id | keys | does |", "|---|---|---|"]
    for _, binding in sorted(declared(sources()), key=lambda found: str(found[1].id)):
        keys = " ".join(f"`{key_name(key)}`" for key in binding.key.split(","))
        rows.append(f"| `{binding.id}` | {keys} | {binding.description} |")
    return "\n".join(rows)


def page(text: str) -> str:
    """``text`` (of docs/dashboard.md) with the table as it is now."""
    head, _, rest = text.partition(BEGIN)
    return f"{head}{BEGIN}\n\n{markdown()}\n\n{END}{rest.partition(END)[2]}"


def main() -> int:
    path = Path(__file__).resolve().parent.parent / "docs" / "dashboard.md"
    if sys.argv[1:] != ["--write"]:
        sys.stdout.write(markdown() + "\n")
        return 0
    path.write_text(page(path.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
