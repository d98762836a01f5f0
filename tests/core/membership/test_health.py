"""A node that is slow knows it, and stretches its own patience."""

from __future__ import annotations

from meshd.core.membership.health import LocalHealth


def test_a_well_node_stretches_nothing() -> None:
    """At score 0 intervals are what the settings say."""
    assert LocalHealth(8).stretch(0.25) == 0.25


def test_the_score_stretches_linearly_and_ends_at_the_worst() -> None:
    """At the worst score of 8, timeouts are nine times as long, never longer."""
    health = LocalHealth(8)
    health.worse(3)
    assert health.stretch(1.0) == 4.0
    health.worse(100)
    assert health.stretch(1.0) == 9.0


def test_good_news_heals_step_by_step_and_not_below_zero() -> None:
    """Each answered probe takes one step back."""
    health = LocalHealth(8)
    health.worse()
    health.better()
    health.better()
    assert health.score == 0
