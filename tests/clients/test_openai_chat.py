"""The official OpenAI client's chat and embeddings, through a node that has no model itself."""

import json

import openai
import pytest
from pydantic import BaseModel

from tests.clients.conftest import MODEL

pytestmark = pytest.mark.timeout(90)
"""Two daemons start before the first test; on a busy machine that is half a minute."""

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
        "strict": True,
    },
}
ASK = {"role": "user", "content": 'Weather?\n<<call weather {"city": "Rome"}>>'}


class Place(BaseModel):
    """What a structured answer has to be."""

    name: str
    height_m: int


@pytest.fixture
def client(entry):
    """Without retries that could hide an error."""
    with openai.OpenAI(base_url=entry.base_url, api_key="unused", max_retries=0) as client:
        yield client


def ask(client, *messages, **fields):
    turns = [
        message if isinstance(message, dict) else {"role": "user", "content": message}
        for message in messages
    ]
    return client.chat.completions.create(model=MODEL, messages=turns, **fields)


def test_a_conversation(client):
    """Each turn sends all of it again."""
    first = ask(client, "Hi\n<<say Hello.>>").choices[0].message
    second = ask(client, "Hi", first.model_dump(exclude_none=True), "And?\n<<say Bye.>>")
    assert (first.content, second.choices[0].message.content) == ("Hello.", "Bye.")


def test_a_stream(client):
    """Piece by piece, with the counts at the end."""
    options = {"include_usage": True}
    stream = ask(client, "Hi\n<<say one two three>>", stream=True, stream_options=options)
    *chunks, last = list(stream)
    text = "".join([chunk.choices[0].delta.content or "" for chunk in chunks])
    assert (text, last.usage.completion_tokens) == ("one two three", 3)


def test_a_tool_loop(client):
    """The model calls, the client answers, the model goes on."""
    said = ask(client, ASK, tools=[WEATHER]).choices[0]
    (call,) = said.message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == (
        "weather",
        {"city": "Rome"},
    )
    turns = [
        said.message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": "sunny"},
    ]
    after = ask(client, ASK, *turns, tools=[WEATHER]).choices[0]
    assert (said.finish_reason, after.finish_reason) == ("tool_calls", "stop")


def test_a_structured_answer(client):
    """Parsed into the caller's own type."""
    answer = client.chat.completions.parse(
        model=MODEL,
        messages=[{"role": "user", "content": "Which mountain?"}],
        response_format=Place,
    )
    assert isinstance(answer.choices[0].message.parsed, Place)


def test_embeddings_are_the_same_in_base64_and_as_numbers(client):
    """The client asks for base64 by itself, and decodes it."""
    packed = client.embeddings.create(model=MODEL, input=["a", "b"])
    plain = client.embeddings.create(model=MODEL, input=["a", "b"], encoding_format="float")
    vectors = [entry.embedding for entry in packed.data]
    assert vectors == [pytest.approx(entry.embedding) for entry in plain.data]
    assert vectors[0] != vectors[1]
