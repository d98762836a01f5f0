"""Ten daemons on one network, and processes that die, stop and come back."""

import signal
import time

import pytest

from tests.netns.fleet import row
from tests.netns.length import length

pytestmark = pytest.mark.timeout(120)

SEEN_LIMIT_S = 1.0
"""A killed process is seen by all: the goal is 0.3 s at the median, 1.0 s at most."""

BACK_LIMIT_S = 2.0
"""A process that was stopped is back this soon after it goes on."""


BEAT_S = 2.0
"""Twice the longest time between two heartbeats: what was said before is old."""


def old_taken_as_fresh(rows, told, stopped_s):
    """Rows that claim a load of less than `stopped_s` ago which is older than what was `told`."""
    return [
        (r["name"], r["age_s"], r["load"]["sequence"])
        for r in rows
        if r["name"] in told
        and r["age_s"] is not None
        and r["age_s"] < stopped_s - BEAT_S
        and r["load"]["sequence"] < told[r["name"]]
    ]


def proven(fleet, victim):
    """How many of the others hold the proof of its death, rather than a suspicion that ran out."""
    reasons = [row(fleet, name, victim)["reason"] for name in fleet.others(victim)]
    return sum("its port refuses" in reason for reason in reasons)


@pytest.fixture(scope="module")
def ten(make_fleet):
    """Ten daemons that found each other by mDNS."""
    return make_fleet("crash", 10)


@pytest.fixture
def fleet(ten):
    """The ten, whole, and each connected to each: only a connection that ends is proof."""
    ten.repair()
    ten.settle()
    return ten


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_killed_process_is_seen_by_all_within_a_second(fleet):
    """kill -9 of one of ten, three times (SCENARIOS=full: thirty), proven by its closed port.

    Nobody else is called dead.
    """
    began = time.monotonic()
    took = []
    for number in range(length(3, 30)):
        victim = fleet.names[number % len(fleet.names)]
        killed = fleet.kill(victim)
        took.append(fleet.wait_dead([victim], killed, 10) - killed)
        assert fleet.watch.false_deaths(killed, victim) == set()
        assert proven(fleet, victim) > len(fleet.names) / 2
        fleet.start(victim)
        fleet.settle()
    assert max(took) <= SEEN_LIMIT_S
    assert {subject for _, subject in fleet.watch.shown("dead", began)} <= set(fleet.names)


def test_three_killed_at_once_are_all_seen(fleet):
    """Seven survivors agree about the three, and about each other."""
    gone = ["n2", "n5", "n9"]
    killed = fleet.kill(*gone)
    assert fleet.wait_dead(gone, killed, 10) - killed <= SEEN_LIMIT_S
    fleet.watch.stay(1.5)
    left = fleet.others(*gone)
    assert fleet.watch.false_deaths(killed, *gone) == set()
    assert fleet.watch.agree("alive", left, left, killed + 1)


def test_a_restart_within_a_blink_is_a_new_run_of_the_same_node(fleet):
    """Killed, started 0.3 s later: same id, new boot id, alive to all; nobody else is dead."""
    before = row(fleet, "n1", "n4")
    killed = fleet.kill("n4")
    fleet.watch.stay(0.3)
    fleet.start("n4")
    fleet.watch.wait(
        lambda: all(
            row(fleet, name, "n4")["boot_id"] != before["boot_id"]
            and row(fleet, name, "n4")["state"] == "alive"
            for name in fleet.others("n4")
        ),
        5,
        "the new run of n4 is alive to all",
    )
    after = row(fleet, "n1", "n4")
    assert after["id"] == before["id"]
    assert after["incarnation"] > before["incarnation"]
    fleet.wait_whole(5)
    assert fleet.watch.false_deaths(killed, "n4") == set()


@pytest.mark.slow
@pytest.mark.parametrize("stopped_s", length([5], [5, 20]))
def test_a_stopped_process_comes_back_and_blames_nobody(fleet, stopped_s):
    """SIGSTOP, SIGCONT: alive to all within 2 s, nobody is dead to it, no old age is fresh to it.

    After 5 s; with SCENARIOS=full, after 20 s too.
    """
    began = fleet.signal(signal.SIGSTOP, "n7")
    fleet.wait_dead(["n7"], began, stopped_s)
    fleet.watch.stay(stopped_s - BEAT_S - (time.monotonic() - began))
    told = {name: row(fleet, name, name)["load"]["sequence"] for name in fleet.others("n7")}
    fleet.watch.stay(BEAT_S)
    resumed = fleet.signal(signal.SIGCONT, "n7")
    answers = [fleet.nodes["n7"].get("/mesh/v1/members")["members"] for _ in range(20)]
    fleet.watch.wait(
        lambda: fleet.watch.agree("alive", fleet.names, fleet.names, resumed),
        BACK_LIMIT_S,
        "n7 is back",
    )
    assert fleet.watch.false_deaths(began, "n7") == set()
    assert {one for one, _ in fleet.watch.shown("dead", began)} == set(fleet.others("n7"))
    assert [stale for rows in answers for stale in old_taken_as_fresh(rows, told, stopped_s)] == []
