"""How nodes come together: typed peers, many at once, without multicast, over two networks."""

import time

import pytest

from tests.netns.fleet import Fleet
from tests.netns.networks import Lan

pytestmark = pytest.mark.timeout(120)

ECHO = "emulated:model=echo,prompt_tps=20000,generation_tps=400"
NO_MULTICAST = "ip protocol udp udp dport 5353 drop"

JOINED_LIMIT_S = 5.0
"""The goal is 0.5 s with typed peers. Here up to eleven daemons start on two cores at once, and
each is counted from the moment the last of them serves."""


def test_ten_that_join_one_seed_at_once_are_one_mesh(make_fleet):
    """Ten daemons that know only the seed's address: each sees all eleven."""
    joiners = {f"n{number}": ("--peer", "10.87.0.1:18788") for number in range(2, 12)}
    fleet = make_fleet("join", 11, "--no-mdns", own=joiners, start_all=False)
    fleet.start("n1")
    fleet.start(*joiners)
    assert fleet.wait_whole() <= JOINED_LIMIT_S
    assert fleet.watch.shown("dead") == set()


def test_a_typed_peer_is_enough_where_multicast_is_dropped(tmp_path):
    """UDP 5353 does not cross the switch: the two meet all the same, and share a model."""
    own = {"n1": ("--engine", ECHO), "n2": ("--peer", "10.87.0.1:18788")}
    with Lan("quiet", 2) as lan:
        lan.forbid(NO_MULTICAST)
        with Fleet(tmp_path, lan, own=own) as fleet:
            assert fleet.chat("n2", "echo")[0] == "n1"
            assert fleet.nodes["n2"].get("/mesh/v1/status")["counters"]["discovery_adverts"] == 0


def test_a_node_on_two_networks_is_one_member_on_both(tmp_path):
    """Two LANs that share one machine: each sees it once, at its address there; nobody dies."""
    with Lan("left", 2) as left, Lan("right", 1, subnet=1) as right:
        middle = right.attach(left.hosts[1], 2, "lan1")
        hosts = [*left.hosts, *right.hosts]
        both = Lan("both", 0)
        both.hosts = hosts
        with Fleet(tmp_path, both, own={"n2": ("--engine", ECHO)}, start_all=False) as fleet:
            began = time.monotonic()
            fleet.start(*fleet.names)
            watch = fleet.watch
            watch.wait(
                lambda: all(
                    watch.agree("alive", [name], ["n1", "n2", "n3"], began) for name in fleet.names
                ),
                20,
                "all three know of each other",
            )
            watch.stay(5)
            assert fleet.watch.false_deaths(began) == set()
            assert watch.rows["n1"]["n2"]["address"] == f"{left.hosts[1].address}:18788"
            assert watch.rows["n3"]["n2"]["address"] == f"{middle.address}:18788"
            assert [fleet.chat(name, "echo")[0] for name in ("n1", "n3")] == ["n2", "n2"]
