"""Ollama's embeddings, both routes."""

import json
from array import array

import pytest

from meshd.api.dialect import Asker, Opening
from meshd.api.errors import ApiError
from meshd.api.ollama_embed import OLLAMA_EMBED, VectorsAnswer, read_embed, read_embeddings
from meshd.core.ports import AnswerHead
from protocol.jobs import Failure, Finish, TextDelta, Vector

ASKER = Asker("r", session="s", person="anna")
OPENING = Opening("r", 0.0, AnswerHead("r", "attic", "ab" * 16, "tiny", 1, "only", 0, 0))
DONE = Finish("stop", 3, 0, prompt_s=0.5, queue_s=0.25)


def vector(index, *numbers):
    return Vector(index, array("f", numbers).tobytes())


def embed(**body):
    return read_embed({"model": "tiny"} | body, ASKER)


def whole(asked, *events):
    answer = VectorsAnswer(asked, OPENING)
    answer.add([*events, DONE])
    return json.loads(answer.body())


@pytest.mark.parametrize(
    ("given", "inputs", "count"),
    [
        ("a", ("a",), 1),
        (["a", "b"], ("a", "b"), 2),
        ("", ("Hi",), 0),
        ([], ("Hi",), 0),
        (None, ("Hi",), 0),
    ],
)
def test_texts_become_inputs(given, inputs, count):
    """None at all loads the model."""
    asked = embed(input=given, truncate=True, options={}, keep_alive=None)
    assert (asked.job.kind, asked.job.inputs, asked.count) == ("embedding", inputs, count)
    assert (asked.job.session, asked.job.person, asked.job.stream) == ("s", "anna", False)


def test_the_older_route_takes_one_text():
    """Under another name."""
    asked = read_embeddings({"model": "tiny", "prompt": "a", "keep_alive": "5m"}, ASKER)
    assert (asked.job.inputs, asked.is_older) == (("a",), True)
    assert asked.lines == "x-mesh-left-out: keep_alive\r\n"
    assert read_embeddings({"model": "tiny"}, ASKER).count == 0


def test_vectors_of_length_1_in_the_order_of_their_texts():
    """Whatever order they came in."""
    asked = embed(input=["a", "b"])
    assert whole(asked, vector(1, 0, 0), TextDelta("?"), vector(0, 3, 4), vector(9, 1)) == {
        "model": "tiny",
        "embeddings": [[0.6, 0.8], [0.0, 0.0]],
        "total_duration": 750_000_000,
        "load_duration": 250_000_000,
        "prompt_eval_count": 3,
    }


def test_the_older_route_answers_with_the_vector_as_it_is():
    """One list of numbers, and nothing else."""
    asked = read_embeddings({"model": "tiny", "prompt": "a"}, ASKER)
    assert whole(asked, vector(0, 3, 4)) == {"embedding": [3.0, 4.0]}


def test_a_model_that_was_only_loaded_gives_no_vector():
    """What it was given was ours."""
    assert whole(embed(input=""), vector(0, 1))["embeddings"] == []
    assert whole(read_embeddings({"model": "tiny"}, ASKER), vector(0, 1)) == {"embedding": []}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": 5}, "input"),
        ({"input": [5]}, "input[0]"),
        ({"input": [""]}, "input[0]"),
        ({"input": ["a"] * 2049}, "input"),
        ({"input": "a", "dimensions": -1}, "dimensions"),
        ({"input": "a", "truncate": 1}, "truncate"),
        ({"input": "a", "model": None}, "model"),
    ],
)
def test_what_cannot_be_meant_is_refused(body, param):
    """By name."""
    with pytest.raises(ApiError) as caught:
        embed(**body)
    assert (caught.value.status, caught.value.param) == (400, param)


def test_vectors_are_as_wide_as_was_asked_or_there_are_none():
    """Cut, they would be something else than the model made."""
    assert whole(embed(input="a", dimensions=2), vector(0, 0, 1))["embeddings"] == [[0.0, 1.0]]
    assert whole(embed(input="", dimensions=5), vector(0, 0, 1))["embeddings"] == []
    with pytest.raises(ApiError, match="Ask for 2") as caught:
        whole(embed(input="a", dimensions=1), vector(0, 0, 1))
    assert (caught.value.status, caught.value.param) == (400, "dimensions")


@pytest.mark.parametrize("events", [[], [Failure("timeout", "slow", elsewhere=False)]])
def test_a_missing_vector_is_an_error(events):
    """Not a shorter list."""
    with pytest.raises(ApiError):
        whole(embed(input="a"), *events)


def test_an_answer_that_never_ends_is_an_error():
    """Though all vectors are there."""
    answer = VectorsAnswer(embed(input="a"), OPENING)
    answer.add([vector(0, 1)])
    with pytest.raises(ApiError):
        answer.body()


def test_embeddings_are_never_streamed():
    """A program's mistake, not a client's."""
    with pytest.raises(AssertionError):
        OLLAMA_EMBED.stream(embed(input="a"), OPENING)
