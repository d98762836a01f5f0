"""Claims of meshd.engine.child that need no model; the rest is shown in test_supervisor."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from meshd.engine import frames
from meshd.engine.child import WorkerProcess, wants_to_run


@pytest.mark.asyncio
async def test_an_assertion_that_fails_is_the_reason_that_is_kept(monkeypatch):
    """Not the last words of the debugger that ggml would run."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    process = WorkerProcess(lambda _frame: None, "tests.engine.aborting")
    why = await process.run(frames.frame(frames.CANCEL, 0))
    assert why == "it was killed by SIGABRT: odd.cpp:7: GGML_ASSERT(it is even) failed"


@pytest.mark.asyncio
async def test_what_lies_where_the_daemon_was_started_is_no_module_of_a_worker(
    tmp_path, monkeypatch
):
    """Who may write to that folder could else run a program as the daemon's owner."""
    (tmp_path / "strange.py").write_text("raise SystemExit('this was run')")
    monkeypatch.chdir(tmp_path)
    process = WorkerProcess(lambda _frame: None, "strange")
    assert "No module named strange" in await process.run(frames.frame(frames.CANCEL, 0))


def test_a_process_that_works_wants_to_run():
    """As this one does now."""
    assert wants_to_run(os.getpid())


def test_a_stopped_process_does_not_want_to_run():
    """Nor one that is gone: neither is merely waiting for a processor."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED)
        assert not wants_to_run(process.pid)
        process.kill()
    assert not wants_to_run(process.pid)
