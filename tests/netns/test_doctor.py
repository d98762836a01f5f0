"""`meshctl doctor` on real networks: each trouble is caused, and named."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.e2e.daemons import write_key
from tests.netns.fleet import HTTP, MESH

MESHCTL = Path(sys.executable).with_name("meshctl")
ECHO = "emulated:model=echo,prompt_tps=20000,generation_tps=4000"
HELD = "use IO::Socket::INET; my $s = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => "
HELD += "18787, Listen => 1, ReuseAddr => 1) or die; sleep 30"

pytestmark = [pytest.mark.timeout(120), pytest.mark.slow]


@pytest.fixture(scope="module")
def three(make_fleet):
    """Three daemons that found each other by mDNS; n1 has a model."""
    return make_fleet("doc", 3, own={"n1": ("--engine", ECHO)})


@pytest.fixture
def fleet(three):
    """The three, whole."""
    three.repair()
    return three


def doctor(fleet, name, state_dir=None):
    """What the doctor finds on a node's own machine, by name of the check."""
    state = f"MESHD_STATE_DIR={state_dir or fleet.nodes[name].state_dir}"
    done = subprocess.run(
        [
            *("ip", "netns", "exec", fleet.host(name).netns, "env", state),
            *(str(MESHCTL), "doctor", "--json", "--node", f"http://{HTTP}"),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=40,
    )
    assert done.returncode in {0, 5}, done.stderr
    body = json.loads(done.stdout)
    assert body["healthy"] == (done.returncode == 0)
    found = {finding["check"]: finding for finding in body["findings"]}
    found.pop("python", None)  # true or not, it says nothing of the network
    return found


def test_a_healthy_node_has_nothing(fleet):
    """Exit code 0."""
    assert doctor(fleet, "n2") == {}


def test_a_firewall_on_the_machine_that_eats_mdns(fleet):
    """Our own query does not come back: it is this machine, not the network."""
    run = fleet.host("n2").run
    run("nft", "add table inet eater")
    run("nft", "add chain inet eater in { type filter hook input priority 0; }")
    run("nft", "add rule inet eater in udp dport 5353 drop")
    try:
        assert "mdns-blocked" in doctor(fleet, "n2")
    finally:
        run("nft", "delete table inet eater")


def test_a_wifi_that_keeps_its_clients_apart(fleet):
    """Multicast passes, and no connection does, to anybody."""
    fleet.lan.forbid("ip protocol tcp drop")
    found = {}
    until = time.monotonic() + 30
    while "isolation" not in found and time.monotonic() < until:
        found = doctor(fleet, "n2")
    assert "isolation" in found
    assert "mdns-blocked" not in found


def test_a_network_that_loses_large_packets(fleet):
    """All are alive, short prompts are answered, and long ones would hang: it is said to whom;
    the members take the try for no stranger."""
    fleet.lan.forbid('oifname "p1" ip length > 900 drop')
    found = doctor(fleet, "n2")
    assert set(found) == {"large-packets"}
    assert "n1 at" in found["large-packets"]["what"]
    assert "n3" not in found["large-packets"]["what"]
    fleet.lan.forbid()
    assert doctor(fleet, "n1") == {}


def test_a_machine_that_is_gone(fleet):
    """One does not answer while another does: it is that one."""
    fleet.lan.cut(fleet.host("n3"))
    found = {}
    until = time.monotonic() + 30
    while "members" not in found and time.monotonic() < until:
        found = doctor(fleet, "n2")
    assert "n3 (" in found["members"]["what"]
    assert "n3 at" in found["firewall"]["what"]
    assert "isolation" not in found


def test_a_machine_with_another_key(fleet, tmp_path):
    """It knocks, and is not let in: the members' doctor says so."""
    fleet.nodes["n3"].kill()
    stranger = fleet.nodes["n3"]
    flags, home = stranger.flags, stranger.state_dir
    key = write_key(tmp_path / "other.key")
    stranger.flags = ("--mesh-key-file", str(key), "--peer", fleet.peer("n2"))
    stranger.state_dir = tmp_path / "stranger"
    stranger.start(http=HTTP, mesh=MESH)
    stranger.wait_ready(60)
    found = {}
    until = time.monotonic() + 30
    while "wrong-key" not in found and time.monotonic() < until:
        found = doctor(fleet, "n2")
    stranger.kill()
    stranger.flags, stranger.state_dir = flags, home
    assert "wrong-key" in found


def test_a_full_disk(fleet, tmp_path):
    """The one that the state is on."""
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", small], check=True)
    try:
        assert doctor(fleet, "n2", state_dir=small)["disk"]["level"] == "bad"
    finally:
        subprocess.run(["umount", small], check=True)


@pytest.mark.skipif(shutil.which("perl") is None, reason="no perl here to hold a port")
def test_a_port_that_another_program_has(fleet):
    """By its name."""
    fleet.nodes["n3"].kill()
    netns = fleet.host("n3").netns
    held = subprocess.Popen(["ip", "netns", "exec", netns, "perl", "-e", HELD])
    try:
        found = doctor(fleet, "n3")
        assert "perl" in found["daemon"]["what"]
    finally:
        held.kill()
        held.wait(5)
