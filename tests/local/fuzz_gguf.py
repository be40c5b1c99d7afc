"""Mutated headers against the reader: whatever the bytes, a model or :class:`BadGguf`, in bounded time and memory.

By hand: ``python -m tests.local.fuzz_gguf --seconds 60 [--seed N] [--keep FOLDER]``; a file that breaks the rule is
kept in FOLDER with its seed in its name.
"""

from __future__ import annotations

import argparse
import random
import struct
import sys
import time
import tracemalloc
from pathlib import Path
from typing import NamedTuple

from hybridd.local import gguf
from hybridd.local.gguf import BadGguf, Gguf
from tests.fakes import hostile_gguf as make

MEMORY_BYTES = 48 * 1024 * 1024
SECONDS = 2.0
# What breaks readers: borders of signs and widths, sizes that wrap when multiplied by an item's, by 8, or padded.
NUMBERS = (0, 1, 2, 7, 8, 9, 31, 32, 64, 255, 256, 2**15, 2**16, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**40,
           2**61, 2**62, 2**63 - 32, 2**63 - 1, 2**63, 2**64 - 32, 2**64 - 8, 2**64 - 1)  # fmt: skip


class Bytes:
    """A source in memory that notices a read outside of it."""

    name = "fuzz.gguf"

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)

    def read(self, offset: int, length: int) -> bytes:
        if not 0 <= offset <= offset + length <= self.size:
            raise AssertionError(f"a read of {length} bytes at {offset}, in {self.size}")
        return self._data[offset : offset + length]


class Broken(NamedTuple):
    """A mutation that broke the rule."""

    seed: int
    data: bytes
    why: str


def seeds() -> list[bytes]:
    """Headers to start from: sound ones, and lies, which lead to the rarer places."""
    sound = [make.good(2).data, make.good(3).data, make.build([make.ARCHITECTURE]).data]
    return sound + [case.data for case in make.corpus() if 0 < len(case.data) < 20_000]


def mutated(data: bytes, rng: random.Random) -> bytes:
    """One to six changes: numbers overwritten, bits turned, pieces cut, doubled, moved."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(out)) if out else 0
        match rng.randrange(7):
            case 0 | 1:
                out[at : at + 8] = struct.pack("<Q", _number(rng))[: rng.choice((1, 2, 4, 8))]
            case 2:
                if out:
                    out[at] ^= 1 << rng.randrange(8)
            case 3:
                del out[at : at + rng.choice((1, 4, 8, rng.randrange(64)))]
            case 4:
                piece = out[at : at + rng.randrange(80)]
                place = rng.randrange(len(out) + 1)
                out[place:place] = piece
            case 5:
                del out[at:]
            case _:
                out[at:at] = rng.randbytes(rng.randrange(16))
    return bytes(out)


def _number(rng: random.Random) -> int:
    return (rng.choice(NUMBERS) + rng.choice((0, 0, 0, 1, -1))) % 2**64


def check(data: bytes) -> str:
    """What is wrong with how the reader took ``data``; nothing when it kept the rule."""
    began = time.process_time()
    try:
        _use(gguf.read(Bytes(data)), len(data))
    except BadGguf as error:
        if not 0 <= error.offset <= len(data) or not error.field:
            return f"it names byte {error.offset} of {len(data)}: {error.message}"
        if not error.message.isprintable():
            return f"its message cannot be printed: {error.message!r}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    took = time.process_time() - began
    return f"it took {took:.1f} s" if took > SECONDS else ""


def _use(model: Gguf, size: int) -> None:
    """What others do with a model that was accepted: every array can be read, every tensor is inside."""
    for key, value in model.metadata.items():
        if isinstance(value, gguf.ArrayRef):
            model.head(key, 50)
    for tensor in model.tensors:
        assert 0 <= tensor.offset <= tensor.offset + tensor.nbytes <= size, tensor


def run(seed: int, *, count: int | None = None, seconds: float | None = None) -> tuple[int, list[Broken]]:
    """Tries mutations until ``count`` or ``seconds`` are spent; how many there were, and those that broke the rule."""
    starts, broken, tried = seeds(), [], 0
    ends = None if seconds is None else time.monotonic() + seconds
    tracemalloc.start()
    try:
        while (count is None or tried < count) and (ends is None or time.monotonic() < ends):
            rng = random.Random(seed + tried)
            data = mutated(rng.choice(starts), rng)
            tracemalloc.reset_peak()
            why = check(data)
            most = tracemalloc.get_traced_memory()[1]
            if not why and most > MEMORY_BYTES:
                why = f"it held {most:,} bytes"
            if why:
                broken.append(Broken(seed + tried, data, why))
            tried += 1
    finally:
        tracemalloc.stop()
    return tried, broken


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.local.fuzz_gguf", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**40))
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    tried, broken = run(options.seed, seconds=options.seconds)
    for one in broken:
        print(f"seed {one.seed}: {one.why}")
        if options.keep:
            options.keep.mkdir(parents=True, exist_ok=True)
            (options.keep / f"{one.seed}.gguf").write_bytes(one.data)
    print(f"{tried:,} files from seed {options.seed}, {len(broken)} broke the rule")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
