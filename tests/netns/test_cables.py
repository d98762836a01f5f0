"""Six daemons on one network, and what goes wrong between them: cables, one-way drops, splits."""

import time

import pytest

from tests.e2e.daemons import wait_until
from tests.netns.fleet import row
from tests.netns.length import length
from tests.netns.networks import apart, no_way

pytestmark = pytest.mark.timeout(120)

SILENT_LIMIT_S = 2.5
"""A silent host among ten is seen by all after 1.2 s at the median, 2.5 s at most."""

HEAL_LIMIT_S = 5.0
"""From the end of the trouble until everybody sees everybody alive again."""

VERDICTS_LIMIT_S = 15.0
"""On each other's halves: 5 s at leisure, more where six daemons and others share two cores."""

ADDRESS_LIMIT_S = 12.0
"""A machine reads its own addresses every 5 s; then the old one must fail, the new be dialled."""

NEAR = "emulated:model=echo,prompt_tps=20000,generation_tps=4000"
FAR = "emulated:model=echo,prompt_tps=2000,generation_tps=200"


@pytest.fixture(scope="module")
def six(make_fleet):
    """Six daemons that found each other by mDNS; n2 serves fast, n3 serves slowly."""
    return make_fleet("cable", 6, own={"n2": ("--engine", NEAR), "n3": ("--engine", FAR)})


@pytest.fixture
def fleet(six):
    """The six, whole."""
    six.repair()
    return six


def test_a_silent_host_is_seen_by_all_and_comes_back(fleet):
    """Its cable is pulled, without a goodbye; the rest stay whole; put back, it is one of them."""
    began = time.monotonic()
    fleet.lan.cut(fleet.host("n6"))
    assert fleet.wait_dead(["n6"], began, 10) - began <= SILENT_LIMIT_S
    fleet.lan.mend(fleet.host("n6"))
    assert fleet.wait_whole() <= HEAL_LIMIT_S
    assert fleet.watch.false_deaths(began, "n6") == set()


@pytest.mark.slow
@pytest.mark.parametrize("deaf", [True, False], ids=["hears nobody", "is heard by nobody"])
def test_a_one_way_cable_costs_one_node_only(fleet, deaf):
    """All others agree that it is gone; it blames its own network and calls nobody dead.

    Watched for 5 s; with SCENARIOS=full for 25 s, nearly as long as a node doubts itself.
    """
    began = time.monotonic()
    broken = fleet.host("n5")
    fleet.lan.forbid(no_way(None, broken) if deaf else no_way(broken, None))
    fleet.wait_dead(["n5"], began, 10)
    fleet.watch.stay(length(5, 25))
    assert fleet.watch.shown("dead", began) == {(name, "n5") for name in fleet.others("n5")}
    fleet.lan.forbid()
    assert fleet.wait_whole() <= HEAL_LIMIT_S


@pytest.mark.slow
def test_two_that_cannot_reach_each_other_stay_members_and_requests_go_round(fleet):
    """Only the pair n1-n2 is cut: nobody changes state, and n1's requests are answered by n3.

    For 7 s, longer than any suspicion lasts; 60 s with SCENARIOS=full.
    """
    fleet.watch.wait(lambda: row(fleet, "n1", "n3")["models"], 5, "n1 knows n3's model")
    assert fleet.chat("n1", "echo")[0] == "n2"
    began = time.monotonic()
    fleet.lan.forbid(*apart([fleet.host("n1")], [fleet.host("n2")]))
    answered = [fleet.chat("n1", "echo")[0] for _ in range(3)]
    fleet.watch.stay(length(7, 60) - (time.monotonic() - began))
    answered.append(fleet.chat("n1", "echo")[0])
    assert answered == ["n3"] * 4
    assert fleet.watch.shown("dead", began) == set()


@pytest.mark.slow
@pytest.mark.timeout(150)
def test_halves_that_were_apart_are_whole_again_within_five_seconds(fleet):
    """Three and three, apart until each half holds all of the other for dead, and nobody of its
    own; with SCENARIOS=full for 60 s. Then all find each other again.

    Half a mesh doubts its own network first, so these verdicts take five seconds.
    """
    left, right = fleet.names[:3], fleet.names[3:]
    began = time.monotonic()
    fleet.lan.forbid(*apart(fleet.hosts(left), fleet.hosts(right)))
    fleet.watch.wait(
        lambda: (
            fleet.watch.agree("dead", left, right, began)
            and fleet.watch.agree("dead", right, left, began)
        ),
        VERDICTS_LIMIT_S,
        "each half holds the other for dead",
    )
    fleet.watch.stay(length(0, 60 - (time.monotonic() - began)))
    assert fleet.watch.agree("alive", left, left, began)
    assert fleet.watch.agree("alive", right, right, began)
    across = {(one, other) for one in left for other in right}
    across |= {(other, one) for one, other in across}
    assert fleet.watch.shown("dead", began) <= across
    fleet.lan.forbid()
    assert fleet.wait_whole() <= HEAL_LIMIT_S


@pytest.mark.slow
def test_a_machine_that_changes_its_address_is_found_at_the_new_one(fleet):
    """The old address goes, a new one comes: all show it alive there, and requests reach it."""
    began = time.monotonic()
    fleet.lan.readdress(fleet.host("n2"), "10.87.0.77")
    try:
        fleet.watch.wait(
            lambda: all(
                row(fleet, name, "n2")["state"] == "alive"
                and row(fleet, name, "n2")["address"] == "10.87.0.77:18788"
                for name in fleet.others("n2")
            ),
            ADDRESS_LIMIT_S,
            "n2 at its new address",
        )
        wait_until(lambda: fleet.chat("n4", "echo")[0] == "n2", 5, "n2 answers at its new address")
        assert fleet.watch.false_deaths(began, "n2") == set()
    finally:
        fleet.lan.readdress(fleet.host("n2"), fleet.host("n2").address)
