"""The mesh's models in Ollama's lists."""

import json

import pytest

from meshd.api.errors import ApiError
from meshd.api.ollama_models import find, pull, refused, running, show, tagged, tags, version
from tests.api.scripted import MODEL

COLD = MODEL | {
    "id": "SmolLM2-135M-Instruct",
    "aliases": ["smol"],
    "capabilities": ["chat", "completion", "tools", "embedding", "strange"],
    "quantisation": "",
    "warm": False,
    "context_length": 0,
}
MODELS = [MODEL, COLD]


def body(reply):
    return json.loads(reply.body)


def asked(**fields):
    return json.dumps(fields).encode()


def test_every_model_is_listed_with_a_tag():
    """The keys that clients read, in the types they expect."""
    first, second = body(tags(MODELS))["models"]
    assert first["name"] == first["model"] == "org/tiny:q4"
    assert second["name"] == "SmolLM2-135M-Instruct:latest"
    assert first["modified_at"] == "2023-11-14T22:13:20.000000Z"
    assert len(first["digest"]) == 64
    assert first["digest"] != second["digest"]
    assert first["details"] == {
        "parent_model": "",
        "format": "gguf",
        "family": "tiny",
        "families": ["tiny"],
        "parameter_size": "",
        "quantization_level": "Q4_K_M",
    }
    assert (
        second["details"] | {"family": "smollm", "parameter_size": "135M", "format": ""}
        == (second["details"])
    )


def test_sizes_are_told_where_nodes_tell_them():
    """0 is what clients show as nothing."""
    listed = body(tags([MODEL | {"size_bytes": 7}, COLD | {"size_bytes": 0}]))["models"]
    sizes = [each["size"] for each in listed]
    assert sizes == [7, 0]


def test_only_warm_models_run():
    """And stay: their end is far away."""
    (one,) = body(running(MODELS))["models"]
    assert (one["name"], one["context_length"]) == ("org/tiny:q4", 2048)
    assert one["expires_at"] > "2300"


def test_showing_a_model():
    """Context length under the name of its family, as editors look it up."""
    shown = body(show(asked(model="tiny"), MODELS))
    family = shown["model_info"]["general.architecture"]
    assert shown["model_info"][f"{family}.context_length"] == 2048
    assert shown["parameters"].split() == ["num_ctx", "2048"]
    assert shown["capabilities"] == ["completion", "vision"]


def test_what_is_not_known_is_not_made_up():
    """No context, no such key; strange words are not passed on."""
    shown = body(show(asked(name="smol:latest"), MODELS))
    assert sorted(shown["model_info"]) == ["general.architecture", "general.basename"]
    assert shown["parameters"] == ""
    assert shown["capabilities"] == ["completion", "embedding", "tools"]


@pytest.mark.parametrize(
    "name",
    ["SmolLM2-135M-Instruct", "SmolLM2-135M-Instruct:latest", "smollm2-135m-instruct", "smol"],
)
def test_a_model_is_found_by_every_spelling(name):
    """Exactly, by alias, with the tag, in any case."""
    assert find(MODELS, name) is COLD


@pytest.mark.parametrize(("model_id", "name"), [("a", "a:latest"), ("h:5/a", "h:5/a:latest")])
def test_a_name_without_a_tag_gets_one(model_id, name):
    """A colon in a host is none."""
    assert tagged(model_id) == name
    assert tagged(name) == name


def test_what_nobody_offers_is_not_found():
    """404 is what clients answer with a pull."""
    with pytest.raises(ApiError) as caught:
        show(asked(model="nope"), MODELS)
    assert caught.value.status == 404


@pytest.mark.parametrize(
    ("stream", "end"), [({}, b"\n"), ({"stream": True}, b"\n"), ({"stream": False}, b"}")]
)
def test_pulling_what_is_there_succeeds(stream, end):
    """As a stream of one line, or as one object."""
    reply = pull(asked(model="smol", **stream), MODELS)
    assert body(reply) == {"status": "success"}
    assert reply.body.endswith(end)
    assert ("ndjson" in reply.content_type) is (end == b"\n")


def test_pulling_anything_else_says_where_models_come_from():
    """Nothing is downloaded because somebody asked for a name."""
    with pytest.raises(ApiError, match="models folder") as caught:
        pull(asked(model="nope"), MODELS)
    assert caught.value.status == 404


def test_making_and_deleting_are_refused():
    """With a word on where it is done."""
    error = refused("/api/create")
    assert error.status == 400
    assert "/api/create is not served" in error.message


def test_the_version_is_one_that_editors_accept():
    """And ours stands beside it."""
    told = body(version())
    assert tuple(map(int, told["version"].split("."))) >= (0, 9, 0)
    assert "meshd" in told


@pytest.mark.parametrize(
    ("model_id", "family", "size"),
    [
        ("gemma-3-27b-it", "gemma", "27B"),
        ("org/Qwen2.5-Coder-1.5B-Q8", "qwen", "1.5B"),
        ("mixtral-8x7b", "mixtral", "8X7B"),
        ("123", "unknown", ""),
    ],
)
def test_family_and_size_are_read_out_of_names(model_id, family, size):
    """Where they tell them."""
    (one,) = body(tags([MODEL | {"id": model_id}]))["models"]
    assert (one["details"]["family"], one["details"]["parameter_size"]) == (family, size)
