"""Five daemons on a network that loses frames or a machine that is too busy: slow is not dead."""

import subprocess
import sys
import time

import pytest

from tests.netns.length import length
from tests.netns.networks import loss

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

BUSY_LOOPS = 4
"""Twice as many as the cores of a small machine."""

CRASH_LIMIT_S = 15.0
"""From a crash on a network that has just lost every other frame until all agree about it. Usually
one to three, seldom seven: nodes that just heard little trust themselves less, and wait longer."""


@pytest.fixture(scope="module")
def five(make_fleet):
    """Five daemons that found each other by mDNS."""
    return make_fleet("loss", 5)


@pytest.fixture
def fleet(five):
    """The five, whole."""
    five.repair()
    return five


@pytest.mark.parametrize("percent", length([5], [1, 3, 5]))
def test_nobody_dies_of_a_lossy_network(fleet, percent):
    """Each frame is lost with 1, 3 or 5 % for 60 s: no daemon is shown dead by any other.

    Without SCENARIOS=full only 5 %, and for 10 s.
    """
    began = time.monotonic()
    fleet.lan.forbid(loss(percent))
    fleet.watch.stay(length(10, 60))
    fleet.lan.forbid()
    assert fleet.watch.shown("dead", began) == set()
    fleet.wait_whole(5)


def test_a_crash_after_heavy_loss_is_noticed_and_everybody_else_is_alive(fleet):
    """Half of all frames are lost for 30 s (8 s without SCENARIOS=full), then one is killed."""
    fleet.lan.forbid(loss(50))
    fleet.watch.stay(length(8, 30))
    killed = fleet.kill("n3")
    fleet.lan.forbid()
    left = fleet.others("n3")
    fleet.watch.wait(
        lambda: (
            fleet.watch.agree("dead", left, ["n3"], killed)
            and fleet.watch.agree("alive", left, left, killed)
        ),
        CRASH_LIMIT_S,
        "n3 dead and all others alive, in the eyes of all others",
    )


def test_nobody_dies_of_busy_neighbours(fleet):
    """Four busy loops beside the daemons for 60 s (8 s without SCENARIOS=full): nobody is dead."""
    began = time.monotonic()
    loops = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(BUSY_LOOPS)
    ]
    try:
        fleet.watch.stay(length(8, 60))
    finally:
        for loop in loops:
            loop.kill()
            loop.wait(10)
    assert fleet.watch.shown("dead", began) == set()
