"""``python -m tui``: the same as ``hybridd tui``, without the command line's other commands."""

from __future__ import annotations

import argparse
import os
import select
import sys
import threading
from pathlib import Path

from hybridd.errors import EXIT_OK, HybriddError
from tui.settings import Options, with_section


def run(options: Options) -> int:
    """The dashboard, until it is left; the exit status.

    Raises:
        HybriddError: the recording cannot be read or written.
    """
    from tui.app import Dashboard

    app = Dashboard(with_section(options))
    app.run()
    return app.return_code or EXIT_OK


def end_with(process: int) -> None:
    """End when that process ends, however it does. A window of ``--web`` has nothing to save, and nobody to show it to.

    Raises:
        ProcessLookupError: it has ended already.
    """
    ended = os.pidfd_open(process)

    def wait() -> None:
        select.select([ended], [], [])
        os._exit(EXIT_OK)

    threading.Thread(target=wait, name="parent", daemon=True).start()


def serve(options: Options, port: int) -> int:
    """The dashboard in a browser, until SIGINT or SIGTERM.

    Raises:
        HybriddError: the port cannot be had.
    """
    from tui import web

    web.run(options, port, lambda address: print(address, flush=True))  # noqa: T201  # what is asked for
    return EXIT_OK


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m tui", description="The live dashboard of hybridd.")
    made.add_argument("--socket", type=Path, help="the daemon's socket")
    made.add_argument("--config", type=Path, help="the configuration whose section 'tui' is used")
    made.add_argument("--read-only", action="store_true", help="change nothing at the daemon")
    made.add_argument("--ascii", dest="ascii_only", action="store_true", help="draw with ASCII alone")
    made.add_argument("--theme", help="a theme")
    made.add_argument("--record", type=Path, metavar="FILE", help="write the event stream to a new file")
    made.add_argument("--replay", type=Path, metavar="FILE", help="show a recorded stream instead of a daemon")
    made.add_argument("--web", action="store_true", help="serve it to a browser on this machine")
    made.add_argument("--port", type=int, default=0, metavar="N", help="of --web; default: a free one")
    made.add_argument("--parent", type=int, help=argparse.SUPPRESS)
    made.add_argument("--speed", type=float, default=1.0, help="of the replay; 0: all at once")
    return made


def main() -> int:
    given = {name: value for name, value in vars(parser().parse_args()).items() if value is not None}
    in_browser, port, parent = given.pop("web"), given.pop("port"), given.pop("parent", None)
    if parent is not None:
        end_with(parent)
    options = Options(**given)
    try:
        if in_browser:
            return serve(options, port)
        return run(options)
    except HybriddError as error:
        sys.stderr.write(f"{error.message}\n")
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
