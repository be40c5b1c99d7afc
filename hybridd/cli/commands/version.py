"""``hybridd version``"""

from __future__ import annotations

import platform

from hybridd._version import __version__
from hybridd.cli import output
from hybridd.cli.options import command


@command("hybridd version --json")
def cli(as_json: bool) -> None:
    """The version of hybridd and of Python."""
    if as_json:
        output.emit_json({"hybridd": __version__, "python": platform.python_version()})
    else:
        output.emit(f"hybridd {__version__} (Python {platform.python_version()})")
