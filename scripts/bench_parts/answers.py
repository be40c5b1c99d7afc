"""HTTP/1.1 answers from bytes cut anywhere: as little as a load generator needs, but all of that. Pure."""

from __future__ import annotations

MOST_HEAD_BYTES = 65_536


class BadAnswer(ValueError):
    """The bytes are not an HTTP/1.1 answer that this reader knows."""


class AnswerReader:
    """Reads one answer at a time from a connection's bytes."""

    __slots__ = ("_chunked", "_in_body", "_left", "_pending", "_trailer", "body_seen", "closing", "parts", "status")

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """For the next answer on the same connection."""
        self._in_body = self._chunked = self._trailer = False
        self._left = 0
        self._pending = b""
        self.status = 0
        self.closing = False
        self.body_seen = False
        self.parts: list[bytes] = []

    @property
    def body(self) -> bytes:
        return self.parts[0] if len(self.parts) == 1 else b"".join(self.parts)

    def feed(self, data: bytes) -> bool:
        """Takes bytes; True when the answer is whole.

        Raises:
            BadAnswer: not HTTP/1.1, a broken chunk, no length, or bytes past the answer's end.
        """
        if not self._in_body:
            if self._pending:
                data = self._pending + data
            end = data.find(b"\r\n\r\n")
            if end < 0:
                if len(data) > MOST_HEAD_BYTES:
                    raise BadAnswer("headers without end")
                self._pending = data
                return False
            self._pending = b""
            self._read_head(data[:end])
            data = data[end + 4 :]
            self._in_body = True
        if data:
            self.body_seen = True
        if self._chunked:
            return self._read_chunks(self._pending + data if self._pending else data)
        self._left -= len(data)
        if self._left < 0:
            raise BadAnswer("more bytes than Content-Length says")
        self.parts.append(data)
        return self._left == 0

    def _read_head(self, head: bytes) -> None:
        if not head.startswith(b"HTTP/1.1 "):
            raise BadAnswer(f"not HTTP/1.1: {head[:40]!r}")
        try:
            self.status = int(head[9:12])
        except ValueError as error:
            raise BadAnswer(f"no status: {head[:40]!r}") from error
        lower = head.lower()
        self.closing = b"\r\nconnection: close" in lower
        if b"\r\ntransfer-encoding: chunked" in lower:
            self._chunked = True
            return
        at = lower.find(b"\r\ncontent-length:")
        if at < 0:
            if self.status not in (204, 304):
                raise BadAnswer("neither Content-Length nor chunked")
            return
        end = lower.find(b"\r\n", at + 2)
        try:
            self._left = int(lower[at + 17 : end if end > 0 else len(lower)])
        except ValueError as error:
            raise BadAnswer("Content-Length is no number") from error

    def _read_chunks(self, data: bytes) -> bool:
        position = 0
        while True:
            line_end = data.find(b"\r\n", position)
            if line_end < 0:
                break
            line = data[position:line_end]
            if self._trailer:
                position = line_end + 2
                if line:
                    continue
                if position != len(data):
                    raise BadAnswer("bytes after the last chunk")
                return True
            try:
                size = int(line.partition(b";")[0], 16)
            except ValueError as error:
                raise BadAnswer(f"not a chunk size: {line[:20]!r}") from error
            begin = line_end + 2
            if size == 0:
                self._trailer = True
                position = begin
                continue
            stop = begin + size
            if stop + 2 > len(data):
                break
            if data[stop : stop + 2] != b"\r\n":
                raise BadAnswer("a chunk is longer than its size")
            self.parts.append(data[begin:stop])
            position = stop + 2
        self._pending = data[position:]
        return False
