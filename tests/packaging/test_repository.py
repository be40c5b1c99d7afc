"""What the repository promises about itself: pins, documents, sizes, scripts."""

from __future__ import annotations

import importlib.metadata
import json
import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from hybridd._version import __version__
from hybridd.cli.main import cli
from tests.house import ROOT

LONGEST_MODULE = 400
SCRIPTS = ("start_ml_hybrid.sh", "scripts/check", "scripts/test", "scripts/bench", "scripts/screenshots", ".ci/run")
TOP_LEVEL = {
    ".ci", ".gitattributes", ".gitignore", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "README.md", "config",
    "constraints.txt", "docs", "hybridd", "migrations", "plugins", "pyproject.toml", "scripts", "start_ml_hybrid.sh",
    "tests", "tui",
}  # fmt: skip
# Written in pieces: this file is searched too.
REGISTRIES = ("py" + "pi.org", "python" + "hosted.org", "--index" + "-url", "--find" + "-links", "registry.npm" + "js")


def tracked() -> list[str]:
    """Every file of the checkout that is not ignored."""
    listed = subprocess.run(
        ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    return [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def project() -> dict[str, object]:
    loaded: dict[str, object] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return loaded


def pins() -> dict[str, Version]:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    return {canonicalize_name(name): Version(version) for name, version in (line.split("==") for line in lines)}


def test_nothing_strays_into_the_checkout() -> None:
    """The top level holds what it is meant to hold: no left-over model, log or build."""
    assert {Path(name).parts[0] for name in tracked()} <= TOP_LEVEL


def test_no_file_names_a_package_registry() -> None:
    """Where packages come from is the machine's own affair."""
    found = []
    for name in tracked():
        text = (ROOT / name).read_bytes().decode("utf-8", "replace").lower()
        found += [(name, registry) for registry in REGISTRIES if registry in text]
    assert found == []


def test_every_direct_requirement_is_pinned_within_its_range() -> None:
    """constraints.txt has an exact version for each requirement of pyproject.toml, and it satisfies it."""
    described = project()
    extras = described["optional-dependencies"]
    assert isinstance(extras, dict)
    wanted = [Requirement(text) for group in [described["dependencies"], *extras.values()] for text in group]
    pinned = pins()
    for requirement in wanted:
        if requirement.name != "hybridd":
            assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), str(requirement)


def closure(extras: tuple[str, ...]) -> Iterator[Requirement]:
    """Everything that `hybridd[extras]` needs and that is installed here, found through the installed metadata."""
    todo = [("hybridd", extras)]
    seen = set()
    while todo:
        name, asked = todo.pop()
        for text in importlib.metadata.requires(name) or ():
            requirement = Requirement(text)
            marker = requirement.marker
            if marker is not None and not any(marker.evaluate({"extra": extra}) for extra in ("", *asked)):
                continue
            key = (canonicalize_name(requirement.name), tuple(sorted(requirement.extras)))
            if key not in seen and _installed(requirement.name):
                seen.add(key)
                todo.append((requirement.name, key[1]))
                yield requirement


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def test_what_is_installed_is_what_is_pinned() -> None:
    """Each library in use here, direct or not, has the version of constraints.txt."""
    pinned = pins()
    different = {}
    for requirement in closure(("dev", "local", "tui", "mlops")):
        name = canonicalize_name(requirement.name)
        here = Version(importlib.metadata.version(name))
        if name != "hybridd" and pinned.get(name) != here:
            different[name] = (str(here), str(pinned.get(name)))
    assert different == {}


def test_constraints_are_sorted_and_exact() -> None:
    """One name and one version a line, in order, nothing twice."""
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line)] == []
    assert lines == sorted(lines, key=str.lower)
    assert len(pins()) == len(lines)


def test_the_version_stands_in_one_place() -> None:
    """Only _version.py and the changelog spell it out."""
    quoted = re.compile(rf"""version.{{0,20}}["']{re.escape(__version__)}["']""", re.IGNORECASE)
    for name in tracked():
        if name.endswith((".py", ".toml", ".sh")) and name != "hybridd/_version.py" and not name.startswith("tests/"):
            assert not quoted.search((ROOT / name).read_text(encoding="utf-8")), name
    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_modules_stay_readable() -> None:
    """No module of the product has more than 400 lines."""
    long = {}
    for name in tracked():
        if name.endswith(".py") and name.startswith(("hybridd/", "plugins/", "migrations/")):
            lines = len((ROOT / name).read_text(encoding="utf-8").splitlines())
            if lines > LONGEST_MODULE:
                long[name] = lines
    assert long == {}


@pytest.mark.parametrize("name", [*SCRIPTS, "scripts/env.sh"])
def test_scripts_are_portable_shell(name: str) -> None:
    """Each script parses as POSIX shell, and those to be called are executable."""
    subprocess.run(["sh", "-n", ROOT / name], check=True)
    text = (ROOT / name).read_text()
    if name in SCRIPTS:
        assert (ROOT / name).stat().st_mode & 0o111 == 0o111
        assert text.startswith("#!/bin/sh\n")
        assert "set -eu" in text


def documents() -> list[Path]:
    return [ROOT / name for name in tracked() if name.endswith(".md")]


def anchors(document: Path) -> set[str]:
    """The anchors that a heading gets on the usual hosts."""
    headings = re.findall(r"^#+ +(.+)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_in_documents_resolve() -> None:
    """Every relative link of every document leads to a file, and every anchor to a heading."""
    broken = []
    for document in documents():
        prose = re.sub(r"```.*?```|`[^`\n]*`", "", document.read_text(encoding="utf-8"), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)\s]+)\)", prose):
            if re.match(r"[a-z]+:", target):
                continue
            path, _, anchor = target.partition("#")
            there = (document.parent / path) if path else document
            if not there.exists() or (anchor and there.suffix == ".md" and anchor not in anchors(there)):
                broken.append(f"{document.relative_to(ROOT)}: {target}")
    assert broken == []


def shown_commands(document: Path) -> Iterator[list[str]]:
    """Each `hybridd …` line of the document's shell blocks, as words."""
    for block in re.findall(r"```(?:sh|console|bash)\n(.*?)```", document.read_text(encoding="utf-8"), re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            if not line.removeprefix("$ ").startswith("hybridd"):
                continue
            words = shlex.split(line.removeprefix("$ "), comments=True)
            yield words[1:]


def documented() -> list[str]:
    return [name for name in ("README.md", "CONTRIBUTING.md", "docs/installation.md") if (ROOT / name).exists()]


@pytest.mark.parametrize("name", documented())
def test_commands_in_documents_exist(name: str) -> None:
    """Every command line shown uses commands, options and values that hybridd has."""
    for words in shown_commands(ROOT / name):
        command: click.Command = cli
        context = click.Context(cli, info_name="hybridd")
        rest = words
        while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
            found = command.get_command(context, rest[0])
            assert found is not None, words
            command, rest = found, rest[1:]
        # Only parsed: nothing is connected to and nothing runs.
        command.make_parser(click.Context(command)).parse_args(list(rest))


def test_the_readme_names_files_that_exist() -> None:
    """Scripts and folders in the README's text are there, and so are its pictures."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in re.findall(r"(?:\./)?((?:scripts|config|docs|tests)/[\w./-]*\w)", text):
        assert (ROOT / name).exists(), name


def test_the_pictures_stand_alone() -> None:
    """No picture fetches anything, and each is a small SVG."""
    for picture in (ROOT / "docs" / "images").glob("*.svg"):
        text = picture.read_text(encoding="utf-8")
        assert "url(http" not in text
        assert "<image" not in text
        assert len(text) < 150_000  # a whole dashboard in colour is 100 kB


def test_the_shipped_configuration_is_the_contract() -> None:
    """The configuration that the start script uses has the four sections of the published file."""
    shipped = json.loads((ROOT / "config/ml/hybrid_config.json").read_text())
    assert list(shipped) == ["github_models", "hugging_face", "monitoring", "optimization"]
