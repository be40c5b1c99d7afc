"""Bindings as text: for the footer, the help, the palette and the documentation, all from the same declarations."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from textual.binding import Binding
from textual.dom import DOMNode
from textual.keys import key_to_character
from textual.screen import Screen

from hybridd.i18n import _
from tui.screens import SCREENS

if TYPE_CHECKING:
    from tui.app import Dashboard
    from tui.screens.base import HouseScreen
    from tui.widgets.footer import Key

_NAMES = {
    "question_mark": "?", "slash": "/", "escape": "Esc", "enter": "Enter", "left_square_bracket": "[",
    "right_square_bracket": "]", "left_curly_bracket": "{", "right_curly_bracket": "}",
    "up": "Up", "down": "Down", "left": "Left", "right": "Right", "pageup": "PgUp",
    "pagedown": "PgDn", "home": "Home", "end": "End", "space": "Space", "tab": "Tab", "delete": "Del",
    "plus": "+", "minus": "-", "comma": ",", "full_stop": ".", "backspace": "Backspace",
    "underscore": "_",
}  # fmt: skip


def key_name(key: str) -> str:
    """``question_mark`` as ``?``, ``ctrl+p`` as ``^p``, ``f2`` as ``F2``."""
    if not key:
        return ""
    *modifiers, last = key.split("+")
    name = _NAMES.get(last) or _character(last)
    if "shift" in modifiers:
        name = f"Shift+{name}"
    if "super" in modifiers:
        name = f"Super+{name}"
    return f"^{name}" if "ctrl" in modifiers else name


def _character(key: str) -> str:
    """``f2`` as ``F2``, and by its sign what a keymap calls by its name."""
    if len(key) == 1:
        return key
    if key[0] == "f" and key[1:].isdigit():
        return key.upper()
    return key_to_character(key) or key.capitalize()


_ORDER = {"screen": 0, "here": 1, "everywhere": 2}


@dataclass(frozen=True, slots=True)
class Entry:
    """One action: the keys that run it, what it does, where it is available (``place``), its id for the keymap."""

    keys: tuple[str, ...]
    about: str
    action: str
    id: str
    place: str
    node: DOMNode
    show: bool = False

    @property
    def shown_keys(self) -> str:
        return " ".join(key_name(key) for key in self.keys)


def entries(screen: Screen[Any]) -> list[Entry]:
    """What can be done now: the screen's own actions, those of every screen, the focused widget's, those everywhere.

    An action that is not allowed now (read-only) is left out, and so is one whose keys all mean something else here.
    """
    found: dict[tuple[str, str], Entry] = {}
    for key, active in screen.active_bindings.items():
        binding, node = active.binding, active.node
        if not binding.description or not binding.id:
            continue  # Textual's own scrolling and editing keys
        place = place_of(node)
        known = found.get((binding.action, place))
        keys = (*known.keys, key) if known is not None else (key,)
        found[binding.action, place] = Entry(
            keys, _(binding.description), binding.action, binding.id, place, node, binding.show
        )
    return sorted(found.values(), key=lambda entry: (_ORDER[entry.place], entry.id.startswith("screen.")))


def pressed(screen: Screen[Any], binding: str) -> str:
    """The first key of one of the screen's own bindings as it is now; "": it has none."""
    keys = (key for key, active in screen.active_bindings.items() if active.binding.id == binding)
    return key_name(next(keys, ""))


def place_of(node: DOMNode) -> str:
    if isinstance(node, Screen):
        return "screen"
    return "everywhere" if node.parent is None else "here"


def footer_keys(screen: HouseScreen) -> list[Key]:
    """The actions that ask to be shown, the screen's own first."""
    shown = [entry for entry in entries(screen) if entry.show]
    keys: list[Key] = [(key_name(entry.keys[0]), entry.about, qualified(entry)) for entry in shown]
    return [*screen.keys(), *keys]


def qualified(entry: Entry) -> str:
    """The action with its namespace, to be run from anywhere."""
    if "." in entry.action.split("(")[0]:
        return entry.action
    return {"screen": "screen.", "everywhere": "app.", "here": "focused."}[entry.place] + entry.action


def screen_keys(app: Dashboard) -> list[Key]:
    """The screens' keys as they are now (the keymap may have moved them)."""
    made: list[Key] = []
    for name, spec in SCREENS.items():
        keys = app.keymap_keys(f"app.screen.{name}") or [spec.key]
        made.append((key_name(keys[0]), _(spec.title), name))
    return made


def declared(kinds: Iterable[type[DOMNode]]) -> list[tuple[type[DOMNode], Binding]]:
    """Every binding with an id that these classes declare, in order, each id once."""
    seen: set[str] = set()
    made: list[tuple[type[DOMNode], Binding]] = []
    for kind in kinds:
        for owner in kind.__mro__:
            for item in owner.__dict__.get("BINDINGS", ()):
                if isinstance(item, Binding) and item.id and item.id not in seen:
                    seen.add(item.id)
                    made.append((owner, item))
    return made
