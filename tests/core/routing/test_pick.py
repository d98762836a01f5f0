"""One of the near-equals, at random or by lot."""

from random import Random

from meshd.core.routing.pick import lot, near_equals, pick


def test_a_clear_best_is_always_taken():
    """Beyond three per cent the difference is real."""
    assert {pick([(1.0, "a"), (1.04, "b")], Random(seed)) for seed in range(20)} == {"a"}


def test_near_equals_are_taken_at_random():
    """Whatever their order."""
    scored = [(1.02, "a"), (1.0, "b"), (1.5, "c")]
    assert {pick(scored, Random(seed)) for seed in range(20)} == {"a", "b"}
    assert near_equals(scored) == ["a", "b"]


def test_a_lot_is_the_same_everywhere_and_differs_by_session():
    """Rendezvous hashing: only those whose node leaves draw anew."""
    nodes = ["a", "b", "c", "d"]
    homes = {name: max(nodes, key=lambda node: lot(name, node)) for name in "0123456789"}
    assert len(set(homes.values())) > 1
    left = [node for node in nodes if node != "a"]
    moved = {name: max(left, key=lambda node: lot(name, node)) for name in homes}
    assert all(moved[name] == home for name, home in homes.items() if home != "a")


def test_a_session_of_any_characters_has_a_lot():
    """Even half of a surrogate pair, which no encoding takes."""
    assert lot("\ud800", "a") != lot("x", "a")
