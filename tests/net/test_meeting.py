"""Whole nodes meet: real membership, real sockets, on loopback.

What the parts promise is tested beside the parts; here it is only whether they fit.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
import zmq

from meshd.core.membership.config import MembershipConfig
from meshd.core.membership.machine import Membership, Myself
from meshd.net.control import ControlPlane
from meshd.net.gatekeeper import Gatekeeper
from meshd.net.trust import Identity, MeshKey, derive_mesh_key, identity_of
from protocol.load import CapacityRecord, LoadRecord
from protocol.messages import Endpoint
from tests.net.patience import wait_for

ANNA = identity_of(b"a" * 32)
BERT = identity_of(b"b" * 32)
CARL = identity_of(b"c" * 32)
KEY = derive_mesh_key(b"k" * 32)
OTHER_KEY = derive_mesh_key(b"o" * 32)
CAPACITY = CapacityRecord(1, "meshd", "Linux", "chip", 4, 8 << 30, (), (), ())

Start = Callable[..., ControlPlane]


def load(in_flight: int = 0) -> LoadRecord:
    return LoadRecord(1, in_flight, 0, 4 << 30, 0, "normal", accepting=True, models=())


def member(plane: ControlPlane, identity: Identity) -> str:
    """The state of a node in a plane's view."""
    row = plane.view.members.get(identity.node_id)
    return "unknown" if row is None else row.state


@pytest.fixture
def start(
    tmp_path: Path, context: zmq.Context[zmq.Socket[bytes]], gatekeeper: Gatekeeper
) -> Iterator[Start]:
    """Starts nodes; no thread of theirs outlives the test."""
    started: list[ControlPlane] = []
    boot_ids = itertools.count(1)

    def start_one(
        identity: Identity, key: MeshKey = KEY, port: int = 0, **options: Any
    ) -> ControlPlane:
        boot_id = next(boot_ids)
        plane = ControlPlane(
            identity,
            key,
            boot_id=boot_id,
            bind_host="127.0.0.1",
            bind_port=port,
            context=context,
            gatekeeper=gatekeeper,
            state_dir=tmp_path / identity.node_id,
            **options,
        )
        plane.bind()
        endpoint = Endpoint("127.0.0.1", plane.port, plane.port + 1)
        public_key = identity.public_key.hex()
        myself = Myself(identity.node_id, identity.node_id[:4], public_key, boot_id, (endpoint,))
        machine = Membership(
            myself,
            CAPACITY,
            load(),
            config=MembershipConfig(),
            rng=Random(boot_id),
            now=time.monotonic(),
            wall_ms=1_000_000 + boot_id,
        )
        plane.start(machine)
        started.append(plane)
        return plane

    yield start_one
    for plane in started:
        plane.stop()
    assert "meshd-mesh" not in {thread.name for thread in threading.enumerate()}


def test_one_typed_peer_makes_two_members(start: Start) -> None:
    """Each lists the other, with everything a router needs."""
    anna, bert = start(ANNA), start(BERT)
    anna.candidate(f"127.0.0.1:{bert.port}", typed=True)
    wait_for(lambda: anna.view.members.get(BERT.node_id))
    wait_for(lambda: anna.view.members[BERT.node_id].routable)
    wait_for(lambda: bert.view.members.get(ANNA.node_id))
    wait_for(lambda: bert.view.members[ANNA.node_id].routable)


def test_third_node_is_heard_of_from_the_second(start: Start) -> None:
    """Gossip brings the nodes together that nobody introduced."""
    anna, bert, carl = start(ANNA), start(BERT), start(CARL)
    anna.candidate(f"127.0.0.1:{bert.port}", typed=True)
    carl.candidate(f"127.0.0.1:{bert.port}", typed=True)
    wait_for(lambda: member(anna, CARL) == member(carl, ANNA) == "alive")


def test_load_reaches_the_others(start: Start) -> None:
    """A heartbeat carries it straight there."""
    anna, bert = start(ANNA), start(BERT)
    anna.candidate(f"127.0.0.1:{bert.port}", typed=True)
    wait_for(lambda: member(bert, ANNA) == "alive")
    anna.report(load(in_flight=3))

    def heard() -> bool:
        record = bert.view.members[ANNA.node_id].load
        return record is not None and record.in_flight == 3

    wait_for(heard)


def test_a_member_that_holds_another_key_already_is_noticed_at_once(start: Start) -> None:
    """Whoever slept through a change of key has a reason to ask, with each try that fails."""
    doubts: list[str] = []
    anna, bert = start(ANNA, on_other_key=doubts.append), start(BERT)
    anna.candidate(f"127.0.0.1:{bert.port}", typed=True)
    wait_for(lambda: member(anna, BERT) == "alive")
    assert not doubts
    bert.rekey(replace(OTHER_KEY, label=KEY.label))
    wait_for(lambda: doubts)
    assert doubts[0] == f"127.0.0.1:{bert.port}"


def test_other_mesh_stays_unknown(start: Start) -> None:
    """With different keys nobody is listed anywhere."""
    anna, bert = start(ANNA), start(BERT, OTHER_KEY)
    bert.candidate(f"127.0.0.1:{anna.port}", typed=True)
    wait_for(lambda: anna.counters()["control_strangers"])
    assert set(anna.view.members) == {ANNA.node_id}
    assert set(bert.view.members) == {BERT.node_id}


def test_node_that_dials_itself_hangs_up(start: Start) -> None:
    """An address that leads home is found out at once, and not dialled again."""
    anna = start(ANNA)
    anna.candidate(f"127.0.0.1:{anna.port}", typed=True)
    wait_for(lambda: anna.counters()["control_frames_in"] >= 2)
    wait_for(lambda: not anna.counters()["control_links"])
    assert set(anna.view.members) == {ANNA.node_id}


def test_death_is_seen_without_waiting_for_suspicion(start: Start) -> None:
    """Sockets that close, and a port that refuses, are proof."""
    anna, bert = start(ANNA), start(BERT)
    anna.candidate(f"127.0.0.1:{bert.port}", typed=True)
    wait_for(lambda: member(anna, BERT) == "alive")
    bert.stop()
    wait_for(lambda: member(anna, BERT) == "dead")


def test_node_that_is_shut_out_is_forgotten_though_it_still_knocks(start: Start) -> None:
    """It keeps its connection and says what it likes; the others go on without it."""
    anna, bert, carl = start(ANNA), start(BERT), start(CARL)
    for plane in (bert, carl):
        plane.candidate(f"127.0.0.1:{anna.port}", typed=True)
    wait_for(lambda: member(bert, CARL) == member(carl, BERT) == "alive")
    anna.evict((CARL.node_id,))
    bert.evict((CARL.node_id,))
    wait_for(lambda: member(anna, CARL) == member(bert, CARL) == "unknown")
    heard = anna.counters()["control_frames_in"]
    wait_for(lambda: anna.counters()["control_frames_in"] > heard + 10)
    assert member(anna, CARL) == member(bert, CARL) == "unknown"
    assert member(anna, BERT) == "alive"


def test_another_mesh_begins_with_nobody_and_another_key_of_the_same_with_all(
    start: Start,
) -> None:
    """What is known of members ends with the mesh, and not with one of its keys."""
    anna, bert = start(ANNA), start(BERT)
    anna.candidate(f"127.0.0.1:{bert.port}", typed=True)
    wait_for(lambda: member(anna, BERT) == member(bert, ANNA) == "alive")
    rotated = replace(OTHER_KEY, label=KEY.label)
    anna.rekey(rotated)
    bert.rekey(rotated)
    heard = anna.counters()["control_frames_in"]
    wait_for(lambda: anna.counters()["control_frames_in"] > heard + 10)
    assert member(anna, BERT) == "alive"
    anna.rekey(OTHER_KEY)
    wait_for(lambda: member(anna, BERT) == "unknown")


def test_node_that_leaves_has_left(start: Start) -> None:
    """A farewell is not a death."""
    anna, bert = start(ANNA), start(BERT)
    anna.candidate(f"127.0.0.1:{bert.port}", typed=True)
    wait_for(lambda: member(bert, ANNA) == "alive")
    assert bert.leave(5.0)
    bert.stop()
    wait_for(lambda: member(anna, BERT) == "left")


def test_restart_needs_neither_mdns_nor_a_typed_peer(start: Start) -> None:
    """The newcomer remembers who it knew, and nobody holds its death against it."""
    anna, bert = start(ANNA), start(BERT)
    bert.candidate(f"127.0.0.1:{anna.port}", typed=True)
    wait_for(lambda: member(anna, BERT) == member(bert, ANNA) == "alive")
    bert.stop()
    wait_for(lambda: member(anna, BERT) == "dead")
    again = start(BERT, port=bert.port)
    wait_for(lambda: member(anna, BERT) == member(again, ANNA) == "alive")
