"""Claims of meshd.engine.child that need no model; the rest is shown in test_supervisor."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from meshd.engine.child import wants_to_run


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
