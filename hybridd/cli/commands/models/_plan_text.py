"""Plans as text and JSON for ``hybridd models plan``."""

from __future__ import annotations

from typing import Any

import msgspec

from hybridd.cli import output, text
from hybridd.contracts.units import size
from hybridd.local import plan_view as view
from hybridd.local.facts import ModelFacts
from hybridd.local.machine import MachineFacts
from hybridd.local.types import LoadFailure, Memory, Plan

_BAR_MOST = 76


def show(
    plan: Plan, facts: ModelFacts, machine: MachineFacts, checked: Memory | LoadFailure | None, *, everything: bool,
    rich: bool,
) -> None:  # fmt: skip
    """The plan, what goes where, and why."""
    for title, value in view.rows(plan, facts):
        output.emit(f"{title:<10}{value}")
    output.emit()
    for bar in view.bars(plan, machine):
        _bar(bar, rich)
    _memory(plan)
    if checked is not None:
        _checked(plan, checked)
    output.emit("Why" if plan.options is not None else "Why not")
    for reason in plan.reasons:
        output.paragraph(reason)
    if everything:
        output.emit("Rejected")
        for one in plan.rejected:
            output.paragraph(one.reason)
    elif plan.rejected:
        count = len(plan.rejected)
        output.emit(f"{count} {'alternative was' if count == 1 else 'alternatives were'} rejected; --all shows more.")


def data(plan: Plan, facts: ModelFacts, machine: MachineFacts, checked: Memory | LoadFailure | None) -> dict[str, Any]:
    shown = view.as_data(plan, facts, machine)
    if checked is not None:
        shown["dry_run"] = msgspec.to_builtins({"failure": checked} if isinstance(checked, LoadFailure) else checked)
    return shown


def show_files(rows: list[dict[str, Any]], why: list[str]) -> None:
    """A table of a repository's files; ``*`` marks the one that a pull would take."""
    titles = [
        output.Column(""), output.Column("FILE", flexible=True), output.Column("SIZE", right=True),
        output.Column("FIT"), output.Column("LAYERS", right=True), output.Column("CONTEXT", right=True),
        output.Column("KV"), output.Column("GPU", right=True), output.Column("MEMORY", right=True),
    ]  # fmt: skip
    output.table(titles, [_cells(row) for row in rows])
    for reason in why:
        output.paragraph(reason)


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    fits = row["context"] is not None
    layers = f"{max(0, row['gpu_layers'] - 1)}/{row['layers']}" if fits else "-"
    return (
        "*" if row["taken"] else " ",
        row["quantization"] or row["file"],
        size(row["bytes"]),
        row["fit"],
        layers,
        f"{row['context']:,}" if fits else "-",
        row["kv"] or "-",
        size(row["device"]) if fits else "-",
        size(row["host"]) if fits else "-",
    )


def _bar(bar: view.Bar, rich: bool) -> None:
    cells = min(_BAR_MOST, output.columns() - 2)
    output.emit(f"{bar.title}: {size(bar.total)}")
    output.emit("  " + view.draw(bar, cells, rich=rich))
    pieces, shown = view.legend(bar, rich=rich), ""
    for piece in pieces:
        longer = f"{shown}   {piece}" if shown else piece
        if text.width(longer) > cells and shown:
            output.emit(f"  {shown}")
            longer = piece
        shown = longer
    output.emit(f"  {shown}")
    if bar.missing:
        output.emit(f"  {size(bar.missing)} too little")
    output.emit()


def _memory(plan: Plan) -> None:
    titles = [output.Column("PART"), output.Column("GPU", right=True), output.Column("MEMORY", right=True)]
    rows = [(name, size(device), size(host)) for name, device, host in view.memory_rows(plan)]
    output.table(titles, rows)
    output.emit()


def _checked(plan: Plan, checked: Memory | LoadFailure) -> None:
    """The parts that llama.cpp itself counts, beside the plan's."""
    if isinstance(checked, LoadFailure):
        output.emit(f"llama.cpp's dry run fails ({checked.cause}): {checked.message}")
        output.emit()
        return
    titles = [
        output.Column("DRY RUN"), output.Column("PLANNED", right=True), output.Column("LLAMA.CPP", right=True),
        output.Column("DIFFERENCE", right=True),
    ]  # fmt: skip
    rows = []
    for side, planned, told in (
        ("GPU", plan.memory.device, checked.device),
        ("memory", plan.memory.host, checked.host),
    ):
        for name in ("kv", "recurrent", "compute", "output"):
            ours, theirs = getattr(planned, name), getattr(told, name)
            if ours or theirs:
                rows.append((f"{side}: {name}", size(ours), size(theirs), f"{(ours - theirs) / 2**20:+,.1f} MiB"))
    output.table(titles, rows)
    output.emit()
