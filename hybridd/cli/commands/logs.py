"""``hybridd logs``"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import click

from hybridd.cli import diagnostics, output, text
from hybridd.cli.options import command, period_options, socket_option
from hybridd.client import wire
from hybridd.client.stdlib import Api
from hybridd.errors import DaemonUnreachable
from hybridd.i18n import _, ngettext

LEVELS = ("debug", "info", "warning", "error", "critical")
MOST = 1000
_STYLES: dict[str, dict[str, Any]] = {
    "debug": {"dim": True}, "warning": {"fg": "yellow"}, "error": {"fg": "red"},
    "critical": {"fg": "red", "bold": True},
}  # fmt: skip


@command("hybridd logs --level warning --since 1h", "hybridd logs --component hybridd.plugin --follow")
@click.option("--level", type=click.Choice(LEVELS), help="Only this level and worse.")
@click.option("--component", metavar="NAME", help="Only what this logger and those below it say: hybridd.plugin.groq.")
@click.option("--grep", metavar="TEXT", help="Only with this text in it, in any case.")
@click.option("--limit", type=click.IntRange(1, MOST), default=100, show_default=True, help="The newest so many.")
@click.option("-f", "--follow", is_flag=True, help="Then everything that is logged, until interrupted.")
@period_options
@socket_option
def cli(
    api: Api,
    as_json: bool,
    level: str | None,
    component: str | None,
    grep: str | None,
    limit: int,
    follow: bool,
    since: float | None,
    until: float | None,
) -> None:
    """What the daemon has logged since it started, newest last. Keys are taken out. The daemon keeps the newest 2,000
    records, 2 MiB at most; all of them stand in its journal or wherever its standard error goes."""
    if follow and until is not None:
        raise click.UsageError(_("--follow has no end: leave --until out"))
    asked = {"level": level, "component": component, "contains": grep, "since": since, "until": until}
    if follow:
        _follow(api, asked, limit, as_json)
        return
    page = api.send(wire.get("/v1/logs", **asked, limit=limit))
    if as_json:
        output.emit_json(page)
        return
    if not page["logs"]:
        output.emit(_("No record matches.") if page["kept"] else _("Nothing was logged yet."))
    for record in reversed(page["logs"]):
        _show(record)
    if page["next"] is not None:
        diagnostics.note(_("older ones: --limit, or --until {time}").format(time=_time(page["logs"][-1]["at"])))
    if page["lost"]:
        lost = ngettext(
            "{count} older record is no longer kept", "{count} older records are no longer kept", page["lost"]
        )
        diagnostics.note(lost.format(count=f"{page['lost']:,}"))


def _follow(api: Api, asked: dict[str, Any], limit: int, as_json: bool) -> None:
    """The stream is opened before the page is asked for, so that nothing falls between the two.

    Raises:
        DaemonUnreachable: the daemon has ended the stream.
    """
    with api.open(wire.get("/v1/events", kinds=["log"]), timeout=None) as response:
        page = api.send(wire.get("/v1/logs", **asked, limit=limit))
        told = 0
        for record in _records(api, asked, reversed(page["logs"]), response.json_lines()):
            if record["id"] <= told:
                continue
            told = record["id"]
            if as_json:
                sys.stdout.write(json.dumps(record, ensure_ascii=not text.utf8()) + "\n")
            else:
                _show(record)
            sys.stdout.flush()


def _records(api: Api, asked: dict[str, Any], first: Iterator[Any], events: Iterator[Any]) -> Iterator[dict[str, Any]]:
    import msgspec

    from hybridd.contracts.views import LogView
    from hybridd.logs.ring import Wanted

    wanted = Wanted(asked["level"], asked["component"], asked["contains"], asked["since"])
    yield from first
    reason = "the daemon ended the stream"
    for event in events:
        data = event["data"]
        if event["kind"] == "dropped":
            reason = data["reason"]
        elif event["kind"] == "log" and "left_out" in data:
            yield from _left_out(api, asked, data)
        elif event["kind"] == "log" and wanted.fits(msgspec.convert(data, LogView)):
            yield data
    raise DaemonUnreachable(f"{reason}; nothing more is logged to this command")


def _left_out(api: Api, asked: dict[str, Any], gap: dict[str, int]) -> list[dict[str, Any]]:
    """What came too fast to be told, as far as it is still kept, oldest first."""
    found: list[dict[str, Any]] = []
    before: int | None = gap["last"] + 1
    while before is not None:
        page = api.send(wire.get("/v1/logs", **asked, before=before, limit=MOST))
        found += [one for one in page["logs"] if one["id"] >= gap["first"]]
        before = page["next"] if page["next"] is not None and page["next"] > gap["first"] else None
    gone = min(gap["left_out"], max(0, (page["first"] or 0) - gap["first"]))
    if gone:
        said = ngettext("{count} record came too fast to be kept", "{count} records came too fast to be kept", gone)
        diagnostics.note(said.format(count=f"{gone:,}"))
    return found[::-1]


def _time(at: float) -> str:
    return datetime.fromtimestamp(at).isoformat(timespec="milliseconds")


def _show(record: dict[str, Any]) -> None:
    """``time LEVEL component: message fields``, and the trace below it."""
    named = {name: record[name] for name in ("provider", "model", "request") if record[name] is not None}
    fields = "".join(f" {name}={_value(value)}" for name, value in {**named, **record["fields"]}.items())
    level = output.styled(f"{record['level']:<8}", **_STYLES.get(record["level"], {}))
    head = text.clean(f"{record['component']}: {record['message']}{fields}").replace("\n", "\n    ")
    output.emit_styled(f"{_time(record['at'])} {level} {head}")
    for line in (record["exception"] or "").splitlines():
        output.emit(f"    {line}")


def _value(value: Any) -> str:
    written = value if isinstance(value, str) else json.dumps(value, ensure_ascii=not text.utf8())
    return json.dumps(written, ensure_ascii=not text.utf8()) if isinstance(value, str) and " " in value else written
