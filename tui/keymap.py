"""The keymap of the configuration: binding id to keys. What cannot be used is said, with the nearest name."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from textual.keys import KEY_NAME_REPLACEMENTS, Keys

from hybridd.i18n import _

Keymap = dict[str, str]
_MODIFIERS = frozenset({"ctrl", "shift", "alt", "meta", "super", "hyper"})
_NAMED = frozenset({key.value for key in Keys} | set(KEY_NAME_REPLACEMENTS.values()))


@dataclass(frozen=True, slots=True)
class Place:
    """Where a binding is declared, and its keys there. Two of one place cannot share a key."""

    owner: str
    keys: str


def check(keymap: Mapping[str, object], known: Mapping[str, Place]) -> tuple[Keymap, list[str]]:
    """The entries that can be used, and a sentence for each that cannot."""
    used: Keymap = {}
    wrong: list[str] = []
    for name, keys in keymap.items():
        said = _mistake(name, keys, known)
        if said:
            wrong.append(said)
        else:
            used[name] = ",".join(_split(str(keys)))
    for name in list(used):
        taken = _taken(name, used, known)
        if taken:
            wrong.append(taken)
            del used[name]
    return used, wrong


def _mistake(name: str, keys: object, known: Mapping[str, Place]) -> str:
    setting = f"tui.keymap.{name}"
    if name not in known:
        return _("tui.keymap: there is no binding '{name}'").format(name=name) + _nearest(name, known)
    if not isinstance(keys, str):
        return _('{setting} must be a text such as "f1" or "ctrl+q,q", not {value}').format(setting=setting, value=keys)
    if not _split(keys):
        return _("{setting} names no key").format(setting=setting)
    for key in _split(keys):
        if not is_key(key):
            return _("{setting}: there is no key '{key}'").format(setting=setting, key=key) + _nearest(key, _NAMED)
    return ""


def _nearest(name: str, known: Iterable[str]) -> str:
    near = get_close_matches(name, list(known), n=1)
    return "; " + _("the nearest is '{name}'").format(name=near[0]) if near else ""


def _split(keys: str) -> list[str]:
    return [key.strip() for key in keys.split(",") if key.strip()]


def is_key(key: str) -> bool:
    """``?``, ``question_mark``, ``f1``, ``ctrl+shift+left``."""
    *modifiers, last = key.split("+") if key not in {"+", "ctrl++"} else ["plus"]
    if not _MODIFIERS.issuperset(modifiers):
        return False
    if len(last) == 1 or last in _NAMED:
        return last.isprintable()
    try:
        unicodedata.lookup(last.replace("_", " "))
    except KeyError:
        return False
    return True


def _taken(name: str, used: Keymap, known: Mapping[str, Place]) -> str:
    """What else listens to one of its keys at the same place."""
    own = {_canonical(key) for key in _split(used[name])}
    for other, place in known.items():
        if other == name or place.owner != known[name].owner:
            continue
        shared = own & {_canonical(key) for key in _split(used.get(other, place.keys))}
        if shared:
            return _("tui.keymap.{name}: '{key}' is the key of '{other}'; give that one another key too").format(
                name=name, key=min(shared), other=other
            )
    return ""


def _canonical(key: str) -> str:
    """``?`` and ``question_mark`` are one key."""
    if len(key) > 1 or key.isalnum():
        return key
    name = unicodedata.name(key, key).lower().replace("-", "_").replace(" ", "_")
    return KEY_NAME_REPLACEMENTS.get(name, name)
