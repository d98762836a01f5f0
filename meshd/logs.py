"""How the daemon's words look, and where they go.

The log goes to standard error. Where a person reads it, a line has a time and a level; with
`--log-format json`, whatever the daemon says is one JSON object a line, for collectors that give up
at the first line that is none: the endpoint and a start that failed, too.

Under systemd a level stands in front of a line, as sd-daemon(3) wants it. journald takes it off and
keeps it, so that `journalctl --priority warning` finds what it should.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Mapping

JSON = "json"

PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3}
"""Levels as syslog numbers them; what is worse than an error is 2."""


def log_to_stderr(log_format: str) -> None:
    """Write the log from now on."""
    handler = logging.StreamHandler(sys.stderr)
    lines: logging.Formatter = TextLines("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S")
    if log_format == JSON:
        lines = JsonLines()
    handler.setFormatter(Prioritised(lines) if goes_to_journal(os.environ) else lines)
    logging.basicConfig(level=logging.INFO, handlers=[handler])


def goes_to_journal(env: Mapping[str, str]) -> bool:
    """Whether standard error is the journal's own, as systemd.exec(5) tells it."""
    try:
        stream = os.fstat(2)
    except OSError:
        return False
    return env.get("JOURNAL_STREAM") == f"{stream.st_dev}:{stream.st_ino}"


class TextLines(logging.Formatter):
    """One line for each message. Whoever asks names the model, and could name it after a line of
    the log, or steer the terminal that shows it: what cannot be printed is written out."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        line = super().formatMessage(record)
        if line.isprintable():
            return line
        return "".join(x if x.isprintable() else ascii(x)[1:-1] for x in line)


class JsonLines(logging.Formatter):
    """One JSON object a line, for log collectors."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        entry |= getattr(record, "request", {})
        if record.exc_info:
            entry["error"] = self.formatException(record.exc_info)
        return json.dumps(entry)


class Prioritised(logging.Formatter):
    """Another format's lines, each with its level in front."""

    def __init__(self, lines: logging.Formatter) -> None:
        super().__init__()
        self._lines = lines

    def format(self, record: logging.LogRecord) -> str:
        mark = f"<{PRIORITIES.get(record.levelno, 2)}>"
        return "\n".join(mark + line for line in self._lines.format(record).splitlines())
