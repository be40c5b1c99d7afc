"""Python, libraries, compiler, plugin programs."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import zoneinfo
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path

from hybridd import locations
from hybridd.cli.doctor.finding import Finding
from hybridd.config.presets import BUNDLED_PLUGINS

MINIMUM = (3, 11)
_COMPONENT_SECONDS = 60.0

# Module to distribution; a test holds them equal to pyproject.toml.
CORE = {
    "alembic": "alembic",
    "apscheduler": "apscheduler",
    "click": "click",
    "httptools": "httptools",
    "httpx": "httpx",
    "msgspec": "msgspec",
    "pynvml": "nvidia-ml-py",
    "psutil": "psutil",
    "pydantic": "pydantic",
    "sklearn": "scikit-learn",
    "skops": "skops",
    "sqlmodel": "sqlmodel",
    "structlog": "structlog",
    "tzdata": "tzdata",
    "uvicorn": "uvicorn",
    "uvloop": "uvloop",
    "websockets": "websockets",
}
EXTRAS = {
    "local": {"llama_cpp": "llama-cpp-python", "huggingface_hub": "huggingface-hub"},
    "tui": {"aiohttp": "aiohttp", "textual": "textual", "textual_serve": "textual-serve"},
    "mlops": {"mlflow": "mlflow", "huggingface_hub": "huggingface-hub"},
}
_MEANING = {
    "local": "local GGUF models and their downloads",
    "tui": "the dashboard",
    "mlops": "experiments, training and Hub downloads",
}


def python() -> list[Finding]:
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < MINIMUM:
        return [Finding("python", "error", f"Python {found} is too old", "install Python 3.11 or newer")]
    return [Finding("python", "ok", f"Python {found}")]


def libraries() -> list[Finding]:
    """Present or not; nothing is imported."""
    missing = sorted(dist for module, dist in CORE.items() if not _present(module))
    findings = [
        Finding("libraries", "error", f"missing: {', '.join(missing)}", "install hybridd again: pip install hybridd")
        if missing
        else Finding("libraries", "ok", f"all {len(CORE)} are installed")
    ]
    for extra, modules in EXTRAS.items():
        absent = sorted(dist for module, dist in modules.items() if importlib.util.find_spec(module) is None)
        if absent:
            remedy = f'pip install "hybridd[{extra}]"'
            message = f"{', '.join(absent)} not installed: without {_MEANING[extra]}"
            findings.append(Finding(f"extra {extra}", "fact", message, remedy))
        else:
            shown = ", ".join(f"{dist} {_version(dist)}" for dist in modules.values())
            findings.append(Finding(f"extra {extra}", "ok", shown))
    return findings


def _present(module: str) -> bool:
    if module == "tzdata" and any(Path(folder, "UTC").is_file() for folder in zoneinfo.TZPATH):
        return True  # the system's own time zones serve as well
    return importlib.util.find_spec(module) is not None


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "(version unknown)"


def compiler() -> list[Finding]:
    """Needed only where llama-cpp-python has no ready-made wheel."""
    for program in (os.environ.get("CC", "").split(" ")[0], "cc", "gcc", "clang"):
        path = shutil.which(program) if program else None
        if path:
            return [Finding("compiler", "ok", path)]
    if importlib.util.find_spec("llama_cpp") is not None:
        return [Finding("compiler", "fact", "no C compiler; llama-cpp-python is already built")]
    remedy = "install gcc or clang before installing the extra local (Debian: apt install build-essential)"
    return [Finding("compiler", "warning", "no C compiler: llama-cpp-python cannot be built", remedy)]


def components() -> list[Finding]:
    """Does every bundled plugin program load, in a process of its own?"""
    with ThreadPoolExecutor(max_workers=2) as pool:
        return list(pool.map(_component, sorted(BUNDLED_PLUGINS)))


def _component(name: str) -> Finding:
    check = f"plugin {name}"
    folder = locations.plugins_dir()
    if not (folder / name / "__main__.py").is_file():
        return Finding(check, "error", f"{folder / name} is missing", "install hybridd again")
    environment = {**os.environ, "PYTHONPATH": str(folder.parent)}
    try:
        done = subprocess.run(
            [sys.executable, "-c", f"import plugins.{name}.__main__"],
            cwd=folder.parent,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_COMPONENT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Finding(check, "error", f"did not load within {_COMPONENT_SECONDS:g} s")
    if done.returncode != 0:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
        return Finding(
            check, "error", lines[-1] if lines else f"exit status {done.returncode}", "install hybridd again"
        )
    return Finding(check, "ok", "loads")
