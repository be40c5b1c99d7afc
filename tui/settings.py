"""The dashboard's own settings: the ``tui`` section of the configuration, overruled by the command line.

The daemon checks the file and names mistakes; here a section that cannot be understood is a note on the screen and not
a reason to stay dark.
"""

from __future__ import annotations

import json
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import msgspec
from textual.theme import BUILTIN_THEMES

from hybridd import i18n, locations
from hybridd.errors import InvalidRequest
from hybridd.i18n import _
from tui import theme


class Section(msgspec.Struct):
    """``keymap``: binding id to keys, separated by commas. ``language``: of the texts; None: the environment's."""

    keymap: dict[str, Any] = {}  # what can be used of it is sorted out entry by entry
    theme: str | None = None
    language: str | None = None
    read_only: bool = False


class Options(msgspec.Struct, kw_only=True):
    """How this run was started. ``speed``: of a replay; 0: all at once."""

    socket: Path = msgspec.field(default_factory=locations.socket_path)
    config: Path | None = None
    read_only: bool = False
    ascii_only: bool = False
    theme: str | None = None
    record: Path | None = None
    replay: Path | None = None
    speed: float = 1.0
    section: Section = msgspec.field(default_factory=Section)
    note: str = ""


def read_section(path: Path | None) -> tuple[Section, str]:
    """The ``tui`` section of a configuration file, and what is wrong with it ("" when nothing is)."""
    place = path if path is not None else locations.config_path()
    try:
        document = json.loads(place.read_bytes())
    except FileNotFoundError:
        return Section(), "" if path is None else _("{path} does not exist").format(path=place)
    except (OSError, ValueError) as error:
        return Section(), _("{path} cannot be read: {reason}").format(path=place, reason=error)
    section = document.get("tui") if isinstance(document, dict) else None
    if section is None:
        return Section(), ""
    try:
        return msgspec.convert(section, Section), ""
    except msgspec.ValidationError as error:
        return Section(), _("the section 'tui' of {path} is not used: {reason}").format(path=place, reason=error)


def themes() -> list[str]:
    """The names of all themes, the dashboard's own first."""
    return list(dict.fromkeys([*theme.NAMES, *sorted(BUILTIN_THEMES)]))


def with_section(options: Options) -> Options:
    """The options with what the configuration says where the command line is silent.

    Raises:
        InvalidRequest: the command line asks for what there is not, or for two things that do not go together.
    """
    section, note = read_section(options.config)
    i18n.use(section.language)
    notes = [note]
    if section.language and i18n.match(section.language) is None:
        said = _("tui.language: there is no '{name}'; there are {names}")
        notes.append(said.format(name=section.language, names=", ".join(i18n.LANGUAGES)))
    if section.theme is not None and section.theme not in themes():
        notes.append(_no_theme("tui.theme", section.theme))
    if options.theme is not None and options.theme not in themes():
        raise InvalidRequest(_no_theme("--theme", options.theme), param="theme")
    if options.record is not None and options.replay is not None:
        raise InvalidRequest(_("--record writes what a daemon says; it does not go with --replay"), param="record")
    return msgspec.structs.replace(
        options,
        section=section,
        note="; ".join(one for one in notes if one),
        read_only=options.read_only or section.read_only,
        theme=options.theme or (section.theme if section.theme in themes() else None),
    )


def _no_theme(setting: str, name: str) -> str:
    near = get_close_matches(name, themes(), n=1)
    nearest = "; " + _("the nearest is '{name}'").format(name=near[0]) if near else ""
    said = _("{setting}: there is no theme '{name}'; there are {names}")
    return said.format(setting=setting, name=name, names=", ".join(theme.NAMES)) + nearest
