"""Rumours are told a bounded number of times, the newest first."""

from __future__ import annotations

import pytest

from meshd.core.membership.config import MembershipConfig
from meshd.core.membership.gossip import Rumours, pull_interval_s, retransmit_limit
from tests.core.membership.builders import A, B, C, claim


@pytest.mark.parametrize(("nodes", "limit"), [(1, 4), (9, 4), (10, 8), (99, 8), (1_000, 16)])
def test_the_retransmit_limit_grows_with_the_logarithm(nodes: int, limit: int) -> None:
    """4 x ceil(log10(N + 1))."""
    assert retransmit_limit(nodes, 4) == limit


@pytest.mark.parametrize(
    ("nodes", "interval_s"), [(1, 10.0), (32, 10.0), (33, 20.0), (64, 20.0), (1_000, 60.0)]
)
def test_repair_becomes_rarer_in_large_meshes(nodes: int, interval_s: float) -> None:
    """memberlist's scale: one more base interval for each doubling above 32."""
    assert pull_interval_s(nodes, 10.0) == interval_s


def test_an_empty_queue_tells_nothing() -> None:
    """An idle mesh gossips nothing."""
    assert Rumours(MembershipConfig()).take(5, 10) == ()


def test_each_rumour_is_told_a_limited_number_of_times() -> None:
    """In a mesh of nine: four times, then never again."""
    rumours = Rumours(MembershipConfig())
    rumours.add(claim(A))
    told = [rumours.take(5, 9) for _ in range(6)]
    assert told == [(claim(A),)] * 4 + [()] * 2
    assert len(rumours) == 0


def test_news_goes_before_what_was_told_already() -> None:
    """Least told first, and of those the newest."""
    rumours = Rumours(MembershipConfig())
    rumours.add(claim(A))
    rumours.take(1, 9)
    rumours.add(claim(B))
    rumours.add(claim(C))
    assert [u.node_id for u in rumours.take(3, 9)] == [C, B, A]


def test_what_was_told_less_goes_before_what_is_newer() -> None:
    """The newest first among equals only; otherwise a stream of news would silence the rest."""
    rumours = Rumours(MembershipConfig())
    rumours.add(claim(A))
    rumours.add(claim(B))
    assert [u.node_id for _ in range(4) for u in rumours.take(1, 9)] == [B, A, B, A]


def test_a_newer_claim_takes_the_older_one_s_place() -> None:
    """Only the latest word about a node is told, and its count starts again."""
    rumours = Rumours(MembershipConfig())
    rumours.add(claim(A))
    rumours.take(1, 9)
    rumours.add(claim(A, "dead"))
    assert len(rumours) == 1
    assert [u.state for _ in range(5) for u in rumours.take(1, 9)] == ["dead"] * 4


def test_a_forgotten_node_is_not_talked_about() -> None:
    """An expired row takes its rumour along."""
    rumours = Rumours(MembershipConfig())
    rumours.add(claim(A))
    rumours.forget(A)
    rumours.forget(B)
    assert rumours.take(5, 9) == ()
