"""Nothing that was said is overheard, though only those are asked who woke somebody."""

from __future__ import annotations

import os
import select
import threading
import time

import pytest
import zmq

from meshd.net.ears import Ears

LONG_MS = 5_000


@pytest.fixture
def context():
    """A context that waits for nothing at its end."""
    made = zmq.Context()
    yield made
    made.destroy(linger=0)


@pytest.fixture
def pair(context):
    """Two sockets that are connected: the one that is listened to, and its other end."""
    ours, theirs = context.socket(zmq.PAIR), context.socket(zmq.PAIR)
    ours.bind("inproc://pair")
    theirs.connect("inproc://pair")
    return ours, theirs


@pytest.fixture
def ears(pair):
    """Ears that listen to the first of the pair."""
    made = Ears()
    made.register(pair[0])
    return made


def test_silence_lasts_as_long_as_asked(ears):
    """An empty answer, and not before the time is up."""
    began = time.monotonic()
    assert ears.poll(50) == set()
    assert time.monotonic() - began >= 0.049


def test_a_message_ends_the_wait(ears, pair):
    """From another thread, while it is waited for."""
    ours, theirs = pair
    said = threading.Timer(0.05, theirs.send, (b"hello",))
    said.start()
    assert ears.poll(LONG_MS) == {ours}
    said.join()


def test_what_was_not_read_is_there_the_next_time(ears, pair):
    """Two of three messages are left in the socket, and nothing signals again."""
    ours, theirs = pair
    for _ in range(3):
        theirs.send(b"word")
    for _ in range(3):
        assert ears.poll(LONG_MS) == {ours}
        ours.recv(zmq.NOBLOCK)
    assert ears.poll(0) == set()


def test_a_message_that_came_while_we_used_the_socket_is_heard(ears, pair):
    """Any use takes the signal away: `touch` is what brings the message back."""
    ours, theirs = pair
    assert ears.poll(0) == set()
    theirs.send(b"hello")
    assert ours.get(zmq.EVENTS) & zmq.POLLIN
    assert ears.poll(0) == set(), "the signal is gone: else nobody would need to touch"
    ears.touch(ours)
    assert ears.poll(0) == {ours}


def test_plain_descriptors_are_heard_beside_sockets(ears, pair):
    """Both at once, each for its own event."""
    ours, theirs = pair
    reading, writing = os.pipe()
    ears.register(reading)
    ears.register(writing, select.POLLOUT)
    theirs.send(b"hello")
    os.write(writing, b"!")
    assert ears.poll(LONG_MS) == {ours, reading, writing}
    ears.unregister(reading)
    ears.unregister(writing)
    os.close(reading)
    os.close(writing)


def test_what_is_no_longer_listened_to_is_not_heard(ears, pair):
    """Not even when it was about to be asked; and it can be closed."""
    ours, theirs = pair
    theirs.send(b"hello")
    assert ears.poll(LONG_MS) == {ours}
    ears.unregister(ours)
    ears.touch(ours)
    ours.close(linger=0)
    assert ears.poll(0) == set()
    with pytest.raises(KeyError):
        ears.unregister(ours)


def test_the_end_of_the_context_ends_the_wait(context, pair, ears):
    """As an error, so that a thread that waits for ever ends."""
    ended = threading.Thread(target=context.term)
    ended.start()
    with pytest.raises(zmq.ContextTerminated):
        ears.poll(LONG_MS)
    for socket in pair:
        socket.close(linger=0)
    ended.join()
