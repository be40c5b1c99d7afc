"""The command line's page equals its help."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from hybridd import errors
from hybridd.cli import reference
from hybridd.client import AsyncClient, Client, HybridMLOptimizer

ROOT = Path(__file__).parents[2]


def test_the_page_is_current() -> None:
    """docs/cli.md is what `python -m hybridd.cli.reference --write` makes."""
    # In a process of its own: click remembers the help option of a command's first use, whoever made it.
    command = [sys.executable, "-m", "hybridd.cli.reference"]
    made = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, cwd=ROOT).stdout
    assert reference.target(ROOT).read_text(encoding="utf-8") == made


def test_every_exit_code_is_documented() -> None:
    """The table of exit codes lists every EXIT_ constant."""
    assert set(reference._EXITS) == {name for name in dir(errors) if name.startswith("EXIT_")}


def test_the_python_page_names_existing_methods() -> None:
    """Every method that docs/python.md lists exists, and every public method of the clients is listed."""
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    optimizer, _, clients = page.partition("## `Client`")
    for name in re.findall(r"^\| `(\w+)\(", optimizer, re.MULTILINE):
        assert hasattr(HybridMLOptimizer, name)
    listed = clients.split("Both have ")[1].split(".")[0]
    named = {*re.findall(r"`(\w+)`", listed), *re.findall(r"^\| `(\w+)\(", clients, re.MULTILINE)}
    for kind in (Client, AsyncClient):
        public = {name for name in dir(kind) if not name.startswith("_") and callable(getattr(kind, name))}
        assert public - {"start"} == named
