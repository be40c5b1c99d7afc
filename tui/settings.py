"""The dashboard's own settings: the ``tui`` section of the configuration, overruled by the command line.

The daemon checks the file and names mistakes; here a section that cannot be understood is a note on the screen and not
a reason to stay dark.
"""

from __future__ import annotations

import json
from pathlib import Path

import msgspec

from hybridd import i18n, locations


class Section(msgspec.Struct):
    """``keymap``: binding id to keys, separated by commas. ``language``: of the texts; None: the environment's."""

    keymap: dict[str, str] = {}
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
        return Section(), "" if path is None else f"{place} does not exist"
    except (OSError, ValueError) as error:
        return Section(), f"{place} cannot be read: {error}"
    section = document.get("tui") if isinstance(document, dict) else None
    if section is None:
        return Section(), ""
    try:
        return msgspec.convert(section, Section), ""
    except msgspec.ValidationError as error:
        return Section(), f"the section 'tui' of {place} is not used: {error}"


def with_section(options: Options) -> Options:
    """The options with what the configuration says where the command line is silent."""
    section, note = read_section(options.config)
    if section.language and i18n.match(section.language) is None:
        wrong = f"tui.language: there is no '{section.language}'; there are {', '.join(i18n.LANGUAGES)}"
        note = f"{note}; {wrong}" if note else wrong
    return msgspec.structs.replace(
        options,
        section=section,
        note=note,
        read_only=options.read_only or section.read_only,
        theme=options.theme or section.theme,
    )
