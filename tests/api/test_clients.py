"""The official client, over a real socket."""

import openai
import pytest

from protocol.jobs import Failure, Finish, TextDelta, ToolCallDelta
from tests.api.scripted import DONE, USER

GONE = Failure("engine_failed", "the node went away", elsewhere=False)
CALLS = [ToolCallDelta(0, "c1", "f", '{"a":'), ToolCallDelta(0, "", "", "1}")]


@pytest.fixture
async def client(server):
    """The official client, pointed at `server`."""
    url = f"http://127.0.0.1:{server.port}/v1"
    async with openai.AsyncOpenAI(base_url=url, api_key="dummy", max_retries=0) as client:
        yield client


def ask(client, **fields):
    return client.chat.completions.create(model="tiny", messages=USER, **fields)


async def test_a_conversation(client):
    """The first thing anybody tries."""
    answer = await ask(client, max_completion_tokens=5)
    assert answer.choices[0].message.content == "Hello"
    assert answer.usage.total_tokens == 7


async def test_headers_reach_the_caller(client):
    """Who answered is one call away."""
    raw = await client.chat.completions.with_raw_response.create(model="tiny", messages=USER)
    assert raw.headers["x-mesh-node"] == "attic"
    assert raw.request_id.startswith("req-")


async def test_a_stream(client):
    """Piece by piece."""
    chunks = [chunk async for chunk in await ask(client, stream=True)]
    assert [chunk.choices[0].delta.content for chunk in chunks] == ["", "Hel", "lo", None]
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert len({chunk.id for chunk in chunks}) == 1


async def test_a_stream_with_usage(client):
    """In a last chunk without choices."""
    stream = await ask(client, stream=True, stream_options={"include_usage": True})
    *_, last = [chunk async for chunk in stream]
    assert (last.choices, last.usage.prompt_tokens_details.cached_tokens) == ([], 1)


async def test_a_tool_call_is_put_together(gateway, client):
    """By the client's own accumulator."""
    gateway.batches = [CALLS, [Finish("tool_calls", 5, 2)]]
    async with client.chat.completions.stream(model="tiny", messages=USER) as stream:
        final = await stream.get_final_completion()
    call = final.choices[0].message.tool_calls[0]
    assert (call.id, call.function.name, call.function.arguments) == ("c1", "f", '{"a":1}')


async def test_a_stream_that_fails_raises(gateway, client):
    """With our words."""
    gateway.batches = [[TextDelta("a")], [GONE]]
    with pytest.raises(openai.APIError, match="the node went away"):
        [chunk async for chunk in await ask(client, stream=True)]


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("model_not_found", openai.NotFoundError),
        ("context_length_exceeded", openai.BadRequestError),
        ("rate_limited", openai.RateLimitError),
        ("overloaded", openai.InternalServerError),
        ("unauthorized", openai.InternalServerError),
    ],
)
async def test_a_refusal_raises_the_right_class(gateway, client, code, error):
    """Programs catch by class."""
    gateway.refusal = Failure(code, "why", elsewhere=False)
    with pytest.raises(error, match="why"):
        await ask(client)


async def test_a_completion_whole_and_streamed(client):
    """The older API still has its users."""
    answer = await client.completions.create(model="tiny", prompt="Once")
    stream = await client.completions.create(model="tiny", prompt="Once", stream=True)
    assert answer.choices[0].text == "Hello"
    assert "".join([chunk.choices[0].text async for chunk in stream]) == "Hello"


async def test_models_are_listed_and_found(client):
    """Ids with slashes and colons among them."""
    assert [model.id async for model in client.models.list()] == ["org/tiny:q4"]
    assert (await client.models.retrieve("org/tiny:q4")).owned_by == "meshd"
    with pytest.raises(openai.NotFoundError, match="The mesh has: org/tiny:q4"):
        await client.models.retrieve("nope")


async def test_a_stream_that_is_left_closes_its_events(gateway, client):
    """`break` in the caller's loop frees the slot."""
    gateway.batches = [[TextDelta("a")], None, [DONE]]
    stream = await ask(client, stream=True)
    await anext(aiter(stream))
    await stream.close()
    await gateway.closed.wait()
