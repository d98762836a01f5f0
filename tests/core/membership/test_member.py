"""What everybody else in the daemon sees."""

from __future__ import annotations

from dataclasses import replace

from tests.core.membership.builders import ME, A, Bench


def test_a_view_shows_this_node_too() -> None:
    """Its own row is among the members and has a name."""
    view = Bench().machine.view()
    assert view.myself is view.members[ME]


def test_routable_means_alive_and_known() -> None:
    """Without load or capacity, or in any other state, a node gets no work."""
    bench = Bench()
    bench.meet(A)
    member = bench.member(A)
    assert member.routable
    assert not replace(member, state="suspect").routable
    assert not replace(member, load=None).routable
    assert not replace(member, capacity=None).routable
