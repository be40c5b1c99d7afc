"""One call to a plugin, as its caller sees it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from msgspec import Raw

from hybridd.contracts.protocol import CallError, CallResult, ProbeResult
from hybridd.errors import ProviderError

OnEvents = Callable[[list[Raw]], None]
Outcome = CallResult | ProbeResult


class CallFailed(ProviderError):
    """A call ended without an answer.

    ``error`` is the plugin's own :class:`CallError`, or ours when the plugin could not speak. ``owner_gone`` is None
    when the call has truly ended; otherwise a future resolved when nothing can reach the provider on its behalf any
    more: the late final answer came, or the plugin's process is proven dead.
    """

    code = "call_failed"

    def __init__(self, error: CallError, message: str, owner_gone: asyncio.Future[None] | None = None) -> None:
        retry_after = None if error.retry_after_ms is None else error.retry_after_ms / 1000
        super().__init__(message, param=error.param, retry_after=retry_after)
        self.error = error
        self.owner_gone = owner_gone


class CallOwner(Protocol):
    """The session's side of a call."""

    loop: asyncio.AbstractEventLoop

    def cancel_call(self, call: PluginCall, reason: str) -> None: ...

    def grant_credit(self, call: PluginCall, nbytes: int) -> None: ...


class InFlight(Protocol):
    """Counts open calls."""

    in_flight: int
    last_used: float


class PluginCall:
    """Created when its request was written. Ends exactly once.

    ``credit`` is what the plugin may still send, in bytes of events; ``seq`` the number its next chunk must have.
    """

    __slots__ = (
        "_callbacks",
        "_outcome",
        "_owner",
        "_waiter",
        "abandoned",
        "credit",
        "home",
        "id",
        "method",
        "on_events",
        "pending_grant",
        "provider",
        "seq",
    )

    def __init__(
        self,
        owner: CallOwner | None,
        id: int,
        provider: str,
        method: str,
        *,
        on_events: OnEvents | None = None,
        credit: int = 0,
    ) -> None:
        self.id = id
        self.provider = provider
        self.method = method
        self.on_events = on_events
        self.credit = credit
        self.pending_grant = 0
        self.seq = 0
        # The registry's entry that counts this call as in flight.
        self.home: InFlight | None = None
        # Set when the call was ended here while the plugin still owes its answer.
        self.abandoned: asyncio.Future[None] | None = None
        self._owner = owner
        self._outcome: Outcome | CallFailed | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._callbacks: list[Callable[[PluginCall], object]] = []

    def add_done_callback(self, callback: Callable[[PluginCall], object]) -> None:
        """Called at once when the outcome is in, synchronously, like ``on_events``."""
        if self._outcome is not None:
            callback(self)
        else:
            self._callbacks.append(callback)

    def done(self) -> bool:
        return self._outcome is not None

    def peek(self) -> Outcome | CallFailed | None:
        """The outcome if it is in."""
        return self._outcome

    async def outcome(self) -> Outcome:
        """The one final answer. May be awaited again after a cancellation; by one task at a time.

        Raises:
            CallFailed: the call failed, timed out, was cancelled, or its plugin was lost.
        """
        if self._outcome is None:
            assert self._owner is not None  # a call without a session has failed already
            # Not asyncio.get_running_loop(): on 3.11 that asks the kernel for the pid, 1.5 µs each time.
            self._waiter = self._owner.loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        outcome = self._outcome
        assert outcome is not None
        if isinstance(outcome, CallFailed):
            raise outcome
        return outcome

    async def result(self) -> CallResult:
        """:meth:`outcome` of ``generate``, ``embed`` and ``predict``."""
        outcome = await self.outcome()
        assert isinstance(outcome, CallResult)
        return outcome

    def cancel(self, reason: str) -> None:
        """Asks the plugin to stop. ``result`` still yields the one final answer, within ``Timing.cancel`` seconds."""
        if self._owner is not None and self._outcome is None:
            self._owner.cancel_call(self, reason)

    def grant(self, nbytes: int) -> None:
        """The client has taken ``nbytes`` of events: the plugin may send as many more."""
        if self._owner is not None and self._outcome is None and nbytes > 0:
            self._owner.grant_credit(self, nbytes)

    def end(self, outcome: Outcome | CallFailed) -> None:
        """The session's: stores the outcome; later ones are ignored."""
        if self._outcome is not None:
            return
        self._outcome = outcome
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        for callback in self._callbacks:
            callback(self)


def failed_call(provider: str, method: str, error: CallError, message: str) -> PluginCall:
    """A call that failed before anything was written."""
    call = PluginCall(None, 0, provider, method)
    call.end(CallFailed(error, message))
    return call
