"""What each route says, without HTTP."""

import json

import pytest

from meshd.api.answers import Answers, Stream
from meshd.api.dialect import Asker
from meshd.api.errors import ApiError
from meshd.api.paths import Found, Route
from protocol.jobs import Failure, TextDelta, Vector
from tests.api.scripted import CHAT, DONE, Scripted, chat

FULL = Failure("overloaded", "full", elsewhere=True, retry_after_s=4)


def answers(gateway):
    return Answers(gateway, "meshd\n", lambda: 1_700_000_000.5)


async def ask(gateway, route, body=b"", model="", session=""):
    return await answers(gateway).answer(Found(route, model), body, Asker("r1", session))


async def refusal(gateway, route, body=b""):
    with pytest.raises(ApiError) as caught:
        await ask(gateway, route, body)
    return caught.value


async def test_a_chat_is_one_reply():
    """Ids and time come from the request and the clock."""
    gateway = Scripted()
    reply = await ask(gateway, Route.CHAT, chat(), session="s1")
    answer = json.loads(reply.body)
    assert (answer["id"], answer["created"]) == ("chatcmpl-r1", 1_700_000_000)
    assert answer["choices"][0]["message"]["content"] == "Hello"
    assert "x-mesh-node: attic" in reply.lines
    assert gateway.jobs[0].session == "s1"
    assert gateway.closed.is_set()


async def test_a_stream_begins_with_its_first_batch():
    """What follows is whoever writes it to take."""
    stream = await ask(Scripted(), Route.CHAT, chat(stream=True))
    assert isinstance(stream, Stream)
    assert stream.first.endswith(b"\n\n")
    assert b"lo" in stream.first
    await stream.events.aclose()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_refusal_is_a_status_in_either_mode(stream):
    """With who refused, and when to come back."""
    error = await refusal(Scripted(refusal=FULL), Route.CHAT, chat(stream=stream))
    assert error.status == 503
    assert "x-mesh-node: attic" in error.lines
    assert error.headers == (("retry-after", "4"),)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("batches", "status"), [([[FULL]], 503), ([], 502)])
async def test_an_answer_that_fails_at_once_is_a_status(stream, batches, status):
    """Before the first byte there is still time to say it properly."""
    gateway = Scripted(batches)
    error = await refusal(gateway, Route.CHAT, chat(stream=stream))
    assert error.status == status
    assert "x-mesh-node: attic" in error.lines
    assert gateway.closed.is_set()


async def test_a_whole_answer_that_fails_late_closes_its_events():
    """The slot is free when the error is written."""
    gateway = Scripted([[TextDelta("a")], [FULL], [DONE]])
    assert (await refusal(gateway, Route.CHAT, chat())).status == 503
    assert gateway.closed.is_set()


async def test_a_first_batch_that_cannot_be_written_closes_its_events():
    """A peer's nonsense costs an error, not a slot."""
    gateway = Scripted([[TextDelta("a", logprobs=[{}])], [DONE]])
    with pytest.raises(KeyError):
        await ask(gateway, Route.COMPLETION, b'{"model":"tiny","prompt":"x","stream":true}')
    assert gateway.closed.is_set()


async def test_a_completion_is_one_reply():
    """The older dialect, with its own ids."""
    reply = await ask(Scripted(), Route.COMPLETION, b'{"model":"tiny","prompt":"Once"}')
    answer = json.loads(reply.body)
    assert (answer["id"], answer["choices"][0]["text"]) == ("cmpl-r1", "Hello")


@pytest.mark.parametrize(
    ("body", "kind"), [(json.dumps(CHAT), "chat"), ('{"model":"tiny","prompt":"x"}', "completion")]
)
async def test_explain_takes_a_chat_or_a_prompt(body, kind):
    """A dry run: nothing is submitted."""
    reply = await ask(Scripted(), Route.EXPLAIN, body.encode())
    assert json.loads(reply.body) == {"model": "tiny", "kind": kind}


@pytest.mark.parametrize(
    ("route", "says"),
    [
        (Route.ROOT, b"meshd\n"),
        (Route.HEALTH, b'{"status":"ok"}'),
        (Route.STATUS, b'{"node":"attic"}'),
        (Route.MEMBERS, b'"members":[]'),
        (Route.MODELS, b'"object":"list"'),
    ],
)
async def test_what_can_be_read(route, says):
    """One line each."""
    assert says in (await ask(Scripted(), route)).body


async def test_texts_become_vectors():
    """In one reply, with who answered."""
    gateway = Scripted([[Vector(0, b"\0\0\0?")], [DONE]])
    reply = await ask(gateway, Route.EMBEDDING, b'{"model":"tiny","input":"a"}')
    assert json.loads(reply.body)["data"][0]["embedding"] == [0.5]
    assert "x-mesh-node: attic" in reply.lines
    assert gateway.jobs[0].inputs == ("a",)


async def test_embeddings_that_fail_late_are_a_status():
    """Their events are closed all the same."""
    gateway = Scripted([[FULL]])
    assert (await refusal(gateway, Route.EMBEDDING, b'{"model":"tiny","input":"a"}')).status == 503
    assert gateway.closed.is_set()


async def test_one_model_is_read_by_its_alias():
    """Under its own id."""
    reply = await ask(Scripted(), Route.MODEL, model="tiny")
    assert json.loads(reply.body)["id"] == "org/tiny:q4"


@pytest.mark.parametrize(
    ("route", "body", "status"),
    [
        (Route.MODEL, b"", 404),
        (Route.EMBEDDING, b"{}", 400),
        (Route.CHAT, b"{}", 400),
        (Route.COMPLETION, b"[", 400),
        (Route.EXPLAIN, b"{}", 400),
    ],
)
async def test_what_cannot_be_answered_is_an_error(route, body, status):
    """Raised before the gateway is asked."""
    gateway = Scripted()
    with pytest.raises(ApiError) as caught:
        await ask(gateway, route, body, model="nope")
    assert caught.value.status == status
    assert not gateway.jobs
