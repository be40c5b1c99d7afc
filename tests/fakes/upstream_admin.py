"""The admin interface on the fake upstream's own port: script, log, counts, statistics, waiting without sleeping."""

from __future__ import annotations

import asyncio
from decimal import InvalidOperation
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import msgspec

from tests.fakes.upstream_answers import error_body
from tests.fakes.upstream_behaviour import BadScript, Rule, parse_rules
from tests.fakes.upstream_log import ArrivalLog, max_in_window, window_ns

if TYPE_CHECKING:
    from tests.fakes.upstream_state import Upstream

ADMIN_PREFIX = "/__"


class RuleState(msgspec.Struct, kw_only=True):
    """A rule of the script and what became of it; `left` is None for a rule without end."""

    rule: Rule
    hits: int
    left: int | None


class Count(msgspec.Struct, kw_only=True):
    """`max` arrivals in the fullest window of `window_s` seconds, of `total` since the log was cleared."""

    window_s: float
    max: int
    total: int


class Stats(msgspec.Struct, kw_only=True):
    """Connections that have carried a request (administration aside), and requests in progress."""

    open_connections: int
    max_open_connections: int
    total_connections: int
    active: int
    max_active: int
    arrivals: int
    finished: int


class Waiter:
    """Somebody waits until so many requests have arrived and so many have ended since the log was cleared."""

    def __init__(self, arrivals: int, finished: int, timeout_s: float) -> None:
        loop = asyncio.get_running_loop()
        self.arrivals = arrivals
        self.finished = finished
        self.future: asyncio.Future[bool] = loop.create_future()
        timer = loop.call_later(timeout_s, self._settle, False)
        self.future.add_done_callback(lambda _: timer.cancel())

    def look(self, log: ArrivalLog) -> None:
        if len(log) >= self.arrivals and log.finished >= self.finished:
            self._settle(True)

    def _settle(self, reached: bool) -> None:
        if not self.future.done():
            self.future.set_result(reached)


def wait(upstream: Upstream, *, arrivals: int = 0, finished: int = 0, timeout_s: float = 5) -> asyncio.Future[bool]:
    """Done with True when both numbers are reached, with False after `timeout_s`."""
    waiter = Waiter(arrivals, finished, timeout_s)
    upstream.waiters.append(waiter)
    upstream.notify()
    return waiter.future


def count(
    upstream: Upstream,
    window_s: float | str,
    *,
    model: str | None = None,
    path: str | None = None,
    method: str | None = None,
) -> Count:
    times = upstream.log.times(model=model, path=path, method=method)
    return Count(window_s=float(window_s), max=max_in_window(times, window_ns(window_s)), total=len(times))


def stats(upstream: Upstream) -> Stats:
    return Stats(
        open_connections=upstream.open_connections,
        max_open_connections=upstream.max_open_connections,
        total_connections=upstream.total_connections,
        active=upstream.active,
        max_active=upstream.max_active,
        arrivals=len(upstream.log),
        finished=upstream.log.finished,
    )


def script(upstream: Upstream) -> list[RuleState]:
    return [RuleState(rule=active.rule, hits=active.hits, left=active.left) for active in upstream.rules]


def administer(
    upstream: Upstream, method: str, path: str, query: str, body: bytes
) -> tuple[int, bytes] | asyncio.Future[bool]:
    """Status and JSON body of an admin request, or a future of `wait`."""
    asked = {name: values[-1] for name, values in parse_qs(query).items()}
    try:
        match method, path:
            case "POST", "/__script":
                rules = parse_rules(body)
                upstream.set_rules(rules, append=asked.get("append") == "1")
                return _ok({"rules": len(upstream.rules)})
            case "GET", "/__script":
                return _ok(script(upstream))
            case "DELETE", "/__script":
                upstream.set_rules([])
                return _ok({"rules": 0})
            case "GET", "/__log":
                limit = int(asked["limit"]) if "limit" in asked else None
                after = int(asked.get("after", 0))
                return _ok(list(upstream.log.rows(bodies=asked.get("bodies") == "1", after=after, limit=limit)))
            case "DELETE", "/__log":
                upstream.clear_log()
                return _ok({"arrivals": 0})
            case "GET", "/__count":
                chosen = {name: asked.get(name) for name in ("model", "path", "method")}
                return _ok(count(upstream, asked["window"], **chosen))
            case "GET", "/__stats":
                return _ok(stats(upstream))
            case "GET", "/__wait":
                return wait(
                    upstream,
                    arrivals=int(asked.get("arrivals", 0)),
                    finished=int(asked.get("finished", 0)),
                    timeout_s=float(asked.get("timeout", 5)),
                )
    except BadScript as error:
        return 400, error_body(str(error), code="bad_script")
    except KeyError as error:
        return 400, error_body(f"the parameter {error.args[0]!r} is missing", code="bad_parameter")
    except (ValueError, InvalidOperation) as error:
        return 400, error_body(f"a parameter is not a number: {error}", code="bad_parameter")
    return 404, error_body(f"no admin request {method} {path}", code="unknown_url")


def _ok(value: Any) -> tuple[int, bytes]:
    return 200, msgspec.json.encode(value)
