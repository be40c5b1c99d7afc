"""What the residency asks of the rest of this package: reading files, looking at the machine, planning, remembering.

Handed in, so that tests can put a machine with a GPU, or files nobody has, in their place.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from hybridd.errors import StateError
from hybridd.local import calibration, residuals
from hybridd.local.calibration import Calibration
from hybridd.local.facts import ModelFacts
from hybridd.local.inspect import inspect
from hybridd.local.machine import MachineFacts, look
from hybridd.local.plan import plan
from hybridd.local.plan_space import Request
from hybridd.local.types import LoadOptions, Memory, Plan

logger = logging.getLogger("hybridd.local")


class Plans(Protocol):
    def __call__(
        self,
        facts: ModelFacts,
        machine: MachineFacts,
        request: Request,
        *,
        margin: int = 0,
        replaced: int | Mapping[int, int] = 0,
    ) -> Plan: ...


class Ports(msgspec.Struct, frozen=True):
    """``inspect`` reads headers in a child process: facts, or why there are none. ``look`` blocks, for two seconds at
    most; it is given the PIDs of our own workers. ``margin``: bytes to keep free for this model, learned; ``record``
    stores what a load took beside what was predicted; ``calibrated``: what was measured to be fastest here, if any was.
    The last four block for as long as a small file takes to read."""

    inspect: Callable[[Sequence[Path]], Awaitable[dict[Path, ModelFacts | str]]]
    look: Callable[[Collection[int]], MachineFacts]
    plan: Plans
    margin: Callable[[MachineFacts, ModelFacts], int]
    record: Callable[[MachineFacts, str, LoadOptions, Memory, Memory], None]
    calibrated: Callable[[MachineFacts, ModelFacts], Calibration | None]


def real_ports() -> Ports:
    """This machine, these files, the loads it remembers."""
    return Ports(
        inspect=inspect,
        look=lambda own: look(own=own),
        plan=plan,
        margin=_margin,
        record=_record,
        calibrated=_calibrated,
    )


def _margin(machine: MachineFacts, facts: ModelFacts) -> int:
    try:
        known = residuals.read()
    except StateError as error:
        logger.warning("what earlier loads took is not known: %s", error.message)
        known = []
    return residuals.margin(known, machine=machine.machine_id, model=facts.id)


def _calibrated(machine: MachineFacts, facts: ModelFacts) -> Calibration | None:
    try:
        findings = calibration.read()
    except StateError as error:
        logger.warning("%s", error.message)
        return None
    return calibration.find(findings, machine=machine.machine_id, facts=facts, version=calibration.llama_version())


def _record(machine: MachineFacts, model: str, options: LoadOptions, predicted: Memory, measured: Memory) -> None:
    """A residual that cannot be stored costs a little certainty, never the load."""
    predicted, measured = residuals.compared(predicted, measured)
    try:
        residuals.store(
            residuals.Residual(
                machine=machine.machine_id,
                model=model,
                at=time.time(),
                options=options,
                predicted=predicted,
                measured=measured,
            )
        )
    except StateError as error:
        logger.warning("what loading %s took was not stored: %s", model, error.message)
