"""One local model in words: its file, how it is or would be loaded, and why. Pure functions of the daemon's answers."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from tui.house import House
from tui.screens.model_memory import use_of
from tui.screens.model_rows import Row, leaves_text
from tui.text import Glyphs, Line, age, clean, count, size_of, wrap

LABEL = 10
GOALS = ("quality", "context", "throughput")
Fact = tuple[str, str]


def empty_text(house: House) -> str:
    """What to do when there is no model."""
    folders = house.folders
    place = folders.get("models_dir") or folders.get("default_path")
    where = str(place) if place else "the folder that local.models_dir names"
    return f"No model here yet: p pulls one from the Hub, or put a .gguf file into {where}."


def about_lines(row: Row, details: dict[str, Any] | None, asked: str, width: int, signs: Glyphs) -> list[Line]:
    """``details``: of ``/v1/local/models/{id}``, with a plan; None while there are none. ``asked``: what the plan is
    for, when it is not what the configuration says."""
    facts: list[Fact] = []
    if row.state == "failed" and row.file.reason:
        facts.append(("failed", row.file.reason))
    plan = (details or {}).get("plan")
    planned = _plan(plan, asked, loaded=row.resident is not None and not asked) if isinstance(plan, dict) else []
    if details is None and row.resident is None and row.state != "failed":
        planned = [("plan", "not known yet")]
    loaded = _resident(row)
    facts += [*planned, *loaded] if asked else [*loaded, *planned]
    facts += _file(row)
    return fact_lines(facts, width, signs)


def fact_lines(facts: list[Fact], width: int, signs: Glyphs) -> list[Line]:
    lines: list[Line] = []
    for label, text in facts:
        for number, part in enumerate(wrap(text, max(20, width - LABEL - 2))):
            lines.append([(f" {'' if number else label:<{LABEL}}", "dim"), (signs.of(part), _style(label))])
    return lines


def _style(label: str) -> str:
    return "warn" if label in {"failed", "no room"} else ""


def _resident(row: Row) -> list[Fact]:
    one = row.resident
    if one is None:
        return []
    since = datetime.fromtimestamp(one.since).strftime("%H:%M:%S") if one.since else "-"
    told = f"since {since}"
    if one.load_seconds:
        told += f", loaded in {one.load_seconds:.1f} s"
    if one.pid:
        told += f", process {one.pid}"
    calls = f"{one.in_flight} call{'s' if one.in_flight != 1 else ''} in flight"
    leaves = leaves_text(row)
    stays = {"": "", "stays": "stays until it is unloaded", "in use": "in use"}.get(leaves, f"leaves {leaves}")
    facts = [("loaded" if row.loaded else row.state, f"{told}; {calls}" + (f"; {stays}" if stays else ""))]
    for side, name in (("device", "on GPU"), ("host", "in RAM")):
        use = use_of(one, "device" if side == "device" else "host")
        if sum(use.values()):
            facts.append((name, f"{memory_text(use)}{', measured' if one.measured else ', as planned'}"))
    return facts


def memory_text(use: dict[str, int]) -> str:
    """``3.1 GB: weights 2.5 GB, kv 500 MB, …``"""
    named = [f"{name} {size_of(value)}" for name, value in use.items() if value]
    return f"{size_of(sum(use.values()))}: {', '.join(named)}"


def _plan(plan: dict[str, Any], asked: str, *, loaded: bool) -> list[Fact]:
    options = plan.get("options")
    reasons = " ".join(_sentence(one) for one in plan.get("reasons") or [])
    wish = f" for {asked}" if asked else ""
    if not isinstance(options, dict):
        return [("no room", f"It does not fit{wish}. {reasons}".strip())]
    facts = [("plan", f"{where_text(plan)}{wish}; {plan.get('goal', '')}")]
    each, sequences = int(plan.get("sequence_context") or 0), int(options.get("sequences") or 1)
    shared = f" for each of {sequences} requests at once" if sequences > 1 else ""
    facts.append(("context", f"{each:,} tokens{shared}; KV {options.get('type_k')}/{options.get('type_v')}; batch "
                             f"{options.get('batch')}, micro-batch {options.get('micro_batch')}"))  # fmt: skip
    if not loaded:
        for side, name in (("device", "on GPU"), ("host", "in RAM")):
            use = {key: int(value) for key, value in ((plan.get("memory") or {}).get(side) or {}).items()}
            if sum(use.values()):
                facts.append((name, memory_text(use)))
        margin = f", {size_of(plan.get('margin'))} of it kept free" if plan.get("margin") else ""
        facts.append(("budget", f"{size_of(plan.get('budget'))}{margin}"))
    if reasons:
        facts.append(("why", reasons))
    rejected = plan.get("rejected") or []
    if rejected:
        facts.append(("passed", "; ".join(str(one.get("reason", "")).rstrip(".") for one in rejected[:3])))
    return facts


def where_text(plan: dict[str, Any]) -> str:
    """On the GPU, partly, or on the processor."""
    options, layers = plan.get("options") or {}, int(plan.get("layers") or 0)
    if plan.get("target") != "gpu":
        return f"{layers} layers on the processor"
    there = min(layers, int(options.get("gpu_layers") or 0))
    return f"{there} of {layers} layers on {plan.get('gpu') or 'the GPU'}"


def _sentence(text: object) -> str:
    told = clean(str(text)).strip()
    return f"{told[:1].upper()}{told[1:]}{'' if told.endswith(('.', '!')) else '.'}" if told else ""


def _file(row: Row) -> list[Fact]:
    file = row.file
    named = [part for part in (file.kind, file.architecture, file.quantization) if part]
    if file.parameters:
        named.append(f"{count(file.parameters)} parameters")
    if file.trained_context:
        named.append(f"trained for {file.trained_context:,} tokens")
    facts = [("file", ", ".join(named))] if named else []
    if file.path:
        facts.append(("path", file.path))
    keep = file.keep_alive
    if keep is not None:
        facts.append(("keeps", f"leaves {age(keep)} after its last call" if keep else "leaves after each call"))
    return facts


def parse_wish(text: str) -> dict[str, Any]:
    """``8192``, ``8192 x4``, ``8192 x4 throughput``, in any order; nothing: as configured.

    Raises:
        ValueError: with a sentence.
    """
    found: dict[str, Any] = {}
    for word in text.lower().replace(",", "").split():
        times = word.startswith(("x", "×"))
        digits = word[1:] if times else word
        thousands = digits.endswith("k") and not times
        digits = digits.removesuffix("k") if thousands else digits
        if digits.isascii() and digits.isdigit():
            number = int(digits) * (1024 if thousands else 1)
            if number < 1:
                raise ValueError(f"'{word}' must be at least 1")
            found["parallel" if times else "context"] = number
        elif word in GOALS:
            found["goal"] = word
        else:
            raise ValueError(f"'{clean(word)}' is neither tokens (8192, 8k), requests at once (x4) nor a goal")
    return found


def wish_text(wish: dict[str, Any]) -> str:
    """``8,192 tokens, 4 at once, throughput``."""
    told = [f"{wish['context']:,} tokens"] if "context" in wish else []
    told += [f"{wish['parallel']} at once"] if "parallel" in wish else []
    told += [str(wish["goal"])] if "goal" in wish else []
    return ", ".join(told)
