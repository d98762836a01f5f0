"""Claims of meshd.engine.upstream about jobs other than chats: texts that are carried on,
embeddings, and requests that are passed on unread (meshd.engine.raw, openai_vectors)."""

from __future__ import annotations

import base64
import json
from array import array
from dataclasses import replace

import pytest

from meshd.engine.raw import RawAnswer, body_for, refusal_of
from protocol import limits
from protocol.jobs import Failure, Finish, Job, RawHead, RawPart, RawRequest, Vector
from tests.engine.scripted import JOB, MODELS, PLAIN, Script, adopted, reply

TEXTS = Job("r", "embedding", "m", inputs=("one", "two"))
SPEAK = RawRequest("/v1/audio/speech", "application/json", b'{"model":"m","input":"hi"}')
RAW = Job("r", "raw", "m", raw=SPEAK)


@pytest.fixture
def script() -> Script:
    """A scripted server, not serving yet."""
    return Script()


def vectors_reply(*entries: object, **more: object) -> bytes:
    """An answer to an embedding request."""
    return reply(json.dumps({"data": list(entries), **more}).encode())


async def test_a_text_is_carried_on_as_one_text(script, answer):
    """What another machine added is part of the prompt: the server goes on behind it."""
    script.replies = [reply(PLAIN)]
    job = replace(JOB, kind="completion", messages=(), prompt="Once upon", prefix_text=" a ti")
    async with adopted(script) as engine:
        await answer(engine, job)
    assert json.loads(script.posts[0])["prompt"] == "Once upon a ti"


async def test_pictures_reach_a_server_as_they_came(script, answer):
    """A chat with a picture is a chat: the message is passed on to the letter."""
    turn = {"role": "user", "content": [
        {"type": "text", "text": "what is it?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}},
    ]}  # fmt: skip
    script.replies = [reply(PLAIN)]
    async with adopted(script, can=("chat", "vision")) as engine:
        assert engine.models()[0].capabilities == ("chat", "vision")
        text, _ = await answer(engine, replace(JOB, messages=(turn,)))
    assert text == "hi"
    assert json.loads(script.posts[0])["messages"] == [turn]


async def test_embeddings_are_passed_on(script, answer):
    """Numbers or base64, in whatever order, with the account and the client's extras."""
    packed = base64.b64encode(array("f", [0.5, 1.0]).tobytes()).decode()
    script.replies = [
        vectors_reply(
            {"index": 1, "embedding": packed},
            {"index": 0, "embedding": [2, -0.25]},
            usage={"prompt_tokens": 7},
        )
    ]
    async with adopted(script) as engine:
        _, (one, two, finish) = await answer(engine, replace(TEXTS, extras={"dimensions": 2}))
    assert one == Vector(0, array("f", [2.0, -0.25]).tobytes())
    assert two == Vector(1, array("f", [0.5, 1.0]).tobytes())
    assert (finish.prompt_tokens, finish.completion_tokens, finish.counted) == (7, 0, True)
    asked = json.loads(script.posts[0])
    assert asked["input"] == ["one", "two"]
    assert (asked["model"], asked["dimensions"]) == ("m", 2)
    assert script.heads[-1].startswith(b"POST /v1/embeddings ")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (vectors_reply({"embedding": [1.0]}), "1 vectors for 2 texts"),
        (vectors_reply({"embedding": [1.0]}, {"embedding": []}), "empty, too long"),
        (vectors_reply({"embedding": [1.0]}, {"embedding": "!"}), "not made of numbers"),
        (vectors_reply(error={"message": "no room"}), "no room"),
        (reply(b'{"object": "error", "message": "no engine"}'), "no engine"),
        (reply(b'{"error": ' + b"[" * 9_000 + b"]" * 9_000 + b"}"), "no list of embeddings"),
        (reply(b"<html>"), "no list of embeddings"),
        (reply(b'{"error":{"message":"later"}}', status=b"503 Busy"), "later"),
    ],
)
async def test_a_broken_list_of_embeddings_is_a_failure(script, answer, body, said):
    """A text without its vector is worse than no answer."""
    script.replies = [body]
    async with adopted(script) as engine:
        _, (failure,) = await answer(engine, TEXTS)
    assert isinstance(failure, Failure)
    assert said in failure.message
    assert failure.elsewhere


@pytest.mark.parametrize(
    ("usage", "told"),
    [
        ({"prompt_tokens": "7"}, (7, True)),
        ({"prompt_tokens": 10**12}, (0, False)),
        ([], (0, False)),
    ],
)
async def test_an_odd_count_of_a_text_does_not_break_its_vector(script, answer, usage, told):
    """Nor is one believed that would not fit into a message to a peer."""
    script.replies = [vectors_reply({"embedding": [1.0]}, usage=usage)]
    async with adopted(script) as engine:
        _, (_, finish) = await answer(engine, replace(TEXTS, inputs=("one",)))
    assert (finish.prompt_tokens, finish.counted) == told


async def test_a_request_that_nobody_reads_is_passed_on_to_the_letter(script, answer):
    """Path, content type and body there; status, content type and body back."""
    script.replies = [reply(b"RIFF\x00\xff", b"audio/wav")]
    form = RawRequest("/v1/audio/transcriptions", "multipart/form-data; boundary=x", b"--x\xff")
    async with adopted(script, can=("transcription", "speech")) as engine:
        _, (head, part, finish) = await answer(engine, replace(RAW, raw=form))
    assert head == RawHead(200, "audio/wav")
    assert part == RawPart(b"RIFF\x00\xff")
    assert (finish.reason, finish.counted) == ("stop", False)
    assert script.posts == [b"--x\xff"]
    sent = script.heads[-1]
    assert sent.startswith(b"POST /v1/audio/transcriptions HTTP/1.1\r\n")
    assert b"\r\ncontent-type: multipart/form-data; boundary=x\r\n" in sent
    assert b"\r\naccept: */*\r\n" in sent


async def test_the_servers_own_refusal_is_the_answer(script, answer):
    """Only it can say what was wrong with a request that nobody here reads."""
    script.replies = [reply(b'{"detail":"no such voice"}', status=b"422 No")]
    async with adopted(script) as engine:
        _, (head, part, _) = await answer(engine, RAW)
    assert head.status == 422
    assert part.data == b'{"detail":"no such voice"}'


@pytest.mark.parametrize("status", [b"404 No", b"429 Busy", b"500 Oh", b"503 Busy"])
async def test_what_another_node_may_do_better_is_a_failure(script, answer, status):
    """So that the router can ask it."""
    script.replies = [reply(b"{}", status=status)]
    async with adopted(script) as engine:
        _, (failure,) = await answer(engine, RAW)
    assert isinstance(failure, Failure)
    assert failure.elsewhere


async def test_an_answer_that_breaks_off_is_a_failure(script, answer):
    """Half a sound must not look like a short one."""
    script.replies = [reply(b"RIFF", b"audio/wav").replace(b": 4", b": 9")]
    script.closes_after_reply = True
    async with adopted(script) as engine:
        _, events = await answer(engine, RAW)
    assert isinstance(events[-1], Failure)
    assert not any(isinstance(event, Finish) for event in events)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/../admin",
        "/v1/audio/%2e%2e/x",
        "/v1//x",
        "/api/pull",
        "/v1/audio/speech?x=1",
        "/v1/audio/speech HTTP/1.1\r\nx: y",
        "/v1/chat/completions",
        "/v1/models",
        "/v1",
    ],
)
async def test_only_plain_paths_are_passed_on(script, answer, path):
    """The request carries the server's key, and a peer may have sent it."""
    async with adopted(script) as engine:
        _, (failure,) = await answer(engine, replace(RAW, raw=replace(SPEAK, path=path)))
    assert (failure.code, failure.elsewhere) == ("bad_request", False)
    assert script.posts == []


@pytest.mark.parametrize("kind", ["a/b\r\nx: y", "", "é/x"])
def test_a_content_type_is_one_line(kind):
    """It becomes a header."""
    refusal = refusal_of(replace(SPEAK, content_type=kind))
    assert refusal is not None
    assert refusal.code == "bad_request"


def test_a_raw_job_without_a_request_is_refused():
    """A peer of another version may send one."""
    assert refusal_of(None).code == "bad_request"


@pytest.mark.parametrize(
    ("raw", "body"),
    [
        (SPEAK, b'{"model":"theirs","input":"hi"}'),
        (replace(SPEAK, content_type="application/json; charset=utf-8"),
         b'{"model":"theirs","input":"hi"}'),
        (replace(SPEAK, body=b'{"model":"M:latest"}'), b'{"model":"theirs"}'),
        (replace(SPEAK, body=b'{"model":"theirs" }'), b'{"model":"theirs" }'),
        (replace(SPEAK, body=b'{"input":"hi"}'), b'{"input":"hi"}'),
        (replace(SPEAK, body=b"[1"), b"[1"),
        (replace(SPEAK, body=b"[1]"), b"[1]"),
        (replace(SPEAK, content_type="text/plain"), SPEAK.body),
    ],
)  # fmt: skip
def test_a_model_is_called_what_its_server_calls_it(raw, body):
    """Where the body names it by another of its names; nothing else is touched."""
    assert body_for(raw, "theirs") == body


def test_a_large_answer_leaves_in_bounded_parts():
    """Each fits a relay frame."""
    answer = RawAnswer(200, "image/png", began=1.0)
    head, *parts = answer.take(b"x" * (2 * limits.RELAY_CHUNK_BYTES + 1), 2.0)
    assert isinstance(head, RawHead)
    assert [len(part.data) for part in parts] == [
        limits.RELAY_CHUNK_BYTES,
        limits.RELAY_CHUNK_BYTES,
        1,
    ]
    (finish,) = answer.take(b"", 5.0)
    assert answer.is_over
    assert (finish.prompt_s, finish.generation_s) == (1.0, 3.0)


@pytest.mark.parametrize(
    ("task", "can"),
    [
        ("automatic-speech-recognition", ("transcription",)),
        ("text-to-speech", ("speech",)),
        ("text-to-image", ("image",)),
        ("text-generation", ("chat", "completion")),
    ],
)
async def test_a_server_may_say_what_a_model_is_for(script, task, can):
    """Servers of speech and pictures do, in the hub's words."""
    script.listing = reply(json.dumps({"data": [{"id": "m", "task": task}]}).encode())
    async with adopted(script) as engine:
        assert engine.models()[0].capabilities == can


async def test_the_owner_knows_best_what_models_can_do(script):
    """`can` stands in place of what a server says of any of its models."""
    assert b'"id"' in MODELS
    async with adopted(script, can=("speech",)) as engine:
        assert {record.capabilities for record in engine.models()} == {("speech",)}
