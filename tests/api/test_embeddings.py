"""Claims of meshd.api.embeddings."""

import json
from array import array
from base64 import b64encode

import pytest

from meshd.api.dialect import Asker
from meshd.api.embeddings import INPUTS_MAX, EmbeddingAnswer, read_embedding
from meshd.api.errors import ApiError
from protocol import limits
from protocol.jobs import Failure, Finish, TextDelta, Vector

HALVES = array("f", [0.5, -0.5]).tobytes()
DONE = Finish("stop", 7, 0)


def read(**body):
    """The request of this body for the model tiny."""
    return read_embedding({"model": "tiny", **body}, Asker("r1", "s1", "me"))


@pytest.mark.parametrize(
    ("given", "inputs"),
    [
        ("hi", ("hi",)),
        (["a", "b"], ("a", "b")),
        ([1, 2], ([1, 2],)),
        ([[1], [2, 3]], ([1], [2, 3])),
    ],
)
def test_inputs_come_in_four_forms(given, inputs):
    """One or many, text or token ids."""
    job = read(input=given).job
    assert (job.kind, job.inputs, job.session) == ("embedding", inputs, "s1")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "input"),
        ({"input": 7}, "input"),
        ({"input": []}, "input"),
        ({"input": ["a"] * (INPUTS_MAX + 1)}, "input"),
        ({"input": ""}, "input[0]"),
        ({"input": ["a", 1]}, "input[1]"),
        ({"input": [[1], []]}, "input[1]"),
        ({"input": [-1]}, "input[0]"),
        ({"input": [1] * (limits.TOKEN_IDS_MAX + 1)}, "input[0]"),
        ({"input": "a", "model": ""}, "model"),
        ({"input": "a", "encoding_format": "hex"}, "encoding_format"),
        ({"input": "a", "dimensions": 0}, "dimensions"),
    ],
)
def test_what_is_wrong_is_named(body, param):
    """With status 400, before anybody computes."""
    with pytest.raises(ApiError) as caught:
        read(**body)
    assert (caught.value.status, caught.value.param) == (400, param)


def answer(*batches, count=1, is_base64=False, dimensions=None):
    """The JSON answer made of these batches."""
    whole = EmbeddingAnswer("tiny", count, is_base64=is_base64, dimensions=dimensions)
    for batch in batches:
        whole.add(batch)
    return json.loads(whole.body())


def test_vectors_are_numbers_in_the_order_of_the_inputs():
    """However they came; what was not asked for is left out."""
    batch = [Vector(1, HALVES), TextDelta("?"), Vector(9, HALVES), Vector(0, HALVES), DONE]
    told = answer(batch, count=2)
    assert [entry["index"] for entry in told["data"]] == [0, 1]
    assert told["data"][0] == {"object": "embedding", "index": 0, "embedding": [0.5, -0.5]}
    assert told["usage"] == {"prompt_tokens": 7, "total_tokens": 7}
    assert (told["object"], told["model"]) == ("list", "tiny")


def test_vectors_are_base64_where_that_was_asked_for():
    """The bytes as they are."""
    assert read(input="a", encoding_format="base64").is_base64
    told = answer([Vector(0, HALVES)], [DONE], is_base64=True)
    assert told["data"][0]["embedding"] == b64encode(HALVES).decode()


def test_the_model_s_own_width_may_be_asked_for():
    """Programs that keep vectors in a table of one width name it in every request."""
    assert read(input="a", dimensions=2).dimensions == 2
    assert answer([Vector(0, HALVES), DONE], dimensions=2)["data"][0]["embedding"] == [0.5, -0.5]


def test_another_width_is_refused_with_the_right_one():
    """A vector that is cut fits nothing that was stored before."""
    with pytest.raises(ApiError, match="have 2 numbers") as caught:
        answer([Vector(0, HALVES), DONE], dimensions=1)
    assert (caught.value.status, caught.value.param) == (400, "dimensions")


@pytest.mark.parametrize("batch", [[Vector(0, HALVES)], [DONE]])
def test_an_answer_that_lacks_something_is_an_error(batch):
    """No vector, or no end."""
    with pytest.raises(ApiError):
        answer(batch)


def test_a_failure_is_an_error():
    """In its own words."""
    with pytest.raises(ApiError, match="no"):
        answer([Failure("unsupported", "no vectors here", elsewhere=True)])
