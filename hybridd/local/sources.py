"""Where the bytes of a model file come from: a file on disk here, ranges of one over HTTP in `http_source`.

A source holds no descriptor between reads; a file that was replaced meanwhile is noticed.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from hybridd.errors import HybriddError, NotFound


class Source(Protocol):
    """``name``: for messages; ``size``: bytes."""

    @property
    def name(self) -> str: ...

    @property
    def size(self) -> int: ...

    def read(self, offset: int, length: int) -> bytes:
        """Exactly ``length`` bytes.

        Raises:
            SourceError: they cannot be had.
        """


class SourceError(HybriddError):
    """The bytes of a model file cannot be read: the disk, the network, or a server that does not keep to HTTP."""

    code = "model_unreadable"
    http_status = 502


class FileSource:
    """A regular file.

    Raises:
        NotFound: there is none.
        SourceError: it cannot be opened, or is a folder, a pipe or a device.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = str(path)
        self._identity: tuple[int, ...] | None = None
        self.size = 0
        self._opened(lambda _: b"")

    def read(self, offset: int, length: int) -> bytes:
        def pread(descriptor: int) -> bytes:
            parts, at = [], offset
            while at < offset + length and (part := os.pread(descriptor, offset + length - at, at)):
                parts.append(part)
                at += len(part)
            return b"".join(parts)

        data = self._opened(pread)
        if len(data) != length:
            raise SourceError(f"{self.name} gave {len(data)} of {length} bytes at byte {offset}: it became shorter.")
        return data

    def _opened(self, use: Callable[[int], bytes]) -> bytes:
        try:
            # Without O_NONBLOCK the open of a pipe waits for a writer for ever.
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                self._check(os.fstat(descriptor))
                return use(descriptor)
            finally:
                os.close(descriptor)
        except FileNotFoundError:
            raise NotFound(f"There is no file {self.name}.") from None
        except (OSError, ValueError) as error:
            reason = os.strerror(error.errno or errno.EIO) if isinstance(error, OSError) else str(error)
            raise SourceError(f"{self.name} cannot be read: {reason}.") from None

    def _check(self, found: os.stat_result) -> None:
        if not stat.S_ISREG(found.st_mode):
            raise SourceError(f"{self.name} is no regular file.")
        identity = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
        if self._identity is None:
            self._identity, self.size = identity, found.st_size
        elif identity != self._identity:
            raise SourceError(f"{self.name} was changed while it was read.")
