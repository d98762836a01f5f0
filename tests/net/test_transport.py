"""One port, two implementations, one suite: what every transport owes, over sockets and memory."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from meshd.net.dial import LinkDown, LinkUp
from meshd.net.transport import (
    COUNTERS,
    Arrived,
    BindError,
)
from protocol import limits
from tests.net.ends import ANNA, BERT, OTHER_KEY, Ends, MemoryWorld, ZmqWorld
from tests.net.patience import wait_for


@pytest.fixture(params=["zmq", "memory"])
def ends(request: pytest.FixtureRequest) -> Iterator[Ends]:
    """Both worlds, one after the other."""
    worlds = {
        "zmq": lambda: ZmqWorld(request.getfixturevalue("context")),
        "memory": MemoryWorld,
    }
    if request.param == "zmq":
        request.getfixturevalue("gatekeeper")
    made = Ends(worlds[request.param]())
    yield made
    for end in list(made.made):
        made.close(end)


def test_dialled_link_comes_up(ends: Ends) -> None:
    """Who dials hears that the other end holds the mesh key."""
    anna, bert = ends.add(ANNA), ends.add(BERT)
    anna.transport.dial(bert.link)
    ends.until(lambda: anna.seen)
    assert anna.seen == [LinkUp(bert.link)]


def test_frame_over_a_link_arrives_with_its_sender(ends: Ends) -> None:
    """The sender is proven, and no link is named, because the other side opened the connection."""
    anna, bert = ends.add(ANNA), ends.add(BERT)
    anna.transport.dial(bert.link)
    ends.until(lambda: anna.seen)
    assert anna.transport.send(BERT.node_id, bert.link, b"hello")
    ends.until(lambda: bert.seen)
    assert bert.seen == [Arrived(ANNA.node_id, b"hello", None)]


def test_caller_can_be_answered_over_its_own_link(ends: Ends) -> None:
    """One connection carries both directions, and the answer's sender is proven too."""
    anna, bert = ends.add(ANNA), ends.add(BERT)
    anna.transport.dial(bert.link)
    ends.until(lambda: anna.seen)
    anna.transport.send(None, bert.link, b"hello")
    ends.until(lambda: bert.seen)
    assert bert.transport.send(ANNA.node_id, None, b"answer")
    ends.until(anna.frames)
    assert anna.seen[-1] == Arrived(BERT.node_id, b"answer", bert.link)


def test_frames_keep_their_order(ends: Ends) -> None:
    """What one peer says in turn arrives in turn."""
    anna, bert = ends.add(ANNA), ends.add(BERT)
    anna.transport.dial(bert.link)
    ends.until(lambda: anna.seen)
    sent = [bytes([number]) for number in range(20)]
    for frame in sent:
        anna.transport.send(None, bert.link, frame)
    ends.until(lambda: len(bert.seen) == len(sent))
    assert bert.frames() == sent


def test_largest_frame_passes(ends: Ends) -> None:
    """The limit of the wire fits through the limit of the socket, both ways."""
    anna, bert = ends.add(ANNA), ends.add(BERT)
    anna.transport.dial(bert.link)
    ends.until(lambda: anna.seen)
    largest = os.urandom(limits.CONTROL_FRAME_MAX_BYTES)
    anna.transport.send(None, bert.link, largest)
    ends.until(lambda: bert.frames() == [largest])
    bert.transport.send(ANNA.node_id, None, largest)
    ends.until(lambda: anna.frames() == [largest])


def test_closed_port_is_refused(ends: Ends) -> None:
    """A machine that answers for a dead process says so."""
    anna, bert = ends.add(ANNA), ends.add(BERT)
    ends.close(bert)
    anna.transport.dial(bert.link)
    ends.until(lambda: anna.seen)
    assert anna.seen[0] == LinkDown(bert.link, "refused")


def test_peer_that_closes_is_an_end_and_then_a_refusal(ends: Ends) -> None:
    """The proof that membership waits for: the connection ended, and the port is closed."""
    anna, bert = ends.add(ANNA), ends.add(BERT)
    anna.transport.dial(bert.link)
    ends.until(lambda: anna.seen)
    ends.close(bert)
    ends.until(lambda: len(anna.seen) >= 3)
    assert anna.seen[1:3] == [LinkDown(bert.link, "eof"), LinkDown(bert.link, "refused")]


def test_link_comes_up_again_when_the_peer_is_back(ends: Ends) -> None:
    """Nobody needs to dial twice."""
    anna, bert = ends.add(ANNA), ends.add(BERT)
    link, port = bert.link, bert.transport.port
    anna.transport.dial(link)
    ends.until(lambda: anna.seen)
    ends.close(bert)
    ends.until(lambda: LinkDown(link, "refused") in anna.seen)
    ends.add(BERT, port=port)
    ends.until(lambda: anna.seen[-1] == LinkUp(link))


def test_other_mesh_fails_the_handshake_and_learns_nothing(ends: Ends) -> None:
    """Two meshes on one network do not meet, whoever dials."""
    anna, eve = ends.add(ANNA), ends.add(BERT, OTHER_KEY)
    eve.transport.dial(anna.link)
    ends.until(lambda: eve.seen)
    assert eve.seen[0] == LinkDown(anna.link, "handshake")
    assert not eve.transport.send(ANNA.node_id, anna.link, b"hello")
    ends.until(lambda: anna.transport.counters["strangers"])
    assert anna.seen == []


def test_hangup_is_quiet_and_final(ends: Ends) -> None:
    """Who hangs up knows it, so no LinkDown comes; and nothing can be sent any more."""
    anna, bert = ends.add(ANNA), ends.add(BERT)
    anna.transport.dial(bert.link)
    ends.until(lambda: anna.seen)
    anna.transport.hangup(bert.link)
    anna.transport.hangup(bert.link)
    assert not anna.transport.send(BERT.node_id, bert.link, b"hello")
    ends.close(bert)
    anna.turn()
    assert anna.seen == [LinkUp(bert.link)]


def test_dialling_twice_is_dialling_once(ends: Ends) -> None:
    """`dial` says what should be, not what to do."""
    anna, bert = ends.add(ANNA), ends.add(BERT)
    anna.transport.dial(bert.link)
    anna.transport.dial(bert.link)
    ends.until(lambda: anna.seen)
    anna.transport.dial(bert.link)
    anna.turn()
    assert anna.seen == [LinkUp(bert.link)]
    assert bert.transport.counters["admitted"] <= 1


def test_nobody_to_send_to_is_a_drop(ends: Ends) -> None:
    """What cannot go out now is dropped and counted, never kept."""
    anna = ends.add(ANNA)
    assert not anna.transport.send(BERT.node_id, None, b"hello")
    assert not anna.transport.send(None, "127.0.0.1:1", b"hello")
    assert anna.transport.counters["dropped_unreachable"] == 2


@pytest.mark.parametrize("link", ["", "nonsense", "host:0", "host:65536", "::1:8788", ":80"])
def test_link_that_names_no_place_is_unreachable(ends: Ends, link: str) -> None:
    """Whatever a peer puts into its endpoints, the loop goes on."""
    anna = ends.add(ANNA)
    anna.transport.dial(link)
    ends.until(lambda: anna.seen)
    assert anna.seen == [LinkDown(link, "unreachable")]
    assert anna.transport.counters["links_refused"] == 1


def test_slow_peer_costs_drops_not_memory(ends: Ends) -> None:
    """A peer that takes nothing in fills its own queue, and sending still does not wait."""
    anna, bert = ends.add(ANNA), ends.add(BERT)
    anna.transport.dial(bert.link)
    ends.until(lambda: anna.seen)
    frame = bytes(limits.CONTROL_FRAME_MAX_BYTES)
    wait_for(lambda: not anna.transport.send(None, bert.link, frame))
    assert anna.transport.counters["dropped_full"] == 1


def test_wake_ends_a_poll(ends: Ends) -> None:
    """A letter is read now, not at the end of a long wait."""
    anna = ends.add(ANNA)
    anna.transport.wake()
    anna.transport.wake()
    assert anna.transport.poll(60.0) == []


def test_wake_and_close_after_closing_do_no_harm(ends: Ends) -> None:
    """Other threads may still hold the transport when it closes."""
    anna = ends.add(ANNA)
    ends.close(anna)
    anna.transport.wake()
    anna.transport.close()


def test_port_that_is_taken_is_one_clear_line(ends: Ends) -> None:
    """The owner learns which port it is."""
    anna = ends.add(ANNA)
    bert = ends.world.make(BERT, port=anna.transport.port)
    with pytest.raises(BindError, match=str(anna.transport.port)) as caught:
        bert.listen()
    assert "\n" not in str(caught.value)
    bert.close()


def test_counters_are_all_there_from_the_start(ends: Ends) -> None:
    """A metric exists before it first counts, and no sender can invent one."""
    anna = ends.add(ANNA)
    assert set(anna.transport.counters) == set(COUNTERS)
