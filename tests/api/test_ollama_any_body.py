"""Any JSON on any of Ollama's routes: 2xx or a 4xx in its shape, and every job fits the wire."""

import asyncio
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshd.api.answers import Answers, Stream
from meshd.api.dialect import Asker
from meshd.api.errors import ApiError
from meshd.api.ollama import refuse
from meshd.api.paths import Found, Route
from protocol.codec import encode_job
from tests.api.scripted import USER, Scripted

LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
JSON = st.recursive(
    LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8
)
CALL = {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}
SHARED = {
    "model": "tiny",
    "stream": False,
    "format": "json",
    "keep_alive": "5m",
    "options": {"num_ctx": 1, "num_predict": 1, "seed": 1, "stop": ["a"], "temperature": 1},
    "think": True,
    "logprobs": True,
    "top_logprobs": 1,
    "truncate": True,
}
BODIES = {
    Route.OLLAMA_CHAT: SHARED | {"messages": [*USER, CALL], "tools": []},
    Route.OLLAMA_GENERATE: SHARED | {"prompt": "a", "system": "b", "raw": False, "images": []},
    Route.OLLAMA_EMBED: {"model": "tiny", "input": ["a"], "options": {}, "dimensions": None},
    Route.OLLAMA_EMBEDDINGS: {"model": "tiny", "prompt": "a", "keep_alive": 1},
    Route.OLLAMA_SHOW: {"model": "tiny", "verbose": True},
    Route.OLLAMA_PULL: {"model": "tiny", "stream": True, "insecure": False},
}


def bodies(route):
    """Anything, and good bodies of which one or two fields are made bad."""
    good = BODIES[route]
    changes = st.dictionaries(st.sampled_from(sorted(good)), JSON, max_size=2)
    return JSON | changes.map(lambda bad: good | bad)


async def outcome(route, body):
    """200, or the status of the error in Ollama's shape."""
    gateway = Scripted()
    try:
        result = await Answers(gateway, "", lambda: 0.0).answer(Found(route), body, Asker("r"))
    except ApiError as error:
        status, said = refuse(error, "r")
        return status if json.loads(said).keys() == {"error"} else 500
    if isinstance(result, Stream):
        await result.events.aclose()
    for job in gateway.jobs:
        encode_job(job)
    return 200


@pytest.mark.parametrize("route", BODIES)
@given(data=st.data())
@settings(max_examples=100, deadline=None)
def test_any_json_is_answered_or_refused(route, data):
    """502 stands for the scripted answer, which holds no vectors."""
    body = json.dumps(data.draw(bodies(route))).encode()
    assert asyncio.run(outcome(route, body)) in (200, 400, 404, 502)
