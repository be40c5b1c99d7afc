"""The models of the local figures: random Llama weights in Q8_0 with a vocabulary in which a prompt's length is exact.

The weights say nothing; the arithmetic of a step does not depend on them. The vocabulary is a byte-level one of 32,000
tokens whose merges make every word of :func:`words` one token, with or without the space before it, so that a prompt of
207 words has 207 tokens in whatever engine reads it. The chat template adds nothing to them. The output row of the
only end token is zero: an answer ends at ``max_tokens``.
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CONSONANTS = "bcdfghjklmnpqrstvwxz"
VOWELS = "aeiou"
SYLLABLES = tuple(consonant + vowel for consonant in CONSONANTS for vowel in VOWELS)
SPACE = "\u0120"
"""How byte-level vocabularies write a space."""
END = "<|end|>"
TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
TRAINED_CONTEXT = 8192
_SCALE = 0.02 / 73
"""Uniform int8 has a deviation of 73; 0.02 is what trained weights have."""
_BLOCK = 32
_NOISE_BYTES = 64 << 20


@dataclass(frozen=True)
class Shape:
    """Sizes of a Llama model; ``parameters`` counts the weight matrices."""

    name: str
    embedding: int
    layers: int
    heads: int
    heads_kv: int
    feed_forward: int
    vocabulary: int = 32_000

    @property
    def parameters(self) -> int:
        attention = 2 * self.embedding**2 + 2 * self.embedding * self.embedding * self.heads_kv // self.heads
        layer = attention + 3 * self.embedding * self.feed_forward
        return self.layers * layer + 2 * self.vocabulary * self.embedding


SMALL = Shape("bench-150m", embedding=768, layers=12, heads=12, heads_kv=12, feed_forward=2560)
LARGE = Shape("bench-1g", embedding=2048, layers=13, heads=16, heads_kv=8, feed_forward=8192)
TINY = Shape("bench-tiny", embedding=64, layers=2, heads=4, heads_kv=2, feed_forward=128, vocabulary=20_400)
"""For the tests of the bench itself, and for the figures whose point is not the arithmetic."""


def make(shape: Shape, folder: Path, *, seed: int = 1, suffix: str = "") -> Path:
    """Writes ``<folder>/<name><suffix>.gguf`` and waits until the disk has it; the same seed gives the same bytes.

    Raises:
        OSError: no space, or the folder cannot be written.
        ValueError: the vocabulary is larger than there are words.
    """
    import gguf

    name = f"{shape.name}{suffix}"
    path = folder / f"{name}.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name(name)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_vocab_size(shape.vocabulary)
    writer.add_context_length(TRAINED_CONTEXT)
    writer.add_embedding_length(shape.embedding)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.heads_kv)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(shape.embedding // shape.heads)
    _add_vocabulary(writer, shape.vocabulary)
    _add_weights(writer, shape, seed)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return path


def words(count: int, seed: int) -> str:
    """A text of exactly ``count`` tokens; texts of different seeds share no beginning worth keeping."""
    draw = random.Random(seed)
    return " ".join(draw.choice(SYLLABLES) + draw.choice(SYLLABLES) for _ in range(count))


def vocabulary(size: int) -> tuple[list[str], list[str]]:
    """Tokens and merges: bytes, syllables, words, words after a space, then longer words; the end token is the last.

    Raises:
        ValueError: ``size`` is more than the words that there are.
    """
    tokens = _byte_characters()
    merges = [f"{syllable[0]} {syllable[1]}" for syllable in SYLLABLES]
    merges += [f"{first} {second}" for first in SYLLABLES for second in SYLLABLES]
    merges += [f"{SPACE} {first}{second}" for first in SYLLABLES for second in SYLLABLES]
    merges += [f"{SPACE}{first}{second} {third}" for third in SYLLABLES for first in SYLLABLES for second in SYLLABLES]
    del merges[max(0, size - 1 - len(tokens)) :]
    tokens += [merge.replace(" ", "") for merge in merges]
    tokens.append(END)
    if len(tokens) != size:
        raise ValueError(f"a vocabulary of {size} tokens cannot be made")
    return tokens, merges


def _byte_characters() -> list[str]:
    """The printable characters that stand for the 256 bytes in a byte-level vocabulary (GPT-2's table)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    table = {byte: chr(byte) for byte in printable}
    table |= {byte: chr(256 + index) for index, byte in enumerate(others)}
    return [table[byte] for byte in range(256)]


def _add_vocabulary(writer: Any, size: int) -> None:
    import gguf

    tokens, merges = vocabulary(size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.NORMAL] * (size - 1) + [gguf.TokenType.CONTROL])
    writer.add_token_merges(merges)
    writer.add_eos_token_id(size - 1)
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)


def _add_weights(writer: Any, shape: Shape, seed: int) -> None:
    import gguf
    import numpy as np

    random_bytes = np.random.default_rng(seed)
    # One pool, read from changing places: a gigabyte of fresh random numbers takes longer than writing it.
    pool = random_bytes.integers(-127, 128, _NOISE_BYTES, dtype=np.int8)
    scale = np.frombuffer(np.float16(_SCALE).tobytes(), dtype=np.uint8)
    begin = 0

    def matrix(name: str, rows: int, columns: int) -> Any:
        nonlocal begin
        blocks = rows * columns // _BLOCK
        data = np.empty((blocks, 2 + _BLOCK), dtype=np.uint8)
        data[:, :2] = scale
        flat = data[:, 2:]
        done = 0
        while done < blocks:
            taken = min(blocks - done, (len(pool) - begin) // _BLOCK)
            piece = pool[begin : begin + taken * _BLOCK].view(np.uint8)
            flat[done : done + taken] = piece.reshape(taken, _BLOCK)
            done += taken
            begin = (begin + taken * _BLOCK + _BLOCK) % (len(pool) - _BLOCK)
        bytes_per_row = columns // _BLOCK * (2 + _BLOCK)
        tensor = data.reshape(rows, bytes_per_row)
        writer.add_tensor(f"{name}.weight", tensor, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
        return tensor

    def norm(name: str) -> None:
        writer.add_tensor(f"{name}.weight", np.ones(shape.embedding, dtype=np.float32))

    narrow = shape.embedding * shape.heads_kv // shape.heads
    matrix("token_embd", shape.vocabulary, shape.embedding)
    for layer in range(shape.layers):
        norm(f"blk.{layer}.attn_norm")
        matrix(f"blk.{layer}.attn_q", shape.embedding, shape.embedding)
        matrix(f"blk.{layer}.attn_k", narrow, shape.embedding)
        matrix(f"blk.{layer}.attn_v", narrow, shape.embedding)
        matrix(f"blk.{layer}.attn_output", shape.embedding, shape.embedding)
        norm(f"blk.{layer}.ffn_norm")
        matrix(f"blk.{layer}.ffn_gate", shape.feed_forward, shape.embedding)
        matrix(f"blk.{layer}.ffn_up", shape.feed_forward, shape.embedding)
        matrix(f"blk.{layer}.ffn_down", shape.embedding, shape.feed_forward)
    norm("output_norm")
    output = matrix("output", shape.vocabulary, shape.embedding)
    output[shape.vocabulary - 1] = 0
