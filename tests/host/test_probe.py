"""Which probe this machine gets, and what every probe owes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from meshd.core.ports import HostProbe
from meshd.host.macos import MacProbe
from meshd.host.probe import PlainProbe, host_probe, settled_bytes


@pytest.mark.parametrize("probe", [host_probe(), PlainProbe(), MacProbe(lambda command: "")])
def test_every_probe_keeps_the_ports_promises(probe: HostProbe) -> None:
    """Facts and readings of sensible values, and never an error."""
    facts, reading = probe.facts(), probe.read()
    assert facts.cores >= 1
    assert facts.system
    assert facts.chip
    assert reading.memory_total_bytes >= reading.memory_available_bytes >= 0
    assert reading.pressure in {"normal", "warn", "critical"}


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc: needs Linux")
def test_what_this_process_has_taken_is_known() -> None:
    """More than nothing, less than the machine has; of a process that is gone, nothing."""
    taken = settled_bytes(os.getpid())
    assert taken is not None
    assert 0 < taken < host_probe().read().memory_total_bytes
    assert settled_bytes(2**22 + 1) is None
