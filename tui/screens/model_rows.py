"""Local models as rows: what lies on the disk, what is loaded, how fast it answers. Pure functions of the house."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from hybridd.i18n import N_, _, ngettext
from tui.house import House, LocalFile, Request, Resident
from tui.rates import tokens_per_second
from tui.screens.model_memory import total_of
from tui.text import Glyphs, age, count, percent, size_of
from tui.widgets.columns import Cell, Column

LOOKED_AT = 500
"""The newest requests that a model's speed is looked for in."""
_ORDER = {"loading": 0, "ready": 1, "draining": 1, "failed": 2}
_WORDS = {"unloaded": N_("on disk"), "ready": N_("ready"), "draining": N_("leaving"), "loading": N_("loading")}


@dataclass(frozen=True, slots=True)
class Row:
    """One model. ``leaves``: whole seconds until it is unloaded; ``speed``: tokens per second, now while it answers,
    else of its last answer."""

    id: str
    state: str
    file: LocalFile
    resident: Resident | None
    leaves: int | None
    speed: float | None

    @property
    def loaded(self) -> bool:
        return self.state in {"ready", "draining"}

    @property
    def context(self) -> int | None:
        return self.file.context or self.file.trained_context or None


def rows(house: House) -> list[Row]:
    """What is being loaded, what is loaded, what failed, the others; by name."""
    files = dict(house.library or {})
    for name in house.local:
        files.setdefault(name, LocalFile(name))
    speeds = last_speeds(house)
    made = []
    for name, file in files.items():
        resident = house.local.get(name)
        state = file.state
        if resident is not None:  # told more often than the library
            state = resident.state if resident.state in {"loading", "ready", "draining"} else "loading"
        elif state in {"ready", "draining", "loading"}:
            state = "unloaded"
        leaves = None
        if resident is not None and resident.leaves_in is not None:
            leaves = max(0, round(house.local_at + resident.leaves_in - house.now))
        speed = resident.tokens_per_second if resident is not None and resident.in_flight else None
        made.append(Row(name, state, file, resident, leaves, speed or speeds.get(name)))
    return sorted(made, key=lambda one: (_ORDER.get(one.state, 3), one.id))


def last_speeds(house: House) -> dict[str, float]:
    """Tokens per second of each local model's last answer; of a streamed one, from its first token on."""
    found: dict[str, float] = {}
    for number, request in enumerate(reversed(house.requests)):
        if number >= LOOKED_AT:
            break
        speed = speed_of(request)
        if speed is not None and request.model is not None:
            found.setdefault(request.model, speed)
    return found


def speed_of(request: Request) -> float | None:
    if request.provider != "local" or request.cache == "hit":
        return None
    first = request.first_token_ms if request.stream else None
    return tokens_per_second(request.output_tokens, request.latency_ms, first, request.overhead_ms)


def record(row: Row) -> dict[str, Any]:
    """For JSON."""
    told: dict[str, Any] = msgspec.to_builtins(row.file)
    resident = msgspec.to_builtins(row.resident) if row.resident is not None else None
    return {**told, "state": row.state, "tokens_per_second": row.speed, "resident": resident}


def state_text(row: Row) -> tuple[str, str]:
    """In words, with the style."""
    if row.state == "loading":
        fraction = row.resident.fraction if row.resident is not None else None
        return (_("loading") + (f" {percent(fraction)}" if fraction is not None else ""), "accent")
    if row.state == "failed":
        return (f"! {_('failed')}", "warn")
    if row.loaded and row.resident is not None and row.resident.in_flight:
        calls = row.resident.in_flight
        if row.state == "draining":
            return (ngettext("leaving {count} call", "leaving {count} calls", calls).format(count=calls), "good")
        return (ngettext("busy {count} call", "busy {count} calls", calls).format(count=calls), "good")
    return (_(_WORDS.get(row.state, row.state)), "good" if row.loaded else "dim")


def leaves_text(row: Row) -> str:
    if not row.loaded:
        return ""
    if row.leaves is not None:
        return _("in {span}").format(span=age(row.leaves)) if row.leaves else _("now")
    return _("in use") if row.resident is not None and row.resident.in_flight else _("stays")


def _name(row: Row, width: int, signs: Glyphs) -> Cell:
    mark = signs.dot if row.loaded else signs.ring if row.state == "loading" else " "
    return [(f"{mark} ", state_text(row)[1]), (signs.of(row.id), "bold" if row.resident is not None else "")]


def _memory(row: Row, width: int, signs: Glyphs) -> Cell:
    return size_of(total_of(row.resident)) if row.resident is not None else ""


def _flag(row: Row, width: int, signs: Glyphs) -> Cell:
    return (signs.of(row.file.reason.removeprefix(f"{row.file.path}: ")), "warn" if row.state == "failed" else "dim")


COLUMNS: list[Column[Row]] = [
    Column("model", "MODEL", _name, 20, share=3, sort=lambda row: row.id, value=lambda row: row.id),
    Column("state", "STATE", lambda row, width, signs: state_text(row), 15,
           sort=lambda row: _ORDER.get(row.state, 3), value=lambda row: row.state),
    Column("size", "SIZE", lambda row, width, signs: size_of(row.file.bytes) if row.file.bytes else "-", 8,
           align="right", sort=lambda row: -row.file.bytes, value=lambda row: row.file.bytes),
    Column("quantization", "QUANT", lambda row, width, signs: (row.file.quantization or "-", "dim"), 7, least=68,
           sort=lambda row: row.file.quantization, value=lambda row: row.file.quantization),
    Column("context", "CONTEXT|CTX", lambda row, width, signs: count(row.context), 5, align="right",
           sort=lambda row: -(row.context or 0), value=lambda row: row.context),
    Column("memory", "MEMORY", _memory, 8, align="right", least=78,
           sort=lambda row: -total_of(row.resident) if row.resident is not None else None,
           value=lambda row: total_of(row.resident) if row.resident is not None else None),
    Column("speed", "TOK/S", lambda row, width, signs: count(row.speed) if row.speed is not None else "", 5,
           align="right", sort=lambda row: -row.speed if row.speed is not None else None,
           value=lambda row: row.speed),
    Column("leaves", "LEAVES", lambda row, width, signs: (leaves_text(row), "dim"), 9, align="right", least=86,
           sort=lambda row: row.leaves, value=lambda row: row.leaves),
    Column("architecture", "ARCH", lambda row, width, signs: (row.file.architecture or "-", "dim"), 9, least=100,
           sort=lambda row: row.file.architecture, value=lambda row: row.file.architecture),
    Column("parameters", "PARAMS|PAR.", lambda row, width, signs: count(row.file.parameters or None), 6, align="right",
           least=108, sort=lambda row: -row.file.parameters, value=lambda row: row.file.parameters),
    Column("reason", "NOTE", _flag, 12, share=2, least=128, value=lambda row: row.file.reason),
]  # fmt: skip
