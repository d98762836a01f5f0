"""Which probe this machine gets, and what every probe owes."""

from __future__ import annotations

import pytest

from meshd.core.ports import HostProbe
from meshd.host.macos import MacProbe
from meshd.host.probe import PlainProbe, host_probe


@pytest.mark.parametrize("probe", [host_probe(), PlainProbe(), MacProbe(lambda command: "")])
def test_every_probe_keeps_the_ports_promises(probe: HostProbe) -> None:
    """Facts and readings of sensible values, and never an error."""
    facts, reading = probe.facts(), probe.read()
    assert facts.cores >= 1
    assert facts.system
    assert facts.chip
    assert reading.memory_total_bytes >= reading.memory_available_bytes >= 0
    assert reading.pressure in {"normal", "warn", "critical"}
