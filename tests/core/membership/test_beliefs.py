"""Who is alive, and on what evidence: the rules that others learned in pain, one by one."""

from __future__ import annotations

import pytest

from meshd.core.membership.config import MembershipConfig
from meshd.core.membership.precedence import INCARNATION_MAX
from protocol.messages import Beat, Gossip, Hello, Ping
from tests.core.membership.builders import ME, A, B, Bench, C, D, claim, endpoint, hello, link

SMALL = 1.5
FLOOR = 0.75


def _mesh(*peers: str, config: MembershipConfig | None = None) -> Bench:
    """A machine that has met these peers; all answer probes."""
    bench = Bench(config or MembershipConfig())
    bench.meet(*peers)
    bench.advance(8.0)
    bench.forget()
    return bench


def _beat(incarnation: int = 100) -> Beat:
    return Beat(incarnation, 1, 1)


# Silence


def test_a_silent_peer_is_suspected_and_then_dead() -> None:
    """Silence is evidence, and enough of it is a verdict."""
    bench = _mesh(A, B, C)
    bench.answering.discard(A)
    bench.advance_until(lambda: bench.state(A) == "suspect")
    took = bench.advance_until(lambda: bench.state(A) == "dead")
    assert FLOOR <= took <= 4.5 + 0.1
    assert "silent for" in bench.member(A).reason


@pytest.mark.parametrize("peers", [(A,), (A, B)])
def test_small_meshes_come_to_a_verdict_by_repeated_probes(peers: tuple[str, ...]) -> None:
    """Nobody, or one node, can confirm; the floor is doubled and own probes stand in."""
    bench = _mesh(*peers)
    bench.answering.discard(A)
    bench.advance_until(lambda: bench.state(A) == "suspect")
    took = bench.advance_until(lambda: bench.state(A) == "dead")
    assert SMALL - 0.01 <= took <= 2 * 4.5
    assert len(bench.sent(Ping, A)) >= 3


def test_a_peer_that_never_was_heard_dies_without_a_claim_about_its_silence() -> None:
    """Heard of from a peer, never from itself."""
    bench = _mesh(A)
    bench.hear(A, Gossip((claim(B),)))
    bench.advance_until(lambda: bench.state(B) == "dead")
    assert "silent" not in bench.member(B).reason


def test_an_own_suspicion_goes_straight_to_everybody() -> None:
    """The other nodes start their own clocks with it, and the accused hears of it too."""
    bench = _mesh(A, B, C)
    bench.answering.discard(A)
    bench.advance_until(lambda: bench.state(A) == "suspect")
    for peer in (A, B, C):
        said = bench.claims(A, to=peer)[0]
        assert (said.state, said.incarnation, said.accuser) == ("suspect", 100, ME)


def test_a_confirmation_of_our_own_is_passed_on() -> None:
    """Our failed probe is one more independent voice."""
    bench = _mesh(A, B, C, D)
    bench.answering.discard(A)
    bench.hear(B, Gossip((claim(A, "suspect", accuser=B),)))
    bench.advance(0.5)
    assert ME in {said.accuser for said in bench.claims(A)}


# Contact


@pytest.mark.parametrize(
    "sign",
    [
        lambda bench: bench.hear(A, _beat()),
        lambda bench: bench.do(lambda m, now: m.relay_heard(A, now)),
    ],
)
def test_contact_ends_a_suspicion_here_and_tells_the_accused(sign: object) -> None:
    """Whatever it says; it must refute before everybody itself."""
    assert callable(sign)
    bench = _mesh(A, B, C)
    bench.answering.discard(A)
    bench.hear(B, Gossip((claim(A, "suspect", accuser=B),)))
    assert bench.state(A) == "suspect"
    bench.forget()
    sign(bench)
    assert bench.state(A) == "alive"
    assert bench.member(A).incarnation == 100
    assert next((u.state, u.accuser) for u in bench.claims(A, to=A)) == ("suspect", B)


def test_a_disproved_accuser_is_not_believed_again_at_the_same_incarnation() -> None:
    """Its rumour goes round for seconds; a new voice counts, and so does a new incarnation."""
    bench = _mesh(A, B, C, D)
    bench.answering.discard(A)
    rumour = Gossip((claim(A, "suspect", accuser=B),))
    bench.hear(B, rumour)
    bench.hear(A, _beat())
    bench.hear(C, rumour)
    assert bench.state(A) == "alive"
    bench.hear(C, Gossip((claim(A, "dead", accuser=B),)))
    assert bench.state(A) == "alive"
    bench.hear(C, Gossip((claim(A, "suspect", accuser=C),)))
    assert bench.state(A) == "suspect"


# Its own word


def test_a_refutation_clears_a_suspicion() -> None:
    """Alive at a higher incarnation, by whatever way it comes."""
    bench = _mesh(A, B, C)
    bench.hear(B, Gossip((claim(A, "suspect", accuser=B),)))
    bench.hear(C, Gossip((claim(A, incarnation=101),)))
    assert (bench.state(A), bench.member(A).incarnation) == ("alive", 101)


def test_a_refutation_at_the_same_incarnation_is_none() -> None:
    """Only the owner can raise it, so anybody could say this."""
    bench = _mesh(A, B, C)
    bench.answering.discard(A)
    bench.hear(B, Gossip((claim(A, "suspect", accuser=B),)))
    bench.hear(C, Gossip((claim(A),)))
    assert bench.state(A) == "suspect"


def test_nobody_else_revives_the_dead() -> None:
    """Gossip about a dead node at its old incarnation changes nothing, for ever."""
    bench = _mesh(A, B, C)
    bench.answering.discard(A)
    bench.advance_until(lambda: bench.state(A) == "dead")
    bench.hear(B, Gossip((claim(A), claim(A, "suspect", accuser=B))))
    assert bench.state(A) == "dead"


def test_the_dead_are_told_and_come_back_with_their_own_word() -> None:
    """One round trip: a sign of life, the accusation, the refutation."""
    bench = _mesh(A, B, C)
    bench.answering.discard(A)
    bench.advance_until(lambda: bench.state(A) == "dead")
    bench.forget()
    bench.hear(A, _beat())
    assert bench.state(A) == "dead"
    assert bench.claims(A, to=A)[0].state == "dead"
    bench.hear(A, hello(A, incarnation=101))
    assert bench.state(A) == "alive"
    assert bench.member(A).reason == "introduced itself"


def test_a_stale_claim_is_answered_with_what_is_held() -> None:
    """The owner learns how far it must rise, whatever its state here."""
    bench = _mesh(A, B)
    bench.hear(A, hello(A, incarnation=200))
    bench.forget()
    bench.hear(A, _beat(150))
    assert bench.claims(A, to=A)[0].incarnation == 200
    assert bench.member(A).incarnation == 200


def test_words_that_were_missed_are_asked_for() -> None:
    """A heartbeat states a number alone; what belongs to it must come from its owner."""
    bench = _mesh(A, B)
    bench.hear(A, _beat(101))
    assert bench.member(A).incarnation == 100
    assert bench.sent(Hello, A)[0].answer_wanted


# Restart


def test_a_restarted_node_is_alive_in_its_new_run() -> None:
    """A new boot id at a higher incarnation."""
    bench = _mesh(A, B)
    bench.hear(A, hello(A, incarnation=300, boot_id=8), boot=8)
    member = bench.member(A)
    assert (member.state, member.boot_id, member.reason) == ("alive", 8, "restarted")


def test_a_restarted_node_with_its_clock_behind_learns_where_it_stands() -> None:
    """Its stale Hello is answered with the accusation; risen past that, it is accepted."""
    bench = _mesh(A, B)
    bench.down(link(A), "eof")
    bench.forget()
    bench.hear(A, hello(A, incarnation=5, boot_id=8, answer_wanted=True), boot=8)
    assert bench.member(A).boot_id != 8
    assert bench.claims(A, to=A)[0].incarnation == 100
    assert not bench.sent(Hello, A)[0].answer_wanted
    bench.hear(A, hello(A, incarnation=101, boot_id=8), boot=8)
    assert (bench.state(A), bench.member(A).boot_id) == ("alive", 8)


def test_a_restart_is_also_learned_from_others() -> None:
    """By gossip, with the new run's id."""
    bench = _mesh(A, B)
    bench.hear(B, Gossip((claim(A, incarnation=300, boot_id=8),)))
    assert bench.member(A).boot_id == 8
    assert bench.member(A).load is None


# Hearsay


def test_dead_is_taken_for_suspect_and_checked() -> None:
    """Its teller may be the sick one: the accused is probed at once and given the floor."""
    bench = _mesh(A, B, C)
    bench.answering.discard(A)
    bench.hear(B, Gossip((claim(A, "dead", accuser=B),)))
    assert bench.state(A) == "suspect"
    assert bench.sent(Ping, A)
    took = bench.advance_until(lambda: bench.state(A) == "dead")
    assert took == pytest.approx(FLOOR, abs=0.02)


def test_dead_about_the_living_ends_with_the_first_answer() -> None:
    """The check of our own costs one round trip."""
    bench = _mesh(A, B, C)
    bench.hear(B, Gossip((claim(A, "dead", accuser=B),)))
    bench.advance(0.01)
    assert bench.state(A) == "alive"


def test_hearsay_of_the_unknown_dead_makes_no_row() -> None:
    """Tombstones do not wander for ever."""
    bench = _mesh(A)
    bench.hear(A, Gossip((claim(B, "dead"), claim(C, "left"))))
    assert bench.state(B) is bench.state(C) is None


def test_an_unknown_suspect_is_taken_in_as_a_suspect() -> None:
    """It may be alive; its suspicion runs here too."""
    bench = _mesh(A)
    bench.hear(A, Gossip((claim(B, "suspect", accuser=A),)))
    assert bench.state(B) == "suspect"


def test_hearsay_below_what_is_held_changes_nothing() -> None:
    """Old rumours arrive late."""
    bench = _mesh(A, B, C)
    bench.hear(A, hello(A, incarnation=200))
    old = [claim(A, state, 150, accuser=B) for state in ("alive", "suspect", "dead", "left")]
    bench.hear(B, Gossip(tuple(old)))
    assert (bench.state(A), bench.member(A).incarnation) == ("alive", 200)


def test_a_suspicion_at_a_higher_incarnation_brings_the_words_along() -> None:
    """Whoever accuses has heard its owner at that incarnation."""
    bench = _mesh(A, B, C)
    bench.answering.discard(A)
    there = (endpoint("10.7.7.7"),)
    bench.hear(B, Gossip((claim(A, "suspect", 150, endpoints=there, accuser=None),)))
    member = bench.member(A)
    assert (member.state, member.incarnation, member.endpoints) == ("suspect", 150, there)
    assert "a peer says so" in member.reason


def test_confirmations_by_others_shorten_the_wait() -> None:
    """Two more independent voices, and the floor is enough."""
    bench = _mesh(A, B, C, D)
    bench.answering.discard(A)
    for accuser in (B, B, C, D):
        bench.hear(B, Gossip((claim(A, "suspect", accuser=accuser),)))
    took = bench.advance_until(lambda: bench.state(A) == "dead")
    assert took == pytest.approx(FLOOR, abs=0.02)


def test_dead_at_a_higher_incarnation_keeps_the_dead_dead() -> None:
    """Others heard it later than we did; it takes a higher one still to come back."""
    bench = _mesh(A, B, C)
    bench.answering.discard(A)
    bench.advance_until(lambda: bench.state(A) == "dead")
    bench.hear(B, Gossip((claim(A, "dead", 150, accuser=B),)))
    assert (bench.state(A), bench.member(A).incarnation) == ("dead", 150)


def test_leaving_is_believed_and_not_argued_with() -> None:
    """Left beats dead and suspect; nobody probes or mourns it."""
    bench = _mesh(A, B, C)
    bench.hear(B, Gossip((claim(A, "left"),)))
    bench.forget()
    bench.hear(C, Gossip((claim(A, "dead", accuser=C), claim(A, "suspect", accuser=C))))
    bench.advance(3.0)
    assert bench.state(A) == "left"
    assert not bench.sent(Ping, A)


def test_an_absurd_incarnation_is_not_believed() -> None:
    """Its owner could never answer with a higher one."""
    bench = _mesh(A, B)
    bench.hear(B, Gossip((claim(A, "dead", INCARNATION_MAX + 1),)))
    bench.hear(C, hello(C, incarnation=INCARNATION_MAX + 1))
    assert (bench.state(A), bench.state(C)) == ("alive", None)


# Proof


def test_an_end_and_a_refusal_mean_dead_at_once() -> None:
    """Proof beats silence: no suspicion, no wait; and the others are told."""
    bench = _mesh(A, B, C)
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
    bench = _mesh(A, B, C)
    bench.connect(A)
    bench.advance(2.0)
    bench.down(link(A), "eof")
    bench.answering.discard(A)
    bench.advance(0.06)
    bench.hear(A, _beat())
    bench.down(link(A), "refused")
    assert bench.state(A) == "alive"


def test_proof_about_the_departed_changes_nothing() -> None:
    """A node that has left closes its port, too."""
    bench = _mesh(A, B, C)
    bench.connect(A)
    bench.advance(2.0)
    bench.down(link(A), "eof")
    row = bench.machine._parts.table.rows[A]
    bench.hear(A, Gossip((claim(A, "left"),)))
    bench.machine._parts.beliefs.proven_gone(row, bench.now, bench.now)
    assert bench.state(A) == "left"


# Doubting oneself


def test_when_most_fall_silent_nobody_is_declared_dead() -> None:
    """It is probably our own network; people are told once."""
    bench = _mesh(A, B, C, D)
    bench.answering.clear()
    bench.advance(20.0)
    assert [bench.state(peer) for peer in (A, B, C, D)] == ["suspect"] * 4
    assert sum("own network" in text for text in bench.said()) == 1


def test_the_doubt_ends_when_they_are_heard_again() -> None:
    """And no harm was done."""
    bench = _mesh(A, B, C, D)
    bench.answering.clear()
    bench.advance(5.0)
    bench.answering |= {A, B, C, D}
    bench.advance(20.0)
    assert [bench.state(peer) for peer in (A, B, C, D)] == ["alive"] * 4


def test_the_doubt_does_not_last_for_ever() -> None:
    """Half a minute without a word from anybody, and they are dead after all."""
    bench = _mesh(A, B, C, D)
    bench.answering.clear()
    bench.advance(60.0)
    assert {bench.state(peer) for peer in (A, B, C, D)} == {"dead"}


def test_while_in_doubt_no_accusations_are_spread() -> None:
    """What our own network makes us see is nobody's business."""
    bench = _mesh(A, B, C, D)
    bench.answering.clear()
    bench.advance_until(lambda: any("own network" in text for text in bench.said()))
    bench.forget()
    bench.advance(2.0)
    last = [peer for peer in (A, B, C, D) if bench.claims(peer)]
    assert len(last) <= 3


def test_after_a_sleep_nobody_is_judged_before_everybody_was_asked() -> None:
    """Suspicions are void, loads are unknown, and silence counts only after a grace."""
    bench = _mesh(A, B, C)
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
    bench = _mesh(A, B, C, D)
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
    bench = _mesh(A, B)
    here, there = (endpoint("10.0.0.10"),), (endpoint("10.0.0.99"),)
    bench.hear(A, hello(A, incarnation=200, boot_id=8, endpoints=there), boot=8)
    bench.hear(A, hello(A, incarnation=300, endpoints=here))
    warning = next(text for text in bench.said() if "identity" in text)
    assert all(word in warning for word in ("ann", A, "10.0.0.10", "10.0.0.99"))


def test_a_clone_s_other_half_is_not_listened_to_for_a_while() -> None:
    """Otherwise the two would take turns for ever; people were told."""
    bench = _mesh(A, B)
    bench.hear(A, hello(A, incarnation=200, boot_id=8), boot=8)
    bench.hear(A, hello(A, incarnation=300))
    bench.forget()
    bench.hear(A, _beat(), boot=8)
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
    bench = _mesh(A, B, config=MembershipConfig(members_max=3))
    bench.hear(C, hello(C))
    bench.hear(A, Gossip((claim(D),)))
    assert (bench.state(C), bench.state(D)) == (None, None)
    assert sum("table is full" in text for text in bench.said()) == 1


def test_tombstones_expire() -> None:
    """The dead are listed for an hour, then forgotten, and could come back as new."""
    bench = _mesh(A, B, C)
    bench.hear(B, Gossip((claim(A, "left"),)))
    bench.advance(3_590.0)
    assert bench.state(A) == "left"
    bench.advance(20.0)
    assert bench.state(A) is None
    bench.hear(B, Gossip((claim(A),)))
    assert bench.state(A) == "alive"


def test_an_accuser_that_is_not_known_is_a_peer() -> None:
    """The reason still reads as a sentence."""
    bench = _mesh(A, B)
    bench.answering.discard(A)
    bench.hear(B, Gossip((claim(A, "suspect", accuser="99" * 16),)))
    assert bench.member(A).reason == "a peer says so"


def test_a_node_that_left_in_the_same_breath_is_not_checked() -> None:
    """An accusation and a goodbye in one frame: the goodbye stands."""
    bench = _mesh(A, B, C)
    bench.hear(B, Gossip((claim(A, "dead", accuser=B), claim(A, "left"))))
    assert bench.state(A) == "left"
    assert not bench.sent(Ping, A)


def test_in_a_large_mesh_only_some_check_an_accusation() -> None:
    """The verifiers are a share, drawn by each for itself."""
    bench = _mesh(A, B, C, config=MembershipConfig(verifiers=0))
    bench.hear(B, Gossip((claim(A, "suspect", accuser=B),)))
    assert bench.state(A) == "suspect"
    assert not bench.sent(Ping, A)


def test_the_dead_expire_with_all_that_belongs_to_them() -> None:
    """No more dialling, and no row."""
    bench = _mesh(A, B, C, config=MembershipConfig(tombstone_s=5.0))
    bench.answering.discard(A)
    bench.advance_until(lambda: bench.state(A) == "dead")
    bench.advance(5.1)
    assert bench.state(A) is None
    bench.forget()
    bench.advance(20.0)
    assert link(A) not in bench.dialled()


def test_the_dead_are_told_now_and_then() -> None:
    """Not once per frame: they may be many, and talkative."""
    bench = _mesh(A, B, C)
    bench.answering.discard(A)
    bench.advance_until(lambda: bench.state(A) == "dead")
    bench.forget()
    for _ in range(10):
        bench.hear(A, _beat())
    assert len([m for m in bench.sent(Gossip, A) if m.updates[0].node_id == A]) == 1


def test_missed_words_are_asked_for_now_and_then() -> None:
    """Not once per heartbeat."""
    bench = _mesh(A, B)
    for _ in range(10):
        bench.hear(A, _beat(101))
    assert len(bench.sent(Hello, A)) == 1


def test_repeated_probes_never_take_back_what_others_have_confirmed() -> None:
    """Another node's verdict stands, however often we find silence ourselves."""
    bench = _mesh(A, B, C)
    bench.answering.discard(A)
    bench.hear(B, Gossip((claim(A, "dead", accuser=B),)))
    bench.advance(0.7)
    assert bench.machine._parts.beliefs._suspicions[A].confirmations == 2
