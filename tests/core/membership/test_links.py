"""Which connections are opened, kept, and given up."""

from __future__ import annotations

from random import Random

import pytest

from meshd.core.effects import Dial, Effect, Hangup
from meshd.core.membership.config import MembershipConfig
from meshd.core.membership.kit import Kit
from meshd.core.membership.link import Down, link_of
from meshd.core.membership.links import Links
from protocol.messages import Endpoint
from tests.core.membership.builders import A, B, endpoint

E1, E2 = endpoint("10.0.0.5"), endpoint("10.0.0.6")
L1, L2 = link_of(E1), link_of(E2)
NAS = "nas.local:8788"
CONFIG = MembershipConfig(redial_jitter_ratio=0.0)


class Desk:
    """Links with a clock that rings their alarms."""

    def __init__(self, config: MembershipConfig = CONFIG) -> None:
        self.kit = Kit(config, Random(1))
        self.links = Links(self.kit)
        self.now = 100.0

    def advance(self, seconds: float) -> list[Effect]:
        """Let time pass; what was dialled and hung up meanwhile, and before it."""
        end = self.now + seconds
        while (key := self.kit.agenda.pop(end)) is not None:
            self.links.alarm(key[1], max(self.now, end))
        self.now = end
        return self.take()

    def take(self) -> list[Effect]:
        effects = list(self.kit.effects)
        self.kit.effects.clear()
        return effects

    def up(self, name: str, node_id: str) -> None:
        """The link comes up and is answered by this node."""
        self.links.up(name, self.now)
        self.links.answered(name, node_id, self.now)

    def reach(self, node_id: str = A, *endpoints: Endpoint) -> None:
        """A member that is connected at its first address."""
        places = endpoints or (E1,)
        self.links.seek(node_id, places, self.now)
        self.advance(0.0)
        self.up(link_of(places[0]), node_id)
        self.take()


@pytest.mark.parametrize(
    ("host", "name"),
    [("10.0.0.5", "10.0.0.5:8788"), ("fe80::1%eth0", "[fe80::1%eth0]:8788")],
)
def test_links_are_named_by_address(host: str, name: str) -> None:
    """IPv6 hosts stand in brackets and keep their scope."""
    assert link_of(endpoint(host)) == name


def test_a_typed_peer_is_dialled_at_once_and_for_ever() -> None:
    """With back-off between attempts."""
    desk = Desk()
    assert desk.links.typed(NAS, desk.now)
    assert desk.advance(0.0) == [Dial(NAS)]
    for _ in range(50):
        desk.links.down(NAS, "refused", desk.now)
        assert Dial(NAS) in desk.advance(20.0)
    assert len(desk.links) == 1


def test_a_typed_peer_is_typed_once_and_only_so_many() -> None:
    """Repeating one is no harm; the number is bounded."""
    desk = Desk(MembershipConfig(typed_max=1))
    assert desk.links.typed(NAS, desk.now)
    assert desk.links.typed(NAS, desk.now)
    assert not desk.links.typed("other:1", desk.now)


def test_a_failed_attempt_is_closed_and_repeated_after_a_wait() -> None:
    """The first wait is a quarter of a second."""
    desk = Desk()
    desk.links.typed(NAS, desk.now)
    desk.advance(0.0)
    assert desk.links.down(NAS, "refused", desk.now) == Down()
    assert desk.advance(0.24) == [Hangup(NAS)]
    assert desk.advance(0.02) == [Dial(NAS)]


def test_an_attempt_without_an_outcome_is_given_up() -> None:
    """Two seconds are enough for a handshake."""
    desk = Desk()
    desk.links.typed(NAS, desk.now)
    desk.advance(0.0)
    assert desk.advance(2.0) == [Hangup(NAS)]


def test_a_link_that_says_nothing_is_greeted_again_and_then_given_up() -> None:
    """Four Hellos, half a second apart."""
    desk = Desk()
    desk.links.typed(NAS, desk.now)
    desk.advance(0.0)
    link = desk.links.up(NAS, desk.now)
    assert link is not None
    for _ in range(3):
        desk.advance(0.5)
    assert link.hellos == 4
    assert desk.advance(0.5) == [Hangup(NAS)]


def test_mdns_finds_are_capped_rate_limited_and_forgotten() -> None:
    """Five a second, so many at once, and three attempts each: anybody can invent nodes."""
    desk = Desk(MembershipConfig(candidates_max=2, redial_jitter_ratio=0.0))
    assert desk.links.found("10.1.0.1:1", A, desk.now)
    assert desk.links.found("10.1.0.2:1", B, desk.now)
    assert not desk.links.found("10.1.0.3:1", B, desk.now)
    assert desk.advance(0.0) == [Dial("10.1.0.1:1")]
    assert desk.advance(0.2) == [Dial("10.1.0.2:1")]
    for _ in range(3):
        desk.links.down("10.1.0.1:1", "refused", desk.now)
        desk.advance(0.6)
    assert len(desk.links) == 1
    assert desk.links.found("10.1.0.3:1", B, desk.now)


def test_mdns_finds_that_are_not_needed_are_ignored() -> None:
    """A member that is connected, or an address that is being dialled."""
    desk = Desk()
    desk.reach(A)
    assert not desk.links.found("10.1.0.1:1", A, desk.now)
    assert not desk.links.found(L1, B, desk.now)


def test_a_find_that_is_then_typed_becomes_typed() -> None:
    """And is no longer forgotten, nor counted among the finds."""
    desk = Desk(MembershipConfig(candidates_max=1))
    desk.links.found(L1, A, desk.now)
    assert desk.links.typed(L1, desk.now)
    assert desk.links.found(L2, B, desk.now)


def test_a_member_gets_one_connection() -> None:
    """Seeking again changes nothing while one is up or on its way."""
    desk = Desk()
    desk.links.seek(A, (E1, E2), desk.now)
    desk.links.seek(A, (E1, E2), desk.now)
    assert desk.advance(0.1) == [Dial(L1)]
    desk.up(L1, A)
    desk.links.seek(A, (E2, E1), desk.now)
    assert desk.advance(1.0) == []
    assert desk.links.path(A) == L1
    assert desk.links.address(A) == E1


def test_a_member_nobody_described_cannot_be_dialled() -> None:
    """Without an address there is nothing to try, and nothing to show."""
    desk = Desk()
    desk.links.seek(A, (), desk.now)
    assert desk.advance(5.0) == []
    for node_id in (A, B):
        assert desk.links.path(node_id) is None
        assert desk.links.address(node_id) is None


def test_the_next_address_is_tried_at_once() -> None:
    """Then, when all have failed, the round begins again after a wait."""
    desk = Desk()
    desk.links.seek(A, (E1, E2), desk.now)
    desk.advance(0.0)
    desk.links.down(L1, "unreachable", desk.now)
    assert desk.advance(0.02) == [Hangup(L1), Dial(L2)]
    desk.links.down(L2, "timeout", desk.now)
    assert desk.advance(0.2) == [Hangup(L2)]
    assert desk.advance(0.1) == [Dial(L1)]


def test_the_address_that_answered_is_remembered_and_tried_first() -> None:
    """Even when it is not the first of the list."""
    desk = Desk()
    desk.links.seek(A, (E1, E2), desk.now)
    desk.advance(0.0)
    desk.links.down(L1, "refused", desk.now)
    desk.advance(0.02)
    desk.up(L2, A)
    assert desk.links.answered_links() == {A: L2}
    desk.now += 5.0
    desk.links.down(L2, "timeout", desk.now)
    assert Dial(L1) in desk.advance(0.05)
    desk.links.down(L1, "refused", desk.now)
    assert Dial(L2) in desk.advance(0.5)


def test_a_connection_that_ends_is_dialled_again_at_once() -> None:
    """The shell knocks without waiting; the path is gone meanwhile."""
    desk = Desk()
    desk.reach()
    desk.now += 5.0
    assert desk.links.down(L1, "eof", desk.now) == Down(A)
    assert desk.take() == [Dial(L1)]
    assert desk.links.path(A) is None


def test_an_end_and_a_refusal_are_proof() -> None:
    """Only the other process's own kernel can say both."""
    desk = Desk()
    desk.reach()
    desk.now += 5.0
    desk.links.down(L1, "eof", desk.now)
    ended_at, desk.now = desk.now, desk.now + 0.001
    assert desk.links.down(L1, "refused", desk.now) == Down(A, gone=True, eof_at=ended_at)


@pytest.mark.parametrize("cause", ["unreachable", "timeout", "handshake"])
def test_an_end_and_anything_else_prove_nothing(cause: str) -> None:
    """A host that is switched off says nothing, and a firewall says anything."""
    desk = Desk()
    desk.reach()
    desk.now += 5.0
    desk.links.down(L1, "eof", desk.now)
    assert not desk.links.down(L1, cause, desk.now).gone


def test_a_refusal_long_after_the_end_proves_nothing() -> None:
    """The process may have restarted and stopped since."""
    desk = Desk()
    desk.reach()
    desk.now += 5.0
    desk.links.down(L1, "eof", desk.now)
    assert not desk.links.down(L1, "refused", desk.now + 2.1).gone


def test_a_refusal_without_an_end_proves_nothing() -> None:
    """An address that was never answered may be anybody's."""
    desk = Desk()
    desk.links.seek(A, (E1,), desk.now)
    desk.advance(0.0)
    assert desk.links.down(L1, "refused", desk.now) == Down()


def test_an_end_before_any_answer_proves_nothing() -> None:
    """Who was there was never shown."""
    desk = Desk()
    desk.links.seek(A, (E1,), desk.now)
    desk.advance(0.0)
    desk.links.up(L1, desk.now)
    assert desk.links.down(L1, "eof", desk.now) == Down(A)
    assert not desk.links.down(L1, "refused", desk.now).gone


def test_a_link_that_keeps_ending_is_dialled_more_slowly() -> None:
    """Up for less than a second, twice: then there is a wait."""
    desk = Desk()
    desk.links.typed(NAS, desk.now)
    desk.advance(0.0)
    desk.links.down(NAS, "refused", desk.now)
    desk.advance(0.3)
    desk.links.up(NAS, desk.now)
    desk.take()
    desk.links.down(NAS, "eof", desk.now)
    assert desk.take() == [Hangup(NAS)]


def test_a_wrong_key_at_a_typed_peer_is_worth_a_word_once() -> None:
    """Until it has answered properly in between; a member's old address is not worth one."""
    desk = Desk()
    desk.links.typed(NAS, desk.now)
    desk.advance(0.0)
    assert desk.links.down(NAS, "handshake", desk.now).wrong_key
    desk.advance(1.0)
    assert not desk.links.down(NAS, "handshake", desk.now).wrong_key
    desk.links.seek(A, (E1,), desk.now)
    desk.advance(0.0)
    assert not desk.links.down(L1, "handshake", desk.now).wrong_key


def test_news_of_links_that_nobody_wants_is_ignored() -> None:
    """Ends are, and a handshake that finished too late is hung up."""
    desk = Desk()
    assert desk.links.down("gone:1", "eof", desk.now) == Down()
    assert desk.links.up("gone:1", desk.now) is None
    desk.links.answered("gone:1", A, desk.now)
    assert desk.take() == [Hangup("gone:1")]


def test_a_second_link_to_a_member_replaces_the_first() -> None:
    """Its listener gives our identity to the newest; the member's own one is closed for good."""
    desk = Desk()
    desk.reach(A)
    desk.links.typed(NAS, desk.now)
    desk.advance(0.0)
    desk.up(NAS, A)
    assert Hangup(L1) in desk.take()
    assert desk.links.path(A) == NAS
    assert len(desk.links) == 1


def test_a_typed_link_to_a_connected_member_is_parked_until_it_is_lost() -> None:
    """A name that a person typed is then tried again."""
    desk = Desk()
    desk.links.typed(NAS, desk.now)
    desk.advance(0.0)
    desk.up(NAS, A)
    desk.links.seek(A, (E1,), desk.now)
    desk.links.found(L1, B, desk.now)
    desk.advance(0.3)
    desk.up(L1, A)
    assert Hangup(NAS) in desk.take()
    assert desk.advance(60.0) == []
    assert desk.links.up(NAS, desk.now) is None
    assert desk.links.down(NAS, "eof", desk.now) == Down()
    desk.links.down(L1, "timeout", desk.now)
    assert Dial(NAS) in desk.advance(0.0)


def test_a_name_s_address_is_what_was_dialled() -> None:
    """A member reached by a typed name is shown with that name and its own relay port."""
    desk = Desk()
    desk.links.seek(A, (E1,), desk.now)
    desk.links.typed(NAS, desk.now)
    desk.advance(0.0)
    desk.up(NAS, A)
    assert desk.links.address(A) == Endpoint("nas.local", 8788, E1.relay_port)
    desk.links.seek(A, (), desk.now)
    assert desk.links.address(A) is None


def test_somebody_else_at_a_member_s_address_is_noticed() -> None:
    """An address that went to another machine is that machine's; the member is sought elsewhere."""
    desk = Desk()
    desk.links.seek(A, (E1, E2), desk.now)
    desk.advance(0.0)
    desk.up(L1, B)
    assert desk.links.path(A) is None
    assert desk.advance(0.02) == [Dial(L2)]
    desk.links.seek(B, (E1,), desk.now)
    assert desk.links.path(B) == L1


def test_a_member_whose_only_address_is_taken_waits() -> None:
    """There is nothing to dial until it says where it is now."""
    desk = Desk()
    desk.reach(B, E1)
    desk.links.seek(A, (E1,), desk.now)
    assert desk.advance(1.0) == []
    desk.links.seek(A, (E2,), desk.now)
    assert desk.advance(0.0) == [Dial(L2)]


def test_our_own_address_is_never_dialled_again() -> None:
    """Neither as a typed peer, nor as a find, nor as an address that a member claims."""
    desk = Desk(MembershipConfig(typed_max=1))
    desk.links.typed(L1, desk.now)
    desk.advance(0.0)
    desk.links.up(L1, desk.now)
    desk.links.ourselves(L1, desk.now)
    desk.links.ourselves("gone:1", desk.now)
    assert desk.take() == [Hangup(L1)]
    assert not desk.links.typed(L1, desk.now)
    assert not desk.links.found(L1, A, desk.now)
    desk.links.seek(A, (E1,), desk.now)
    assert desk.advance(5.0) == []


def test_known_echoes_are_bounded() -> None:
    """Only so many own addresses are remembered."""
    desk = Desk(MembershipConfig(typed_max=1))
    for name in (L1, L2):
        desk.links.typed(name, desk.now)
        desk.advance(0.0)
        desk.links.up(name, desk.now)
        desk.links.ourselves(name, desk.now)
    assert desk.links.typed(L2, desk.now)


def test_a_dead_member_s_connection_is_made_anew() -> None:
    """What stood of it is worthless."""
    desk = Desk()
    desk.reach()
    desk.links.lose(A, desk.now)
    desk.links.lose(A, desk.now)
    desk.links.lose(B, desk.now)
    assert desk.advance(0.3) == [Hangup(L1), Dial(L1)]


def test_hurry_shortens_a_wait_and_nothing_else() -> None:
    """A sign of life is a reason to dial now."""
    desk = Desk()
    desk.links.hurry(A, desk.now)
    desk.links.seek(A, (E1,), desk.now)
    desk.advance(0.0)
    desk.links.hurry(A, desk.now)
    for _ in range(4):
        desk.links.down(L1, "refused", desk.now)
        desk.advance(3.0)
    desk.links.down(L1, "refused", desk.now)
    desk.take()
    desk.links.hurry(A, desk.now)
    assert desk.advance(0.0) == [Dial(L1)]


def test_a_forgotten_member_leaves_nothing_behind() -> None:
    """Its links are closed; a typed one goes back to being tried on its own."""
    desk = Desk()
    desk.reach(A)
    desk.links.typed(NAS, desk.now)
    desk.links.forget(A, desk.now)
    desk.links.forget(A, desk.now)
    assert desk.take() == [Hangup(L1)]
    assert len(desk.links) == 1
    assert desk.links.answered_links() == {}


def test_an_answer_on_a_link_that_is_not_up_is_ignored() -> None:
    """A frame that was still under way when the link was given up says nothing about the next."""
    desk = Desk()
    desk.links.typed(NAS, desk.now)
    desk.links.answered(NAS, A, desk.now)
    desk.links.seek(A, (E1,), desk.now)
    assert desk.links.path(A) is None


def test_a_link_that_was_answered_before_the_member_was_known_is_its_path() -> None:
    """The first Hello over a typed link introduces the member and answers the link at once."""
    desk = Desk()
    desk.links.typed(NAS, desk.now)
    desk.advance(0.0)
    desk.up(NAS, A)
    desk.links.seek(A, (E1,), desk.now)
    assert desk.links.path(A) == NAS
    assert desk.links.answered_links() == {A: NAS}
    assert desk.advance(5.0) == []


def test_a_failed_attempt_beside_a_working_path_is_not_repeated() -> None:
    """One connection is enough."""
    desk = Desk()
    desk.links.typed(NAS, desk.now)
    desk.advance(0.0)
    desk.links.seek(A, (E1,), desk.now)
    desk.advance(0.0)
    desk.links.down(NAS, "timeout", desk.now)
    desk.links.found(L2, A, desk.now)
    desk.advance(0.1)
    desk.links.up(L2, desk.now)
    desk.take()
    desk.links.down(L1, "refused", desk.now)
    assert desk.links.path(A) == L2
    assert Dial(L1) not in desk.advance(0.1)


def test_a_stranger_at_an_address_beside_a_working_path_changes_nothing() -> None:
    """The member is reached already."""
    desk = Desk()
    desk.links.seek(A, (E1,), desk.now)
    desk.links.found(L2, A, desk.now)
    desk.advance(0.1)
    desk.links.up(L2, desk.now)
    desk.links.up(L1, desk.now)
    desk.take()
    desk.links.answered(L1, B, desk.now)
    assert desk.links.path(A) == L2
    assert desk.take() == []


def test_forgetting_a_member_that_waits_to_be_dialled_closes_nothing() -> None:
    """There is no connection to close."""
    desk = Desk()
    desk.links.seek(A, (E1,), desk.now)
    desk.links.forget(A, desk.now)
    assert desk.advance(5.0) == []
    assert len(desk.links) == 0


def test_a_typed_link_that_ends_is_dialled_again_whoever_was_there() -> None:
    """Also when its node has become no member."""
    desk = Desk()
    desk.links.typed(NAS, desk.now)
    desk.advance(0.0)
    desk.up(NAS, A)
    desk.now += 5.0
    desk.links.down(NAS, "eof", desk.now)
    assert desk.take() == [Dial(NAS)]
