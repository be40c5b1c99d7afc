"""What a conformance check is run on, and what it says."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

from hybridd.providers.spawn import is_bundled

Verdict = Literal["pass", "fail", "skip"]


class Rule(msgspec.Struct, frozen=True):
    name: str
    verdict: Verdict
    reason: str = ""


class Report(msgspec.Struct):
    """``rules`` in the order they were tried; ``stderr`` is the end of what the program wrote there."""

    command: list[str]
    rules: list[Rule] = []
    stderr: list[str] = []

    @property
    def ok(self) -> bool:
        return all(rule.verdict != "fail" for rule in self.rules)


def command_for(target: str | Path | Sequence[str]) -> list[str]:
    """The program behind a path: a Python file or package is run with this interpreter, anything else as it is.

    Raises:
        ValueError: there is nothing to run.
    """
    if not isinstance(target, str | Path):
        return list(target)
    path = Path(target)
    if not path.exists() and is_bundled(str(target)):
        return [sys.executable, "-m", f"plugins.{target}"]
    if path.is_dir():
        if not (path / "__main__.py").is_file():
            raise ValueError(f"{path} is a folder without __main__.py")
        return [sys.executable, str(path.resolve())]
    if not path.is_file():
        raise ValueError(f"{path} does not exist")
    if path.suffix == ".py":
        return [sys.executable, str(path.resolve())]
    if not os.access(path, os.X_OK):
        raise ValueError(f"{path} is not executable")
    return [str(path.resolve())]


def render(report: Report) -> str:
    marks = {"pass": "ok  ", "fail": "FAIL", "skip": "skip"}
    lines = [f"{' '.join(report.command)}", ""]
    lines += [
        f"  {marks[rule.verdict]}  {rule.name}{': ' + rule.reason if rule.reason else ''}" for rule in report.rules
    ]
    if not report.ok and report.stderr:
        lines += ["", "  the end of its standard error:", *(f"    {line}" for line in report.stderr[-10:])]
    lines += ["", "It keeps the protocol." if report.ok else "It breaks the protocol."]
    return "\n".join(lines) + "\n"
