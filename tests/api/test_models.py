"""The model list, for OpenAI's clients and for local ones."""

import pytest

from meshd.api.models import find_model, model_list, model_object
from protocol.jobs import Failure
from tests.api.scripted import MODEL


def test_a_model_has_the_required_keys_and_the_usual_extras():
    """Each extra is read by some client; the head of the module says which."""
    assert model_object(MODEL) == {
        "id": "org/tiny:q4",
        "object": "model",
        "created": 1_700_000_000,
        "owned_by": "meshd",
        "type": "model",
        "display_name": "org/tiny:q4",
        "created_at": "2023-11-14T22:13:20+00:00",
        "lifecycle": "active",
        "max_input_tokens": 2048,
        "max_model_len": 2048,
        "meta": {"n_ctx": 2048},
        "architecture": {"input_modalities": ["text", "image"], "output_modalities": ["text"]},
        "status": {"value": "loaded"},
        "aliases": ["tiny"],
        "capabilities": ["chat", "vision"],
        "nodes": ["attic"],
        "quantisation": "Q4_K_M",
        "emulated": False,
        "second_hand": False,
    }


def test_what_is_unknown_is_null():
    """Zero would be taken for a length."""
    model = model_object(MODEL | {"context_length": 0, "warm": False, "capabilities": ["chat"]})
    assert model["max_model_len"] is None
    assert model["status"]["value"] == "unloaded"
    assert model["architecture"]["input_modalities"] == ["text"]


def test_a_list_is_a_list():
    """Also when it is empty. It is one page, which Anthropic's SDKs want to be told."""
    page = {"object": "list", "has_more": False}
    assert model_list([]) == page | {"data": [], "first_id": None, "last_id": None}
    listed = model_list([MODEL, MODEL | {"id": "other"}])
    assert len(listed.pop("data")) == 2
    assert listed == page | {"first_id": "org/tiny:q4", "last_id": "other"}


@pytest.mark.parametrize(
    ("capabilities", "taken", "given"),
    [
        (["transcription"], ["text", "audio"], ["text"]),
        (["speech"], ["text"], ["audio"]),
        (["embedding"], ["text"], ["embedding"]),
        (["chat", "embedding"], ["text"], ["text", "embedding"]),
    ],
)
def test_what_a_model_takes_and_gives_is_said(capabilities, taken, given):
    """So that a client offers a microphone only where somebody listens."""
    architecture = model_object(MODEL | {"capabilities": capabilities})["architecture"]
    assert architecture == {"input_modalities": taken, "output_modalities": given}


@pytest.mark.parametrize(
    "wanted", ["org/tiny:q4", "tiny", "TINY", "org/tiny", "ollama/tiny", "auto"]
)
def test_a_model_is_found_by_whatever_a_request_may_call_it(wanted):
    """The same rules as for routing."""
    assert find_model([MODEL], wanted) is MODEL


def test_an_id_goes_before_an_alias():
    """A model may be called what another is nicknamed."""
    other = MODEL | {"id": "tiny", "aliases": []}
    assert find_model([MODEL, other], "tiny") is other


@pytest.mark.parametrize(("models", "words"), [([MODEL], "org/tiny:q4"), ([], "no model at all")])
def test_an_unknown_model_names_those_there_are(models, words):
    """The usual mistake is a spelling."""
    failure = find_model(models, "tiny:q8")
    assert isinstance(failure, Failure)
    assert failure.code == "model_not_found"
    assert words in failure.message
