"""The notebook that every claim about a real mesh rests on."""

import pytest

from tests.netns.sightings import Sightings


@pytest.fixture
def notes():
    """Two observers: one saw carl die and come back at once, the other saw him die later."""
    made = Sightings()
    made.note("anna", {"bert": "alive", "carl": "alive"}, 1.0)
    made.note("bert", {"anna": "alive", "carl": "alive"}, 1.0)
    made.note("anna", {"bert": "alive", "carl": "dead"}, 2.0)
    made.note("anna", {"bert": "alive", "carl": "alive"}, 2.1)
    made.note("bert", {"carl": "dead"}, 3.0)
    return made


def test_a_state_that_did_not_last_is_still_a_sighting(notes):
    """Anna took carl for dead for a moment, and that counts as a death."""
    assert notes.shown("dead") == {("anna", "carl"), ("bert", "carl")}
    assert notes.shown("dead", since=2.05) == {("bert", "carl")}


def test_seen_by_all_is_when_the_last_one_saw_it_first(notes):
    """Not when the first one did, and not later repetitions."""
    assert notes.seen_at("dead", "carl", ["anna", "bert"], since=1.5) == 3.0
    assert notes.seen_at("dead", "carl", ["anna"], since=1.5) == 2.0


def test_who_never_saw_it_is_named(notes):
    """A figure is not made from those who did."""
    with pytest.raises(AssertionError, match="anna"):
        notes.seen_at("dead", "carl", ["anna", "bert"], since=2.05)


def test_agreement_counts_only_answers_after_the_event(notes):
    """Bert's latest word is from 3.0; about anything after that he has said nothing."""
    assert notes.agree("dead", ["bert"], ["carl"])
    assert not notes.agree("dead", ["bert"], ["carl"], since=3.0)
    assert not notes.agree("dead", ["anna", "bert"], ["carl"])


def test_a_death_is_false_unless_the_dead_is_gone(notes):
    """And what those that are gone said themselves does not count."""
    assert notes.false_deaths(0.0, "carl") == set()
    assert notes.false_deaths(0.0, "anna") == {("bert", "carl")}


def test_a_replaced_observer_starts_with_an_empty_notebook(notes):
    """What its predecessor saw is neither agreement nor a reason to leave a sighting out."""
    notes.forget("bert")
    assert not notes.agree("alive", ["bert"], ["anna"])
    notes.note("bert", {"anna": "alive"}, 4.0)
    assert notes.seen_at("alive", "anna", ["bert"], since=3.5) == 4.0
