"""Vocabularies of the made models: the tiny model's bytes and words, filled up to any size."""

from __future__ import annotations

from typing import Any

from gguf import TokenType

from tests.fakes.tiny_gguf import WORDS

_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,!?-'"


def add_vocabulary(writer: Any, size: int, *, words: str) -> None:
    """``words``: ``llama`` (SentencePiece with byte fallback) or ``bert`` (word pieces)."""
    (_add_word_pieces if words == "bert" else _add_sentence_pieces)(writer, size)


def _add_sentence_pieces(writer: Any, size: int) -> None:
    tokens = [b"<unk>", b"<s>", b"</s>"] + [b"<0x%02X>" % byte for byte in range(256)]
    kinds = [int(TokenType.UNKNOWN), int(TokenType.CONTROL), int(TokenType.CONTROL)] + [int(TokenType.BYTE)] * 256
    for word in WORDS + tuple(f"▁w{number}" for number in range(size - len(tokens) - len(WORDS))):
        tokens.append(word.encode())
        kinds.append(int(TokenType.NORMAL))
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * 259 + [-float(rank) for rank in range(len(tokens) - 259)])
    writer.add_token_types(kinds)
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)


def _add_word_pieces(writer: Any, size: int) -> None:
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    kinds = [int(TokenType.CONTROL)] * 5
    pieces = [*(f"▁{letter}" for letter in _LETTERS), *_LETTERS, *(word for word in WORDS if word != "▁")]
    for word in dict.fromkeys(pieces):
        tokens.append(word)
        kinds.append(int(TokenType.NORMAL))
    for number in range(size - len(tokens)):
        tokens.append(f"▁w{number}")
        kinds.append(int(TokenType.NORMAL))
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("bert")
    writer.add_token_type_count(2)
    writer.add_token_list(tokens)
    writer.add_token_scores([-1000.0] * len(tokens))
    writer.add_token_types(kinds)
    writer.add_pad_token_id(0)
    writer.add_unk_token_id(1)
    writer.add_bos_token_id(2)
    writer.add_eos_token_id(3)
    writer.add_sep_token_id(3)
    writer.add_mask_token_id(4)
