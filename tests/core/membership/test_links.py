"""Which connections are opened, and when they are tried again."""

from __future__ import annotations

import pytest

from meshd.core.effects import Dial, Hangup
from meshd.core.membership.config import MembershipConfig
from meshd.core.membership.link import Down, link_of
from tests.core.membership.builders import A, B, endpoint
from tests.core.membership.desks import E1, E2, L1, L2, NAS, Desk


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
