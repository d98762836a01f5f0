"""The boundary: inputs, effects, and one number that says when to come back."""

from __future__ import annotations

import pytest

from meshd.core.effects import Send, ViewChanged
from protocol import codec
from protocol.envelope import Envelope
from protocol.messages import (
    Beat,
    Capacity,
    CapacityWanted,
    Gossip,
    Heartbeat,
    LoadWanted,
    Ping,
    Pull,
)
from tests.core.membership.builders import (
    BOOT,
    CONFIG,
    HOSTS,
    ME,
    A,
    B,
    Bench,
    C,
    D,
    capacity,
    claim,
    endpoint,
    hello,
    link,
    load,
)


def _bench(*peers: str) -> Bench:
    bench = Bench()
    bench.meet(*peers)
    bench.advance(2.0)
    bench.forget()
    return bench


# Itself


def test_a_node_knows_itself_from_the_start() -> None:
    """Alive, with its load and capacity, at the wall clock's incarnation."""
    me = Bench().member(ME)
    assert (me.state, me.incarnation, me.boot_id, me.address) == ("alive", 1_000, BOOT, None)
    assert me.routable


def test_a_node_alone_is_silent() -> None:
    """Nobody to probe, beat or gossip to; and nothing goes wrong."""
    bench = Bench()
    bench.advance(60.0)
    assert bench.sent(object) == []
    assert bench.said() == []


def test_view_changed_is_said_once_per_reading() -> None:
    """A shell that has not read the view yet need not hear of it again."""
    bench = _bench(A)
    bench.machine.view()
    effects = bench.hear(A, Heartbeat(100, 1, load(1, 2))) + bench.hear(
        A, Heartbeat(100, 1, load(2, 3))
    )
    assert effects.count(ViewChanged()) == 1
    bench.machine.view()
    assert ViewChanged() in bench.hear(A, Heartbeat(100, 1, load(3, 4)))


def test_the_deadline_is_honoured_exactly() -> None:
    """Ticking earlier does nothing, ticking at the deadline does something."""
    bench = _bench(A)
    deadline = bench.machine.deadline()
    bench.now = deadline - 1e-6
    bench.do(lambda m, now: m.tick(now))
    assert bench.machine.deadline() == deadline
    bench.now = deadline
    bench.do(lambda m, now: m.tick(now))
    assert bench.machine.deadline() > deadline


def test_a_clock_that_steps_back_does_no_harm() -> None:
    """It counts as no time passed."""
    bench = _bench(A)
    bench.now -= 50.0
    bench.hear(A, Heartbeat(100, 1, load(1, 2)))
    assert bench.member(A).load_at == bench.now + 50.0


def test_two_machines_with_one_seed_do_the_same() -> None:
    """No chance but the one that is passed in."""
    benches = []
    for _ in range(2):
        bench = Bench(seed=5)
        bench.meet(A, B, C)
        bench.advance(5.0)
        benches.append(bench.effects)
    assert benches[0] == benches[1]


def test_everything_that_is_sent_can_be_encoded() -> None:
    """The core's messages are within the wire's bounds."""
    bench = _bench(A, B, C)
    bench.answering.discard(A)
    bench.hear(B, Pull(()))
    bench.advance(10.0)
    sends = [effect for effect in bench.effects if isinstance(effect, Send)]
    envelope = Envelope("mesh", ME, BOOT, 1)
    assert all(codec.encode(envelope, send.message) for send in sends)
    assert len(sends) > 50


# Load and capacity


def test_probes_say_what_holds_and_no_beat_follows() -> None:
    """While nothing changes, in a mesh that is small enough."""
    bench = _bench(A, B)
    bench.advance(40.0)
    for peer in (A, B):
        assert {ping.load_sequence for ping in bench.sent(Ping, peer)} == {1}
        assert {ping.capacity_version for ping in bench.sent(Ping, peer)} == {1}
        assert bench.sent(Beat, peer) == []
        assert bench.sent(Heartbeat, peer) == []


def test_a_probe_that_names_a_newer_record_is_asked_for_it() -> None:
    """Of a sender that names none nothing is asked."""
    bench = _bench(A)
    bench.hear(A, Ping(1, ME))
    assert bench.sent(LoadWanted, A) == []
    bench.advance(1.0)
    bench.hear(A, Ping(2, ME, load_sequence=7))
    assert len(bench.sent(LoadWanted, A)) == 1
    bench.advance(1.0)
    bench.hear(A, Ping(3, ME, load_sequence=1, capacity_version=7))
    assert len(bench.sent(CapacityWanted, A)) == 1


def test_a_probe_makes_a_record_young_again() -> None:
    """The record that it names, and no other."""
    bench = _bench(A)
    bench.answering.clear()
    bench.advance(2.0)
    bench.hear(A, Ping(1, ME, load_sequence=2))
    assert bench.member(A).load_at < bench.now  # type: ignore[union-attr]
    bench.hear(A, Ping(2, ME, load_sequence=1))
    assert bench.member(A).load_at == bench.now  # type: ignore[union-attr]


def test_in_a_larger_mesh_peers_are_told_now_and_then_what_holds() -> None:
    """Each of them every five seconds or so, with the short word, where no probe has told it."""
    peers = [f"{number:032x}" for number in range(1, 41)]
    bench = _bench(*peers)
    bench.advance(40.0)
    told = [len(bench.sent(Beat, peer)) for peer in peers]
    assert 4 <= min(told) <= max(told) <= 8
    assert bench.sent(Heartbeat) == []


def test_a_changed_load_goes_straight_to_everybody_at_once() -> None:
    """And not more than four times a second."""
    bench = _bench(A, B)
    bench.do(lambda m, now: m.report(load(1), now))
    bench.advance(0.01)
    assert [bench.sent(Heartbeat, peer)[0].load.in_flight for peer in (A, B)] == [1, 1]
    for in_flight in range(2, 12):
        bench.do(lambda m, now, n=in_flight: m.report(load(n), now))  # type: ignore[misc]
        bench.advance(0.05)
    assert len(bench.sent(Heartbeat, A)) <= 4
    assert bench.member(ME).load.in_flight == 11  # type: ignore[union-attr]


def test_an_unchanged_load_is_not_repeated() -> None:
    """Reporting often costs nothing."""
    bench = _bench(A)
    for _ in range(20):
        bench.do(lambda m, now: m.report(load(), now))
        bench.advance(0.1)
    assert bench.sent(Heartbeat) == []


def test_one_slow_peer_delays_no_other() -> None:
    """Whether or not a peer answers or its link is up, the others hear from us on time."""
    bench = _bench(A, B, C)
    bench.answering.discard(C)
    bench.down(link(C), "timeout")
    bench.advance(40.0)
    assert len(bench.sent(Ping, A)) >= 20


def test_in_a_large_mesh_each_beat_goes_to_the_next_fifty() -> None:
    """The cost per node stays; everybody is reached in turn, with the full record."""
    bench = Bench()
    peers = [f"{number:032x}" for number in range(1, 121)]
    for peer in peers:
        bench.hear(peer, hello(peer))
    bench.answering |= set(peers)
    bench.advance(3.0)
    bench.forget()
    bench.advance(1.0)
    assert len(bench.sent(Heartbeat)) == 50
    bench.advance(3.0)
    reached = {
        e.node_id for e in bench.effects if isinstance(e, Send) and isinstance(e.message, Heartbeat)
    }
    assert reached == set(peers)


def test_a_changed_capacity_is_announced() -> None:
    """To everybody, once; the same again is no news."""
    bench = _bench(A, B)
    bench.do(lambda m, now: m.announce(capacity(9, "faster"), now))
    bench.do(lambda m, now: m.announce(capacity(10, "faster"), now))
    assert [message.capacity.chip for message in bench.sent(Capacity)] == ["faster"] * 2
    assert bench.member(ME).capacity == capacity(2, "faster")


def test_a_changed_address_is_a_new_incarnation() -> None:
    """Told straight to everybody; the same addresses again are no news."""
    bench = _bench(A)
    places = (endpoint("10.0.0.200"),)
    bench.do(lambda m, now: m.readdress(places, now))
    bench.do(lambda m, now: m.readdress(places, now))
    assert [(u.incarnation, u.endpoints) for u in bench.claims(ME, to=A)] == [(1_001, places)]


# Repair and gossip


def test_a_random_peer_is_pulled_from_now_and_then() -> None:
    """Every ten seconds in a small mesh."""
    bench = _bench(A, B)
    bench.advance(60.0)
    assert 5 <= len(bench.sent(Pull)) <= 7


def test_news_of_others_is_gossiped_a_bounded_number_of_times() -> None:
    """Four times the logarithm, then silence."""
    bench = _bench(A, B, C)
    bench.hear(A, Gossip((claim(D),)))
    bench.advance(5.0)
    told = [u for u in bench.claims(D) if u.state == "alive"]
    assert 0 < len(told) <= 4


def test_idle_gossip_is_silent() -> None:
    """No rumours, no frames."""
    bench = _bench(A, B, C)
    bench.advance(10.0)
    bench.forget()
    bench.advance(10.0)
    assert bench.sent(Gossip) == []


@pytest.mark.parametrize("peers", [(), (A,)])
def test_rumours_without_listeners_wait_quietly(peers: tuple[str, ...]) -> None:
    """An alarm that finds nobody to tell is not set again and again."""
    bench = Bench()
    bench.meet(*peers)
    bench.do(lambda m, now: m.readdress((endpoint("10.0.0.77"),), now))
    bench.advance(5.0)
    assert all(update.endpoints for update in bench.claims(ME))


def test_a_suspect_that_was_cleared_is_not_asked_again_for_it() -> None:
    """The extra probe of a suspicion ends with it."""
    bench = _bench(A, B, C)
    bench.answering.discard(A)
    bench.advance_until(lambda: bench.state(A) == "suspect")
    bench.hear(A, hello(A, incarnation=101))
    bench.answering.add(A)
    bench.forget()
    bench.advance(CONFIG.turn_interval_s)
    assert len(bench.sent(Ping, A)) <= 1


def test_hosts_of_the_bench_are_distinct() -> None:
    """Otherwise two peers would share a link."""
    assert len(set(HOSTS.values())) == len(HOSTS)
