"""The official OpenAI client's Responses, through a node that has no model itself."""

import json

import openai
import pytest
from pydantic import BaseModel

from tests.clients.conftest import MODEL

pytestmark = pytest.mark.timeout(90)
"""Two daemons start before the first test; on a busy machine that is half a minute."""

WEATHER = {
    "type": "function",
    "name": "weather",
    "description": "The weather of a city",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}
ASK = 'What is the weather?\n<<call weather {"city": "Rome"}>>'


class Place(BaseModel):
    """What a structured answer has to be."""

    name: str
    height_m: int


@pytest.fixture
def client(entry):
    """Without retries that could hide an error."""
    with openai.OpenAI(base_url=entry.base_url, api_key="unused", max_retries=0) as client:
        yield client


def test_a_conversation(client):
    """Each turn sends all of it again, because nothing is stored."""
    items = [{"role": "user", "content": "Hi\n<<say Hello.>>"}]
    first = client.responses.create(model=MODEL, input=items, instructions="Be brief.")
    items += [*first.output, {"role": "user", "content": "And?\n<<say Bye.>>"}]
    second = client.responses.create(model=MODEL, input=items, store=False)
    assert (first.output_text, second.output_text) == ("Hello.", "Bye.")
    assert (first.status, first.store, first.instructions) == ("completed", False, "Be brief.")
    assert second.usage.input_tokens > first.usage.input_tokens


def test_who_answered_stands_in_the_headers(client):
    """The other node."""
    raw = client.responses.with_raw_response.create(model=MODEL, input="Hi\n<<say x>>")
    assert raw.headers["x-mesh-node"] == "serving"


def test_a_stream(client):
    """The client's own accumulator ends with what a plain answer would have been."""
    asked = {"model": MODEL, "input": "Hi\n<<say one two three>>"}
    with client.responses.stream(**asked) as stream:
        text = "".join([event.delta for event in stream if event.type.endswith("text.delta")])
        final = stream.get_final_response()
    assert text == final.output_text == client.responses.create(**asked).output_text


def test_thoughts_are_a_summary_for_whom_asks(client):
    """And travel back with the next turn."""
    first = client.responses.create(
        model=MODEL,
        input="Hi\n<<think hm hm>>\n<<say a>>",
        reasoning={"summary": "auto"},
        include=["reasoning.encrypted_content"],
    )
    thought, _ = first.output
    assert thought.summary[0].text == "hm hm"
    assert first.usage.output_tokens_details.reasoning_tokens > 0
    replay = [*first.output, {"role": "user", "content": "And?\n<<say b>>"}]
    assert client.responses.create(model=MODEL, input=replay).output_text == "b"


@pytest.mark.parametrize("is_streamed", [False, True])
def test_a_tool_loop(client, is_streamed):
    """The model calls, the client answers, the model goes on."""
    items = [{"role": "user", "content": ASK}]
    asked = {"model": MODEL, "input": items, "tools": [WEATHER]}
    calls = {False: _called, True: _called_in_a_stream}[is_streamed](client, asked)
    assert [(call.name, json.loads(call.arguments)) for call in calls] == [
        ("weather", {"city": "Rome"})
    ]
    items += calls
    items += [{"type": "function_call_output", "call_id": calls[0].call_id, "output": "sunny"}]
    assert client.responses.create(**asked).output_text


def _called(client, asked):
    return list(client.responses.create(**asked).output)


def _called_in_a_stream(client, asked):
    with client.responses.stream(**asked) as stream:
        return [event.item for event in stream if event.type == "response.output_item.done"]


def test_a_forced_tool(client):
    """Whatever the model would have said."""
    answer = client.responses.create(
        model=MODEL,
        input="Hi",
        tools=[WEATHER],
        tool_choice={"type": "function", "name": "weather"},
    )
    assert [item.type for item in answer.output] == ["function_call"]


def test_a_structured_answer(client):
    """Parsed into the caller's own type, whole and streamed."""
    asked = {"model": MODEL, "input": "Which mountain?", "text_format": Place}
    parsed = client.responses.parse(**asked).output_parsed
    with client.responses.stream(**asked) as stream:
        streamed = stream.get_final_response().output_parsed
    assert isinstance(parsed, Place)
    assert streamed == parsed


def test_an_answer_that_was_cut_is_incomplete(client):
    """With the reason."""
    answer = client.responses.create(model=MODEL, input="Tell me all", max_output_tokens=3)
    assert answer.incomplete_details.reason == "max_output_tokens"
    assert answer.usage.output_tokens == 3


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"model": "nope", "input": "x"}, openai.NotFoundError),
        ({"model": MODEL, "input": "x", "previous_response_id": "r"}, openai.BadRequestError),
    ],
)
def test_a_refusal_raises_the_right_class(client, fields, error):
    """Programs catch by class."""
    with pytest.raises(error):
        client.responses.create(**fields)


def test_a_stored_response_is_not_found(client):
    """Nothing is stored."""
    with pytest.raises(openai.NotFoundError, match="nothing is stored here"):
        client.responses.retrieve("resp_1")


def test_a_stream_that_fails_raises(client):
    """A call that was begun cannot be gone on with; a stream that just stops nobody would see."""
    question = f"{ASK}\n<<fault crash 2>>"
    stream = client.responses.create(model=MODEL, input=question, tools=[WEATHER], stream=True)
    with pytest.raises(openai.APIError):
        list(stream)
