"""The one owner of stderr and of exit codes. stdout is data, and only data.

Every ending of the command line goes through :func:`run`: errors become one sentence on stderr (with ``--json`` one
JSON object) and an exit code of :mod:`hybridd.errors`.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

import click

from hybridd import errors
from hybridd.i18n import _


def note(text: str) -> None:
    """A remark for the person in front of the terminal."""
    print(text, file=sys.stderr, flush=True)


def run(program: Callable[[list[str]], object], arguments: list[str]) -> int:
    """Run the command line and return its exit code."""
    as_json = "--json" in arguments
    _prepare_streams()
    try:
        result = program(arguments)
        sys.stdout.flush()
    except errors.HybriddError as error:
        return _report(error, as_json)
    except click.exceptions.Exit as ending:
        return ending.exit_code
    except click.ClickException as error:
        return _report_usage(error, as_json)
    except (KeyboardInterrupt, click.Abort):
        return errors.EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader has seen enough (`| head`). Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return errors.EXIT_OK
    except Exception as error:  # noqa: BLE001  # the last line of defence of a program: say it plainly and fail
        return _report_unexpected(error)
    return result if isinstance(result, int) else errors.EXIT_OK


def _prepare_streams() -> None:
    """Text that the locale's encoding cannot show must not end a command half-way."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")


def _report(error: errors.HybriddError, as_json: bool) -> int:
    if as_json:
        body = error.to_body()
        if error.retry_after is not None:
            body["error"]["retry_after"] = error.retry_after
        note(json.dumps(body, ensure_ascii=False))
        return error.exit_code
    reasons = rejections(error.details) if isinstance(error, errors.NoFeasibleProvider) else []
    # The message of such an error goes on with the reasons themselves; here each gets its own line.
    head = error.message.partition(f" {reasons[0]}")[0] if reasons else error.message
    note(f"{_('error:')} {head}")
    for line in reasons:
        note(f"  {line}")
    if error.retry_after is not None:
        note("  " + _("trying again can help in {seconds} s").format(seconds=f"{error.retry_after:g}"))
    if error.request_id is not None:
        note(f"  {_('explained by:')} hybridd why {error.request_id}")
    return error.exit_code


def rejections(details: Any) -> list[str]:
    """``candidate: reason`` for each rejected candidate."""
    if not isinstance(details, list):
        return []
    return [f"{one.get('candidate')}: {one.get('reason')}" for one in details if isinstance(one, dict)]


def _report_usage(error: click.ClickException, as_json: bool) -> int:
    message = error.format_message()
    if as_json:
        body = {"error": {"message": message, "type": "invalid_request_error", "code": "usage", "param": None}}
        note(json.dumps(body, ensure_ascii=False))
    else:
        note(f"{_('error:')} {message}")
        context = getattr(error, "ctx", None)
        if context is not None:
            note(f"  {_('see:')} {context.command_path} --help")
    return errors.EXIT_USAGE


def _report_unexpected(error: Exception) -> int:
    if os.environ.get("HYBRIDD_DEBUG"):
        note("".join(traceback.format_exception(error)).rstrip())
    else:
        failed = _("unexpected error: {error} (HYBRIDD_DEBUG=1 shows where)")
        note(failed.format(error=f"{type(error).__name__}: {error}"))
    return errors.EXIT_FAILURE
