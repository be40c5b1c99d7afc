"""One plugin connection, daemon side. Everything happens synchronously inside ``on_message``.

::

    connected ──initialize──► initialized ──register──► serving ──► lost
        └── 5 s without initialize, a violation, three missed heartbeats, EOF ──► lost

``lost`` is final: every open call ends at once. A plugin that breaks the protocol is dropped with a reason; it can
never raise into the daemon and never end a call twice.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

import msgspec
from msgspec import Raw

from hybridd.contracts import protocol as wire
from hybridd.deadlines import Deadlines
from hybridd.providers import messages
from hybridd.providers.calls import CallFailed, OnEvents, PluginCall, failed_call
from hybridd.providers.limits import RateCap
from hybridd.providers.link import Link, Peer, Timing
from hybridd.providers.messages import Refused, Violation, named
from hybridd.providers.watch import DeathWatch

if TYPE_CHECKING:
    from hybridd.providers.fleet import OwnedProcess
    from hybridd.providers.hub import Hub

logger = logging.getLogger("hybridd.providers")

MAX_BUFFERED = 64 * 1024 * 1024
MAX_NOTIFICATION_BYTES = 8 * 1024 * 1024
# Of what a plugin says for people: beyond these a second, `log` and `progress` are left out; a text is cut there.
TOLD_PER_SECOND = 200
TOLD_CHARACTERS = 2000
PROBE = "probe"
PING = "ping"
SHUTDOWN = "shutdown"


class Session:
    """One connection. Made by ``Hub.accept``; driven by the transport through ``on_message`` and ``on_lost``."""

    def __init__(self, hub: Hub, link: Link, peer: Peer, loop: asyncio.AbstractEventLoop, timing: Timing) -> None:
        self.peer = peer
        self.info: wire.PluginInfo | None = None
        self.instance_id = ""
        self.process: OwnedProcess | None = None
        self.death = DeathWatch(peer.pid, None)
        self.since = time.time()
        self.providers: set[str] = set()
        self.calls: dict[int, PluginCall] = {}
        self.degraded = ""
        self.closed = ""
        self.draining = False
        # Resolved when nothing can be sent by this plugin any more: its process is proven dead.
        self.owner_gone: asyncio.Future[None] = loop.create_future()
        self._hub = hub
        self._link = link
        self.loop = loop
        self._timing = timing
        self._next_id = 0
        self._misses = 0
        self._ping: PluginCall | None = None
        self._quiet: asyncio.Future[None] | None = None
        self._rate = RateCap(loop.time)
        self._told = RateCap(loop.time, TOLD_PER_SECOND)
        self._deadlines = Deadlines(loop)
        self._timer = loop.call_later(timing.initialize, self._initialize_overdue)

    @property
    def label(self) -> str:
        name = self.info.name if self.info is not None else "plugin"
        return f"{name} (pid {self.peer.pid})"

    # from the transport

    def on_message(self, data: bytes) -> None:
        if self.closed:
            return
        try:
            if not data.isascii():
                str(data, "utf-8")
            message = messages.envelope(data)
            if message.method is None:
                self._on_answer(message)
            else:
                self._on_plugin_message(message, len(data))
        except Violation as error:
            self.drop(str(error))
        except UnicodeDecodeError:
            self.drop("a message is not valid UTF-8")
        except (msgspec.MsgspecError, RecursionError) as error:
            self.drop(f"a message is not valid: {error}")

    def on_lost(self, reason: str) -> None:
        """The connection has ended; idempotent."""
        if self.closed:
            return
        self.closed = reason or "connection lost"
        self._timer.cancel()
        self._deadlines.close()
        self._hub.session_lost(self)
        calls, self.calls = self.calls, {}
        for call in calls.values():
            self._end_lost(call)

    # calls

    def start_call(
        self, provider: str, method: str, params: wire.Message, *, deadline: float, on_events: OnEvents | None
    ) -> PluginCall:
        """Writes the request. ``deadline`` is loop time."""
        if self.closed or self._link.buffered > MAX_BUFFERED:
            kind: wire.ErrorKind = "unavailable" if self.closed else "overloaded"
            reason = self.closed or "it does not take its input"
            return failed_call(provider, method, wire.CallError(kind=kind, sent="no"), f"{self.label}: {reason}")
        self._next_id += 1
        number = self._next_id
        credit = params.credit if isinstance(params, wire.Generate) else 0
        call = PluginCall(self, number, provider, method, on_events=on_events, credit=credit)
        self.calls[number] = call
        self._link.send(
            b'{"jsonrpc":"2.0","id":%d,"method":"%b","params":%b}'
            % (number, method.encode("ascii"), wire.encode(params))
        )
        self._deadlines.set(call, deadline + self._timing.deadline_grace, self._overdue, call)
        return call

    def cancel_call(self, call: PluginCall, reason: str) -> None:
        if call.done() or self.closed:
            return
        self._send_cancel(call, reason)
        error = wire.CallError(kind="cancelled", sent="maybe")
        late = f"cancelled: {reason}; the plugin did not answer in time"
        self._deadlines.set(call, self.loop.time() + self._timing.cancel, self._abandon, call, error, late)

    def grant_credit(self, call: PluginCall, nbytes: int) -> None:
        """Returned in steps of an eighth of the window: a credit for every chunk would double the messages."""
        call.pending_grant += nbytes
        if call.pending_grant >= wire.DEFAULT_CREDIT_BYTES // 8 or call.credit <= 0:
            amount, call.pending_grant = call.pending_grant, 0
            call.credit += amount
            self._notify("stream/credit", wire.Credit(id=call.id, bytes=amount))

    async def drained(self, deadline: float) -> None:
        """Waits until no call is open, up to ``deadline`` (loop time)."""
        while not self.closed and self._open_calls() and (left := deadline - self.loop.time()) > 0:
            self._quiet = self.loop.create_future()
            await asyncio.wait([self._quiet], timeout=left)

    def _open_calls(self) -> bool:
        return any(call.method not in (PING, SHUTDOWN) for call in self.calls.values())

    async def shutdown(self, grace: float) -> None:
        """Asks the plugin to end, waits up to ``grace`` seconds for its consent."""
        call = self.start_call(
            "",
            SHUTDOWN,
            wire.Shutdown(grace_ms=round(grace * 1000)),
            deadline=self.loop.time() + grace,
            on_events=None,
        )
        try:
            await call.outcome()
        except CallFailed as error:
            logger.debug("shutdown of %s was not confirmed: %s", self.label, error.message)

    def drop(self, reason: str) -> None:
        """Ends the connection because of the plugin."""
        if self.closed:
            return
        logger.warning("plugin %s dropped: %s", self.label, reason)
        self._hub.session_violated(self, reason)
        self._link.close(1008, reason)
        self.on_lost(reason)

    def close(self, reason: str) -> None:
        """Ends the connection because of us."""
        if not self.closed:
            self._link.close(1001, reason)
            self.on_lost(reason)

    def overdue_beat(self) -> None:
        """One heartbeat tick: counts the last ping if it is still unanswered, sends the next."""
        if self.closed:
            return
        timing = self._timing
        if self._ping is not None and not self._ping.done():
            self._misses += 1
            if self._misses >= timing.misses_drop:
                self.drop(f"{self._misses} heartbeats missed: its event loop does not turn")
                return
            if self._misses >= timing.misses_degrade:
                self._set_degraded(f"{self._misses} heartbeats missed")
        else:
            self._next_id += 1
            self._ping = self.calls[self._next_id] = PluginCall(self, self._next_id, "", PING)
            self._link.send(b'{"jsonrpc":"2.0","id":%d,"method":"ping","params":{}}' % self._next_id)
        self._timer = self.loop.call_later(timing.heartbeat, self.overdue_beat)

    # messages of the plugin

    def _on_answer(self, message: wire.Envelope) -> None:
        call = self.calls.pop(message.id, None) if isinstance(message.id, int) else None
        if call is None:
            raise Violation(f"an answer to the unknown or already answered request {message.id!r}")
        if (message.error is None) == (not message.result):
            self.calls[call.id] = call
            raise Violation(f"the answer to request {call.id} needs exactly one of result and error")
        try:
            outcome = self._outcome(call, message)
        except (msgspec.MsgspecError, RecursionError) as error:
            self.calls[call.id] = call
            raise Violation(f"the answer to request {call.id} ({call.method}) is not valid: {error}") from None
        self._finish(call, outcome)

    def _outcome(self, call: PluginCall, message: wire.Envelope) -> wire.CallResult | wire.ProbeResult | CallFailed:
        if message.error is not None:
            return CallFailed(messages.error_of(message.error), message.error.message[:2000])
        method = call.method
        if method == PROBE:
            return messages.probe_result(message.result)
        if method in (PING, SHUTDOWN):
            self._misses = 0
            self._set_degraded("")
            return wire.ProbeResult()
        return messages.result_of(call, message, self.label)

    def _on_plugin_message(self, message: wire.Envelope, size: int) -> None:
        method = message.method
        if method == "stream/chunk":
            self._on_chunk(messages.chunk(message.params))
            return
        if size > MAX_NOTIFICATION_BYTES:
            raise Violation(f"a {method} message of {size} bytes (at most {MAX_NOTIFICATION_BYTES})")
        if not self._rate.allow():
            raise Violation(f"more than {self._rate.per_second} messages in a second")
        if message.id is not None:
            if self._link.buffered > MAX_BUFFERED:
                raise Violation("it asks without taking the answers")
            self._on_request(message)
        elif self.info is None:
            raise Violation(f"{method} before initialize")
        elif method == "limits/observed":
            observed = messages.observed(message.params)
            if observed.provider not in self.providers:
                raise Violation(f"limits/observed for {observed.provider!r}, which it has not registered")
            self._hub.observed(observed.provider, observed.observations)
        elif method == "log":
            entry = messages.log(message.params)
            if self._told.allow():
                self._hub.plugin_log(self, entry)
        elif method == "progress":
            progress = messages.progress(message.params)
            if self._told.allow():
                self._hub.plugin_progress(self, progress)
        # An unknown notification is ignored: a newer plugin may say more than we know.

    def _on_request(self, message: wire.Envelope) -> None:
        try:
            if message.method == "initialize":
                answer: wire.Message = self._on_initialize(messages.initialize(message.params))
            elif self.info is None:
                raise Refused(wire.NOT_INITIALIZED, f"{named(message.method)} before initialize")
            elif message.method == "provider/register":
                answer = self._hub.register(self, messages.register(message.params))
            else:
                raise Refused(wire.METHOD_NOT_FOUND, f"unknown method {named(message.method)}", fatal=False)
        except msgspec.ValidationError as error:
            refusal = Refused(wire.INVALID_PARAMS, f"{message.method}: {error}", fatal=self.info is None)
            self._refuse(message.id, refusal)
        except Refused as refusal:
            self._refuse(message.id, refusal)
        else:
            self._link.send(b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (wire.encode(message.id), wire.encode(answer)))

    def _on_initialize(self, params: wire.Initialize) -> wire.InitializeResult:
        if self.info is not None:
            raise Refused(wire.INVALID_REQUEST, "initialize was already answered")
        chosen = next((version for version in wire.PROTOCOL_VERSIONS if version in params.protocol_versions), None)
        if chosen is None:
            supported = list(wire.PROTOCOL_VERSIONS)
            raise Refused(
                wire.UNSUPPORTED_VERSION,
                f"protocol versions {params.protocol_versions} are not supported; supported: {supported}",
                data={"supported": supported},
            )
        result = self._hub.initialize(self, params, chosen)
        self.info = params.plugin
        self.instance_id = params.instance_id
        self._timer.cancel()
        self._timer = self.loop.call_later(self._timing.heartbeat, self.overdue_beat)
        return result

    def _on_chunk(self, chunk: wire.Chunk) -> None:
        call = messages.judge_chunk(self.calls.get(chunk.id), chunk)
        if call.on_events is not None and not call.done():
            call.on_events(chunk.events)

    # endings

    def _finish(self, call: PluginCall, outcome: wire.CallResult | wire.ProbeResult | CallFailed) -> None:
        self._deadlines.cancel(call)
        call.end(outcome)
        if call.abandoned is not None and not call.abandoned.done():
            call.abandoned.set_result(None)
        if call.method not in (PING, SHUTDOWN):
            self._hub.call_ended(call, self.loop.time())
        if self._quiet is not None and not self._quiet.done() and not self._open_calls():
            self._quiet.set_result(None)

    def _overdue(self, call: PluginCall) -> None:
        if self.closed or call.done():
            return
        self._send_cancel(call, "deadline")
        self._abandon(call, wire.CallError(kind="timeout", sent="maybe"), "the plugin did not answer by the deadline")

    def _abandon(self, call: PluginCall, error: wire.CallError, message: str) -> None:
        """Ends the call for its caller while the plugin still owes the answer; it keeps its place until then."""
        if self.closed or call.done():
            return
        call.abandoned = self.loop.create_future()
        call.end(CallFailed(error, message, call.abandoned))
        reason = f"request {call.id} ({call.method}) was not answered within {self._timing.abandon:g} s of its cancel"
        self._deadlines.set(call, self.loop.time() + self._timing.abandon, self.drop, reason)

    def _end_lost(self, call: PluginCall) -> None:
        error = wire.CallError(kind="unavailable", sent="maybe")
        call.end(CallFailed(error, f"plugin {self.label} was lost: {self.closed}", self.owner_gone))
        if call.abandoned is not None:
            _follow(self.owner_gone, call.abandoned)
        if call.method not in (PING, SHUTDOWN):
            self._hub.call_ended(call, self.loop.time())
        if self._quiet is not None and not self._quiet.done() and not self._open_calls():
            self._quiet.set_result(None)

    def _initialize_overdue(self) -> None:
        self.drop(f"no initialize within {self._timing.initialize:g} s")

    def _set_degraded(self, reason: str) -> None:
        if reason != self.degraded:
            self.degraded = reason
            self._hub.session_changed(self)

    # sending

    def _send_cancel(self, call: PluginCall, reason: str) -> None:
        self._notify("cancel", wire.Cancel(id=call.id, reason=reason))

    def _notify(self, method: str, params: wire.Message) -> None:
        self._link.send(b'{"jsonrpc":"2.0","method":"%b","params":%b}' % (method.encode("ascii"), wire.encode(params)))

    def notify_raw(self, message: bytes) -> None:
        """Sends a message as it is (the conformance check's way to say things the protocol does not know)."""
        self._link.send(message)

    def _refuse(self, number: int | str | None, refusal: Refused) -> None:
        data = msgspec.UNSET if refusal.data is None else Raw(wire.encode(refusal.data))
        error = wire.RpcError(code=refusal.code, message=refusal.message, data=data)
        self._link.send(b'{"jsonrpc":"2.0","id":%b,"error":%b}' % (wire.encode(number), wire.encode(error)))
        if refusal.fatal:
            self.drop(refusal.message)


def _follow(source: asyncio.Future[None], target: asyncio.Future[None]) -> None:
    def copy(_: asyncio.Future[None]) -> None:
        if not target.done():
            target.set_result(None)

    source.add_done_callback(copy)
