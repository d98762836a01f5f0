"""The boundary: connections, the relay's evidence, sleep, and leaving."""

from __future__ import annotations

import math
from dataclasses import replace

from meshd.core.effects import Send
from meshd.core.membership.config import MembershipConfig
from protocol.messages import (
    Beat,
    Gossip,
    Hello,
    LoadWanted,
    Ping,
    Pull,
)
from tests.core.membership.builders import (
    ME,
    A,
    B,
    Bench,
    C,
    D,
    claim,
    endpoint,
    hello,
    link,
)


def _bench(*peers: str) -> Bench:
    bench = Bench()
    bench.meet(*peers)
    bench.advance(2.0)
    bench.forget()
    return bench


# Connections


def test_a_typed_peer_is_greeted_and_learned() -> None:
    """Who is there is known from the answer that comes back over the link."""
    bench = Bench()
    bench.do(lambda m, now: m.candidate("nas:8788", now, typed=True))
    bench.advance(0.01)
    assert bench.dialled() == ["nas:8788"]
    greeting = bench.do(lambda m, now: m.link_up("nas:8788", now))
    assert greeting == [Send(None, "nas:8788", bench.sent(Hello)[0])]
    bench.hear(A, hello(A), over="nas:8788")
    assert bench.member(A).address == replace(endpoint("nas"), host="nas")
    assert bench.machine.remembered() == ("nas:8788",)
    assert bench.sent(Pull, A)


def test_a_remembered_peer_is_tried_like_a_typed_one() -> None:
    """Its node id is not known either."""
    bench = Bench()
    bench.do(lambda m, now: m.candidate("10.0.0.9:8788", now))
    bench.advance(0.01)
    assert bench.dialled() == ["10.0.0.9:8788"]


def test_an_mdns_find_is_tried_unless_it_is_ourselves() -> None:
    """Multicast brings our own advert back, too."""
    bench = Bench()
    bench.do(lambda m, now: m.candidate(link(A), now, node_id=A))
    bench.do(lambda m, now: m.candidate(link(ME), now, node_id=ME))
    bench.advance(1.0)
    assert bench.dialled() == [link(A)]


def test_a_node_that_calls_us_is_called_back() -> None:
    """So that each has a connection of its own to send on."""
    bench = Bench()
    bench.meet(A)
    bench.advance(0.02)
    assert bench.dialled() == [link(A)]


def test_a_node_that_can_only_be_reached_by_its_own_connection_is_a_member() -> None:
    """Everything goes over that connection; it has no address from here."""
    bench = _bench(A)
    for _ in range(5):
        bench.down(link(A), "unreachable")
        bench.advance(2.0)
    assert bench.state(A) == "alive"
    assert bench.member(A).address is None
    assert {e.link for e in bench.effects if isinstance(e, Send) and e.node_id == A} == {None}


def test_a_silent_link_is_greeted_again() -> None:
    """The first Hello may have been dropped."""
    bench = Bench()
    bench.do(lambda m, now: m.candidate("nas:8788", now, typed=True))
    bench.advance(0.01)
    bench.do(lambda m, now: m.link_up("nas:8788", now))
    bench.advance(1.2)
    assert len(bench.sent(Hello)) == 3


def test_a_link_that_nobody_wants_is_hung_up() -> None:
    """And not greeted."""
    bench = Bench()
    bench.do(lambda m, now: m.link_up("stranger:1", now))
    assert bench.hung_up() == ["stranger:1"]
    assert bench.sent(Hello) == []


def test_a_connection_that_ends_is_a_reason_to_ask() -> None:
    """At once, over the peer's own connection."""
    bench = _bench(A)
    bench.connect(A)
    bench.advance(2.0)
    bench.forget()
    bench.down(link(A), "eof")
    assert [ping.target for ping in bench.sent(Ping, A)] == [A]


def test_the_end_of_a_dead_node_s_connection_is_no_reason_to_ask() -> None:
    """It has been judged."""
    bench = _bench(A, B, C)
    bench.connect(A)
    bench.advance(2.0)
    bench.answering.discard(A)
    bench.down(link(A), "eof")
    bench.forget()
    bench.down(link(A), "refused")
    assert bench.state(A) == "dead"
    assert bench.sent(Ping, A) == []


def test_a_wrong_key_is_said_in_words() -> None:
    """What it may mean (a port that is not the mesh's looks the same), and what to do."""
    bench = Bench()
    bench.do(lambda m, now: m.candidate("nas:8788", now, typed=True))
    bench.advance(0.01)
    bench.down("nas:8788", "handshake")
    words = ("no mesh port", "another mesh key", "mesh key file")
    assert any(all(word in text for word in words) for text in bench.said())


def test_the_end_of_an_unknown_link_is_nothing() -> None:
    """Late news from the shell."""
    bench = _bench(A)
    assert bench.down("gone:1", "eof") == []


def test_the_dead_are_dialled_until_they_answer() -> None:
    """A split heals by itself: every two seconds, and a Hello when it works."""
    bench = _bench(A, B, C)
    bench.connect(A)
    bench.advance(1.0)
    bench.answering.discard(A)
    bench.advance_until(lambda: bench.state(A) == "dead")
    bench.forget()
    bench.advance(5.0)
    assert bench.dialled().count(link(A)) >= 2
    bench.advance_until(lambda: bench.dialled()[-1] == link(A))
    bench.do(lambda m, now: m.link_up(link(A), now))
    assert bench.sent(Hello, A)


def test_those_who_left_are_not_dialled() -> None:
    """They will call when they want."""
    bench = _bench(A, B)
    bench.connect(A)
    bench.hear(A, Gossip((claim(A, "left"),)))
    bench.forget()
    bench.advance(30.0)
    assert link(A) not in bench.dialled()
    assert bench.member(A).address is None
    assert link(A) not in bench.machine.remembered()


def test_remembered_links_are_bounded_and_the_latest_heard_come_first() -> None:
    """What is worth keeping on disk."""
    bench = Bench(MembershipConfig(remembered_max=2))
    bench.meet(A, B, C)
    bench.advance(0.1)
    for peer in (A, B, C):
        bench.connect(peer)
    for peer in (C, A):
        bench.advance(0.001)
        bench.hear(peer, Beat(100, 1, 1))
    assert bench.machine.remembered() == (link(A), link(C))


# The relay's evidence


def test_a_relay_that_failed_is_a_reason_to_ask() -> None:
    """It proves nothing by itself; about strangers and the dead it means nothing."""
    bench = _bench(A, B, C)
    bench.do(lambda m, now: m.relay_failed(A, "timeout", now))
    bench.do(lambda m, now: m.relay_failed(D, "timeout", now))
    assert [ping.target for ping in bench.sent(Ping)] == [A]


def test_a_relay_that_answers_means_life_and_a_reason_to_dial() -> None:
    """Also for the dead, who are told; not for strangers, nor for ourselves."""
    bench = _bench(A, B, C)
    bench.answering.discard(A)
    bench.advance_until(lambda: bench.state(A) == "dead")
    bench.advance(20.0)
    bench.forget()
    for node_id in (A, D, ME):
        bench.do(lambda m, now, who=node_id: m.relay_heard(who, now))  # type: ignore[misc]
    assert bench.claims(A, to=A)[0].state == "dead"
    assert bench.state(D) is None


# Doubting oneself


def test_a_late_tick_is_our_own_fault() -> None:
    """Starved for a second, we judge nobody by it, and know that we are slow."""
    bench = _bench(A, B, C)
    bench.advance_until(lambda: bool(bench.sent(Ping)))
    bench.answering.clear()
    bench.forget()
    bench.advance_until(lambda: bool(bench.sent(Ping)))
    bench.now += 1.0
    bench.do(lambda m, now: m.tick(now))
    assert {bench.state(peer) for peer in (A, B, C)} == {"alive"}
    assert bench.machine._parts.health.score >= 1


def test_lateness_counts_once() -> None:
    """However many frames are read before the tick that was missed."""
    bench = _bench(A, B)
    bench.now = bench.machine.deadline() + 0.5
    for _ in range(20):
        bench.hear(A, Beat(100, 1, 1))
    assert bench.machine._parts.health.score == 1


def test_a_running_suspicion_is_put_back_by_our_own_lateness() -> None:
    """Time in which we could not listen is not silence."""
    bench = _bench(A, B, C, D)
    bench.answering.discard(A)
    for accuser in (B, C, D):
        bench.hear(B, Gossip((claim(A, "suspect", accuser=accuser),)))
    bench.now += 1.0
    bench.do(lambda m, now: m.tick(now))
    assert bench.state(A) == "suspect"


def test_a_long_stop_is_treated_as_a_sleep() -> None:
    """SIGSTOP stops us and not the clock; being far past our own deadline shows it."""
    bench = _bench(A, B, C)
    bench.answering.clear()
    bench.now += 20.0
    bench.do(lambda m, now: m.tick(now))
    assert bench.member(A).load is None
    assert {ping.target for ping in bench.sent(Ping)} >= {A, B, C}
    bench.advance(0.9)
    assert {bench.state(peer) for peer in (A, B, C)} == {"alive"}


def test_waking_dials_whoever_was_lost_at_once() -> None:
    """The network is another one now; waiting out a back-off of the old one is pointless."""
    bench = _bench(A, B, C)
    for _ in range(8):
        bench.down(link(A), "timeout")
        bench.advance_until(lambda: bench.dialled()[-1:] == [link(A)], 5.0)
        bench.forget()
    bench.down(link(A), "timeout")
    bench.forget()
    bench.do(lambda m, now: m.woke(now))
    bench.advance(0.02)
    assert link(A) in bench.dialled()


def test_waking_asks_for_loads_and_beats_at_once() -> None:
    """The router has something to go by again within a round trip."""
    bench = _bench(A)
    bench.do(lambda m, now: m.woke(now))
    bench.advance(0.001)
    assert bench.sent(LoadWanted, A) == [LoadWanted(0)]
    assert bench.sent(Beat, A)


# Leaving


def test_leaving_is_told_to_everybody_and_is_the_last_word() -> None:
    """After that nothing is sent, whatever comes."""
    bench = _bench(A, B)
    effects = bench.do(lambda m, now: m.leave(now))
    told = {e.node_id for e in effects if isinstance(e, Send)}
    assert told == {A, B}
    assert [u.state for u in bench.claims(ME, to=A)] == ["left"]
    assert bench.machine.deadline() == math.inf
    bench.forget()
    bench.hear(A, Ping(1, ME))
    bench.do(lambda m, now: m.leave(now))
    bench.now += 60.0
    bench.do(lambda m, now: m.tick(now))
    assert bench.effects == []
    assert bench.state(ME) == "left"
