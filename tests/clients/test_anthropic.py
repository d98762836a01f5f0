"""The official Anthropic client, through a node that has no model itself."""

import anthropic
import pytest
from pydantic import BaseModel

from tests.clients.conftest import MODEL

pytestmark = pytest.mark.timeout(90)
"""Two daemons start before the first test; on a busy machine that is half a minute."""

WEATHER = {
    "name": "weather",
    "description": "The weather of a city",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    },
}
ASK = 'What is the weather?\n<<call weather {"city": "Rome"}>>'


class Place(BaseModel):
    """What a structured answer has to be."""

    name: str
    height_m: int


@pytest.fixture
def client(entry):
    """Without retries that could hide an error."""
    url = f"http://127.0.0.1:{entry.http_port}"
    with anthropic.Anthropic(base_url=url, api_key="unused", max_retries=0) as client:
        yield client


def asked(*messages, **fields):
    turns = [
        message if isinstance(message, dict) else {"role": "user", "content": message}
        for message in messages
    ]
    return {"model": MODEL, "max_tokens": 64, "messages": turns} | fields


def test_a_conversation(client):
    """Each turn sends all of it again."""
    first = client.messages.create(**asked("Hi\n<<say Hello.>>", system="Be brief."))
    said = {"role": "assistant", "content": first.content}
    turns = ("Hi", said, "And?\n<<say Bye.>>")
    second = client.messages.create(**asked(*turns, system="Be brief."))
    assert (first.content[0].text, second.content[0].text) == ("Hello.", "Bye.")
    assert (first.stop_reason, first.role, first.model) == ("end_turn", "assistant", MODEL)
    assert _read(second.usage) > _read(first.usage)
    assert first._request_id


def _read(usage):
    """All tokens that were read, from the cache or anew."""
    return usage.input_tokens + usage.cache_read_input_tokens


def test_who_answered_stands_in_the_headers(client):
    """The other node."""
    raw = client.messages.with_raw_response.create(**asked("Hi\n<<say x>>"))
    assert raw.headers["x-mesh-node"] == "serving"


def test_models_are_listed_by_name(client):
    """What a program shows for choosing."""
    listed = {model.id: model for model in client.models.list()}
    assert listed[MODEL].display_name == MODEL
    assert listed[MODEL].created_at.year >= 2026


def test_a_stream(client):
    """The client's own accumulator ends with what a plain answer would have been."""
    question = asked("Hi\n<<say one two three>>")
    with client.messages.stream(**question) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    plain = client.messages.create(**question)
    assert text == final.content[0].text == plain.content[0].text == "one two three"
    assert final.usage.output_tokens == plain.usage.output_tokens


def test_thoughts_for_whom_asks(client):
    """And they travel back with the next turn."""
    thinking = {"type": "enabled", "budget_tokens": 1024}
    question = asked("Hi\n<<think hm hm>>\n<<say a>>", thinking=thinking)
    with client.messages.stream(**question) as stream:
        final = stream.get_final_message()
    thought, text = final.content
    assert (thought.thinking, text.text) == ("hm hm", "a")
    assert thought.signature
    replay = asked("Hi", {"role": "assistant", "content": final.content}, "And?\n<<say b>>")
    assert client.messages.create(**replay).content[0].text == "b"


@pytest.mark.parametrize("is_streamed", [False, True])
def test_a_tool_loop(client, is_streamed):
    """The model calls, the client answers, the model goes on."""
    question = asked(ASK, tools=[WEATHER])
    answer = {False: client.messages.create, True: _streamed(client)}[is_streamed](**question)
    (use,) = answer.content
    assert (use.name, use.input, answer.stop_reason) == ("weather", {"city": "Rome"}, "tool_use")
    result = {"type": "tool_result", "tool_use_id": use.id, "content": "sunny"}
    turns = [{"role": "assistant", "content": [use]}, {"role": "user", "content": [result]}]
    assert client.messages.create(**asked(ASK, *turns, tools=[WEATHER])).content[0].text


def _streamed(client):
    def ask(**fields):
        with client.messages.stream(**fields) as stream:
            return stream.get_final_message()

    return ask


def test_a_forced_tool(client):
    """Whatever the model would have said."""
    answer = client.messages.create(**asked("Hi", tools=[WEATHER], tool_choice={"type": "any"}))
    assert [block.type for block in answer.content] == ["tool_use"]


def test_a_structured_answer(client):
    """Parsed into the caller's own type."""
    answer = client.messages.parse(**asked("Which mountain?", output_format=Place))
    assert isinstance(answer.parsed_output, Place)


def test_a_stop_sequence_is_named(client):
    """And is no part of the text."""
    answer = client.messages.create(**asked("Hi\n<<say one END two>>", stop_sequences=["END"]))
    assert (answer.stop_reason, answer.stop_sequence) == ("stop_sequence", "END")
    assert answer.content[0].text.strip() == "one"


def test_an_answer_that_was_cut(client):
    """With the reason."""
    assert client.messages.create(**asked("All", max_tokens=3)).stop_reason == "max_tokens"


def test_tokens_are_counted(client):
    """As an estimate; the answer's header says so."""
    raw = client.messages.with_raw_response.count_tokens(
        model=MODEL, messages=[{"role": "user", "content": "Hello there"}]
    )
    assert raw.parse().input_tokens > 0
    assert raw.headers["x-mesh-token-count"] == "estimate"


def test_the_beta_surface_answers_too(client):
    """Claude Code's path, with its query and its flags."""
    answer = client.beta.messages.create(
        **asked("Hi\n<<say x>>"), betas=["context-management-2025-06-27"]
    )
    assert answer.content[0].text == "x"


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"model": "nope"}, anthropic.NotFoundError),
        ({"max_tokens": -1}, anthropic.BadRequestError),
    ],
)
def test_a_refusal_raises_the_right_class(client, fields, error):
    """Programs catch by class."""
    with pytest.raises(error) as raised:
        client.messages.create(**asked("Hi") | fields)
    assert raised.value.body["type"] == "error"


def test_a_stream_that_fails_raises(client):
    """A call that was begun cannot be gone on with; a stream that just stops nobody would see."""
    question = asked(f"{ASK}\n<<fault crash 2>>", tools=[WEATHER])
    with pytest.raises(anthropic.APIStatusError), client.messages.stream(**question) as stream:
        list(stream)
