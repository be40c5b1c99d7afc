"""What the ledger's tests share: quotas in one line, and a real ledger on a real database file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hybridd.bus import EventBus
from hybridd.clocks import ManualClock
from hybridd.contracts.protocol import Usage
from hybridd.contracts.quotas import Amounts, Price, Quota, Unit, Window
from hybridd.contracts.views import LimitView
from hybridd.ledger import Ending, Ledger, Reservation
from hybridd.store.database import Database

ONE = Amounts()
OK = Ending(kind="ok")
PRICE = Price(input_per_million=150_000, output_per_million=600_000)


def quota(unit: Unit, limit: int, window: str | None = None, zone: str = "UTC", **more: Any) -> Quota:
    parsed = Window.parse(window, zone) if window else Window()
    models = more.pop("models", None)
    return Quota("acc", unit, limit, parsed, models=frozenset(models) if models else None, provider="lab", **more)


class House:
    """A ledger, its database and its clock; ``restart`` opens them again on the same files."""

    def __init__(self, folder: Path, quotas: Sequence[Quota], clock: ManualClock | None = None) -> None:
        self.folder = folder
        self.clock = clock or ManualClock()
        self.bus = EventBus(self.clock)
        self.quotas = list(quotas)
        self._open()

    def _open(self) -> None:
        self.database = Database.open(self.folder, clock=self.clock)
        self.ledger = Ledger(self.database, self.clock, self.bus)

    async def start(self) -> House:
        self.ledger.configure(self.quotas)
        self.report = await self.ledger.recover()
        return self

    async def restart(self, quotas: Sequence[Quota] | None = None) -> None:
        self.database.close()
        if quotas is not None:
            self.quotas = list(quotas)
        self._open()
        await self.start()

    def close(self) -> None:
        self.database.close()

    def admit(self, amounts: Amounts = ONE, *, model: str = "m1", price: Price | None = PRICE, linger: float = 5.0,
              account: str = "acc") -> Reservation:  # fmt: skip
        return self.ledger.admit(
            request_id=self.ledger.new_request_id(), provider="lab", account=account, model=model, task="t",
            amounts=amounts, price=price, linger_seconds=linger,
        )  # fmt: skip

    async def sent(self, amounts: Amounts = ONE, **more: Any) -> Reservation:
        call = self.admit(amounts, **more)
        await self.ledger.dispatch(call)
        return call

    async def done(self, amounts: Amounts = ONE, usage: Usage | None = None, **more: Any) -> Reservation:
        call = await self.sent(amounts, **more)
        self.ledger.settle(call, Ending(kind="ok", usage=usage))
        return call

    def view(self, key_part: str = "") -> LimitView:
        (found,) = [view for view in self.ledger.limits() if key_part in view.key]
        return found

    async def row(self, call: Reservation) -> dict[str, Any]:
        await self.database.writer.barrier()

        def read(connection: Any) -> dict[str, Any]:
            cursor = connection.execute("SELECT * FROM calls WHERE id = ?", (call.id,))
            values = cursor.fetchone()
            return dict(zip([column[0] for column in cursor.description], values, strict=True)) if values else {}

        return await self.database.reader.run(read)

    def admitted(self, most: int = 1000, **more: Any) -> int:
        """How many are admitted one after the other before the first refusal (none is given back)."""
        from hybridd.ledger import QuotaRefused

        for count in range(most):
            try:
                self.admit(**more)
            except QuotaRefused:
                return count
        return most
