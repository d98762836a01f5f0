"""Any JSON on any route of a real gateway in front of a real engine: 2xx, or a shaped 4xx.

Never a 500, never a hang, never a stream without its end.
"""

import asyncio
import json
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meshd.core.routing.router import Router
from meshd.engine.emulated import EmulatedEngine
from meshd.engine.spec import parse
from meshd.gateway import MeshGateway
from tests.api.scripted import line, serving
from tests.core.routing.fleet import load, member, view

SPEC = (
    "emulated:model=tiny,prompt_tps=1000000,generation_tps=1000000,slots=8,"
    "can=vision+embedding+speech+transcription+image"
)
USER = [{"role": "user", "content": "Hi"}]
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}

GOOD = {
    "/v1/chat/completions": {
        "model": "tiny",
        "messages": USER,
        "max_tokens": 5,
        "n": 2,
        "stream": True,
        "stream_options": {"include_usage": True},
        "tools": [TOOL],
        "tool_choice": "required",
        "functions": None,
        "parallel_tool_calls": False,
        "response_format": None,
        "logprobs": False,
        "service_tier": "flex",
        "seed": 1,
        "stop": ["x"],
    },
    "/v1/completions": {
        "model": "auto",
        "prompt": ["Once", "upon"],
        "max_tokens": 5,
        "echo": True,
        "n": 1,
        "stream": False,
        "best_of": 1,
    },
    "/v1/embeddings": {"model": "tiny", "input": ["a"], "encoding_format": "base64", "user": "u"},
    "/v1/responses": {
        "model": "tiny",
        "input": [{"type": "message", "role": "user", "content": "Hi"}],
        "instructions": "Be brief",
        "stream": True,
        "max_output_tokens": 20,
        "tools": [{"type": "function", "name": "f", "parameters": SCHEMA}],
        "tool_choice": "auto",
        "text": {"format": {"type": "text"}},
        "reasoning": {"effort": "low"},
        "store": False,
        "include": ["reasoning.encrypted_content"],
    },
    "/v1/messages?beta=true": {
        "model": "tiny",
        "max_tokens": 5,
        "system": [{"type": "text", "text": "Be brief"}],
        "messages": USER,
        "stream": True,
        "tools": [{"name": "f", "input_schema": SCHEMA}],
        "tool_choice": {"type": "auto"},
        "stop_sequences": ["x"],
        "thinking": {"type": "disabled"},
    },
    "/v1/messages/count_tokens": {"model": "tiny", "messages": USER},
    "/api/chat": {
        "model": "tiny:latest",
        "messages": USER,
        "stream": True,
        "options": {"num_predict": 5, "num_ctx": 512},
        "format": SCHEMA,
        "tools": [TOOL],
        "think": False,
        "keep_alive": "-1s",
    },
    "/api/generate": {
        "model": "tiny",
        "prompt": "Hi",
        "system": "Be brief",
        "images": [],
        "options": {"num_predict": 5},
        "raw": False,
    },
    "/api/embed": {"model": "tiny", "input": ["a"], "truncate": True},
    "/api/embeddings": {"model": "tiny", "prompt": "a"},
    "/api/show": {"model": "tiny", "verbose": True},
    "/v1/audio/speech": {"model": "tiny", "input": "Hi", "voice": "alloy"},
    "/v1/images/generations": {"model": "tiny", "prompt": "A cat"},
    "/mesh/v1/explain": {"model": "tiny", "messages": USER},
    "/v1/rerank": {"model": "tiny", "query": "a", "documents": ["b"]},
}
"""A good body of each route that reads one, of which one or two fields are then made bad."""

LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
    | st.sampled_from(["tiny", "auto", "user", "text", "function", "json_schema", "message"])
)
KEYS = st.text(max_size=8) | st.sampled_from(
    ["type", "role", "content", "text", "name", "function", "parameters", "arguments", "id", "url"]
)
JSON = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=10,
)


def nearly(good):
    """A good body with up to two fields of any value, or without one."""
    names = st.sampled_from(sorted(good))
    spoiled = st.dictionaries(names, JSON, max_size=2).map(lambda bad: good | bad)
    without = names.map(lambda name: {key: good[key] for key in good if key != name})
    return spoiled | without


async def answer(path, body):
    """Status, headers and whole body of one request to a new gateway. Raises TimeoutError."""
    engine = EmulatedEngine(parse(SPEC))
    await engine.start()
    home = member(1, *engine.models(), load=load(*engine.stats()))
    gateway = MeshGateway(
        Router(Random(1)),
        lambda: view(home),
        lambda _to, job, _demand: engine.generate(job),
        status=dict,
        members=dict,
    )
    async with asyncio.timeout(60), serving(gateway) as server, line(server) as client:
        client.send(f"POST {path}\ncontent-type: application/json", json.dumps(body).encode())
        status, headers = await client.head()
        size = headers.get("content-length")
        whole = await (client.chunks() if size is None else client.reader.readexactly(int(size)))
    await engine.close()
    return status, headers, whole


def check(path, body):
    """Raises AssertionError unless the answer is one that a client can read."""
    status, headers, whole = asyncio.run(answer(path, body))
    assert 200 <= status < 300 or 400 <= status < 500, whole
    shape = json.loads(whole) if status >= 400 else {"error": None}
    assert "error" in shape
    assert headers["x-request-id"]


@pytest.mark.parametrize("path", GOOD)
def test_a_good_body_is_answered(path):
    """Or, where no engine here can, refused by name: the bodies below begin from good ones."""
    check(path, GOOD[path])


@pytest.mark.parametrize("path", GOOD)
@given(data=st.data())
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_json_is_answered_or_refused_in_shape(path, data):
    """On every route, through the gateway, by the engine, and to the last byte."""
    check(path, data.draw(JSON | nearly(GOOD[path])))
