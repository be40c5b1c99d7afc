"""``python launch.py PARENT_PID PROGRAM ARGS…``: ask to die with the parent, then become PROGRAM.

Run by file name with ``-I -S``: it imports nothing of hybridd and adds about 15 ms to a start.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    parent, program, *rest = arguments
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) != 0:
        sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")
    # The parent may have died before the call above: then the signal never comes.
    if os.getppid() != int(parent):
        sys.exit("the daemon ended while its plugin started")
    try:
        os.execv(program, [program, *rest])  # noqa: S606  # the program the configuration names, without a shell
    except OSError as error:
        sys.exit(f"cannot run {program}: {error.strerror}")


if __name__ == "__main__":
    main(sys.argv[1:])
