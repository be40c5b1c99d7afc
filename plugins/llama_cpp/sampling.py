"""Choosing tokens: llama.cpp's sampler chains, built in its own order with its own defaults.

A grammar is not part of the chain, as in llama.cpp itself: the chain chooses, and only when the grammar refuses that
token are all tokens held against the grammar and chosen from again. Nearly always one token is checked instead of the
whole vocabulary.
"""

from __future__ import annotations

import ctypes
import time
from array import array
from typing import Any, NamedTuple

import numpy as np

from hybridd.plugin import CallFailure
from plugins.llama_cpp.bindings import lib
from plugins.llama_cpp.context import Context
from plugins.llama_cpp.native import Model
from plugins.llama_cpp.sampling_params import Sampling

_NEVER = float("-inf")
# For one token. The ways that an ambiguous grammar leaves open can double with each: who is stopped here has cost the
# others twice this at most. The whole of a large vocabulary takes some hundredths.
_GRAMMAR_SECONDS = 0.5
_MIROSTAT_M = 100
_TOKEN_DATA = np.dtype([("id", "<i4"), ("logit", "<f4"), ("p", "<f4")])


class Chosen(NamedTuple):
    """How likely a token was before any sampler, and the likeliest ones (natural logarithms)."""

    logprob: float
    top: list[tuple[int, float]]


class Sampler:
    """One sequence's chain and grammar. Not closing it leaks llama.cpp's memory."""

    def __init__(
        self,
        model: Model,
        parameters: Sampling,
        *,
        seed: int,
        prompt: array[int],
        context: int,
        grammar: str = "",
    ) -> None:
        """Raises CallFailure (``bad_request``): a bias is for no token, or llama.cpp cannot use the grammar."""
        self._model = model
        self._grammar: Any = None
        self._all: Any = None
        samplers = _chain(model, parameters, seed, context)
        # Nothing but the likeliest token: llama.cpp would first write a list of all (60 µs for 32,000, this takes 10).
        self._greedy = len(samplers) == 1 and parameters.temperature <= 0 and not parameters.mirostat
        self.handle: Any = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
        for sampler in samplers:
            lib.llama_sampler_chain_add(self.handle, sampler)
        if grammar:
            self._begin_grammar(grammar)
        for token in _looked_back_on(parameters, prompt):
            lib.llama_sampler_accept(self.handle, token)

    def sample(self, context: Context, row: int) -> int:
        """The token after that row; what looks back on tokens knows it from now on.

        Raises:
            CallFailure: the grammar allows none (``bad_request``).
        """
        if self._grammar is None:
            if self._greedy:
                return int(_logits(context, row).argmax())
            return int(lib.llama_sampler_sample(self.handle, context.handle, row))
        began = time.thread_time()
        logits = _logits(context, row)
        chosen = self._choose(logits)
        if not self._allowed(chosen):
            chosen = self._choose(logits, constrained=True)
            if not self._allowed(chosen):
                # llama.cpp would end the process with an exception on accepting it.
                raise _spent("the grammar lets no token of this model follow what was said")
        lib.llama_sampler_accept(self._grammar, chosen)
        lib.llama_sampler_accept(self.handle, chosen)
        if time.thread_time() - began > _GRAMMAR_SECONDS:
            raise _spent("the grammar leaves so many ways open that following them takes too long")
        return chosen

    def close(self) -> None:
        for handle in (self.handle, self._grammar):
            if handle:
                lib.llama_sampler_free(handle)
        self.handle = self._grammar = None

    def _begin_grammar(self, grammar: str) -> None:
        made = lib.llama_sampler_init_grammar(self._model.vocab, grammar.encode(), b"root")
        if not made:  # a NULL is false, but not None
            self.close()
            raise CallFailure("bad_request", "llama.cpp cannot use the grammar", sent="no", param="grammar")
        self._grammar = made
        self._all = np.zeros(self._model.vocabulary, dtype=_TOKEN_DATA)
        self._ids = np.arange(self._model.vocabulary, dtype=np.int32)

    def _choose(self, logits: Any, *, constrained: bool = False) -> int:
        entries = self._all
        entries["id"], entries["logit"] = self._ids, logits
        found = _candidates(entries)
        if constrained:
            lib.llama_sampler_apply(self._grammar, ctypes.byref(found))
        lib.llama_sampler_apply(self.handle, ctypes.byref(found))
        return int(found.data[found.selected].id) if found.selected >= 0 else -1

    def _allowed(self, token: int) -> bool:
        if token < 0:
            return False
        one = np.zeros(1, dtype=_TOKEN_DATA)
        one["id"], one["logit"] = token, 1.0
        found = _candidates(one)
        lib.llama_sampler_apply(self._grammar, ctypes.byref(found))
        return float(found.data[0].logit) != _NEVER


def _spent(message: str) -> CallFailure:
    return CallFailure("bad_request", message, sent="yes", param="grammar")


def logprobs(context: Context, row: int, token: int, count: int) -> Chosen:
    """Of the model itself: the softmax of its logits, before temperature, penalties or bias."""
    logits = _logits(context, row).astype(np.float64)
    logits -= logits.max()
    logits -= np.log(np.exp(logits).sum())
    if count == 0:
        return Chosen(float(logits[token]), [])
    likeliest = np.argpartition(logits, -count)[-count:] if count < len(logits) else np.arange(len(logits))
    ranked = likeliest[np.argsort(-logits[likeliest], kind="stable")]
    return Chosen(float(logits[token]), [(int(one), float(logits[one])) for one in ranked])


def _logits(context: Context, row: int) -> Any:
    return np.frombuffer(context.logits(row), dtype=np.float32)


def _candidates(entries: Any) -> Any:
    pointer = entries.ctypes.data_as(lib.llama_token_data_p)
    return lib.llama_token_data_array(data=pointer, size=len(entries), selected=-1, sorted=False)


def _looked_back_on(parameters: Sampling, prompt: array[int]) -> array[int]:
    """The end of the prompt that penalties count in: llama.cpp lets them look back on all tokens, not on its own."""
    reach = parameters.repeat_last_n if _penalises(parameters) else 0
    if parameters.dry_multiplier > 0 and parameters.mirostat == 0:
        reach = -1 if reach < 0 or parameters.dry_penalty_last_n < 0 else max(reach, parameters.dry_penalty_last_n)
    return prompt if reach < 0 else prompt[len(prompt) - min(reach, len(prompt)) :]


def _penalises(parameters: Sampling) -> bool:
    neutral = parameters.repeat_penalty == 1 and not parameters.presence_penalty and not parameters.frequency_penalty
    return not neutral and parameters.mirostat == 0 and parameters.repeat_last_n != 0


def _chain(model: Model, wanted: Sampling, seed: int, context: int) -> list[Any]:
    """The samplers of ``common_sampler_init`` in llama.cpp's ``common/sampling.cpp``; what would do nothing is left
    out."""
    made = _biases(model, wanted)
    if wanted.mirostat:
        made.append(lib.llama_sampler_init_temp(wanted.temperature))
        made.append(
            lib.llama_sampler_init_mirostat(
                model.vocabulary, seed, wanted.mirostat_tau, wanted.mirostat_eta, _MIROSTAT_M
            )
            if wanted.mirostat == 1
            else lib.llama_sampler_init_mirostat_v2(seed, wanted.mirostat_tau, wanted.mirostat_eta)
        )
        return made
    greedy = wanted.temperature <= 0 and "temperature" in wanted.samplers
    for name in wanted.samplers:
        # What only cuts leaves the likeliest token, which is all that greedy choice looks at.
        if not greedy or name in ("penalties", "dry"):
            sampler = _sampler(name, model, wanted, seed, context)
            if sampler is not None:
                made.append(sampler)
    made.append(lib.llama_sampler_init_greedy() if greedy else lib.llama_sampler_init_dist(seed))
    return made


def _sampler(name: str, model: Model, wanted: Sampling, seed: int, context: int) -> Any:
    keep = wanted.min_keep
    if name == "penalties" and _penalises(wanted):
        last = context if wanted.repeat_last_n < 0 else wanted.repeat_last_n
        return lib.llama_sampler_init_penalties(
            model.vocabulary, last, wanted.repeat_penalty, wanted.frequency_penalty, wanted.presence_penalty
        )
    if name == "dry" and wanted.dry_multiplier > 0 and wanted.dry_penalty_last_n != 0:
        return _dry(model, wanted)
    if name == "top_k" and wanted.top_k > 0:
        return lib.llama_sampler_init_top_k(max(wanted.top_k, keep))
    if name == "top_p" and wanted.top_p < 1:
        return lib.llama_sampler_init_top_p(wanted.top_p, keep)
    if name == "min_p" and wanted.min_p > 0:
        return lib.llama_sampler_init_min_p(wanted.min_p, keep)
    if name == "typ_p" and wanted.typical_p < 1:
        return lib.llama_sampler_init_typical(wanted.typical_p, keep)
    if name == "top_n_sigma" and wanted.top_n_sigma > 0:
        return lib.llama_sampler_init_top_n_sigma(wanted.top_n_sigma)
    if name == "xtc" and wanted.xtc_probability > 0:
        return lib.llama_sampler_init_xtc(wanted.xtc_probability, wanted.xtc_threshold, keep, seed)
    if name == "temperature":
        return lib.llama_sampler_init_temp_ext(wanted.temperature, wanted.dynatemp_range, wanted.dynatemp_exponent)
    return None


def _dry(model: Model, wanted: Sampling) -> Any:
    breakers = [one.encode() for one in wanted.dry_sequence_breakers]
    texts = (ctypes.c_char_p * len(breakers))(*breakers)
    return lib.llama_sampler_init_dry(
        model.vocab, wanted.dry_multiplier, wanted.dry_base, wanted.dry_allowed_length, wanted.dry_penalty_last_n,
        texts, len(breakers),
    )  # fmt: skip


def _biases(model: Model, wanted: Sampling) -> list[Any]:
    biases: dict[int, float] = {}
    for what, bias in wanted.logit_bias:
        tokens = [what] if isinstance(what, int) else model.tokenize(what, add_special=False, parse_special=True)
        for token in tokens:
            if not 0 <= token < model.vocabulary:
                raise CallFailure(
                    "bad_request", f"logit_bias names token {token}; the model's are 0 to {model.vocabulary - 1}",
                    sent="no", param="logit_bias",
                )  # fmt: skip
            biases[token] = bias
    if wanted.ignore_eos:
        biases.update(dict.fromkeys(model.all_ends(), _NEVER))
    if not biases:
        return []
    entries = (lib.llama_logit_bias * len(biases))(*(lib.llama_logit_bias(*pair) for pair in biases.items()))
    return [lib.llama_sampler_init_logit_bias(model.vocabulary, len(biases), entries)]
