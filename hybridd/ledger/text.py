"""Amounts and waiting times as people read them."""

from __future__ import annotations

from hybridd.clocks import NS
from hybridd.contracts.quotas import Unit

_NAMES: dict[Unit, str] = {
    "requests": "requests",
    "input_tokens": "input tokens",
    "output_tokens": "output tokens",
    "total_tokens": "tokens",
    "bytes_down": "bytes down",
    "bytes_up": "bytes up",
    "concurrent": "open calls",
    "usd": "US dollars",
}


def amount_text(unit: Unit, amount: int) -> str:
    """``12 requests``, ``$0.0021``."""
    if unit == "usd":
        return "$" + f"{amount / 1e6:.6f}".rstrip("0").rstrip(".")
    name = _NAMES[unit]
    return f"{amount:,} {name[:-1] if amount == 1 and name.endswith('s') else name}"


def wait_text(wait_ns: int) -> str:
    """``in 5 s``, ``in 2 h 10 min``."""
    seconds = max(0, -(-wait_ns // NS))
    if seconds < 120:
        return f"in {seconds} s"
    minutes = -(-seconds // 60)
    if minutes < 120:
        return f"in {minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"in {hours} h {minutes} min" if hours < 48 else f"in {hours // 24} days {hours % 24} h"
