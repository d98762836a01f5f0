"""Which nodes offer which model, and under which names."""

from dataclasses import replace

import pytest

from meshd.core.routing.catalogue import Catalogue, holders_away
from protocol.jobs import Job
from tests.core.routing.fleet import MODEL, load, member, model, view

LLAMA = model(model_id="Llama-3.2-3B", aliases=("llama3.2", MODEL))
HOUSE = Catalogue(view(member(1), member(2), member(3, LLAMA)))


@pytest.mark.parametrize(
    ("name", "model_id"),
    [
        (MODEL, MODEL),
        ("Llama-3.2-3B", "Llama-3.2-3B"),
        ("llama3.2", "Llama-3.2-3B"),
        ("LLAMA3.2:latest", "Llama-3.2-3B"),
        ("llama-3.2-3b", "Llama-3.2-3B"),
        ("openai/llama-3.2-3b", "Llama-3.2-3B"),
        ("llama", None),
        ("", None),
    ],
)
def test_a_name_stands_for_one_model_or_none(name, model_id):
    """Exact ids win over aliases, spelling is forgiven, nothing is guessed."""
    assert HOUSE.resolve(name) == model_id


def test_a_reserved_word_is_resolved_by_what_is_needed():
    """`auto` prefers what is warm; nobody here embeds, which the gates will say."""
    assert HOUSE.resolve("auto") == MODEL
    assert HOUSE.resolve("fat-brain") in HOUSE.models()
    assert HOUSE.resolve("auto", Job("r", "embedding", "auto", inputs=("a",))) is not None
    assert Catalogue(view(member(1, state="dead"))).resolve("auto") is None


def test_a_reserved_word_asks_who_takes_work_and_has_room():
    """The larger model is away while its one node drains; and a long text is not for it."""
    small, large = model(size_bytes=1, context_length=0), replace(LLAMA, size_bytes=9)
    resting = load(draining=True)
    assert Catalogue(view(member(1, small), member(2, large))).resolve("premium") == large.model_id
    away = Catalogue(view(member(1, small), member(2, large, load=resting)))
    assert away.resolve("premium") == MODEL
    long = Job("r", "chat", "premium", messages=({"role": "user", "content": "x" * 40_000},))
    assert Catalogue(view(member(1, small), member(2, large))).resolve("premium", long) == MODEL


def test_holders_that_are_away_are_known_by_what_they_last_said():
    """One that is here is none of them, nor one of which too little is known."""
    away = member(2, LLAMA, state="left")
    seen = view(member(1), away, member(3, LLAMA, state="dead", load=None))
    asked = Job("r", "chat", "llama-3.2-3b")
    assert holders_away(seen, asked) == [away]
    assert holders_away(seen, replace(asked, model=MODEL)) == [away]
    assert holders_away(seen, replace(asked, model="absent")) == []


def test_every_routable_node_with_the_model_makes_an_offer():
    """Each offer carries the model's own state on that node."""
    offers = HOUSE.offers(MODEL)
    assert [offer.member.name for offer in offers] == ["node1", "node2"]
    assert offers[0].load == load().models[0]
    assert HOUSE.offers("absent") == []
    assert set(HOUSE.models()) == {MODEL, "Llama-3.2-3B"}


def test_a_model_that_the_load_record_does_not_name_has_no_state():
    """Its capacity arrived before its load did."""
    assert HOUSE.offers("Llama-3.2-3B")[0].load is None


@pytest.mark.parametrize("change", [{"state": "suspect"}, {"load": None}, {"capacity": None}])
def test_a_node_that_is_not_routable_offers_nothing(change):
    """Suspect, or not yet known well enough."""
    assert Catalogue(view(member(1, **change))).resolve(MODEL) is None


def test_records_replace_offers_in_place():
    """Who offers what stays; a node that offers nothing yet changes nothing."""
    unknown = member(9, capacity=None)
    house = view(member(1), member(2), unknown)
    catalogue = Catalogue(house)
    shelf = catalogue.shelf(MODEL)
    newer = member(2, load_at=3.0)
    catalogue.update(view(member(1), newer, member(9, capacity=None, heard_at=1.0)))
    assert catalogue.shelf(MODEL) is shelf
    assert shelf.offers[shelf.places[newer.node_id]].member is newer


def test_a_change_of_who_offers_what_builds_the_table_anew():
    """A model more, a node less, a node that became suspect."""
    catalogue = Catalogue(view(member(1), member(2)))
    catalogue.update(view(member(1), member(2, LLAMA)))
    assert catalogue.resolve("llama3.2") == "Llama-3.2-3B"
    catalogue.update(view(member(1), member(2, LLAMA, state="suspect")))
    assert catalogue.resolve("llama3.2") is None
    catalogue.update(view(member(2, LLAMA)))
    assert set(catalogue.models()) == {"Llama-3.2-3B"}
