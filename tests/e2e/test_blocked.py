"""A gateway that hangs is a slow gateway: membership goes on beside it, in a thread of its own."""

import signal
import time
from contextlib import closing
from http.client import HTTPConnection

import pytest

from tests.e2e.blocking import BLOCKED_S
from tests.e2e.daemons import wait_until

NAMES = ("hangs", "a", "b", "c")
ALIVE = dict.fromkeys(NAMES, "alive")

BACK_LIMIT_S = 20.0
"""After the block, for one answer: the loop has ten seconds of work to catch up with."""


@pytest.mark.timeout(150)
def test_a_blocked_gateway_loop_kills_nobody(launch):
    """For 10 s one of four does not answer HTTP and keeps its interpreter busy: it is alive to all
    others all the time, and all others to it."""
    hangs = launch("hangs", module="tests.e2e.blocking")
    others = [launch(name, "--peer", hangs.peer) for name in NAMES[1:]]
    for node in (hangs, *others):
        node.wait_ready(40)
    wait_until(lambda: all(n.states() == ALIVE for n in (hangs, *others)), 30, "four see four")
    hangs.process.send_signal(signal.SIGUSR1)
    end = time.monotonic() + BLOCKED_S - 1
    shown = []
    while time.monotonic() < end:
        shown += [(node.name, node.states()["hangs"]) for node in others]
        time.sleep(0.1)
    assert [(name, state) for name, state in shown if state not in {"alive", "suspect"}] == []
    with closing(HTTPConnection("127.0.0.1", hangs.http_port, timeout=0.5)) as door:
        door.request("GET", "/health")
        with pytest.raises(TimeoutError):
            door.getresponse()
    wait_until(hangs._healthy, BACK_LIMIT_S, "the loop goes on")
    assert hangs.states() == ALIVE
    assert [node.name for node in (hangs, *others) if "is dead" in node.log.read_text()] == []
