"""``docs/cli.md``, made from the commands' own help.

``python -m hybridd.cli.reference --write`` writes it in a checkout; a test holds it equal.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from hybridd import errors
from hybridd.cli.main import cli

_INTRODUCTION = """
# Command line

<!-- Made by `python -m hybridd.cli.reference --write` from the commands' help; a test holds it equal. Edit there. -->

Every command but `tui` and `plugin bridge` takes `--json` and prints JSON then; standard output is data, standard error
is for people. `doctor`, `completion`, `version`, `models search`, `models plan`, `models import`, `models list`,
`models show`, `models verify`, `models rm`, `models gc`, `plugin check`, `plugin bridge`, `plugin schema` and
`serve --check` work without a daemon. `NO_COLOR` turns colours off. The socket is `--socket`, else `HYBRIDD_SOCKET`,
else `$XDG_RUNTIME_DIR/hybridd/hybridd.sock`.
""".strip()

_EXITS = {
    "EXIT_OK": "done",
    "EXIT_FAILURE": "something else went wrong",
    "EXIT_USAGE": "the command line or the request is wrong",
    "EXIT_CONFIG": "the configuration cannot be used",
    "EXIT_UNREACHABLE": "no daemon answers",
    "EXIT_NO_PROVIDER": "no provider may or can answer now",
    "EXIT_PROVIDER": "the provider or a plugin failed",
    "EXIT_STATE": "the state directory or its database cannot be used, or another daemon has it",
    "EXIT_TIMEOUT": "time ran out",
    "EXIT_INTERRUPTED": "interrupted (Ctrl-C)",
}


def markdown() -> str:
    """The whole page."""
    exits = "\n".join(f"| {getattr(errors, name)} | {meaning} |" for name, meaning in _EXITS.items())
    parts = [_INTRODUCTION, f"## Exit codes\n\n| code | meaning |\n|---|---|\n{exits}"]
    parts += [f"## `{path}`\n\n```text\n{text}\n```" for path, text in _commands(cli, "hybridd", None)]
    return "\n\n".join(parts) + "\n"


def _commands(command: click.Command, path: str, parent: click.Context | None) -> Iterator[tuple[str, str]]:
    settings = {"terminal_width": 80, **command.context_settings}
    context = click.Context(command, info_name=path.rsplit(" ", 1)[-1], parent=parent, **settings)
    yield path, "\n".join(line.rstrip() for line in command.get_help(context).rstrip().splitlines())
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            if inner is not None:
                yield from _commands(inner, f"{path} {name}", context)


def target(root: Path) -> Path:
    return root / "docs" / "cli.md"


def main(arguments: list[str]) -> int:
    if arguments == ["--write"]:
        target(Path(__file__).resolve().parents[2]).write_text(markdown(), encoding="utf-8")
    else:
        sys.stdout.write(markdown())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
