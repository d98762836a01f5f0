"""A node changes its mesh key without closing its port, and meets again whoever changed too."""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Iterator

import pytest

from meshd.net.dial import LinkDown, LinkUp
from meshd.net.transport import Arrived
from tests.net.ends import ANNA, BERT, KEY, OTHER_KEY, Context, End, Ends, MemoryWorld, ZmqWorld

NEW_KEY = OTHER_KEY


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


def linked(ends: Ends) -> tuple[End, End]:
    """Anna, connected to Bert."""
    anna, bert = ends.add(ANNA), ends.add(BERT)
    anna.transport.dial(bert.link)
    ends.until(lambda: anna.seen)
    anna.seen.clear()
    return anna, bert


def test_two_that_change_together_meet_again(ends: Ends) -> None:
    """The link ends and is back, and no knock in between is refused: nobody looks dead."""
    anna, bert = linked(ends)
    bert.transport.rekey(NEW_KEY)
    anna.transport.rekey(NEW_KEY)
    ends.until(lambda: LinkUp(bert.link) in anna.seen)
    assert LinkDown(bert.link, "eof") in anna.seen
    assert LinkDown(bert.link, "refused") not in anna.seen


def test_frames_cross_again_both_ways(ends: Ends) -> None:
    """After the change everything is as before, senders proven."""
    anna, bert = linked(ends)
    anna.transport.rekey(NEW_KEY)
    bert.transport.rekey(NEW_KEY)
    ends.until(lambda: LinkUp(bert.link) in anna.seen)
    anna.transport.send(None, bert.link, b"hello")
    ends.until(bert.frames)
    bert.transport.send(ANNA.node_id, None, b"answer")
    ends.until(anna.frames)
    assert bert.seen[-1] == Arrived(ANNA.node_id, b"hello", None)
    assert anna.seen[-1] == Arrived(BERT.node_id, b"answer", bert.link)


def test_who_has_not_changed_is_shut_out(ends: Ends) -> None:
    """The holder of the old key loses its connection, and its next handshake fails."""
    anna, bert = linked(ends)
    bert.transport.rekey(NEW_KEY)
    ends.until(lambda: LinkDown(bert.link, "handshake") in anna.seen)
    assert anna.seen[0] == LinkDown(bert.link, "eof")
    assert not bert.transport.send(ANNA.node_id, None, b"for a member only")


def test_who_has_changed_says_nothing_to_who_has_not(ends: Ends) -> None:
    """The link to the holder of the old key goes down, and no frame leaves over it."""
    anna, bert = linked(ends)
    anna.transport.rekey(NEW_KEY)
    assert not anna.transport.send(None, bert.link, b"for a member only")
    ends.until(lambda: LinkDown(bert.link, "eof") in anna.seen)
    assert LinkUp(bert.link) not in anna.seen
    assert not anna.transport.send(None, bert.link, b"for a member only")


def test_who_changes_a_little_later_is_met_at_once(context: Context, gatekeeper: object) -> None:
    """Until the news are everywhere a failed handshake is tried again, and not even reported."""
    ends = Ends(ZmqWorld(context))
    anna, bert = linked(ends)
    anna.transport.rekey(NEW_KEY)
    ends.until(lambda: bert.transport.counters["accepted"] >= 8)
    bert.transport.rekey(NEW_KEY)
    ends.until(lambda: LinkUp(bert.link) in anna.seen)
    assert anna.seen == [LinkDown(bert.link, "eof"), LinkUp(bert.link)]
    ends.close(anna)
    ends.close(bert)


def test_the_port_stays(ends: Ends) -> None:
    """What was advertised remains true."""
    anna, _ = linked(ends)
    before = anna.link
    anna.transport.rekey(NEW_KEY)
    assert anna.link == before


def test_a_key_may_change_before_the_port_is_open(context: Context, gatekeeper: object) -> None:
    """Then it is simply the key to open with."""
    world = ZmqWorld(context)
    early = world.make(BERT)
    early.rekey(NEW_KEY)
    early.listen()
    ends = Ends(world)
    anna = ends.add(ANNA, NEW_KEY)
    anna.transport.dial(f"127.0.0.1:{early.port}")
    ends.until(lambda: anna.seen)
    assert anna.seen == [LinkUp(f"127.0.0.1:{early.port}")]
    ends.close(anna)
    early.close()


def test_no_knock_is_ever_refused_while_keys_change(context: Context, gatekeeper: object) -> None:
    """Knocked at as fast as the kernel can, through thirty changes: not one refusal."""
    ends = Ends(ZmqWorld(context))
    anna = ends.add(ANNA)
    errors: list[int] = []
    done = threading.Event()

    def knock() -> None:
        while not done.is_set():
            with socket.socket() as knocker:
                errors.append(knocker.connect_ex(("127.0.0.1", anna.transport.port)))

    knocker = threading.Thread(target=knock)
    knocker.start()
    for number in range(30):
        anna.transport.rekey((KEY, NEW_KEY)[number % 2])
        anna.turn()
    done.set()
    knocker.join()
    assert len(errors) > 30
    assert errno.ECONNREFUSED not in errors
    ends.close(anna)


def test_changing_keys_leaks_no_file(context: Context, gatekeeper: object) -> None:
    """A node that rotates for years holds no more files than on its first day."""
    ends = Ends(ZmqWorld(context))
    anna = ends.add(ANNA)
    for number in range(20):
        anna.transport.rekey((KEY, NEW_KEY)[number % 2])
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for number in range(40):
        anna.transport.rekey((KEY, NEW_KEY)[number % 2])
    ends.until(lambda: len(os.listdir("/proc/self/fd")) <= before + 8)  # noqa: PTH208
    ends.close(anna)
