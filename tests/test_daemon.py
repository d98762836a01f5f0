"""Claims of meshd.daemon: what its log looks like."""

from __future__ import annotations

import logging

from meshd.daemon import _TextLines


def written(message: str, *args: object) -> str:
    """One message as the log has it."""
    record = logging.makeLogRecord({"levelname": "INFO", "msg": message, "args": args})
    return _TextLines("%(levelname)s %(message)s").format(record)


def test_a_name_cannot_write_a_line_of_the_log() -> None:
    """Nor steer the terminal that shows it; what can be printed stays as it is."""
    assert written("for %s", "x\nERROR: no\x1b[31m") == r"INFO for x\nERROR: no\x1b[31m"
    assert written("for %s", "Küche 🦙") == "INFO for Küche 🦙"
