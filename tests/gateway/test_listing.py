"""The models of a mesh, as another node reads them."""

import pytest

from meshd.api.models import model_list
from meshd.core.routing.catalogue import Catalogue
from meshd.engine.listing import read_listing
from meshd.gateway.listing import merged_models
from tests.core.routing.fleet import MODEL, member, model, view


def read_by_a_node(*models):
    """What a node finds that was given this household's address as a server's: engines' names."""
    members = [member(number, each) for number, each in enumerate(models, start=1)]
    listing = model_list(merged_models(Catalogue(view(*members)), 0))
    found = read_listing(listing, "upstream http://10.0.0.9:8787")
    return {each.record.model_id: each.record.engine for each in found}


def test_a_node_that_is_used_as_a_server_is_told_from_one():
    """It is a server as good as any; but what comes from it is marked."""
    assert read_by_a_node(model()) == {MODEL: "node http://10.0.0.9:8787"}


@pytest.mark.parametrize("others", [(), (model(engine="node http://10.0.0.8:8787"),)])
def test_what_a_node_has_from_a_node_is_not_taken_up(others):
    """Two that name each other would list it for ever, and send a request round and round."""
    assert read_by_a_node(model(engine="node http://10.0.0.7:8787"), *others) == {}


def test_what_somebody_has_at_first_hand_is_taken_up():
    """Whoever else has it from elsewhere."""
    second = model(engine="node http://10.0.0.7:8787")
    assert list(read_by_a_node(second, model(engine="llamacpp"))) == [MODEL]
