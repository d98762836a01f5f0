"""What others claim, what connections prove, and how far each is believed."""

from __future__ import annotations

import pytest

from meshd.core.membership.config import MembershipConfig
from meshd.core.membership.precedence import INCARNATION_MAX
from protocol.messages import Gossip, Hello, Ping
from tests.core.membership.builders import BOOT, A, B, C, D, beat, claim, endpoint, hello, link, met

FLOOR = 0.6


# Hearsay


def test_dead_is_taken_for_suspect_and_checked() -> None:
    """Its teller may be the sick one: the accused is probed at once and given the floor."""
    bench = met(A, B, C)
    bench.answering.discard(A)
    bench.hear(B, Gossip((claim(A, "dead", accuser=B),)))
    assert bench.state(A) == "suspect"
    assert bench.sent(Ping, A)
    took = bench.advance_until(lambda: bench.state(A) == "dead")
    assert took == pytest.approx(FLOOR, abs=0.02)


def test_dead_about_the_living_ends_with_the_first_answer() -> None:
    """The check of our own costs one round trip."""
    bench = met(A, B, C)
    bench.hear(B, Gossip((claim(A, "dead", accuser=B),)))
    bench.advance(0.01)
    assert bench.state(A) == "alive"


def test_hearsay_of_the_unknown_dead_makes_no_row() -> None:
    """Tombstones do not wander for ever."""
    bench = met(A)
    bench.hear(A, Gossip((claim(B, "dead"), claim(C, "left"))))
    assert bench.state(B) is bench.state(C) is None


def test_an_unknown_suspect_is_taken_in_as_a_suspect() -> None:
    """It may be alive; its suspicion runs here too."""
    bench = met(A)
    bench.hear(A, Gossip((claim(B, "suspect", accuser=A),)))
    assert bench.state(B) == "suspect"


def test_hearsay_below_what_is_held_changes_nothing() -> None:
    """Old rumours arrive late."""
    bench = met(A, B, C)
    bench.hear(A, hello(A, incarnation=200))
    old = [claim(A, state, 150, accuser=B) for state in ("alive", "suspect", "dead", "left")]
    bench.hear(B, Gossip(tuple(old)))
    assert (bench.state(A), bench.member(A).incarnation) == ("alive", 200)


def test_a_suspicion_at_a_higher_incarnation_brings_the_words_along() -> None:
    """Whoever accuses has heard its owner at that incarnation."""
    bench = met(A, B, C)
    bench.answering.discard(A)
    there = (endpoint("10.7.7.7"),)
    bench.hear(B, Gossip((claim(A, "suspect", 150, endpoints=there, accuser=None),)))
    member = bench.member(A)
    assert (member.state, member.incarnation, member.endpoints) == ("suspect", 150, there)
    assert "a peer says so" in member.reason


def test_confirmations_by_others_shorten_the_wait() -> None:
    """Two more independent voices, and the floor is enough."""
    bench = met(A, B, C, D)
    bench.answering.discard(A)
    for accuser in (B, B, C, D):
        bench.hear(B, Gossip((claim(A, "suspect", accuser=accuser),)))
    took = bench.advance_until(lambda: bench.state(A) == "dead")
    assert took == pytest.approx(FLOOR, abs=0.02)


def test_dead_at_a_higher_incarnation_keeps_the_dead_dead() -> None:
    """Others heard it later than we did; it takes a higher one still to come back."""
    bench = met(A, B, C)
    bench.answering.discard(A)
    bench.advance_until(lambda: bench.state(A) == "dead")
    bench.hear(B, Gossip((claim(A, "dead", 150, accuser=B),)))
    assert (bench.state(A), bench.member(A).incarnation) == ("dead", 150)


def test_leaving_is_believed_and_not_argued_with() -> None:
    """Left beats dead and suspect; nobody probes or mourns it."""
    bench = met(A, B, C)
    bench.hear(B, Gossip((claim(A, "left"),)))
    bench.forget()
    bench.hear(C, Gossip((claim(A, "dead", accuser=C), claim(A, "suspect", accuser=C))))
    bench.advance(3.0)
    assert bench.state(A) == "left"
    assert not bench.sent(Ping, A)


def test_an_absurd_incarnation_is_not_believed() -> None:
    """Its owner could never answer with a higher one."""
    bench = met(A, B)
    bench.hear(B, Gossip((claim(A, "dead", INCARNATION_MAX + 1),)))
    bench.hear(C, hello(C, incarnation=INCARNATION_MAX + 1))
    assert (bench.state(A), bench.state(C)) == ("alive", None)


@pytest.mark.parametrize("state", ["suspect", "dead", "left"])
def test_an_accusation_that_cannot_be_answered_is_not_believed(state: str) -> None:
    """At the last incarnation the accused has no higher one, and would stay dead for everybody."""
    bench = met(A, B)
    bench.hear(B, Gossip((claim(A, state, INCARNATION_MAX, accuser=B),)))
    assert (bench.state(A), bench.member(A).incarnation < INCARNATION_MAX) == ("alive", True)


@pytest.mark.parametrize("boot_id", [BOOT, BOOT + 1])
def test_a_node_at_the_last_incarnation_still_comes_back(boot_id: int) -> None:
    """Whoever drove it there has not shut it out: its own Hello counts as higher."""
    bench = met(A, B)
    bench.hear(B, Gossip((claim(A, "left", INCARNATION_MAX - 1),)))
    bench.hear(A, hello(A, incarnation=INCARNATION_MAX))
    bench.answering.discard(A)
    bench.advance_until(lambda: bench.state(A) == "dead")
    bench.hear(A, hello(A, incarnation=INCARNATION_MAX, boot_id=boot_id), boot=boot_id)
    assert (bench.state(A), bench.member(A).boot_id) == ("alive", boot_id)


# Proof


def test_an_end_and_a_refusal_mean_dead_at_once() -> None:
    """Proof beats silence: no suspicion, no wait; and the others are told."""
    bench = met(A, B, C)
    bench.connect(A)
    bench.advance(2.0)
    bench.forget()
    bench.down(link(A), "eof")
    assert bench.state(A) == "alive"
    bench.down(link(A), "refused")
    assert bench.state(A) == "dead"
    assert "process ended" in bench.member(A).reason
    bench.advance(0.05)
    assert {said.state for said in bench.claims(A, to=B)} == {"dead"}


def test_a_process_that_is_heard_after_its_connection_ended_is_not_dead() -> None:
    """It closed its port, perhaps to open another; its other connection still speaks."""
    bench = met(A, B, C)
    bench.connect(A)
    bench.advance(2.0)
    bench.down(link(A), "eof")
    bench.answering.discard(A)
    bench.advance(0.06)
    bench.hear(A, beat())
    bench.down(link(A), "refused")
    assert bench.state(A) == "alive"


def test_proof_about_the_departed_changes_nothing() -> None:
    """A node that has left closes its port, too."""
    bench = met(A, B, C)
    bench.connect(A)
    bench.advance(2.0)
    bench.down(link(A), "eof")
    row = bench.machine._parts.table.rows[A]
    bench.hear(A, Gossip((claim(A, "left"),)))
    bench.machine._parts.beliefs.proven_gone(row, bench.now, bench.now)
    assert bench.state(A) == "left"


def test_a_node_that_left_in_the_same_breath_is_not_checked() -> None:
    """An accusation and a goodbye in one frame: the goodbye stands."""
    bench = met(A, B, C)
    bench.hear(B, Gossip((claim(A, "dead", accuser=B), claim(A, "left"))))
    assert bench.state(A) == "left"
    assert not bench.sent(Ping, A)


def test_in_a_large_mesh_only_some_check_an_accusation() -> None:
    """The verifiers are a share, drawn by each for itself."""
    bench = met(A, B, C, config=MembershipConfig(verifiers=0))
    bench.hear(B, Gossip((claim(A, "suspect", accuser=B),)))
    assert bench.state(A) == "suspect"
    assert not bench.sent(Ping, A)


def test_the_dead_expire_with_all_that_belongs_to_them() -> None:
    """No more dialling, and no row."""
    bench = met(A, B, C, config=MembershipConfig(tombstone_s=5.0))
    bench.answering.discard(A)
    bench.advance_until(lambda: bench.state(A) == "dead")
    bench.advance(5.1)
    assert bench.state(A) is None
    bench.forget()
    bench.advance(20.0)
    assert link(A) not in bench.dialled()


def test_the_dead_are_told_now_and_then() -> None:
    """Not once per frame: they may be many, and talkative."""
    bench = met(A, B, C)
    bench.answering.discard(A)
    bench.advance_until(lambda: bench.state(A) == "dead")
    bench.forget()
    for _ in range(10):
        bench.hear(A, beat())
    assert len([m for m in bench.sent(Gossip, A) if m.updates[0].node_id == A]) == 1


def test_missed_words_are_asked_for_now_and_then() -> None:
    """Not once per heartbeat."""
    bench = met(A, B)
    for _ in range(10):
        bench.hear(A, beat(101))
    assert len(bench.sent(Hello, A)) == 1


def test_repeated_probes_never_take_back_what_others_have_confirmed() -> None:
    """Another node's verdict stands, however often we find silence ourselves."""
    bench = met(A, B, C)
    bench.answering.discard(A)
    bench.hear(B, Gossip((claim(A, "dead", accuser=B),)))
    bench.advance(0.55)
    assert bench.machine._parts.beliefs._suspicions[A].confirmations == 2
