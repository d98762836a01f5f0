"""Ollama's official client, over a real socket, and what its other clients send."""

import json
from array import array

import ollama
import pytest

from protocol.jobs import Failure, Finish, ReasoningDelta, TextDelta, ToolCallDelta, Vector
from tests.api.scripted import DONE, USER, line, post, serving

CALLS = [ToolCallDelta(0, "c1", "now", '{"city":'), ToolCallDelta(0, "", "", '"Ulm"}')]
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ"


@pytest.fixture
async def client(server, monkeypatch):
    """The official client, pointed at `server`."""
    monkeypatch.delenv("OLLAMA_API_KEY", raising=False)
    async with ollama.AsyncClient(f"http://127.0.0.1:{server.port}") as client:
        yield client


def now(city: str) -> str:
    """The weather now.

    Args:
        city: Where.
    """
    return city


async def test_a_conversation(client, gateway):
    """The first thing anybody tries."""
    answer = await client.chat("tiny", USER, options={"num_ctx": 4096}, keep_alive="5m")
    assert answer.message.content == "Hello"
    assert (answer.done, answer.done_reason, answer.eval_count) == (True, "stop", 2)
    assert gateway.jobs[0].messages == (USER[0],)


async def test_a_stream(client, gateway):
    """Piece by piece, thinking among them."""
    gateway.batches = [[ReasoningDelta("hm")], [TextDelta("Hel"), TextDelta("lo")], [DONE]]
    parts = [part async for part in await client.chat("tiny", USER, stream=True, think=True)]
    assert [part.message.thinking for part in parts] == ["hm", None, None, None]
    assert [part.message.content for part in parts] == ["", "Hel", "lo", ""]
    assert [part.done for part in parts] == [False, False, False, True]


async def test_a_prompt_whole_and_streamed(client, gateway):
    """With a picture."""
    answer = await client.generate("tiny", "What?", system="Be brief.", images=[PNG])
    assert answer.response == "Hello"
    assert gateway.jobs[0].messages[1]["content"][1]["type"] == "image_url"
    parts = [part async for part in await client.generate("tiny", "Hi", stream=True)]
    assert "".join([part.response for part in parts]) == "Hello"


async def test_a_tool_loop(client, gateway):
    """A function is called with an object, and its answer finds the call."""
    gateway.batches = [CALLS, [Finish("tool_calls", 5, 2)]]
    first = await client.chat("tiny", USER, tools=[now])
    (call,) = first.message.tool_calls
    assert now(**call.function.arguments) == "Ulm"
    answer = {"role": "tool", "tool_name": call.function.name, "content": "sun"}
    await client.chat("tiny", [*USER, first.message, answer])
    _, said, told = gateway.jobs[1].messages
    assert told["tool_call_id"] == said["tool_calls"][0]["id"]
    assert json.loads(said["tool_calls"][0]["function"]["arguments"]) == {"city": "Ulm"}


async def test_an_answer_in_a_form(client, gateway):
    """A schema goes on as it is."""
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    await client.chat("tiny", USER, format=schema)
    await client.generate("tiny", "Hi", format="json")
    assert gateway.jobs[0].response_format["json_schema"]["schema"] == schema
    assert gateway.jobs[1].response_format == {"type": "json_object"}


async def test_embeddings(client, gateway):
    """Of many texts, and of one."""
    gateway.batches = [[Vector(0, array("f", [3, 4]).tobytes())], [Finish("stop", 3, 0)]]
    assert (await client.embed("tiny", "a")).embeddings == [pytest.approx([0.6, 0.8])]
    assert (await client.embeddings("tiny", "a")).embedding == [3.0, 4.0]


async def test_models_are_listed_shown_and_running(client):
    """In the client's own types."""
    (listed,) = (await client.list()).models
    assert listed.model == "org/tiny:q4"
    shown = await client.show("tiny")
    assert shown.modelinfo["tiny.context_length"] == 2048
    assert "vision" in shown.capabilities
    assert (await client.ps()).models[0].context_length == 2048


async def test_pulling_what_is_there_and_what_is_not(client):
    """As a program that makes sure of its model does."""
    assert (await client.pull("tiny")).status == "success"
    assert [part.status async for part in await client.pull("tiny", stream=True)] == ["success"]
    with pytest.raises(ollama.ResponseError, match="downloads none") as caught:
        await client.pull("nope")
    assert caught.value.status_code == 404


async def test_what_is_not_served_raises_with_our_words(client):
    """4xx, in the client's shape."""
    for ask in (client.delete("tiny"), client.create("x", from_="tiny"), client.copy("tiny", "x")):
        with pytest.raises(ollama.ResponseError, match="is not served") as caught:
            await ask
        assert caught.value.status_code == 400


@pytest.mark.parametrize(("code", "status"), [("model_not_found", 404), ("overloaded", 503)])
async def test_a_refusal_raises_with_its_status(gateway, client, code, status):
    """Streamed or not."""
    gateway.refusal = Failure(code, "why", elsewhere=False)
    with pytest.raises(ollama.ResponseError, match="why") as caught:
        await client.chat("tiny", USER)
    assert caught.value.status_code == status
    with pytest.raises(ollama.ResponseError, match="why"):
        [part async for part in await client.chat("tiny", USER, stream=True)]


async def test_a_stream_that_fails_raises(gateway, client):
    """Not one that just stops."""
    gateway.batches = [[TextDelta("a")], [Failure("timeout", "slow", elsewhere=False)]]
    with pytest.raises(ollama.ResponseError, match="slow"):
        [part async for part in await client.chat("tiny", USER, stream=True)]


async def test_loading_a_model(client, gateway):
    """No words: one token that nobody sees."""
    answer = await client.generate("tiny")
    assert (answer.response, answer.done_reason) == ("", "load")
    assert gateway.jobs[0].max_tokens == 1


async def test_as_home_assistant_asks(server, gateway):
    """No `stream`: it is one; whole numbers as floats; the header says what has no effect."""
    body = {
        "model": "tiny:latest",
        "messages": [{"role": "system", "content": "You are."}, *USER],
        "tools": [],
        "stream": True,
        "options": {"num_ctx": 8192.0},
        "keep_alive": "-1s",
        "think": False,
    }
    async with line(server) as wire:
        wire.send(post("/api/chat"), json.dumps(body).encode())
        status, headers = await wire.head()
        lines = (await wire.chunks()).splitlines()
    assert (status, headers["content-type"]) == (200, "application/x-ndjson")
    assert headers["x-mesh-left-out"] == "keep_alive, num_ctx"
    assert json.loads(lines[-1])["done"] is True
    assert gateway.jobs[0].extras == {"chat_template_kwargs": {"enable_thinking": False}}


@pytest.mark.parametrize("path", ["/api/version", "/api/tags", "/api/ps", "/"])
async def test_looking_whether_somebody_is_there(server, path):
    """By HEAD, as the command line client does."""
    async with line(server) as wire:
        wire.send(f"HEAD {path}")
        assert (await wire.head())[0] == 200


async def test_errors_that_never_reach_the_dialect_have_its_shape(gateway):
    """A missing key, a body that is no JSON."""
    async with serving(gateway, auth={"k": "ann"}.get) as server, line(server) as wire:
        wire.send(post("/api/chat"), b"{}")
        status, _, body = await wire.reply()
        assert (status, list(json.loads(body))) == (401, ["error"])
        wire.send(post("/api/chat") + "\nauthorization: Bearer k", b"{")
        status, _, body = await wire.reply()
        assert (status, type(json.loads(body)["error"])) == (400, str)


async def test_clients_that_look_for_ollamas_words_find_them(server):
    """At the root, in plain text."""
    async with line(server) as wire:
        wire.send("GET /")
        status, _, body = await wire.reply()
    assert (status, b"Ollama is running" in body) == (200, True)
