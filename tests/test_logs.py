"""Claims of meshd.logs: what the daemon's words look like."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from meshd.logs import JsonLines, Prioritised, TextLines, goes_to_journal


def written(message: str, *args: object) -> str:
    """One message as the log has it."""
    record = logging.makeLogRecord({"levelname": "INFO", "msg": message, "args": args})
    return TextLines("%(levelname)s %(message)s").format(record)


def test_a_name_cannot_write_a_line_of_the_log() -> None:
    """Nor steer the terminal that shows it; what can be printed stays as it is."""
    assert written("for %s", "x\nERROR: no\x1b[31m") == r"INFO for x\nERROR: no\x1b[31m"
    assert written("for %s", "Küche 🦙") == "INFO for Küche 🦙"


@pytest.mark.parametrize(
    ("level", "mark"),
    [(logging.INFO, "<6>"), (logging.WARNING, "<4>"), (logging.ERROR, "<3>"), (60, "<2>")],
)
def test_journald_is_told_each_lines_level(level: int, mark: str) -> None:
    """In front of it, where journald takes it off; else all would be of one level."""
    record = logging.makeLogRecord({"levelno": level, "levelname": "X", "msg": "so"})
    line = Prioritised(JsonLines()).format(record)
    assert line.startswith(mark)
    assert json.loads(line.removeprefix(mark))["message"] == "so"


def test_only_the_journals_own_stream_gets_levels() -> None:
    """systemd names the stream; standard error may be another one by now."""
    stream = os.fstat(2)
    here = f"{stream.st_dev}:{stream.st_ino}"
    found = [goes_to_journal(env) for env in ({"JOURNAL_STREAM": here}, {"JOURNAL_STREAM": "1:2"})]
    assert [*found, goes_to_journal({})] == [True, False, False]


@pytest.mark.parametrize(
    ("words", "code"), [(("--name", "a b"), 2), (("--state-dir", "/proc/none"), 1)]
)
def test_a_start_that_failed_is_json_where_the_log_is(
    tmp_path: Path, words: tuple[str, ...], code: int
) -> None:
    """A collector that reads JSON lines shows why the service does not start."""
    flags = ("--state-dir", str(tmp_path), "--log-format", "json", *words)
    done = subprocess.run(
        [sys.executable, "-m", "meshd", "run", *flags], capture_output=True, text=True, check=False
    )
    said = json.loads(done.stderr)
    assert (done.returncode, done.stdout, said["level"]) == (code, "", "error")
    assert words[1] in said["message"]
