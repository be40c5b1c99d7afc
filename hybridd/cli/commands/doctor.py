"""``hybridd doctor``"""

from __future__ import annotations

from pathlib import Path

import click

from hybridd.cli import output
from hybridd.cli.doctor.finding import Finding
from hybridd.cli.options import command
from hybridd.errors import EXIT_CONFIG, EXIT_FAILURE, EXIT_OK

_MARKS = {"ok": "ok", "fact": "-", "fixed": "fixed", "warning": "WARNING", "error": "ERROR"}
_COLOURS = {"ok": "green", "fixed": "green", "warning": "yellow", "error": "red"}


@command(
    "hybridd doctor", "hybridd doctor --fix", "hybridd doctor --json | jq '.findings[] | select(.level==\"error\")'"
)
@click.option("--fix", is_flag=True, help="Make missing folders, write a default configuration, close open folders.")
@click.option("--config", type=click.Path(path_type=Path), help="Check this configuration instead of the default one.")
def cli(as_json: bool, fix: bool, config: Path | None) -> int:
    """Check the set-up: software, configuration, folders, socket, daemon, keys, connectivity. Works without a daemon.

    Exits with 3 for a broken configuration and with 1 for other errors; warnings and facts are no errors.
    """
    from hybridd.cli.doctor import files, services, software

    findings: list[Finding] = [*software.python(), *software.libraries(), *software.compiler()]
    configured, resolved = files.configuration(config, fix=fix)
    findings += [*configured, *files.folders(resolved, fix=fix), *files.disk(), *files.socket_file()]
    answered, status = services.daemon()
    findings += answered
    if resolved is not None:
        findings += services.providers(resolved, status)
    findings += [*software.components(), *services.gpu()]
    if as_json:
        output.emit_json({"ok": _exit(findings) == EXIT_OK, "findings": [one._asdict() for one in findings]})
    else:
        _show(findings)
    return _exit(findings)


def _exit(findings: list[Finding]) -> int:
    errors = [one.check for one in findings if one.level == "error"]
    if "configuration" in errors:
        return EXIT_CONFIG
    return EXIT_FAILURE if errors else EXIT_OK


def _show(findings: list[Finding]) -> None:
    size = max(len(one.check) for one in findings)
    for one in findings:
        mark = output.styled(f"{_MARKS[one.level]:<8}", fg=_COLOURS.get(one.level))
        indent = 8 + 1 + size + 2
        room = output.columns() - indent
        lines = [piece for line in one.message.splitlines() or [""] for piece in output.wrap(line, room)]
        output.emit_styled(f"{mark} {one.check:<{size}}  {lines[0]}")
        if one.remedy and one.level != "ok":
            first, *rest = output.wrap(one.remedy, room - 3)
            lines += [f"-> {first}", *(f"   {line}" for line in rest)]
        for line in lines[1:]:
            output.emit(" " * indent + line)
    errors = sum(one.level == "error" for one in findings)
    warnings = sum(one.level == "warning" for one in findings)
    output.emit()
    output.emit(f"{errors} error{'' if errors == 1 else 's'}, {warnings} warning{'' if warnings == 1 else 's'}")
