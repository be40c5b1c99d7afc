"""Money: integer micro-dollars, rounded up once, so that many small calls never add up to less than they cost."""

from __future__ import annotations

import msgspec

from hybridd.contracts.protocol import Usage
from hybridd.contracts.quotas import Amounts, Price

MILLION = 1_000_000


def cost(price: Price, used: Usage | Amounts) -> int:
    """Micro-dollars for what a call used or may use.

    ``input_tokens`` includes the cached ones (as in OpenAI's usage), which are priced apart when the price says so. A
    price is micro-dollars per million tokens, so tokens times price is millionths of micro-dollars.
    """
    cached = 0
    requests = 1
    if isinstance(used, Usage):
        cached = min(used.cached_input_tokens, used.input_tokens)
    else:
        requests = used.requests
    cached_price = price.cached_input_per_million
    millionths = (
        (used.input_tokens - cached) * price.input_per_million
        + cached * (price.input_per_million if cached_price is None else cached_price)
        + used.output_tokens * price.output_per_million
    )
    return -(-millionths // MILLION) + requests * price.per_request


def micro(usd: float) -> int:
    """Dollars as micro-dollars, rounded up; a hair's breadth of binary error (0.1 + 0.2) is not charged."""
    scaled = round(usd * MILLION, 3)
    return -int(-scaled // 1)


def snapshot(price: Price | None) -> str | None:
    """The price as it is stored with the call: what it was then, whatever it becomes."""
    return None if price is None else msgspec.json.encode(price).decode()
