"""What messages about others do: probes, gossip, and repair."""

from __future__ import annotations

from dataclasses import replace

from meshd.core.effects import Send
from meshd.core.membership.config import MembershipConfig
from protocol.messages import (
    Ack,
    Beat,
    Gossip,
    Hello,
    Nack,
    Ping,
    PingReq,
    Pull,
)
from tests.core.membership.builders import (
    ME,
    A,
    B,
    Bench,
    C,
    claim,
    endpoint,
    hello,
    link,
)


def _bench(*peers: str) -> Bench:
    bench = Bench()
    bench.meet(*peers)
    bench.forget()
    return bench


# Probes


def test_only_the_target_answers_a_ping() -> None:
    """An address that went to another machine must not look alive."""
    bench = _bench(A)
    bench.hear(A, Ping(5, ME))
    bench.hear(A, Ping(6, B))
    assert [(ack.nonce, ack.target) for ack in bench.sent(Ack, A)] == [(5, ME)]


def test_answers_go_back_the_way_the_question_came() -> None:
    """A probe tests one connection in both directions."""
    bench = _bench(A)
    effects = bench.hear(A, Ping(5, ME), over=link(A))
    assert [e.link for e in effects if isinstance(e, Send)] == [link(A)]


def test_a_request_to_probe_a_third_is_run_and_reported() -> None:
    """Ack when it answers us, nack when it does not."""
    bench = _bench(A, B, C)
    bench.answering.discard(C)
    bench.hear(A, PingReq(500, B))
    bench.hear(A, PingReq(501, C))
    bench.advance(0.1)
    assert [ack.nonce for ack in bench.sent(Ack, A)] == [500]
    assert bench.sent(Nack, A) == [Nack(501, C)]
    bench.advance(3.0)


def test_a_request_to_probe_ourselves_is_simply_answered() -> None:
    """Nothing needs to be sent to find out."""
    bench = _bench(A)
    bench.hear(A, PingReq(500, ME))
    assert [(a.nonce, a.target) for a in bench.sent(Ack, A)] == [(500, ME)]


def test_an_answer_measures_the_peer() -> None:
    """Its smoothed round trip is shown."""
    bench = _bench(A)
    bench.advance(1.0)
    bench.hear(A, Beat(100, 1, 1))
    assert bench.member(A).rtt_s == 0.0


def test_an_answer_through_a_helper_ends_a_suspicion() -> None:
    """It lives; only our own way to it is cut."""
    bench = _bench(A, B, C)
    bench.answering.discard(A)
    bench.hear(B, Gossip((claim(A, "suspect", accuser=B),)))
    bench.advance(0.13)
    request = bench.asked(A)[-1]
    bench.hear(B, Ack(request.nonce, A))
    assert bench.state(A) == "alive"


def test_an_answer_nobody_waits_for_is_only_contact() -> None:
    """Nonces that were never used, and nacks for them."""
    bench = _bench(A)
    bench.hear(A, Ack(10**6, A))
    bench.hear(A, Nack(10**6, B))
    assert bench.state(A) == "alive"


def test_an_answer_about_a_row_that_has_gone_changes_nothing() -> None:
    """The tombstone may expire while the question is still remembered."""
    bench = Bench(MembershipConfig(tombstone_s=0.5))
    bench.meet(A, B, answering=False)
    bench.answering.add(B)
    bench.advance_until(lambda: bool(bench.asked(A)))
    request = bench.asked(A)[-1]
    bench.advance(0.2)
    bench.hear(B, Gossip((claim(A, "left"),)))
    bench.advance(0.6)
    assert bench.state(A) is None
    bench.hear(B, Ack(request.nonce, A))
    assert bench.state(A) is None


# Gossip and repair


def test_an_accusation_of_ourselves_is_refuted_before_everybody() -> None:
    """With a raised incarnation, straight to all; the teller gets a Hello, too."""
    bench = _bench(A, B)
    bench.hear(A, Gossip((claim(ME, "suspect", 1_000, accuser=A),)))
    assert bench.member(ME).incarnation == 1_001
    for peer in (A, B):
        assert [u.incarnation for u in bench.claims(ME, to=peer)] == [1_001]
    assert bench.sent(Hello, A)
    assert bench.machine._parts.health.score == 1


def test_an_old_accusation_is_answered_to_its_teller_alone() -> None:
    """Others know better already."""
    bench = _bench(A, B)
    bench.hear(A, Gossip((claim(ME, "dead", 500, accuser=A),)))
    assert bench.member(ME).incarnation == 1_000
    assert bench.claims(ME, to=A)
    assert not bench.claims(ME, to=B)


def test_what_is_true_of_us_needs_no_answer() -> None:
    """Alive, at our incarnation, in our run."""
    bench = _bench(A)
    bench.hear(A, Gossip((claim(ME, "alive", 1_000),)))
    assert bench.member(ME).incarnation == 1_000
    assert not bench.claims(ME)


def test_a_claim_of_our_last_run_raises_us_without_blame() -> None:
    """Peers remember it; that does not make us slow."""
    bench = _bench(A)
    bench.hear(A, Gossip((claim(ME, "dead", 5_000, boot_id=1),)))
    assert bench.member(ME).incarnation == 5_001
    assert bench.machine._parts.health.score == 0


def test_a_pull_is_answered_with_what_is_missing() -> None:
    """An empty digest gets everybody; a digest that knows better is pulled in turn."""
    bench = _bench(A, B)
    bench.hear(A, Pull(()))
    assert {u.node_id for g in bench.sent(Gossip, A) for u in g.updates} == {ME, A, B}
    assert not bench.sent(Pull, A)


def test_a_pull_that_knows_better_is_pulled_in_turn_once_a_second() -> None:
    """Two nodes that differ must not keep each other busy."""
    bench = _bench(A)
    bench.hear(A, Gossip((claim(B),)))
    bench.forget()
    digest = _digest_of_another(bench)
    for _ in range(3):
        bench.hear(A, Pull(digest))
    assert len(bench.sent(Pull, A)) == 1
    bench.advance(1.1)
    bench.hear(A, Pull(digest))
    assert len(bench.sent(Pull, A)) >= 2


def _digest_of_another(bench: Bench) -> tuple:  # type: ignore[type-arg]
    bench.hear(A, Pull(()))
    other = Bench()
    other.meet(A, C)
    pull = other.hear(A, hello(A, answer_wanted=False))
    assert isinstance(pull, list)
    return tuple(entry for message in other.sent(Pull) for entry in message.digest)


def test_rumours_ride_on_probes_and_the_accused_hears_first() -> None:
    """Lifeguard's buddy system: the first word to a suspect says what is held against it."""
    bench = _bench(A, B)
    bench.answering.discard(A)
    bench.hear(B, Gossip((claim(A, "suspect", accuser=B), claim(C))))
    ping = bench.sent(Ping, A)[0]
    assert (ping.updates[0].node_id, ping.updates[0].state) == (A, "suspect")
    assert C in {update.node_id for update in ping.updates}


def test_addresses_that_change_are_followed() -> None:
    """A new address in a node's own words is dialled when the old connection is gone."""
    bench = _bench(A)
    there = (endpoint("10.5.5.5"),)
    bench.hear(
        A, replace(hello(A, incarnation=101), myself=claim(A, incarnation=101, endpoints=there))
    )
    assert bench.member(A).endpoints == there
    bench.advance(0.05)
    bench.down(link(A), "timeout")
    bench.advance(0.5)
    assert bench.dialled()[-1] == "10.5.5.5:8788"
