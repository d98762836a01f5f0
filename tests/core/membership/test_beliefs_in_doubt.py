"""Doubting oneself, finding clones, and keeping the table within bounds."""

from __future__ import annotations

from meshd.core.membership.config import MembershipConfig
from protocol.messages import Gossip, Hello, Ping
from tests.core.membership.builders import A, B, C, D, beat, claim, endpoint, hello, met

# Doubting oneself


def test_when_most_fall_silent_nobody_is_declared_dead() -> None:
    """It is probably our own network; people are told once."""
    bench = met(A, B, C, D)
    bench.answering.clear()
    bench.advance(20.0)
    assert [bench.state(peer) for peer in (A, B, C, D)] == ["suspect"] * 4
    assert sum("own network" in text for text in bench.said()) == 1


def test_the_doubt_ends_when_they_are_heard_again() -> None:
    """And no harm was done."""
    bench = met(A, B, C, D)
    bench.answering.clear()
    bench.advance(5.0)
    bench.answering |= {A, B, C, D}
    bench.advance(20.0)
    assert [bench.state(peer) for peer in (A, B, C, D)] == ["alive"] * 4


def test_the_doubt_does_not_last_for_ever() -> None:
    """Half a minute without a word from anybody, and they are dead after all."""
    bench = met(A, B, C, D)
    bench.answering.clear()
    bench.advance(60.0)
    assert {bench.state(peer) for peer in (A, B, C, D)} == {"dead"}


def test_while_in_doubt_no_accusations_are_spread() -> None:
    """What our own network makes us see is nobody's business but the accused's."""
    bench = met(A, B, C, D)
    bench.answering.clear()
    bench.advance_until(lambda: any("own network" in text for text in bench.said()))
    bench.forget()
    bench.advance(2.0)
    peers = (A, B, C, D)
    told = {of for of in peers for to in peers if of != to and bench.claims(of, to)}
    assert len(told) <= 2


def test_after_a_sleep_nobody_is_judged_before_everybody_was_asked() -> None:
    """Suspicions are void, loads are unknown, and silence counts only after a grace."""
    bench = met(A, B, C)
    bench.answering.clear()
    bench.hear(B, Gossip((claim(A, "suspect", accuser=B),)))
    bench.forget()
    bench.do(lambda m, now: m.woke(now))
    assert bench.state(A) == "alive"
    assert bench.member(A).load is None
    assert {effect.target for effect in bench.sent(Ping)} == {A, B, C}
    bench.advance(0.95)
    assert {bench.state(peer) for peer in (A, B, C)} == {"alive"}


def test_a_hearsay_suspicion_after_a_sleep_waits_for_the_grace() -> None:
    """Even one whose wait would be over before it."""
    bench = met(A, B, C, D)
    bench.answering.clear()
    bench.do(lambda m, now: m.woke(now))
    bench.hear(B, Gossip((claim(A, "dead", accuser=B),)))
    bench.advance(0.9)
    assert bench.state(A) == "suspect"
    bench.advance(0.5)
    assert bench.state(A) == "dead"


# Clones


def test_a_cloned_identity_is_said_by_name() -> None:
    """A run that was replaced and comes back is a second process with the same key."""
    bench = met(A, B)
    here, there = (endpoint("10.0.0.10"),), (endpoint("10.0.0.99"),)
    bench.hear(A, hello(A, incarnation=200, boot_id=8, endpoints=there), boot=8)
    bench.hear(A, hello(A, incarnation=300, endpoints=here))
    warning = next(text for text in bench.said() if "identity" in text)
    assert all(word in warning for word in ("ann", A, "10.0.0.10", "10.0.0.99"))


def test_a_clone_s_other_half_is_not_listened_to_for_a_while() -> None:
    """Otherwise the two would take turns for ever; people were told."""
    bench = met(A, B)
    bench.hear(A, hello(A, incarnation=200, boot_id=8), boot=8)
    bench.hear(A, hello(A, incarnation=300))
    bench.forget()
    bench.hear(A, beat(), boot=8)
    bench.hear(A, hello(A, incarnation=400, boot_id=8), boot=8)
    bench.hear(B, Gossip((claim(A, incarnation=500, boot_id=8),)))
    assert bench.member(A).boot_id != 8
    assert not bench.sent(Hello, A)
    bench.advance(61.0)
    bench.hear(A, hello(A, incarnation=600, boot_id=8, endpoints=()), boot=8)
    assert bench.member(A).boot_id == 8
    assert any("an unknown address" in text for text in bench.said())


# Bounds


def test_a_full_table_turns_newcomers_away_and_says_so_once() -> None:
    """Strangers cannot grow it; whoever is known stays."""
    bench = met(A, B, config=MembershipConfig(members_max=3))
    bench.hear(C, hello(C))
    bench.hear(A, Gossip((claim(D),)))
    assert (bench.state(C), bench.state(D)) == (None, None)
    assert sum("table is full" in text for text in bench.said()) == 1


def test_tombstones_expire() -> None:
    """The dead are listed for an hour, then forgotten, and could come back as new."""
    bench = met(A, B, C)
    bench.hear(B, Gossip((claim(A, "left"),)))
    bench.advance(3_590.0)
    assert bench.state(A) == "left"
    bench.advance(20.0)
    assert bench.state(A) is None
    bench.hear(B, Gossip((claim(A),)))
    assert bench.state(A) == "alive"


def test_an_accuser_that_is_not_known_is_a_peer() -> None:
    """The reason still reads as a sentence."""
    bench = met(A, B)
    bench.answering.discard(A)
    bench.hear(B, Gossip((claim(A, "suspect", accuser="99" * 16),)))
    assert bench.member(A).reason == "a peer says so"
