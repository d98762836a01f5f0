"""One of the near-equals, at random."""

from collections import Counter
from random import Random

from meshd.core.routing.pick import pick


def test_a_clear_winner_is_always_taken():
    """4 % better is better."""
    rng = Random(1)
    assert {pick([(1.00, "a"), (1.04, "b")], rng) for _ in range(50)} == {"a"}


def test_near_equals_share_the_work():
    """Within 3 % neither the order nor the id decides."""
    rng = Random(1)
    counts = Counter(pick([(1.00, "a"), (1.01, "b"), (1.02, "c")], rng) for _ in range(3_000))
    assert min(counts.values()) > 900


def test_zero_scores_tie_with_each_other_only():
    """An idle instant node does not tie with a slow one."""
    rng = Random(1)
    assert {pick([(0.0, "a"), (0.0, "b"), (0.1, "c")], rng) for _ in range(50)} == {"a", "b"}
