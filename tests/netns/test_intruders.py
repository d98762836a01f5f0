"""Three daemons, and a host on the same network that means no good."""

import json
import sys
import time

import pytest

from tests.e2e.daemons import Daemon, wait_until, write_key
from tests.netns.fleet import HTTP, MESH, MESH_PORT, rss_bytes
from tests.netns.within import connect

pytestmark = pytest.mark.timeout(120)

FRAMES = 100_000
OVERSIZE_FRAMES = 20
HALF_OPEN = 500
GROWTH_MAX_BYTES = 10 * 1024 * 1024
HANDSHAKE_WAIT_S = 3.0
"""A connection that says nothing is closed by the daemon after this."""

FIRST_BYTES = b"\xff" + bytes(8) + b"\x7f\x03"
"""How a ZeroMQ greeting begins: a connection that says so much and no more is half open."""


@pytest.fixture(scope="module")
def four(make_fleet):
    """Three daemons, and a fourth host where no daemon of this mesh runs."""
    fleet = make_fleet("rogue", 4, start_all=False)
    fleet.start("n1", "n2", "n3")
    return fleet


@pytest.fixture
def honest(four):
    """The names of the three, whole."""
    names = ["n1", "n2", "n3"]
    now = time.monotonic()
    four.watch.wait(lambda: four.watch.agree("alive", names, names, now), 20, "the three are whole")
    return names


def refused(fleet):
    """How many frames n1's decoder has refused, and how many connections came to nothing."""
    counters = fleet.nodes["n1"].get("/mesh/v1/status")["counters"]
    decoding = sum(count for name, count in counters.items() if name.startswith("control_decode_"))
    return decoding, counters["control_strangers"]


@pytest.mark.slow
def test_a_flood_of_nonsense_is_counted_and_changes_nothing(four, honest):
    """100,000 random and truncated frames and some oversize ones: all refused, RSS as before."""
    began, before = time.monotonic(), rss_bytes(four.nodes["n1"])
    words = (four.key_file, four.peer("n1"), FRAMES, OVERSIZE_FRAMES)
    said = four.host("n4").run(
        sys.executable, "-m", "tests.netns.rogue", *map(str, words), timeout_s=50
    )
    assert json.loads(said)["sent"] == FRAMES
    wait_until(lambda: refused(four)[0] >= FRAMES * 0.99, 10, "the frames are read and refused")
    assert rss_bytes(four.nodes["n1"]) - before <= GROWTH_MAX_BYTES
    assert {one for _, one in four.watch.shown("suspect", began)} <= set(honest)
    assert four.watch.shown("dead", began) == set()
    assert four.watch.agree("alive", honest, honest, began)


@pytest.mark.slow
def test_five_hundred_half_open_connections_keep_nobody_out(four, honest):
    """They say the first bytes of a greeting and wait: members go on, and memory comes back."""
    began, before = time.monotonic(), rss_bytes(four.nodes["n1"])
    victim, attacker = four.host("n1"), four.host("n4")
    opened = [connect(attacker.netns, victim.address, MESH_PORT) for _ in range(HALF_OPEN)]
    try:
        for connection in opened:
            connection.sendall(FIRST_BYTES)
        four.watch.stay(HANDSHAKE_WAIT_S / 2)
        four.kill("n2")
        four.start("n2")
        four.watch.wait(
            lambda: four.watch.agree("alive", honest, honest, began), 10, "a member gets in"
        )
        assert rss_bytes(four.nodes["n1"]) - before <= GROWTH_MAX_BYTES
        four.watch.stay(HANDSHAKE_WAIT_S)
    finally:
        for connection in opened:
            connection.close()
    assert rss_bytes(four.nodes["n1"]) - before <= GROWTH_MAX_BYTES
    assert {subject for _, subject in four.watch.shown("dead", began)} <= {"n2"}


def test_a_node_with_another_key_is_told_so_and_stays_alone(four, honest, tmp_path):
    """It names a member as its peer: nobody lists it, it lists nobody, and its log says why."""
    began = time.monotonic()
    flags = ("--mesh-key-file", str(write_key(tmp_path / "other.key")), "--peer", four.peer("n1"))
    stranger = Daemon(tmp_path, "stranger", *flags, netns=four.host("n4").netns)
    try:
        stranger.start(http=HTTP, mesh=MESH).wait_ready()
        wait_until(
            lambda: "another mesh key" in stranger.log.read_text(), 5, "the log names the reason"
        )
        four.watch.stay(1)
        assert stranger.states() == {"stranger": "alive"}
    finally:
        stranger.stop()
    assert [set(four.watch.rows[name]) for name in honest] == [set(honest)] * 3
    assert four.watch.shown("dead", began) == set()
