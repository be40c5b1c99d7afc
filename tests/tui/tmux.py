"""A terminal of its own in tmux: keys are sent as a person would, and the screen is read as it is shown."""

from __future__ import annotations

import os
import select
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from tests.house import ROOT

WAIT_SECONDS = 30.0
ENDED = "ended with"
MISSING = "" if shutil.which("tmux") else "tmux is not installed"


class Tmux:
    """``hybridd tui`` as the only window of a private server; its last line stays readable after it has ended.

    The server tells of output through a pipe, so that waiting for something means no polling.
    """

    def __init__(self, arguments: Sequence[str], env: Mapping[str, str], size: tuple[int, int] = (80, 24)) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="hy-tmux-"))
        self._env = {**env, "TERM": "xterm-256color", "LANG": "C.UTF-8", "SHELL": "/bin/sh"}
        self._size = size
        self._pipe = self.folder / "painted"
        program = [sys.executable, "-m", "hybridd.cli.main", "tui", *arguments]
        # Nothing is started before the pipe is open; afterwards the shell says how it ended.
        self._shell = f'read go; {shlex.join(program)}; echo "{ENDED} $?"; cat'

    def __enter__(self) -> Tmux:
        columns, rows = self._size
        os.mkfifo(self._pipe)
        self._output = os.open(self._pipe, os.O_RDONLY | os.O_NONBLOCK)
        config = self.folder / "tmux.conf"
        config.write_text("set -g set-clipboard on\nset -g default-terminal screen-256color\nset -sg escape-time 10\n")
        self._tmux("-f", str(config), "new-session", "-d", "-x", str(columns), "-y", str(rows), self._shell)
        self._tmux("set", "-g", "window-size", "manual")
        self._tmux("pipe-pane", "-O", f"exec cat > {shlex.quote(str(self._pipe))}")
        self.keys("Enter")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._tmux("kill-server")
        finally:
            os.close(self._output)
            shutil.rmtree(self.folder, ignore_errors=True)

    def _tmux(self, *arguments: str) -> str:
        done = subprocess.run(
            ["tmux", "-S", str(self.folder / "s"), *arguments],
            env=self._env, cwd=ROOT, capture_output=True, text=True, timeout=WAIT_SECONDS, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def keys(self, *names: str) -> None:
        """As tmux names them: ``Enter``, ``Escape``, ``C-p``, ``5``.

        Wait for what Escape does before the next key: one at its heels would make Alt of it.
        """
        self._tmux("send-keys", *names)

    def resize(self, columns: int, rows: int) -> None:
        self._tmux("resize-window", "-x", str(columns), "-y", str(rows))

    @property
    def lines(self) -> list[str]:
        return self._tmux("capture-pane", "-p").split("\n")

    @property
    def text(self) -> str:
        return self._tmux("capture-pane", "-p")

    @property
    def coloured(self) -> str:
        """With the escape sequences that it would take to paint it."""
        return self._tmux("capture-pane", "-p", "-e")

    @property
    def buffer(self) -> str:
        """What was copied to tmux last; "": nothing."""
        return self._tmux("show-buffer") if self._tmux("list-buffers") else ""

    def until(self, condition: Callable[[], object]) -> None:
        """Looks again whenever something was painted.

        Raises:
            AssertionError: it has not become true; the message is the screen.
        """
        deadline = time.monotonic() + WAIT_SECONDS
        while not condition():
            assert ENDED not in self.text, self.text
            readable, _, _ = select.select([self._output], [], [], max(0.0, deadline - time.monotonic()))
            assert readable, f"not so after {WAIT_SECONDS} s:\n{self.text}"
            os.read(self._output, 1 << 16)

    def shows(self, text: str) -> None:
        self.until(lambda: text in self.text)
