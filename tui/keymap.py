"""The keymap of the configuration: binding id to keys. What cannot be used is said, with the nearest id."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from difflib import get_close_matches

from hybridd.i18n import _

Keymap = dict[str, str]


def check(keymap: Mapping[str, str], known: Collection[str]) -> tuple[Keymap, list[str]]:
    """The entries that can be used, and a sentence for each that cannot."""
    used: Keymap = {}
    wrong: list[str] = []
    for name, keys in keymap.items():
        cleaned = ",".join(key.strip() for key in keys.split(",") if key.strip())
        if name not in known:
            near = get_close_matches(name, known, n=1)
            said = _("tui.keymap: there is no binding '{name}'").format(name=name)
            wrong.append(said + ("; " + _("the nearest is '{name}'").format(name=near[0]) if near else ""))
        elif not cleaned:
            wrong.append(_("{setting} names no key").format(setting=f"tui.keymap.{name}"))
        else:
            used[name] = cleaned
    return used, wrong
