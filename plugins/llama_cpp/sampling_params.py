"""How the next token is chosen: llama.cpp's sampling parameters, checked. Pure.

Names and defaults are those of llama.cpp's own server; ``docs/local-requests.md`` lists them with their ranges.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from plugins.llama_cpp.refuse import flag, number, shown, wrong

# The chain in llama.cpp's own order. Each works on what the one before left; the choice itself comes last.
SAMPLERS = ("penalties", "dry", "top_n_sigma", "top_k", "typ_p", "top_p", "min_p", "xtc", "temperature")
_ALIASES = {"typical_p": "typ_p", "typical": "typ_p", "temp": "temperature", "top_nsigma": "top_n_sigma"}
MAX_BIASES = 4096
MAX_BREAKERS = 64
MAX_BREAKER = 64
LAST_TOKEN = 2**31 - 1
_RANDOM_SEED = 2**32 - 1  # "random" to llama.cpp
_WINDOW = (-1, LAST_TOKEN)


class Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """llama.cpp's own defaults where the request says nothing.

    ``temperature`` 0: always the likeliest token. ``seed`` None: random. ``repeat_last_n`` and
    ``dry_penalty_last_n``: tokens looked back upon, 0 none, -1 the whole context. ``mirostat`` 1 or 2 replaces the
    samplers that cut (llama.cpp then uses temperature and mirostat alone). ``logit_bias``: token id, or text (all of
    its tokens), and what is added; ``-inf`` forbids it. ``samplers``: the chain's order, out of :data:`SAMPLERS`; one
    left out does not work.
    """

    temperature: float = 0.8
    dynatemp_range: float = 0.0
    dynatemp_exponent: float = 1.0
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    typical_p: float = 1.0
    top_n_sigma: float = -1.0
    xtc_probability: float = 0.0
    xtc_threshold: float = 0.1
    min_keep: int = 0
    repeat_penalty: float = 1.0
    repeat_last_n: int = 64
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    dry_multiplier: float = 0.0
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    dry_penalty_last_n: int = -1
    dry_sequence_breakers: tuple[str, ...] = ("\n", ":", '"', "*")
    mirostat: int = 0
    mirostat_tau: float = 5.0
    mirostat_eta: float = 0.1
    seed: int | None = None
    ignore_eos: bool = False
    logit_bias: tuple[tuple[int | str, float], ...] = ()
    samplers: tuple[str, ...] = SAMPLERS


# parameter → (lowest, highest, whole number)
FIGURES: dict[str, tuple[float, float, bool]] = {
    "temperature": (0, 2, False),
    "dynatemp_range": (0, 2, False),
    "dynatemp_exponent": (0, 100, False),
    "top_k": (-1, LAST_TOKEN, True),
    "top_p": (0, 1, False),
    "min_p": (0, 1, False),
    "typical_p": (0, 1, False),
    "top_n_sigma": (-1, 100, False),
    "xtc_probability": (0, 1, False),
    "xtc_threshold": (0, 1, False),
    "min_keep": (0, LAST_TOKEN, True),
    "repeat_penalty": (0.01, 10, False),
    "repeat_last_n": (*_WINDOW, True),
    "presence_penalty": (-2, 2, False),
    "frequency_penalty": (-2, 2, False),
    "dry_multiplier": (0, 100, False),
    "dry_base": (1, 100, False),
    "dry_allowed_length": (0, LAST_TOKEN, True),
    "dry_penalty_last_n": (*_WINDOW, True),
    "mirostat": (0, 2, True),
    "mirostat_tau": (0, 100, False),
    "mirostat_eta": (0, 10, False),
    "seed": (-(2**63), 2**64, True),
}


def read(body: Mapping[str, Any]) -> Sampling:
    """Raises CallFailure (``bad_request``, not sent) naming the first wrong parameter."""
    said: dict[str, Any] = {}
    for name, (low, high, whole) in FIGURES.items():
        value = body.get(name)
        if value is not None:
            said[name] = number(name, value, low, high, whole=whole)
    if "seed" in said:
        # -1 is random to llama.cpp's server; any other number means the same answer each time.
        seed = said["seed"] % 2**32
        said["seed"] = None if said["seed"] == -1 else min(seed, _RANDOM_SEED - 1)
    if body.get("ignore_eos") is not None:
        said["ignore_eos"] = flag("ignore_eos", body["ignore_eos"])
    if body.get("logit_bias") is not None:
        said["logit_bias"] = _biases(body["logit_bias"])
    if body.get("dry_sequence_breakers") is not None:
        said["dry_sequence_breakers"] = _breakers(body["dry_sequence_breakers"])
    if body.get("samplers") is not None:
        said["samplers"] = _samplers(body["samplers"])
    return Sampling(**said)


def _biases(value: Any) -> tuple[tuple[int | str, float], ...]:
    """OpenAI's object ``{"token id": bias}`` or llama.cpp's list ``[[token id or text, bias or false]]``."""
    if isinstance(value, Mapping):
        pairs = list(value.items())
    elif isinstance(value, list) and all(isinstance(pair, list) and len(pair) == 2 for pair in value):
        pairs = [(pair[0], pair[1]) for pair in value]
    else:
        raise wrong("logit_bias", 'must be an object like {"15043": -1} or a list like [[15043, -1]]')
    if len(pairs) > MAX_BIASES:
        raise wrong("logit_bias", f"has {len(pairs)} entries; at most {MAX_BIASES} are taken")
    return tuple((_biased(what), _bias(what, bias)) for what, bias in pairs)


def _biased(what: Any) -> int | str:
    if isinstance(what, str) and what.isascii() and what.isdigit():
        what = int(what[:20])
    if isinstance(what, str) and what:
        return what
    if isinstance(what, bool) or not isinstance(what, int) or not 0 <= what <= LAST_TOKEN:
        raise wrong("logit_bias", f"must name tokens by their id or text, not {shown(what)}")
    return what


def _bias(what: Any, bias: Any) -> float:
    if bias is False:
        return float("-inf")
    return float(number(f"logit_bias.{shown(what)}", bias, -100, 100))


def _breakers(value: Any) -> tuple[str, ...]:
    name = "dry_sequence_breakers"
    if not isinstance(value, list) or len(value) > MAX_BREAKERS:
        raise wrong(name, f"must be a list of up to {MAX_BREAKERS} texts")
    for one in value:
        if not isinstance(one, str) or not 0 < len(one) <= MAX_BREAKER or "\0" in one:
            raise wrong(name, f"must be texts of 1 to {MAX_BREAKER} characters, not {shown(one)}")
    return tuple(value)


def _samplers(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > 2 * len(SAMPLERS):
        raise wrong("samplers", f"must be a list of names out of {', '.join(SAMPLERS)}")
    names = [_ALIASES.get(one, one) if isinstance(one, str) else one for one in value]
    for one in names:
        if one not in SAMPLERS:
            raise wrong("samplers", f"has {shown(one)}; known are {', '.join(SAMPLERS)}")
    return tuple(names)
