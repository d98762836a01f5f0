"""Two machines on one network, one key file, nothing typed: they find each other and share."""

import json
import sys
import time

import pytest

from tests.e2e.daemons import Daemon, write_key
from tests.netns.networks import UNAVAILABLE, Lan

pytestmark = [
    pytest.mark.skipif(bool(UNAVAILABLE), reason=UNAVAILABLE),
    pytest.mark.timeout(120),
]

HTTP = "127.0.0.1:18787"
MESH = "0.0.0.0:18788"
FOUND_LIMIT_S = 3.0
ECHO = "emulated:model=echo,prompt_tps=20000,generation_tps=400"


@pytest.fixture
def lan():
    """Two hosts on a bridge."""
    with Lan("md", hosts=2) as made:
        yield made


def states(host):
    """Member name -> state, read inside the host's namespace."""
    body = host.run(sys.executable, "tests/netns/get.py", f"http://{HTTP}/mesh/v1/members")
    return {row["name"]: row["state"] for row in json.loads(body)["members"]}


def test_two_nodes_find_each_other_by_mdns_and_share_a_model(lan, tmp_path):
    """Each lists the other within 3 s; the one without a model answers through the other."""
    key = write_key(tmp_path / "mesh.key")
    flags = ("--mesh-key-file", str(key))
    left, right = lan.hosts
    nodes = [
        Daemon(tmp_path, "left", *flags, netns=left.netns),
        Daemon(tmp_path, "right", *flags, "--engine", ECHO, netns=right.netns),
    ]
    try:
        for node in nodes:
            node.start(http=HTTP, mesh=MESH)
        for node in nodes:
            node.wait_ready()
        started = time.monotonic()
        both = {"left": "alive", "right": "alive"}
        while (states(left), states(right)) != (both, both):
            assert time.monotonic() - started < FOUND_LIMIT_S + 2, nodes[0].log.read_text()
        answer = json.loads(
            left.run(sys.executable, "tests/netns/ask.py", f"http://{HTTP}/v1", "echo")
        )
    finally:
        for node in nodes:
            node.stop()
    assert answer["node"] == "right"
    assert answer["plain"] == answer["streamed"]
    assert answer["plain"]


def test_a_node_with_another_key_stays_a_stranger(lan, tmp_path):
    """Two meshes on one network do not see each other, and neither is disturbed."""
    left, right = lan.hosts
    nodes = [
        Daemon(
            tmp_path,
            host.netns,
            *("--mesh-key-file", str(write_key(tmp_path / f"{host.netns}.key"))),
            netns=host.netns,
        )
        for host in (left, right)
    ]
    try:
        for node in nodes:
            node.start(http=HTTP, mesh=MESH)
        for node in nodes:
            node.wait_ready()
        time.sleep(FOUND_LIMIT_S)
        assert states(left) == {left.netns: "alive"}
        assert states(right) == {right.netns: "alive"}
    finally:
        for node in nodes:
            node.stop()
