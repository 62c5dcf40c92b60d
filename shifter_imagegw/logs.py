# SPDX-License-Identifier: BSD-3-Clause
"""Logs go to standard error: text on a terminal, one JSON object per line otherwise (docs/gateway-operation.md).

A record may carry further fields: ``log.info("...", extra={"fields": {"uid": 1000}})``.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any

_LEVELS = {"warn": "WARNING"}
# What a client or a registry sends must neither start a line of its own nor command a terminal.
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}


def configure_logging(level: str | None, *, replace: bool = True) -> None:
    """Set up the root logger; ``level`` as in ``LogLevel``, None means info.

    Without ``replace`` whoever has set up logging before (a site's own server) keeps it.
    """
    root = logging.getLogger()
    if root.handlers and not replace:
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(TextFormatter() if sys.stderr.isatty() else JsonFormatter())
    root.handlers[:] = [handler]
    name = (level or "info").upper()
    root.setLevel(_LEVELS.get(name.lower(), name))
    # One line per connection to a registry says nothing that our own lines do not.
    logging.getLogger("urllib3").setLevel(logging.WARNING)
    # A reader of the log that goes away must not end in a trace per record.
    logging.raiseExceptions = False


class JsonFormatter(logging.Formatter):
    """One object per line: time (UTC), level, logger, process, message, the record's fields, exception."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": f"{_time(record, '%Y-%m-%dT%H:%M:%S')}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "process": record.process,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


class TextFormatter(logging.Formatter):
    """For people: time, level, logger, message, fields; a trace below it."""

    def format(self, record: logging.LogRecord) -> str:
        fields = "".join(f" {name}={value}" for name, value in _fields(record).items())
        message = f"{record.getMessage()}{fields}".translate(_CONTROLS)
        line = f"{_time(record, '%H:%M:%S')} {record.levelname.lower():8} {record.name}: {message}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _time(record: logging.LogRecord, form: str) -> str:
    return time.strftime(form, time.gmtime(record.created))


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    return dict(getattr(record, "fields", None) or {})
