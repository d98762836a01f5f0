"""Claims of meshd.engine.listing."""

from __future__ import annotations

import pytest

from meshd.engine.listing import read_listing, unlisted
from protocol import limits


@pytest.mark.parametrize(
    "decoded",
    [
        {"data": [{"id": "a"}]},
        {"models": [{"name": "a"}]},
        [{"id": "a"}],
        {"data": [{"id": "a"}, 5, {}]},
    ],
)
def test_a_list_of_models_is_known_in_its_usual_shapes(decoded):
    """data, models, or bare; entries without an id are passed over."""
    assert [each.record.model_id for each in read_listing(decoded, "e")] == ["a"]


@pytest.mark.parametrize("decoded", [None, 3, "text", {"error": "x"}, {"data": "x"}])
def test_anything_else_is_not_a_list(decoded):
    """An error page does not become an empty server."""
    assert read_listing(decoded, "e") is None


@pytest.mark.parametrize(
    ("entry", "length"),
    [
        ({"id": "a", "max_model_len": 4096}, 4096),
        ({"id": "a", "meta": {"n_ctx": 2048, "n_ctx_train": 9}}, 2048),
        ({"id": "a", "loaded_context_length": 1, "max_context_length": 2}, 1),
        ({"id": "a", "max_model_len": "4096"}, 0),
        ({"id": "a", "meta": None}, 0),
    ],
)
def test_the_context_length_hides_under_many_names(entry, length):
    """What is loaded counts before what is possible."""
    assert read_listing([entry], "e")[0].record.context_length == length


@pytest.mark.parametrize(
    ("entry", "warm"),
    [
        ({"id": "a"}, True),
        ({"id": "a", "status": {"value": "unloaded"}}, False),
        ({"id": "a", "status": {"value": "loaded"}}, True),
        ({"id": "a", "state": "not-loaded"}, False),
    ],
)
def test_a_model_is_warm_unless_its_server_says_otherwise(entry, warm):
    """Nobody is asked by trying."""
    assert read_listing([entry], "e")[0].is_warm is warm


def test_capabilities_are_only_those_that_are_told():
    """Chat and completion are the format's own."""
    entry = {"id": "a", "capabilities": ["embedding", "telepathy"], "aliases": ["b", 4]}
    record = read_listing([entry], "e")[0].record
    assert record.capabilities == ("chat", "completion", "embedding")
    assert record.aliases == ("b",)


def test_a_listing_is_bounded_and_has_no_doubles():
    """A router with a thousand models does not fill everybody's table."""
    entries = [{"id": str(number)} for number in range(1000)] + [{"id": "0"}]
    assert len(read_listing(entries, "e")) == limits.MODELS_MAX


def test_a_named_model_is_offered_though_it_is_not_listed():
    """The owner knows."""
    assert unlisted("mine", "e").record.model_id == "mine"
