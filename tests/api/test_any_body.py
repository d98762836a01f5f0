"""Any JSON on any route: 2xx or a shaped 4xx, never a 500, never a hang."""

import asyncio
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meshd.api.answers import Answers, Stream
from meshd.api.dialect import Asker
from meshd.api.errors import ApiError
from meshd.api.paths import Found, Route
from protocol.codec import encode_job
from tests.api.scripted import Scripted, chat, line, post, serving

LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
JSON = st.recursive(
    LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8
)
BODIES = (
    {
        "model": "tiny",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}], "name": "x"}],
        "max_tokens": 1,
        "max_completion_tokens": 1,
        "stop": ["a"],
        "stream": True,
        "stream_options": {"include_usage": True},
        "seed": 1,
        "n": 1,
        "temperature": 1,
        "top_p": 1,
        "top_k": 1,
        "min_p": 1,
        "presence_penalty": 1,
        "frequency_penalty": 1,
        "logit_bias": {"1": 1},
        "logprobs": True,
        "top_logprobs": 1,
        "tools": [{"type": "function", "function": {"name": "f"}}],
        "tool_choice": "auto",
        "response_format": {"type": "json_object"},
        "user": "u",
        "prompt_cache_key": "k",
        "grammar": "x",
    },
    {"model": "tiny", "prompt": "Once", "logprobs": 1, "echo": False, "suffix": "", "best_of": 1},
)
"""Good bodies, of which one or two fields are then made bad."""

NEARLY = st.sampled_from(BODIES).flatmap(
    lambda body: st.dictionaries(st.sampled_from(sorted(body)), JSON, max_size=2).map(
        lambda bad: body | bad
    )
)
KEYS = {"message", "type", "param", "code"}
ROUTES = [Route.CHAT, Route.COMPLETION, Route.EXPLAIN]


async def outcome(route, body):
    """200, or the status of the error; every job that was made can cross the relay."""
    gateway = Scripted()
    try:
        result = await Answers(gateway, "", lambda: 0.0).answer(Found(route), body, Asker("r"))
    except ApiError as error:
        return error.status if error.object()["error"].keys() == KEYS else 500
    if isinstance(result, Stream):
        await result.events.aclose()
    for job in gateway.jobs:
        encode_job(job)
    return 200


@pytest.mark.parametrize("route", ROUTES)
@given(body=JSON | NEARLY)
@settings(max_examples=200, deadline=None)
def test_any_json_is_answered_or_refused(route, body):
    """Through every dialect, and what is accepted is fit for the wire."""
    assert asyncio.run(outcome(route, json.dumps(body).encode())) in (200, 400)


@pytest.mark.parametrize("route", ROUTES)
@given(body=st.binary(max_size=200))
@settings(max_examples=100, deadline=None)
def test_any_bytes_are_refused(route, body):
    """Nothing random is a request."""
    assert asyncio.run(outcome(route, body)) == 400


@given(raw=st.binary(max_size=300))
@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_bytes_on_the_socket_leave_the_server_well(raw):
    """Whatever came before, the next client is answered."""

    async def knock():
        async with serving(Scripted()) as server:
            async with line(server) as stranger:
                stranger.writer.write(raw)
                await stranger.writer.drain()
            async with line(server) as client:
                client.send(post(), chat())
                return (await client.reply())[0]

    assert asyncio.run(knock()) == 200
