"""For all tests of the gateway: nobody waits long for nodes that stay away."""

import pytest

from meshd.gateway import beginning


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Half a second, for those who come back, and three looks."""
    monkeypatch.setattr(beginning, "COMEBACK_WAIT_S", 0.5)
    monkeypatch.setattr(beginning, "COMEBACK_LOOK_S", 0.15)
