"""Who is alive, and on what evidence: the rules that others learned in pain, one by one."""

from __future__ import annotations

import pytest

from protocol.messages import Gossip, Hello, Ping
from tests.core.membership.builders import ME, A, B, C, D, beat, claim, hello, link, met

SMALL = 1.2
FLOOR = 0.6
LONGEST = 3.6
RUMOUR = 2.0


# Silence


def test_a_silent_peer_is_suspected_and_then_dead() -> None:
    """Silence is evidence, and enough of it is a verdict."""
    bench = met(A, B, C)
    bench.answering.discard(A)
    bench.advance_until(lambda: bench.state(A) == "suspect")
    took = bench.advance_until(lambda: bench.state(A) == "dead")
    assert FLOOR <= took <= LONGEST + 0.1
    assert "silent for" in bench.member(A).reason


@pytest.mark.parametrize("peers", [(A,), (A, B)])
def test_small_meshes_come_to_a_verdict_by_repeated_probes(peers: tuple[str, ...]) -> None:
    """Nobody, or one node, can confirm; the floor is doubled and own probes stand in."""
    bench = met(*peers)
    bench.answering.discard(A)
    bench.advance_until(lambda: bench.state(A) == "suspect")
    took = bench.advance_until(lambda: bench.state(A) == "dead")
    assert SMALL - 0.01 <= took <= 2 * LONGEST
    assert len(bench.sent(Ping, A)) >= 3


def test_a_peer_that_never_was_heard_dies_without_a_claim_about_its_silence() -> None:
    """Heard of from a peer, never from itself."""
    bench = met(A)
    bench.hear(A, Gossip((claim(B),)))
    bench.advance_until(lambda: bench.state(B) == "dead")
    assert "silent" not in bench.member(B).reason


def test_an_own_suspicion_goes_straight_to_everybody() -> None:
    """The other nodes start their own clocks with it, and the accused hears of it too."""
    bench = met(A, B, C)
    bench.answering.discard(A)
    bench.advance_until(lambda: bench.state(A) == "suspect")
    for peer in (A, B, C):
        said = bench.claims(A, to=peer)[0]
        assert (said.state, said.incarnation, said.accuser) == ("suspect", 100, ME)


def test_a_confirmation_of_our_own_is_passed_on() -> None:
    """Our failed probe is one more independent voice."""
    bench = met(A, B, C, D)
    bench.answering.discard(A)
    bench.hear(B, Gossip((claim(A, "suspect", accuser=B),)))
    bench.advance(0.5)
    assert ME in {said.accuser for said in bench.claims(A)}


# Contact


@pytest.mark.parametrize(
    "sign",
    [
        lambda bench: bench.hear(A, beat()),
        lambda bench: bench.do(lambda m, now: m.relay_heard(A, now)),
    ],
)
def test_contact_ends_a_suspicion_here_and_tells_the_accused(sign: object) -> None:
    """Whatever it says; it must refute before everybody itself."""
    assert callable(sign)
    bench = met(A, B, C)
    bench.answering.discard(A)
    bench.hear(B, Gossip((claim(A, "suspect", accuser=B),)))
    assert bench.state(A) == "suspect"
    bench.forget()
    sign(bench)
    assert bench.state(A) == "alive"
    assert bench.member(A).incarnation == 100
    assert next((u.state, u.accuser) for u in bench.claims(A, to=A)) == ("suspect", B)


def test_a_disproved_accuser_is_not_listened_to_while_its_rumour_goes_round() -> None:
    """A new voice counts, and so does the old one once what it says cannot be an echo."""
    bench = met(A, B, C, D)
    bench.answering.discard(A)
    rumour = Gossip((claim(A, "suspect", accuser=B),))
    bench.hear(B, rumour)
    bench.hear(A, beat())
    bench.hear(C, rumour)
    assert bench.state(A) == "alive"
    bench.hear(C, Gossip((claim(A, "dead", accuser=B),)))
    assert bench.state(A) == "alive"
    bench.hear(C, Gossip((claim(A, "suspect", accuser=C),)))
    assert bench.state(A) == "suspect"


def test_an_accuser_that_says_so_again_later_is_listened_to() -> None:
    """A node that hears nobody refutes nothing: its first contact does not answer for ever."""
    bench = met(A, B, C, D)
    rumour = Gossip((claim(A, "suspect", accuser=B),))
    bench.hear(B, rumour)
    bench.hear(A, beat())
    bench.advance(RUMOUR)
    bench.answering.discard(A)
    bench.hear(B, rumour)
    assert bench.state(A) == "suspect"


# Its own word


def test_a_refutation_clears_a_suspicion() -> None:
    """Alive at a higher incarnation, by whatever way it comes."""
    bench = met(A, B, C)
    bench.hear(B, Gossip((claim(A, "suspect", accuser=B),)))
    bench.hear(C, Gossip((claim(A, incarnation=101),)))
    assert (bench.state(A), bench.member(A).incarnation) == ("alive", 101)


def test_a_refutation_at_the_same_incarnation_is_none() -> None:
    """Only the owner can raise it, so anybody could say this."""
    bench = met(A, B, C)
    bench.answering.discard(A)
    bench.hear(B, Gossip((claim(A, "suspect", accuser=B),)))
    bench.hear(C, Gossip((claim(A),)))
    assert bench.state(A) == "suspect"


def test_nobody_else_revives_the_dead() -> None:
    """Gossip about a dead node at its old incarnation changes nothing, for ever."""
    bench = met(A, B, C)
    bench.answering.discard(A)
    bench.advance_until(lambda: bench.state(A) == "dead")
    bench.hear(B, Gossip((claim(A), claim(A, "suspect", accuser=B))))
    assert bench.state(A) == "dead"


def test_the_dead_are_told_and_come_back_with_their_own_word() -> None:
    """One round trip: a sign of life, the accusation, the refutation."""
    bench = met(A, B, C)
    bench.answering.discard(A)
    bench.advance_until(lambda: bench.state(A) == "dead")
    bench.forget()
    bench.hear(A, beat())
    assert bench.state(A) == "dead"
    assert bench.claims(A, to=A)[0].state == "dead"
    bench.hear(A, hello(A, incarnation=101))
    assert bench.state(A) == "alive"
    assert bench.member(A).reason == "introduced itself"


def test_a_stale_claim_is_answered_with_what_is_held() -> None:
    """The owner learns how far it must rise, whatever its state here."""
    bench = met(A, B)
    bench.hear(A, hello(A, incarnation=200))
    bench.forget()
    bench.hear(A, beat(150))
    assert bench.claims(A, to=A)[0].incarnation == 200
    assert bench.member(A).incarnation == 200


def test_words_that_were_missed_are_asked_for() -> None:
    """A heartbeat states a number alone; what belongs to it must come from its owner."""
    bench = met(A, B)
    bench.hear(A, beat(101))
    assert bench.member(A).incarnation == 100
    assert bench.sent(Hello, A)[0].answer_wanted


# Restart


def test_a_restarted_node_is_alive_in_its_new_run() -> None:
    """A new boot id at a higher incarnation."""
    bench = met(A, B)
    bench.hear(A, hello(A, incarnation=300, boot_id=8), boot=8)
    member = bench.member(A)
    assert (member.state, member.boot_id, member.reason) == ("alive", 8, "restarted")


def test_a_restarted_node_with_its_clock_behind_learns_where_it_stands() -> None:
    """Its stale Hello is answered with the accusation; risen past that, it is accepted."""
    bench = met(A, B)
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
    bench = met(A, B)
    bench.hear(B, Gossip((claim(A, incarnation=300, boot_id=8),)))
    assert bench.member(A).boot_id == 8
    assert bench.member(A).load is None
