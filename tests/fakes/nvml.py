"""The stand-in for the driver's library, compiled: real pynvml loads it like the driver's."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


def build(folder: Path) -> Path:
    """The folder with ``libnvidia-ml.so.1`` in it."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler for the stand-in library")
    source = Path(__file__).with_name("fake_nvml.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", folder / "libnvidia-ml.so.1", source], check=True, timeout=60)
    return folder


def printed(driver: Path, mood: str, program: str, **environment: str) -> str:
    """What a Python program prints that finds the library."""
    variables = {**os.environ, "LD_LIBRARY_PATH": str(driver), "FAKE_NVML_MOOD": mood, **environment}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, env=variables, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def pci(folder: Path, *, control: str, status: str, vendor: str = "0x10de", kind: str = "0x030000") -> Path:
    """The kernel's view of a machine with one PCI device."""
    device = folder / "0000:01:00.0"
    (device / "power").mkdir(parents=True)
    (device / "vendor").write_text(vendor + "\n")
    (device / "class").write_text(kind + "\n")
    (device / "power" / "control").write_text(control + "\n")
    (device / "power" / "runtime_status").write_text(status + "\n")
    return folder
