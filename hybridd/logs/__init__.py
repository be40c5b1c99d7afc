"""Logging: structlog on standard error, one line per request in ``logs/ml_usage.log``, one per alert change in
``logs/ml_alerts.log``. Everything passes the redactor (:mod:`hybridd.logs.redactor`) and leaves through threads
(:mod:`hybridd.logs.sinks`), so neither a key nor a slow disk gets through. The newest records stay in memory
(:mod:`hybridd.logs.ring`) for whoever asks the daemon for them.

Importing this package costs a few milliseconds; structlog is loaded by :func:`configure` and :func:`get_logger`.

    from hybridd import logs
    logs.configure(level="info")
    log = logs.get_logger("hybridd.daemon")
    log.info("ready", socket=path)
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any

import msgspec

from hybridd import locations
from hybridd.contracts.views import LEVELS
from hybridd.logs import redactor as _redactor
from hybridd.logs.notify import Notifier
from hybridd.logs.redactor import forget_secrets, redact, redact_value, register_secret
from hybridd.logs.ring import Ring
from hybridd.logs.sinks import RotatingFile, Sink, Stream

if TYPE_CHECKING:
    from structlog.stdlib import BoundLogger

__all__ = [
    "LEVELS", "Notifier", "alert", "close", "configure", "dropped", "forget_secrets", "get_logger", "level", "notify",
    "redact", "redact_value", "register_secret", "ring", "set_level", "usage",
]  # fmt: skip

_FLAT = frozenset({str, int, float, bool, type(None)})
USAGE_PATH = "logs/ml_usage.log"
ALERTS_PATH = "logs/ml_alerts.log"
# They log every job and every connection at INFO; what they have to say starts at WARNING.
_QUIET = ("apscheduler", "websockets", "asyncio", "httpx", "httpcore")

_encoder = msgspec.json.Encoder(enc_hook=repr)
ring = Ring()
"""What this process has logged lately; filled while logging is configured."""


class _State:
    console: Sink | None = None
    usage: Sink | None = None
    alerts: Sink | None = None
    handler: logging.Handler | None = None
    displaced: tuple[logging.Handler, ...] = ()
    hooks: tuple[Any, Any] | None = None


def configure(
    level: str = "info",
    json: bool | None = None,
    usage_path: str | Path | None = USAGE_PATH,
    alerts_path: str | Path | None = ALERTS_PATH,
    *,
    fd: int = 2,
    max_bytes: int = 10 * 1024 * 1024,
    backups: int = 5,
) -> None:
    """Set up logging for this process; a second call replaces the first.

    Args:
        level: a name of :data:`LEVELS`.
        json: JSON lines (True), coloured console lines (False), or by what standard error is (None).
        usage_path, alerts_path: relative ones resolve like the configuration's; None writes no file.
        fd: the file descriptor lines go to (standard error).
        max_bytes, backups: rotation of the two files.

    Raises:
        ValueError: an unknown level.
    """
    if level not in LEVELS:
        raise ValueError(f"log level {level!r} is not one of {', '.join(LEVELS)}")
    close()
    as_json = not os.isatty(fd) if json is None else json
    _State.console = Sink("stderr", Stream(fd), _line, notice=_notice_text(as_json))
    if usage_path is not None:
        _State.usage = _record_sink("ml_usage", Path(usage_path), max_bytes, backups)
    if alerts_path is not None:
        _State.alerts = _record_sink("ml_alerts", Path(alerts_path), max_bytes, backups)
    _route(level, as_json)
    _State.hooks = (sys.excepthook, threading.excepthook)
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread
    atexit.register(close)


def get_logger(name: str = "hybridd", **bound: Any) -> BoundLogger:
    """A structlog logger. Fields go as keyword arguments: ``log.info("plugin started", pid=12)``."""
    logger: BoundLogger = _load_structlog().stdlib.get_logger(name, **bound)
    return logger


def set_level(level: str) -> None:
    """Change the level of a running process."""
    logging.getLogger().setLevel(LEVELS[level])


def level() -> str:
    """The level of this process: less is not written."""
    number = logging.getLogger().level
    return max((name for name in LEVELS if LEVELS[name] <= number), key=LEVELS.__getitem__, default="debug")


def usage(record: Mapping[str, Any] | msgspec.Struct | Callable[[], Mapping[str, Any]]) -> None:
    """One finished request for ``ml_usage.log``. The record is made (when it is a function) and encoded later, in the
    log's thread: do not change it."""
    if _State.usage is not None:
        _State.usage.put(record)


def alert(record: Mapping[str, Any] | msgspec.Struct) -> None:
    """One alert change for ``ml_alerts.log``. As :func:`usage`."""
    if _State.alerts is not None:
        _State.alerts.put(record)


def notify(message: str) -> bool:
    """One sd_notify message (``READY=1``, ``STOPPING=1``); False, and nothing else, outside systemd."""
    return Notifier.from_environment().send(message)


def dropped() -> dict[str, int]:
    """Lines lost since :func:`configure`, by sink (shown by the status)."""
    sinks = (_State.console, _State.usage, _State.alerts)
    return {sink.name: sink.dropped for sink in sinks if sink is not None}


def close(timeout: float = 2.0) -> None:
    """Write what is queued, stop the threads and undo :func:`configure`. Safe to call twice."""
    root = logging.getLogger()
    if _State.handler is not None:
        root.handlers[:] = _State.displaced
        _State.handler, _State.displaced = None, ()
        logging.captureWarnings(False)
    if _State.hooks is not None:
        sys.excepthook, threading.excepthook = _State.hooks
        _State.hooks = None
    for sink in (_State.usage, _State.alerts, _State.console):
        if sink is not None:
            sink.close(timeout)
    _State.usage = _State.alerts = _State.console = None
    atexit.unregister(close)


def _load_structlog() -> ModuleType:
    """structlog without rich: with it the import takes 48 ms and 7 MiB instead of 17 ms and 2 MiB, for tracebacks with
    local variables in them, which is what must never be logged."""
    if "structlog" not in sys.modules and "rich" not in sys.modules:
        sys.modules["rich"] = None  # type: ignore[assignment]  # the documented way to make an import fail
        try:
            import structlog
        finally:
            del sys.modules["rich"]
    import structlog

    return structlog


def _route(level: str, as_json: bool) -> None:
    structlog = _load_structlog()
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
        structlog.processors.StackInfoRenderer(),
    ]
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    renderer: Any
    if as_json:
        renderer = structlog.processors.JSONRenderer(serializer=lambda event, **_: _encoder.encode(event).decode())
    else:
        renderer = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    plain_traceback = structlog.processors.format_exc_info  # without local variables
    handler = _QueueHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                plain_traceback,
                _redact_event,
                _keep_event,
                renderer,
            ],
        )
    )
    _State.handler = handler
    root = logging.getLogger()
    # Alone: any other handler would render the raw record, keys included.
    _State.displaced = tuple(root.handlers)
    root.handlers[:] = [handler]
    root.setLevel(LEVELS[level])
    logging.captureWarnings(True)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.asgi", "uvicorn.access", *_QUIET):
        library = logging.getLogger(name)
        library.handlers.clear()
        library.propagate = name != "uvicorn.access"
        if name in _QUIET:
            library.setLevel(logging.WARNING)


class _QueueHandler(logging.Handler):
    """Renders in the calling thread (the event may change later) and hands the line to the sink."""

    def emit(self, record: logging.LogRecord) -> None:
        sink = _State.console
        if sink is None:
            return
        try:
            line = self.format(record)
        except Exception as error:  # noqa: BLE001  # a log call must never fail its caller, nor print the raw record
            line = f'{{"event":"log_line_lost","logger":"{record.name}","reason":"{type(error).__name__}"}}'
        sink.put(line)


def _redact_event(_logger: Any, _method: str, event: dict[str, Any]) -> dict[str, Any]:
    """The redactor as a structlog processor: last before the renderer, so that nothing is added after it."""
    masked: dict[str, Any] = _redactor.redact_value(event)
    # The same order in every line, for people who read them.
    return {name: masked.pop(name) for name in ("at", "level", "event", "logger") if name in masked} | masked


def _keep_event(_logger: Any, _method: str, event: dict[str, Any]) -> dict[str, Any]:
    """Behind the redactor: what is kept in memory is what is written, and no more."""
    ring.keep(event)
    return event


def _record_sink(name: str, path: Path, max_bytes: int, backups: int) -> Sink:
    file = RotatingFile(locations.resolve(path), max_bytes=max_bytes, backups=backups)
    records = _Records()
    return Sink(name, file, records.line, guard=records.guard, notice=_notice_record, on_trouble=_report_trouble)


class _Records:
    """Renders the records of one log and keeps keys out of it.

    Looks for keys once in all the texts of a write, each distinct one once: forty searches in each line cost more than
    everything else, and what differs from line to line are figures and the request's own id.
    """

    def __init__(self) -> None:
        self._texts: set[str] = set()

    def line(self, record: Any) -> bytes:
        if callable(record):
            record = record()
        line = _encoder.encode(record) + b"\n"
        if type(record) is dict and all(type(value) in _FLAT for value in record.values()):
            self._texts.update(record)
            self._texts.update([value for name, value in record.items() if type(value) is str and name != "id"])
        else:
            self._texts.add(line.decode())
        return line

    def guard(self, lines: list[bytes]) -> list[bytes]:
        texts, self._texts = self._texts, set()
        if not _redactor.suspicious("\n".join(texts)):
            return lines
        return [_guarded(line) for line in lines]


def _guarded(line: bytes) -> bytes:
    if not _redactor.suspicious(line.decode()):
        return line
    return _encoder.encode(_redactor.redact_value(msgspec.json.decode(line))) + b"\n"


def _line(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace") + b"\n"


def _notice_record(name: str, count: int) -> dict[str, Any]:
    return {"event": "log_lines_lost", "log": name, "count": count}


def _notice_text(as_json: bool) -> Any:
    def notice(name: str, count: int) -> str:
        if as_json:
            return _encoder.encode(_notice_record(name, count)).decode()
        return f"log lines lost: {count} (the reader of {name} was too slow)"

    return notice


def _report_trouble(reason: str) -> None:
    get_logger("hybridd.logs").warning("a log file cannot be written; its lines are lost until it can", reason=reason)


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    get_logger("hybridd").critical("uncaught exception", exc_info=(kind, error, trace))


def _uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_type is SystemExit or args.exc_value is None:
        return
    name = args.thread.name if args.thread else "?"
    trouble = (args.exc_type, args.exc_value, args.exc_traceback)
    get_logger("hybridd").critical("uncaught exception in a thread", thread=name, exc_info=trouble)
