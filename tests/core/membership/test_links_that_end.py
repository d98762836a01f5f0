"""What the end of a connection means, and who holds an address."""

from __future__ import annotations

import pytest

from meshd.core.effects import Dial, Hangup
from meshd.core.membership.config import MembershipConfig
from meshd.core.membership.link import Down
from protocol.messages import Endpoint
from tests.core.membership.builders import A, B
from tests.core.membership.desks import E1, E2, L1, L2, NAS, Desk


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


def with_a_parked_name() -> Desk:
    """A was reached by the name that a person typed, and then by an address that B claims too."""
    desk = Desk()
    desk.links.typed(NAS, desk.now)
    desk.advance(0.0)
    desk.up(NAS, A)
    desk.links.seek(A, (E1,), desk.now)
    desk.links.found(L1, B, desk.now)
    desk.advance(0.3)
    desk.up(L1, A)
    return desk


def test_a_typed_link_to_a_connected_member_is_parked_until_it_is_lost() -> None:
    """A name that a person typed is then tried again."""
    desk = with_a_parked_name()
    assert Hangup(NAS) in desk.take()
    assert desk.advance(60.0) == []
    assert desk.links.up(NAS, desk.now) is None
    assert desk.links.down(NAS, "eof", desk.now) == Down()
    desk.links.down(L1, "timeout", desk.now)
    assert Dial(NAS) in desk.advance(0.0)


def test_a_name_s_address_is_what_was_dialled() -> None:
    """A member reached by a typed name is shown with its own relay port, and with the address that
    the name led to: nobody has to look the name up again."""
    desk = Desk()
    desk.links.seek(A, (E1,), desk.now)
    desk.links.typed(NAS, desk.now)
    desk.advance(0.0)
    desk.up(NAS, A)
    assert desk.links.address(A) == Endpoint("nas.local", 8788, E1.relay_port)
    desk.links.up(NAS, desk.now, "10.9.9.9")
    desk.links.answered(NAS, A, desk.now)
    assert desk.links.address(A) == Endpoint("10.9.9.9", 8788, E1.relay_port)
    desk.links.up(NAS, desk.now, E1.host)
    desk.links.answered(NAS, A, desk.now)
    assert desk.links.address(A) == E1
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


def test_two_members_that_claim_one_address_share_no_link() -> None:
    """The first to try it keeps it until somebody answers there; then it is that one's."""
    desk = Desk()
    desk.links.seek(A, (E1,), desk.now)
    desk.links.seek(B, (E1,), desk.now)
    assert desk.advance(0.1) == [Dial(L1)]
    desk.up(L1, B)
    assert desk.links.path(A) is None
    assert desk.links.path(B) == L1


def test_the_address_of_a_forgotten_member_is_free_for_another() -> None:
    """Without waiting for news of the other."""
    desk = Desk()
    desk.links.seek(A, (E1,), desk.now)
    desk.links.seek(B, (E1,), desk.now)
    desk.links.seek("cc" * 16, (E2,), desk.now)
    desk.advance(0.1)
    desk.links.forget(A, desk.now)
    assert desk.advance(0.1) == [Hangup(L1), Dial(L1)]
    desk.up(L1, B)
    assert desk.links.path(B) == L1


def test_the_address_that_failed_one_member_is_free_for_another() -> None:
    """Whoever goes on to its next address lets go of this one."""
    desk = Desk()
    desk.links.seek(A, (E1, E2), desk.now)
    desk.links.seek(B, (E1,), desk.now)
    assert desk.advance(0.0) == [Dial(L1)]
    desk.links.down(L1, "timeout", desk.now)
    assert desk.advance(0.1) == [Hangup(L1), Dial(L2), Dial(L1)]
    desk.up(L1, B)
    assert desk.links.path(B) == L1


def test_a_typed_name_is_tried_again_when_somebody_else_has_the_address() -> None:
    """A member whose address went to another machine is sought by the name that a person typed."""
    desk = with_a_parked_name()
    desk.links.down(L1, "eof", desk.now)
    desk.take()
    desk.up(L1, B)
    assert Dial(NAS) in desk.advance(0.0)
