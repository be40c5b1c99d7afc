"""One local model in words: its file, how it is or would be loaded, and why. Pure functions of the daemon's answers."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from hybridd.i18n import N_, _, ngettext
from tui.house import House
from tui.screens.model_memory import calls_text, use_of
from tui.screens.model_rows import Row, leaves_text
from tui.text import Glyphs, Line, age, clean, count, size_of, wrap

LABEL = 10
GOALS = ("quality", "context", "throughput")
_PARTS = {
    "weights": N_("weights"), "kv": N_("KV"), "compute": N_("compute"), "output": N_("output"),
    "runtime": N_("runtime"), "recurrent": N_("state"),
}  # fmt: skip
_GOALS = {"quality": N_("for quality"), "context": N_("for context"), "throughput": N_("for throughput")}
Fact = tuple[str, str]
"""A label, to be translated, and a text."""


def empty_text(house: House) -> str:
    """What to do when there is no model."""
    folders = house.folders
    place = folders.get("models_dir") or folders.get("default_path")
    where = str(place) if place else _("the folder that local.models_dir names")
    return _("No model here yet: p pulls one from the Hub, or put a .gguf file into {folder}.").format(folder=where)


def removal_text(model: str, freed: int, aliases: list[str]) -> str:
    """What taking a model away would do, as a question. ``freed``: bytes; ``aliases``: names that its file keeps."""
    told = _("Remove {model} from the disk? {size} are freed.").format(model=model, size=size_of(freed))
    if not freed:
        told = _("Remove {model}? It is a link: only that goes, and nothing is freed.").format(model=model)
    if aliases:
        told += " " + _("The same file stays reachable as {names}.").format(names=", ".join(aliases))
    return told


def about_lines(row: Row, details: dict[str, Any] | None, asked: str, width: int, signs: Glyphs) -> list[Line]:
    """``details``: of ``/v1/local/models/{id}``, with a plan; None while there are none. ``asked``: what the plan is
    for, when it is not what the configuration says."""
    facts: list[Fact] = []
    if row.state == "failed" and row.file.reason:
        facts.append((N_("failed"), row.file.reason))
    plan = (details or {}).get("plan")
    planned = _plan(plan, asked, loaded=row.resident is not None and not asked) if isinstance(plan, dict) else []
    if details is None and row.resident is None and row.state != "failed":
        planned = [("plan", _("not known yet"))]
    loaded = _resident(row)
    facts += [*planned, *loaded] if asked else [*loaded, *planned]
    facts += _file(row)
    return fact_lines(facts, width, signs)


def fact_lines(facts: list[Fact], width: int, signs: Glyphs) -> list[Line]:
    lines: list[Line] = []
    for label, text in facts:
        for number, part in enumerate(wrap(text, max(20, width - LABEL - 2))):
            name = "" if number else _(label)
            lines.append([(f" {name:<{LABEL}}", "dim"), (signs.of(part), _style(label))])
    return lines


def _style(label: str) -> str:
    return "warn" if label in {"failed", "no room"} else ""


def _resident(row: Row) -> list[Fact]:
    one = row.resident
    if one is None:
        return []
    since = datetime.fromtimestamp(one.since).strftime("%H:%M:%S") if one.since else "-"
    told = [_("since {time}").format(time=since)]
    if one.load_seconds:
        told.append(_("loaded in {seconds} s").format(seconds=f"{one.load_seconds:.1f}"))
    if one.pid:
        told.append(_("process {pid}").format(pid=one.pid))
    told.append(calls_text(one.in_flight))
    if one.in_flight and one.tokens_per_second:
        told.append(f"{one.tokens_per_second:,.1f} tok/s")
    if row.loaded and not one.in_flight:
        stays = _("stays until it is unloaded")
        told.append(_("leaves {when}").format(when=leaves_text(row)) if row.leaves is not None else stays)
    facts = [(N_("loaded") if row.loaded else N_("loading"), ", ".join(told))]
    for side, name in (("device", N_("on GPU")), ("host", N_("in RAM"))):
        use = use_of(one, "device" if side == "device" else "host")
        if sum(use.values()):
            facts.append((name, f"{memory_text(use)}; {_('measured') if one.measured else _('as planned')}"))
    return facts


def memory_text(use: dict[str, int]) -> str:
    """``3.1 GiB: weights 2.5 GiB, KV 500 MiB, …``"""
    named = [f"{_(_PARTS.get(name, name))} {size_of(value)}" for name, value in use.items() if value]
    return f"{size_of(sum(use.values()))}: {', '.join(named)}"


def _plan(plan: dict[str, Any], asked: str, *, loaded: bool) -> list[Fact]:
    options = plan.get("options")
    reasons = " ".join(_sentence(one) for one in plan.get("reasons") or [])
    if not isinstance(options, dict):
        told = _("It does not fit for {wish}.").format(wish=asked) if asked else _("It does not fit.")
        return [(N_("no room"), f"{told} {reasons}".strip())]
    goal = _(_GOALS.get(str(plan.get("goal")), ""))
    aim = _("for {wish}").format(wish=asked) if asked else goal
    facts = [(N_("plan"), f"{where_text(plan)}, {aim}" if aim else where_text(plan))]
    each, sequences = int(plan.get("sequence_context") or 0), int(options.get("sequences") or 1)
    form = _("{tokens} tokens for each of {count} requests at once") if sequences > 1 else _("{tokens} tokens")
    cache = f"KV {options.get('type_k')}/{options.get('type_v')}"
    batch = _("batch {batch}, micro-batch {micro}").format(batch=options.get("batch"), micro=options.get("micro_batch"))
    facts.append((N_("context"), f"{form.format(tokens=f'{each:,}', count=sequences)}; {cache}; {batch}"))
    if not loaded:
        for side, name in (("device", N_("on GPU")), ("host", N_("in RAM"))):
            use = {key: int(value) for key, value in ((plan.get("memory") or {}).get(side) or {}).items()}
            if sum(use.values()):
                facts.append((name, memory_text(use)))
        kept = ", " + _("{size} of it kept free").format(size=size_of(plan.get("margin"))) if plan.get("margin") else ""
        facts.append((N_("budget"), f"{size_of(plan.get('budget'))}{kept}"))
    if reasons:
        facts.append((N_("why"), reasons))
    rejected = plan.get("rejected") or []
    if rejected:
        facts.append((N_("passed"), "; ".join(str(one.get("reason", "")).rstrip(".") for one in rejected[:3])))
    return facts


def where_text(plan: dict[str, Any]) -> str:
    """On the GPU, partly, or on the processor."""
    options, layers = plan.get("options") or {}, int(plan.get("layers") or 0)
    if plan.get("target") != "gpu":
        return ngettext("{count} layer on the processor", "{count} layers on the processor", layers).format(
            count=layers
        )
    there, gpu = min(layers, int(options.get("gpu_layers") or 0)), plan.get("gpu") or _("the GPU")
    return _("{some} of {all} layers on {gpu}").format(some=there, all=layers, gpu=gpu)


def _sentence(text: object) -> str:
    told = clean(str(text)).strip()
    return f"{told[:1].upper()}{told[1:]}{'' if told.endswith(('.', '!')) else '.'}" if told else ""


def _file(row: Row) -> list[Fact]:
    file = row.file
    named = [part for part in (file.kind, file.architecture, file.quantization) if part]
    if file.parameters:
        named.append(_("{count} parameters").format(count=count(file.parameters)))
    if file.trained_context:
        named.append(_("trained for {tokens} tokens").format(tokens=f"{file.trained_context:,}"))
    facts = [(N_("file"), ", ".join(named))] if named else []
    if file.path:
        facts.append((N_("path"), file.path))
    keep = file.keep_alive
    if keep is not None:
        told = _("leaves {span} after its last call").format(span=age(keep)) if keep else _("leaves after each call")
        facts.append((N_("keeps"), told))
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
                raise ValueError(_("'{word}' must be at least 1").format(word=word))
            found["parallel" if times else "context"] = number
        elif word in GOALS:
            found["goal"] = word
        else:
            told = _("'{word}' is neither tokens (8192, 8k), requests at once (x4) nor a goal")
            raise ValueError(told.format(word=clean(word)))
    return found


def wish_text(wish: dict[str, Any]) -> str:
    """``8,192 tokens, 4 at once, throughput``."""
    told = [_("{tokens} tokens").format(tokens=f"{wish['context']:,}")] if "context" in wish else []
    told += [_("{count} at once").format(count=wish["parallel"])] if "parallel" in wish else []
    told += [str(wish["goal"])] if "goal" in wish else []
    return ", ".join(told)
