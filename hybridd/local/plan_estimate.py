"""The memory model at the speed of a search: dozens of estimates of one model for each plan.

Most of an estimate is the walk through every block's graph for the compute buffers. Blocks repeat, and after a few
repetitions the allocator is in the state that it was in before: dropping further ones changes no buffer. So the walk is
made over a model with the repetitions left out, and weights, caches and states are those of all blocks. What is chosen
in the end is estimated whole.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from hybridd.local import kv
from hybridd.local.facts import ModelFacts
from hybridd.local.facts_layers import LayerFacts
from hybridd.local.memory import estimate
from hybridd.local.types import LoadOptions, Memory

_KEPT = 4
"""Repetitions that are walked through."""
_LONGEST = 8
"""Blocks in a pattern (sliding windows and hybrids repeat every 2 to 8)."""


class Estimator:
    """Estimates of one model."""

    def __init__(self, facts: ModelFacts) -> None:
        self._facts = facts
        kinds: dict[object, int] = {}
        self._kinds = [kinds.setdefault(replace(layer, weights=0), len(kinds)) for layer in facts.layers]
        self._samples = [facts.layers[self._kinds.index(kind)] for kind in range(len(kinds))]
        self._thin: dict[int, tuple[ModelFacts, int]] = {}

    def __call__(self, options: LoadOptions) -> Memory:
        """What :func:`hybridd.local.memory.estimate` says (``steady``), in a fraction of the time."""
        facts = self._facts
        first = facts.layers_all + 1 - options.gpu_layers if options.gpu_layers else len(facts.layers)
        first = min(max(first, 0), len(facts.layers))
        thin, gpu_layers = self._thinned(options.gpu_layers, first)
        small = estimate(thin, replace(options, gpu_layers=gpu_layers), steady=True)
        if thin is facts:
            return small
        cell = [kv.layer_bytes(layer, facts, options) for layer in self._samples]
        cache = [cell[kind] for kind in self._kinds]
        states = max(options.sequences, 1)
        on_host = len(thin.layers) - self._on_device(thin, gpu_layers)
        host, device = facts.layers[:first], facts.layers[first:]
        thin_host, thin_device = thin.layers[:on_host], thin.layers[on_host:]
        return Memory(
            device=replace(
                small.device,
                weights=small.device.weights + _weights(device) - _weights(thin_device),
                kv=sum(cache[first:]),
                recurrent=sum(layer.state_bytes for layer in device) * states,
            ),
            host=replace(
                small.host,
                weights=small.host.weights + _weights(host) - _weights(thin_host),
                kv=sum(cache[:first]),
                recurrent=sum(layer.state_bytes for layer in host) * states,
            ),
        )

    def _thinned(self, gpu_layers: int, first: int) -> tuple[ModelFacts, int]:
        """The model without its repetitions, and ``gpu_layers`` that splits it where the whole one is split."""
        known = self._thin.get(gpu_layers)
        if known is None:
            kept_host = _without_repetitions(self._kinds[:first])
            kept_device = [first + at for at in _without_repetitions(self._kinds[first:])]
            kept = [*kept_host, *kept_device]
            facts = self._facts
            if len(kept) == len(facts.layers):
                known = facts, gpu_layers
            else:
                dropped = len(facts.layers) - len(kept)
                thin = replace(
                    facts, layers=tuple(facts.layers[at] for at in kept), layers_all=facts.layers_all - dropped
                )
                dropped_device = len(facts.layers) - first - len(kept_device)
                known = thin, max(gpu_layers - dropped_device, 0)
            self._thin[gpu_layers] = known
        return known

    @staticmethod
    def _on_device(thin: ModelFacts, gpu_layers: int) -> int:
        if not gpu_layers:
            return 0
        return len(thin.layers) - min(max(thin.layers_all + 1 - gpu_layers, 0), len(thin.layers))


def _weights(layers: Sequence[LayerFacts]) -> int:
    return sum(layer.weights for layer in layers)


def _without_repetitions(kinds: Sequence[int]) -> list[int]:
    """Places of the blocks that remain when only ``_KEPT`` repetitions of each pattern do."""
    kept: list[int] = []
    at = 0
    while at < len(kinds):
        length, times = _pattern(kinds, at)
        kept += range(at, at + length * min(times, _KEPT))
        at += length * times
    return kept


def _pattern(kinds: Sequence[int], at: int) -> tuple[int, int]:
    """(blocks, repetitions) of the pattern that begins at a place and covers most."""
    best = (1, 1)
    for length in range(1, _LONGEST + 1):
        first = kinds[at : at + length]
        if len(first) < length:
            break
        times = 1
        while kinds[at + times * length : at + (times + 1) * length] == first:
            times += 1
        if times > _KEPT and length * times > best[0] * best[1]:
            best = (length, times)
    return best
