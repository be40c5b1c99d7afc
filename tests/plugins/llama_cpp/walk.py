"""Real llama.cpp's grammars over the tiny model's vocabulary: what is accepted, and random answers under one.

No token is ever computed: the logits are drawn at random, the grammar says which of them are allowed.
"""

from __future__ import annotations

import codecs
import ctypes
import random
from pathlib import Path
from typing import Any

import llama_cpp


class Words:
    """A model's vocabulary in llama.cpp."""

    def __init__(self, path: Path) -> None:
        llama_cpp.llama_backend_init()
        parameters = llama_cpp.llama_model_default_params()
        parameters.vocab_only = True
        self._model = llama_cpp.llama_model_load_from_file(str(path).encode(), parameters)
        self.vocab = llama_cpp.llama_model_get_vocab(self._model)
        self.count = llama_cpp.llama_vocab_n_tokens(self.vocab)
        self.eos = llama_cpp.llama_vocab_eos(self.vocab)
        self.pieces = [self._piece(token) for token in range(self.count)]

    def close(self) -> None:
        llama_cpp.llama_model_free(self._model)

    def accepts(self, grammar: str) -> bool:
        """Whether llama.cpp takes the grammar. NULL comes as something falsy that is not None."""
        made = llama_cpp.llama_sampler_init_grammar(self.vocab, grammar.encode(), b"root")
        if made:
            llama_cpp.llama_sampler_free(made)
        return bool(made)

    def answer(self, grammar: str, seed: int, *, most: int = 1500, hurry: int = 60) -> bytes | None:
        """A random text under the grammar; None when ``most`` tokens were not enough. After ``hurry`` tokens what
        ends texts is preferred."""
        draw = random.Random(seed)
        made = llama_cpp.llama_sampler_init_grammar(self.vocab, grammar.encode(), b"root")
        assert made, "llama.cpp refuses the grammar"
        said = b""
        data = (llama_cpp.llama_token_data * self.count)()
        try:
            for step in range(most):
                for token in range(self.count):
                    data[token].id = token
                    data[token].logit = draw.random() + self._ending(token, step > hurry)
                array = llama_cpp.llama_token_data_array(data, self.count, -1, False)
                llama_cpp.llama_sampler_apply(made, ctypes.byref(array))
                best = max(range(self.count), key=lambda at: data[at].logit)
                # llama.cpp lets some bytes through that are no UTF-8; a model does not say them.
                while not _sound(said + self.pieces[data[best].id]):
                    data[best].logit = float("-inf")
                    best = max(range(self.count), key=lambda at: data[at].logit)
                assert data[best].logit > -1e30, f"no token goes on after {said!r}"
                token = data[best].id
                if token == self.eos:
                    return said
                llama_cpp.llama_sampler_accept(made, token)
                said += self.pieces[token]
        finally:
            llama_cpp.llama_sampler_free(made)
        return None

    def takes(self, grammar: str, text: str) -> bool:
        """Whether ``text`` satisfies the grammar, byte by byte."""
        made = llama_cpp.llama_sampler_init_grammar(self.vocab, grammar.encode(), b"root")
        assert made, "llama.cpp refuses the grammar"
        try:
            for token in [*(self.pieces.index(bytes([byte])) for byte in text.encode()), self.eos]:
                data = (llama_cpp.llama_token_data * 1)(llama_cpp.llama_token_data(id=token, logit=1.0))
                array = llama_cpp.llama_token_data_array(data, 1, -1, False)
                llama_cpp.llama_sampler_apply(made, ctypes.byref(array))
                if data[0].logit < -1e30:
                    return False
                if token != self.eos:
                    llama_cpp.llama_sampler_accept(made, token)
        finally:
            llama_cpp.llama_sampler_free(made)
        return True

    def _ending(self, token: int, hurry: bool) -> float:
        if token == self.eos:
            return 3.0 if hurry else -0.2
        if hurry and self.pieces[token] in (b'"', b"}", b"]"):
            return 2.0
        if hurry and self.pieces[token] in (b"[", b"{", b",", b" ", b"\n", b"\t"):
            return -2.0
        return 0.0

    def _piece(self, token: int) -> bytes:
        buffer: Any = ctypes.create_string_buffer(64)
        # A grammar sees control tokens by their names; so must who reads what was said under one.
        size = llama_cpp.llama_token_to_piece(self.vocab, token, buffer, len(buffer), 0, True)
        return bytes(buffer.raw[:size])


def _sound(data: bytes) -> bool:
    """Whether it is UTF-8, its last character perhaps cut."""
    try:
        codecs.utf_8_decode(data, "strict", False)
    except UnicodeDecodeError:
        return False
    return True
