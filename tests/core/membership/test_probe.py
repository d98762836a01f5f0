"""One question per interval, helpers when it stays unanswered, and every answer counts."""

from __future__ import annotations

from random import Random

from meshd.core.membership.config import MembershipConfig
from meshd.core.membership.health import LocalHealth
from meshd.core.membership.kit import Kit
from meshd.core.membership.probe import Answered, Prober
from meshd.core.membership.table import Table, row_from
from meshd.core.membership.turns import Turns
from protocol.messages import Ack, Nack, Ping, PingReq
from tests.core.membership.builders import ME, A, B, C, D, claim

Sent = list[tuple[str, Ping | Ack | PingReq | Nack]]


class Desk:
    """A prober and what it sent. `fire` stands in for the agenda."""

    def __init__(self, *peers: str, config: MembershipConfig | None = None) -> None:
        self.kit = Kit(config or MembershipConfig(), Random(1))
        self.health = LocalHealth(8)
        self.table = Table(ME, 64)
        for peer in peers:
            self.table.add(row_from(claim(peer), 0.0, "known"))
        self.peers = self.table.peers
        self.sent: Sent = []
        self.prober = Prober(
            self.kit,
            self.table,
            self.health,
            Turns(ME, self.kit.config.turn_interval_s, 0.0),
            lambda to, message, _now: self.sent.append((to, message)),
        )

    def ping(self, target: str, now: float = 0.0) -> Ping:
        self.prober.ask(target, now)
        message = self.sent[-1][1]
        assert isinstance(message, Ping)
        return message

    def fail(self, target: str) -> Ping:
        ping = self.ping(target)
        self.prober.unacked(target, 0.1)
        return ping

    def hear(self, *peers: str, at: float) -> None:
        for peer in peers:
            self.table.rows[peer].heard_at = at

    def helpers(self) -> list[str]:
        return sorted(to for to, message in self.sent if isinstance(message, PingReq))


def test_everybody_is_probed_once_per_round() -> None:
    """A rotation, not a lottery: nobody waits longer than two rounds."""
    desk = Desk(A, B, C, D)
    for turn in range(8):
        desk.prober.turn(float(turn))
        to, message = desk.sent[-1]
        desk.prober.acked(to, Ack(message.nonce, to), turn + 0.01)
    targets = [to for to, _ in desk.sent]
    assert sorted(targets[:4]) == sorted(targets[4:]) == [A, B, C, D]


def test_a_turn_with_nobody_to_ask_passes() -> None:
    """Alone, or with a probe of the only peer under way, nothing is sent; the next turn is set."""
    desk = Desk()
    desk.prober.turn(0.0)
    assert desk.kit.agenda.at(("probe", "")) == 0.4
    lonely = Desk(A)
    lonely.prober.turn(0.0)
    lonely.prober.turn(0.4)
    assert len(lonely.sent) == 1


def test_those_who_left_lose_their_turn() -> None:
    """The rotation may name them, the roll decides."""
    desk = Desk(A, B)
    desk.prober.turn(0.0)
    desk.prober.drop(desk.sent[0][0])
    for peer in (A, B):
        desk.peers.discard(peer)
    desk.prober.turn(0.25)
    assert len(desk.sent) == 1


def test_a_newcomer_gets_a_turn_in_this_round_and_only_one() -> None:
    """Joining twice is joining once."""
    desk = Desk()
    desk.prober.joined(A)
    desk.prober.joined(A)
    desk.peers.add(A)
    desk.prober.turn(0.0)
    desk.prober.turn(0.25)
    assert [to for to, _ in desk.sent] == [A]


def test_a_direct_answer_measures_the_round_trip() -> None:
    """And heals local health."""
    desk = Desk(A)
    desk.health.worse()
    ping = desk.ping(A, 1.0)
    assert desk.prober.acked(A, Ack(ping.nonce, A), 1.02) == Answered(A, 1.02 - 1.0)
    assert desk.health.score == 0
    assert desk.kit.agenda.at(("ack", A)) is None


def test_helpers_are_asked_and_their_word_counts() -> None:
    """Three others, never the target; an answer through one of them is an answer."""
    desk = Desk(A, B, C, D)
    ping = desk.fail(A)
    assert desk.helpers() == [B, C, D]
    assert desk.prober.acked(B, Ack(ping.nonce, A), 0.15) == Answered(A, None)


def test_an_answer_from_somebody_not_asked_is_none() -> None:
    """Neither a stranger's word, nor one about another target, nor one to a question never put."""
    desk = Desk(A, B)
    ping = desk.ping(A)
    assert desk.prober.acked(C, Ack(ping.nonce, A), 0.1) is None
    assert desk.prober.acked(A, Ack(ping.nonce, B), 0.1) is None
    assert desk.prober.acked(A, Ack(ping.nonce + 9, A), 0.1) is None


def test_suspects_are_not_asked_for_help() -> None:
    """They may be as silent as the target, and their silence would say nothing."""
    desk = Desk(A, B, C, D)
    for peer in (A, C):
        desk.table.move(desk.table.rows[peer], "suspect", "silent", 0.0)
    desk.fail(A)
    assert desk.helpers() == [B, D]


def test_helpers_that_live_but_say_nothing_speak_against_ourselves() -> None:
    """A helper that is heard, but sent neither ack nor nack, says that our side is bad; a nack
    takes it back."""
    desk = Desk(A, B, C, D)
    ping = desk.fail(A)
    desk.hear(B, C, D, at=0.15)
    desk.prober.nacked(B, Nack(ping.nonce, A), 0.2)
    assert desk.prober.unanswered(A, 0.3, judging=True) == 3
    assert desk.health.score == 2


def test_helpers_as_silent_as_the_target_say_nothing_of_us() -> None:
    """Half the mesh fell silent at once: whoever was not heard since the probe began, or is not
    even listed any more, is part of what happened to the target."""
    desk = Desk(A, B, C, D)
    desk.hear(B, C, D, at=-1.0)
    desk.fail(A)
    desk.table.drop(D)
    desk.prober.unanswered(A, 0.3, judging=True)
    assert desk.health.score == 0


def test_nacks_from_others_do_not_count() -> None:
    """Only those of helpers, about this target, in answer to this question."""
    desk = Desk(A, B)
    ping = desk.fail(A)
    desk.hear(B, at=0.15)
    for sender, target in ((C, A), (A, A), (B, C)):
        desk.prober.nacked(sender, Nack(ping.nonce, target), 0.2)
    desk.prober.nacked(B, Nack(ping.nonce + 1, A), 0.2)
    desk.prober.unanswered(A, 0.3, judging=True)
    assert desk.health.score == 1


def test_surplus_nacks_do_not_count() -> None:
    """A helper that says no twice has said it once: bad health is not healed by it."""
    desk = Desk(A, B)
    desk.health.worse()
    ping = desk.fail(A)
    desk.hear(B, at=0.15)
    for _ in range(3):
        desk.prober.nacked(B, Nack(ping.nonce, A), 0.2)
    desk.prober.unanswered(A, 0.3, judging=True)
    assert desk.health.score == 1


def test_when_all_helpers_hear_nothing_the_wait_is_over() -> None:
    """Not before the last of them has said so, and not for a probe that was answered."""
    desk = Desk(A, B, C)
    ping = desk.fail(A)
    planned = desk.kit.agenda.at(("silence", A))
    desk.prober.nacked(B, Nack(ping.nonce, A), 0.15)
    assert desk.kit.agenda.at(("silence", A)) == planned
    desk.prober.nacked(C, Nack(ping.nonce, A), 0.16)
    assert desk.kit.agenda.at(("silence", A)) == 0.16
    answered = Desk(A, B)
    ping = answered.fail(A)
    answered.prober.acked(A, Ack(ping.nonce, A), 0.15)
    answered.prober.nacked(B, Nack(ping.nonce, A), 0.16)
    assert answered.kit.agenda.at(("silence", A)) is None


def test_right_after_a_wake_silence_says_nothing_of_us() -> None:
    """Connections are still being made again then."""
    desk = Desk(A, B, C, D)
    desk.fail(A)
    desk.hear(B, C, D, at=0.15)
    desk.prober.unanswered(A, 0.3, judging=False)
    assert desk.health.score == 0


def test_a_late_answer_is_still_an_answer() -> None:
    """For two seconds; then the question is forgotten."""
    desk = Desk(A, B)
    ping = desk.fail(A)
    desk.prober.unanswered(A, 0.3, judging=True)
    before = desk.health.score
    assert desk.prober.acked(A, Ack(ping.nonce, A), 0.9) == Answered(A, 0.9)
    assert desk.health.score == before
    desk.prober.turn(2.31)
    assert desk.prober.acked(A, Ack(ping.nonce, A), 2.4) is None


def test_answers_that_were_held_up_together_are_measured_once() -> None:
    """A cable is put back and six questions are answered at once: one slow answer of 27."""
    desk = Desk(A)
    for number in range(20):
        ping = desk.ping(A, number / 10)
        desk.prober.acked(A, Ack(ping.nonce, A), number / 10 + 0.001)
    held_up = []
    for number in range(6):
        held_up.append(desk.ping(A, 3 + number / 5))
        desk.prober.unacked(A, 3.1 + number / 5)
        desk.prober.unanswered(A, 3.15 + number / 5, judging=True)
    for ping in held_up:
        desk.prober.acked(A, Ack(ping.nonce, A), 4.4)
    desk.ping(A, 5.0)
    assert desk.kit.agenda.at(("ack", A)) == 5.05


def test_bad_health_stretches_own_waits() -> None:
    """A slow node asks less often and waits longer."""
    desk = Desk(A)
    desk.health.worse(1)
    desk.prober.turn(0.0)
    assert desk.kit.agenda.at(("probe", "")) == 0.8
    assert desk.kit.agenda.at(("ack", A)) == 0.24


def test_dropping_a_target_forgets_its_probe() -> None:
    """No alarm is left behind, and dropping nobody does no harm."""
    desk = Desk(A)
    ping = desk.ping(A)
    desk.prober.drop(A)
    desk.prober.drop(B)
    assert len(desk.kit.agenda) == 0
    assert desk.prober.acked(A, Ack(ping.nonce, A), 0.1) is None


def test_only_living_peers_are_asked() -> None:
    """The dead are dialled, not probed; strangers are asked who they are."""
    desk = Desk(A)
    desk.prober.ask(B, 0.0)
    assert desk.sent == []
    assert len(desk.kit.agenda) == 0


def test_a_restart_asks_everybody_anew() -> None:
    """Answers to questions from before a sleep do not count."""
    desk = Desk(A, B)
    old = desk.ping(A)
    desk.prober.restart(5.0)
    assert [to for to, _ in desk.sent[1:]] == [A, B]
    assert desk.prober.acked(A, Ack(old.nonce, A), 5.1) is None


def test_an_errand_reports_the_answer() -> None:
    """The asker's nonce comes back to the asker, with its target."""
    desk = Desk(A, B)
    desk.prober.asked(A, PingReq(500, B), 0.0)
    to, ping = desk.sent[-1]
    assert (to, isinstance(ping, Ping)) == (B, True)
    desk.prober.acked(B, Ack(ping.nonce, B), 0.01)
    assert desk.sent[-1] == (A, Ack(500, B))
    assert len(desk.kit.agenda) == 0


def test_an_errand_says_so_when_it_hears_nothing_and_still_passes_a_late_answer_on() -> None:
    """First the nack, so that the asker knows that we are there; the ack may still come."""
    desk = Desk(A, B)
    desk.prober.asked(A, PingReq(500, B), 0.0)
    nonce = desk.sent[-1][1].nonce
    desk.prober.errand_over(nonce, 0.06)
    desk.prober.acked(B, Ack(nonce, B), 0.5)
    assert desk.sent[1:] == [(A, Nack(500, B)), (A, Ack(500, B))]


def test_an_errand_ends_in_silence() -> None:
    """When nothing comes at all it is forgotten."""
    desk = Desk(A, B)
    desk.prober.asked(A, PingReq(500, B), 0.0)
    nonce = desk.sent[-1][1].nonce
    desk.prober.errand_over(nonce, 0.06)
    desk.prober.errand_late(nonce)
    assert desk.prober.acked(B, Ack(nonce, B), 9.0) is None
    assert len(desk.sent) == 2


def test_only_the_target_itself_ends_an_errand() -> None:
    """A third node's ack of the same number is not the target's."""
    desk = Desk(A, B)
    desk.prober.asked(A, PingReq(500, B), 0.0)
    nonce = desk.sent[-1][1].nonce
    desk.prober.acked(C, Ack(nonce, B), 0.01)
    assert len(desk.sent) == 1


def test_errands_are_bounded() -> None:
    """A flood of requests is not answered, and costs no memory."""
    desk = Desk(A, B, config=MembershipConfig(errands_max=2))
    for nonce in range(10):
        desk.prober.asked(A, PingReq(nonce, B), 0.0)
    assert len(desk.sent) == 2
