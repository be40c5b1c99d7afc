"""What a call may use at most, before it is sent: the amounts that are reserved."""

from __future__ import annotations

from typing import Protocol

import msgspec

from hybridd.contracts.quotas import Amounts, Price, Unit
from hybridd.ledger.estimate import PromptSize
from hybridd.ledger.prices import cost
from hybridd.routing.candidates import KnownModel
from hybridd.routing.request import RoutedRequest

# What is asked for when a token or money quota binds and the caller named no bound (the design's figure).
DEFAULT_MAX_TOKENS = 1024


class Rooms(Protocol):
    """The two questions to the ledger."""

    def room(self, account: str, model: str, unit: Unit) -> int | None: ...

    def estimate_input(self, provider: str, model: str, size: PromptSize) -> int: ...


class Estimate(msgspec.Struct, frozen=True):
    """``amounts`` to reserve; ``send_max_tokens`` is set when hybridd has to name a bound the caller did not."""

    amounts: Amounts
    input_tokens: int
    send_max_tokens: int | None = None


def estimate(request: RoutedRequest, known: KnownModel, account: str, rooms: Rooms, provider: str) -> Estimate:
    """Bytes × the model's learned ratio for the prompt; the caller's bound (× ``n``) for the answer."""
    price = known.price
    input_tokens = rooms.estimate_input(provider, known.id, request.size)
    send: int | None = None
    if request.kind == "embedding":
        output_tokens = 0
    elif request.max_tokens is not None:
        output_tokens = request.max_tokens * request.choices
    else:
        bound = _bound_by_quota(known, account, rooms, input_tokens, price, request.choices)
        if bound is not None:
            send = bound
        cap = known.max_output or DEFAULT_MAX_TOKENS
        output_tokens = (min(DEFAULT_MAX_TOKENS, cap) if bound is None else bound) * request.choices
    amounts = Amounts(input_tokens=input_tokens, output_tokens=output_tokens)
    if price is not None:
        amounts = msgspec.structs.replace(amounts, usd_micro=cost(price, amounts))
    return Estimate(amounts, input_tokens, send)


def _bound_by_quota(
    known: KnownModel, account: str, rooms: Rooms, input_tokens: int, price: Price | None, choices: int
) -> int | None:
    """min(1024, the model's cap, the room of the tightest quota); None when no quota binds tokens or money."""
    bounds: list[int] = []
    output_room = rooms.room(account, known.id, "output_tokens")
    if output_room is not None:
        bounds.append(output_room // choices)
    total_room = rooms.room(account, known.id, "total_tokens")
    if total_room is not None:
        bounds.append((total_room - input_tokens) // choices)
    usd_room = rooms.room(account, known.id, "usd")
    if usd_room is not None and price is not None and price.output_per_million > 0:
        left = usd_room - cost(price, Amounts(input_tokens=input_tokens))
        bounds.append(left * 1_000_000 // (price.output_per_million * choices))
    elif usd_room is not None:
        bounds.append(DEFAULT_MAX_TOKENS)
    if not bounds:
        return None
    cap = known.max_output or DEFAULT_MAX_TOKENS
    return max(1, min(DEFAULT_MAX_TOKENS, cap, *bounds))
