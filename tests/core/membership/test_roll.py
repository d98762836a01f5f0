"""A list that forgets in constant time and can be drawn from."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from meshd.core.membership.roll import Roll


def _roll(names: str) -> Roll:
    roll = Roll()
    for name in names:
        roll.add(name)
    return roll


@given(st.lists(st.tuples(st.booleans(), st.sampled_from("abcdefgh")), max_size=80))
def test_it_holds_what_a_set_would_hold(steps: list[tuple[bool, str]]) -> None:
    """Adding twice and removing what is not there do no harm."""
    roll, model = Roll(), set[str]()
    for adds, name in steps:
        (roll.add if adds else roll.discard)(name)
        (model.add if adds else model.discard)(name)
        assert set(roll) == model
        assert len(roll) == len(model)
        assert all(name in roll for name in model)


def test_samples_are_distinct_and_leave_some_out() -> None:
    """Nobody is drawn twice, and those left out never."""
    roll, rng = _roll("abcde"), Random(1)
    for _ in range(50):
        drawn = roll.sample(3, rng, without={"c"})
        assert len(set(drawn)) == 3
        assert "c" not in drawn


def test_a_sample_is_as_large_as_it_can_be() -> None:
    """Fewer names than wanted give all of them."""
    assert sorted(_roll("ab").sample(5, Random(1))) == ["a", "b"]


def test_a_window_goes_round() -> None:
    """Windows one after the other visit everybody."""
    roll = _roll("abcde")
    assert roll.window(4, 3) == ["e", "a", "b"]
    assert roll.window(2, 9) == list("abcde")
