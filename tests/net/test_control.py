"""The mesh thread: what crosses it, what cannot end it, and that it ends when told.

Most tests drive a scripted machine over the loopback transport; the last ones drive two planes
over real sockets.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from meshd.core.effects import Dial, Effect, Hangup, Notice, Send, ViewChanged
from meshd.core.membership.member import MeshView
from meshd.net.control import BindError
from meshd.net.gatekeeper import Gatekeeper
from meshd.net.loopback import LoopbackTransport
from meshd.net.remembered import load_remembered, save_remembered
from meshd.net.trust import derive_mesh_key
from protocol import limits
from protocol.codec import encode
from protocol.envelope import Envelope
from protocol.messages import Ack, Ping, Update
from tests.net.patience import wait_for
from tests.net.script import ANNA, BERT, KEY, LOAD, Context, Nodes

OTHER_KEY = derive_mesh_key(b"o" * 32)
PING = Ping(7, BERT.node_id)


@pytest.fixture
def nodes(tmp_path: Path, context: Context, gatekeeper: Gatekeeper) -> Iterator[Nodes]:
    """A maker of nodes; no thread of theirs outlives the test."""
    made = Nodes(tmp_path, context, gatekeeper)
    yield made
    for node in made.made:
        node.plane.stop()
    assert "meshd-mesh" not in {thread.name for thread in threading.enumerate()}


def test_message_reaches_the_other_machine_with_its_sender(nodes: Nodes) -> None:
    """From one machine's effect to another machine's `receive`, through real bytes."""
    anna, bert = nodes.memory(ANNA), nodes.memory(BERT)
    anna.start()
    bert.start()
    anna.dial(bert.link)
    anna.say(Send(BERT.node_id, bert.link, PING))
    wait_for(lambda: bert.script.named("receive"))
    assert bert.script.named("receive") == [(ANNA.node_id, 42, 1, PING, None)]


def test_answer_names_the_link_it_came_over(nodes: Nodes) -> None:
    """The machine learns which of its links answered."""
    anna, bert = nodes.memory(ANNA), nodes.memory(BERT)
    anna.start()
    bert.start()
    bert.script.answers["receive"] = lambda *_: [Send(ANNA.node_id, None, Ack(7, BERT.node_id))]
    anna.dial(bert.link)
    anna.say(Send(None, bert.link, PING))
    wait_for(lambda: anna.script.named("receive"))
    assert anna.script.named("receive") == [(BERT.node_id, 42, 1, Ack(7, BERT.node_id), bert.link)]


def test_sequence_grows_with_each_frame(nodes: Nodes) -> None:
    """A receiver can drop what is older than what it has."""
    anna, bert = nodes.memory(ANNA), nodes.memory(BERT)
    anna.start()
    bert.start()
    anna.dial(bert.link)
    anna.say(*[Send(None, bert.link, PING)] * 3)
    wait_for(lambda: len(bert.script.named("receive")) == 3)
    assert [call[2] for call in bert.script.named("receive")] == [1, 2, 3]


def test_own_voice_comes_back_with_the_link_that_leads_home(nodes: Nodes) -> None:
    """A node that dialled itself can tell by which address, and stop."""
    anna = nodes.memory(ANNA)
    anna.start()
    anna.dial(anna.link)
    anna.say(Send(None, anna.link, PING))
    wait_for(lambda: anna.script.named("receive"))
    assert anna.script.named("receive") == [(ANNA.node_id, 42, 1, PING, anna.link)]


def test_every_letter_reaches_the_machine(nodes: Nodes) -> None:
    """What other threads say arrives in the mesh thread, and no mDNS find hides a typed peer."""
    anna = nodes.memory()
    anna.plane.announce("capacity")  # type: ignore[arg-type]
    anna.plane.candidate("192.0.2.7:8788", BERT.node_id)
    anna.plane.candidate("192.0.2.8:8788", typed=True)
    anna.plane.candidate("192.0.2.8:8788", BERT.node_id)
    anna.plane.evict(("lost", "stolen"))
    anna.plane.relay_heard("one")
    anna.plane.relay_failed("two", "refused")
    anna.plane.report(LOAD)
    anna.start()
    wait_for(lambda: anna.script.named("report"))
    assert anna.script.named("announce") == [("capacity",)]
    assert anna.script.named("evict") == [(("lost", "stolen"),)]
    assert anna.script.named("candidate") == [
        ("192.0.2.7:8788", BERT.node_id, False),
        ("192.0.2.8:8788", None, True),
        ("192.0.2.8:8788", BERT.node_id, False),
    ]
    assert anna.script.named("relay_heard") == [("one",)]
    assert anna.script.named("relay_failed") == [("two", "refused")]


def test_candidate_that_is_no_link_is_refused(nodes: Nodes) -> None:
    """A person is told; a peer's nonsense is not worth a line."""
    anna = nodes.memory()
    anna.start()
    assert not anna.plane.candidate("nonsense")
    assert not anna.plane.candidate("nonsense", typed=True)
    assert [notice.level for notice in anna.notices] == ["warning"]
    assert "ignoring peer" in anna.notices[0].text


def test_deadline_ticks_the_machine(nodes: Nodes) -> None:
    """One number replaces a zoo of timers."""
    anna = nodes.memory()
    anna.script.due = 0.0
    anna.start()
    wait_for(lambda: anna.script.named("tick"))
    assert len(anna.script.named("tick")) == 1


def test_view_is_swapped_in_and_told(nodes: Nodes) -> None:
    """Readers see the old view or the new one; many changes in one turn are told once."""
    told: list[MeshView] = []
    anna = nodes.memory(on_view=told.append)
    assert anna.plane.view.members == {}
    anna.script.version = 1
    anna.start()
    assert anna.plane.view.version == 1
    anna.script.version = 2
    anna.say(ViewChanged(), ViewChanged())
    wait_for(lambda: anna.plane.view.version == 2)
    wait_for(lambda: told)
    assert [view.version for view in told] == [2]


def test_notice_is_passed_on(nodes: Nodes) -> None:
    """What the machine wants to say reaches the log."""
    anna = nodes.memory()
    anna.start()
    anna.say(Notice("info", "hello"))
    wait_for(lambda: anna.notices)
    assert anna.notices == [Notice("info", "hello")]


def test_hangup_closes_a_link(nodes: Nodes) -> None:
    """After it, nothing goes out over that link."""
    anna, bert = nodes.memory(ANNA), nodes.memory(BERT)
    anna.start()
    bert.start()
    anna.dial(bert.link)
    anna.say(Hangup(bert.link), Send(None, bert.link, PING))
    wait_for(lambda: anna.plane.counters()["control_dropped_unreachable"])
    assert bert.script.named("receive") == []


def test_fault_costs_one_frame_only(nodes: Nodes) -> None:
    """A bug in one handler is counted and said once, and the next frame is handled."""
    anna, bert = nodes.memory(ANNA), nodes.memory(BERT)
    anna.start()
    bert.start()

    def broken(*_: Any) -> Sequence[Effect]:
        raise ZeroDivisionError("bug")

    bert.script.answers["receive"] = broken
    anna.dial(bert.link)
    anna.say(*[Send(None, bert.link, PING)] * 3)
    wait_for(lambda: bert.plane.counters()["control_faults"] == 3)
    assert bert.plane.alive
    assert [notice.text for notice in bert.notices] == [
        "a fault while receiving, please report it: ZeroDivisionError: bug"
    ]


def test_listener_that_raises_ends_nothing(nodes: Nodes) -> None:
    """Neither the view's reader nor the log can stop the mesh thread."""

    def broken(_: object) -> None:
        raise RuntimeError("the loop is closed")

    anna = nodes.memory(on_view=broken, on_notice=broken)
    anna.start()
    anna.say(ViewChanged())
    wait_for(lambda: anna.plane.counters()["control_faults"])
    anna.script.version = 9
    anna.say(ViewChanged())
    wait_for(lambda: anna.plane.view.version == 9)
    assert anna.plane.alive


def test_message_out_of_bounds_is_not_sent(nodes: Nodes) -> None:
    """A bound that our own record breaks is our bug, and stays here."""
    anna = nodes.memory()
    anna.start()
    update = Update("00" * 16, "alive", 1, 1, "name", "00" * 32, ())
    too_many = Ping(1, BERT.node_id, (update,) * (limits.UPDATES_MAX + 1))
    anna.say(Send(None, "127.0.0.1:1", too_many))
    wait_for(lambda: anna.plane.counters()["control_encode_errors"])
    assert anna.plane.alive


@pytest.mark.parametrize(
    ("frame", "counter"),
    [
        (b"nonsense", "decode_magic"),
        (b"MSHD\x09", "decode_version"),
        (b"MSHD\x01\x93", "decode_malformed"),
        (encode(Envelope("another mesh", ANNA.node_id, 1, 1), PING), "mesh_mismatch"),
        (encode(Envelope(KEY.label, BERT.node_id, 1, 1), PING), "sender_mismatch"),
    ],
)
def test_frame_that_is_not_right_is_counted_and_nothing_else(
    nodes: Nodes, frame: bytes, counter: str
) -> None:
    """Whatever a member sends, the machine hears only what is proven and well formed."""
    bert = nodes.memory(BERT)
    bert.start()
    anna = LoopbackTransport(nodes.network, ANNA, KEY)
    anna.dial(bert.link)
    anna.send(None, bert.link, frame)
    wait_for(lambda: bert.plane.counters()[f"control_{counter}"] == 1)
    assert bert.script.named("receive") == []
    assert bert.notices == []
    anna.close()


def test_remembered_peers_are_offered_at_the_start(nodes: Nodes) -> None:
    """A restart needs no multicast."""
    path = nodes.state_dir / ANNA.node_id / "peers.json"
    save_remembered(path, ["192.0.2.7:8788"])
    anna = nodes.memory()
    anna.start()
    wait_for(lambda: anna.script.named("candidate"))
    assert anna.script.named("candidate") == [("192.0.2.7:8788", None, False)]


def test_peers_are_remembered_at_the_end(nodes: Nodes) -> None:
    """What worked is kept, and a mesh that has emptied does not wipe it."""
    path = nodes.state_dir / ANNA.node_id / "peers.json"
    anna = nodes.memory()
    anna.script.links = ("192.0.2.7:8788",)
    anna.start()
    anna.plane.stop()
    assert load_remembered(path) == ("192.0.2.7:8788",)
    again = nodes.memory()
    again.start()
    again.plane.stop()
    assert load_remembered(path) == ("192.0.2.7:8788",)


def test_a_memory_that_cannot_be_written_is_said_in_words(nodes: Nodes) -> None:
    """It is the disk's fault, not ours: nobody is asked to report it."""
    (nodes.state_dir / ANNA.node_id).write_text("a file where the directory should be")
    anna = nodes.memory()
    anna.script.links = ("192.0.2.7:8788",)
    anna.start()
    anna.plane.stop()
    assert "cannot remember peers" in anna.notices[-1].text
    assert anna.plane.counters()["control_faults"] == 0


def test_damaged_memory_is_said_and_survived(nodes: Nodes) -> None:
    """The node starts without it."""
    path = nodes.state_dir / ANNA.node_id / "peers.json"
    path.parent.mkdir()
    path.write_text("{")
    anna = nodes.memory()
    anna.start()
    wait_for(lambda: anna.notices)
    assert "damaged" in anna.notices[0].text
    assert anna.plane.alive


def test_address_change_is_told_to_the_machine(nodes: Nodes) -> None:
    """The first reading is what the machine already knows; a different one is news."""
    readings = iter([("a",), ("b",)])
    anna = nodes.memory(endpoints=lambda: next(readings))
    anna.start()
    wait_for(lambda: anna.plane.counters()["control_addresses_read"] == 1)
    anna.plane.reread_addresses()
    wait_for(lambda: anna.script.named("readdress"))
    assert anna.script.named("readdress") == [(("b",),)]


def test_leaving_says_farewell_before_it_returns(nodes: Nodes) -> None:
    """What the machine says when it leaves is on its way."""
    anna, bert = nodes.memory(ANNA), nodes.memory(BERT)
    anna.start()
    bert.start()
    anna.dial(bert.link)
    anna.script.answers["leave"] = lambda: [Send(None, bert.link, PING)]
    assert anna.plane.leave(5.0)
    wait_for(lambda: bert.script.named("receive"))


def test_stopping_ends_the_thread_and_is_idempotent(nodes: Nodes) -> None:
    """No thread, no socket, no matter how often."""
    anna = nodes.memory()
    assert not anna.plane.alive
    anna.start()
    assert anna.plane.alive
    anna.plane.stop()
    anna.plane.stop()
    assert not anna.plane.alive
    assert not anna.plane.leave(5.0)


def test_turns_are_seen_from_outside(nodes: Nodes) -> None:
    """A watchdog can tell a loop that turns from one that is stuck."""
    anna = nodes.memory()
    anna.start()
    first = anna.plane.last_turn_at
    wait_for(lambda: anna.plane.last_turn_at > first)


def test_names_of_counters_never_change(nodes: Nodes) -> None:
    """A metric exists before it counts, and no sender can invent one."""
    anna = nodes.memory()
    before = set(anna.plane.counters())
    anna.start()
    anna.say(Send(BERT.node_id, None, PING))
    wait_for(lambda: anna.plane.counters()["control_dropped_unreachable"])
    assert set(anna.plane.counters()) == before


# Over real sockets.


def test_taken_port_is_reported_before_the_thread_starts(nodes: Nodes) -> None:
    """One line that names the port and what to do."""
    anna = nodes.real(ANNA)
    anna.start()
    bert = nodes.real(BERT, bind_port=anna.plane.port)
    with pytest.raises(BindError, match=rf"127.0.0.1:{anna.plane.port}: Address.*--mesh"):
        bert.plane.bind()


def test_two_planes_talk_both_ways_over_sockets(nodes: Nodes) -> None:
    """One key, one dial, two directions."""
    anna, bert = nodes.real(ANNA), nodes.real(BERT)
    anna.start()
    bert.start()
    bert.script.answers["receive"] = lambda *_: [Send(ANNA.node_id, None, Ack(7, BERT.node_id))]
    anna.dial(bert.link)
    anna.say(Send(None, bert.link, PING))
    wait_for(lambda: anna.script.named("receive"))
    assert bert.script.named("receive") == [(ANNA.node_id, 42, 1, PING, None)]
    assert anna.script.named("receive")[0][0] == BERT.node_id


def test_death_of_a_peer_is_an_end_and_a_refusal(nodes: Nodes) -> None:
    """Both arrive without a timer: the proof on which membership acts at once."""
    anna, bert = nodes.real(ANNA), nodes.real(BERT)
    anna.start()
    bert.start()
    link = bert.link
    anna.dial(link)
    bert.plane.stop()
    wait_for(lambda: len(anna.script.named("link_down")) >= 2)
    assert anna.script.named("link_down")[:2] == [(link, "eof"), (link, "refused")]


def test_planes_of_different_meshes_never_meet(nodes: Nodes) -> None:
    """The handshake fails, and neither machine hears of the other."""
    anna, eve = nodes.real(ANNA), nodes.real(BERT, OTHER_KEY)
    anna.start()
    eve.start()
    eve.script.answers["candidate"] = lambda link, *_: [Dial(link)]
    eve.plane.candidate(anna.link)
    wait_for(lambda: eve.script.named("link_down"))
    assert eve.script.named("link_down")[0] == (anna.link, "handshake")
    assert anna.script.calls == []


def test_random_bytes_do_no_harm(nodes: Nodes) -> None:
    """A stranger is a number; the planes beside it talk on."""
    anna, bert = nodes.real(ANNA), nodes.real(BERT)
    anna.start()
    bert.start()
    with socket.create_connection(("127.0.0.1", bert.plane.port)) as stranger:
        stranger.sendall(os.urandom(10_000))
        wait_for(lambda: bert.plane.counters()["control_strangers"])
        anna.dial(bert.link)
        anna.say(Send(None, bert.link, PING))
        wait_for(lambda: bert.script.named("receive"))
    assert bert.notices == []
