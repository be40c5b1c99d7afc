"""Calls, quotas and money: what may leave for a provider, and what it cost."""

from hybridd.ledger.ledger import Ledger
from hybridd.ledger.recovery import RecoveryReport
from hybridd.ledger.reservation import Ending, EndingKind, QuotaRefused, Refusal, Reservation, Settlement

__all__ = [
    "Ending",
    "EndingKind",
    "Ledger",
    "QuotaRefused",
    "RecoveryReport",
    "Refusal",
    "Reservation",
    "Settlement",
]
