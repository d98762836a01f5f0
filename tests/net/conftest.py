"""What the network's tests share: a ZeroMQ context and its gatekeeper."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import zmq

from meshd.net.gatekeeper import Gatekeeper
from meshd.net.transport import DOMAIN


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    """A ZeroMQ context. What a failed test leaves open is closed, so that it does not hang."""
    made: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    yield made
    made.destroy(linger=0)


@pytest.fixture
def gatekeeper(context: zmq.Context[zmq.Socket[bytes]]) -> Iterator[Gatekeeper]:
    """A gatekeeper that admits whoever completes a handshake on the control domain."""
    made = Gatekeeper(context)
    made.policy(DOMAIN, lambda _: True)
    yield made
    made.close()
