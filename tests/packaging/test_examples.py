"""The README's programs and the installation guide's units, tried as they stand."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.house import ROOT, House


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    with House({}) as running:
        yield running


def blocks(document: str, language: str) -> list[str]:
    text = (ROOT / document).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.mark.parametrize("example", blocks("README.md", "python"), ids=["HybridMLOptimizer", "openai"])
def test_the_python_examples_work(house: House, tmp_path: Path, example: str) -> None:
    """Each block is a whole program that prints the answer."""
    program = tmp_path / "example.py"
    program.write_text(example, encoding="utf-8")
    done = subprocess.run([sys.executable, program], env=house.env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == "positive"


def test_the_configuration_example_is_accepted(house: House, tmp_path: Path) -> None:
    """`hybridd serve --check` finds nothing to say against it."""
    (example,) = blocks("README.md", "json")
    (tmp_path / "config.json").write_text(example)
    checked = house.cli("serve", "--check", "--config", str(tmp_path / "config.json"))
    assert checked.returncode == 0, checked.stderr


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("scope", ["user", "system"])
def test_the_units_are_valid(tmp_path: Path, scope: str) -> None:
    """systemd finds no mistake in the units of the guide."""
    units = []
    for block in blocks("docs/installation.md", "ini"):
        path = Path(block.splitlines()[0].removeprefix("# "))
        if ("user" if path.parts[0] == "~" else "system") == scope:
            unit = tmp_path / path.name
            # Verification wants the program to exist.
            unit.write_text(re.sub(r"(?<=ExecStart=)\S+", "/bin/sh", block))
            units.append(unit)
    assert units
    verify = ["systemd-analyze", "verify", f"--{scope}", "--man=no", "--recursive-errors=no", *map(str, units)]
    environment = {"PATH": "/usr/bin:/bin", "XDG_RUNTIME_DIR": str(tmp_path), "HOME": str(tmp_path)}
    done = subprocess.run(verify, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, [line for line in done.stderr.splitlines() if "hybridd" in line]) == (0, [])
