"""A header as large models have it: 151,936 tokens with types and 151,387 merges, and no tensors.

By hand: ``python -m tests.fakes.vocabulary_gguf FILE``.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

from tests.fakes.hostile_gguf import ARRAY, I32, STRING, U32, build, key, text

TOKENS, MERGES = 151_936, 151_387
_LETTERS = "abcdefghijklmnopqrstuvwxyzĠ"


def make_vocabulary_gguf(path: Path, *, seed: int = 0, tokens: int = TOKENS, merges: int = MERGES) -> Path:
    """Writes the file, about 6.5 MB; the same for the same seed."""
    rng = random.Random(seed)

    def word(length: float) -> str:
        return "".join(rng.choices(_LETTERS, k=min(40, max(1, int(rng.gauss(length, 3))))))

    keys = [
        key("general.architecture", STRING, "qwen2"),
        key("qwen2.block_count", U32, 28),
        _texts("tokenizer.ggml.tokens", [f"{word(6.5)}{number}" for number in range(tokens)]),
        text("tokenizer.ggml.token_type") + _head(I32, tokens) + (1).to_bytes(4, "little") * tokens,
        _texts("tokenizer.ggml.merges", [f"{word(4)} {word(4)}" for _ in range(merges)]),
        key("tokenizer.chat_template", STRING, "{{ messages }}" * 200),
    ]
    path.write_bytes(build(keys).data)
    return path


def _texts(name: str, items: list[str]) -> bytes:
    return text(name) + _head(STRING, len(items)) + b"".join(map(text, items))


def _head(kind: int, count: int) -> bytes:
    return b"".join((ARRAY.to_bytes(4, "little"), kind.to_bytes(4, "little"), count.to_bytes(8, "little")))


if __name__ == "__main__":
    print(make_vocabulary_gguf(Path(sys.argv[1])))
