"""The bytes of an answer on their way: silence, late beginnings, and how streams end."""

import asyncio
import gzip
import json
import os

import pytest

from meshd.api.answers import Stream
from meshd.api.errors import ApiError
from meshd.api.exchange import Exchange
from meshd.api.limits import HttpLimits
from meshd.api.replies import HeadWriter, refuse
from meshd.api.routes import INLINE_MAX_BYTES
from protocol.jobs import Failure, Finish, RawHead, RawPart, TextDelta
from tests.api.scripted import DONE, Scripted, chat, events, line, post, serving

QUICK = HttpLimits(heartbeat_s=0.01, early_s=0.01)
PATIENT = HttpLimits(heartbeat_s=60.0, early_s=60.0)
FULL = Failure("overloaded", "all slots are taken", elsewhere=True, retry_after_s=3.0)
OLLAMA = json.dumps({"model": "tiny", "messages": [{"role": "user", "content": "Hi"}]}).encode()


@pytest.fixture
def slow():
    """A gateway that thinks until `go`."""
    gateway = Scripted()
    gateway.slow_submit = True
    return gateway


async def test_a_silent_stream_says_that_it_lives(gateway):
    """Comments in the middle, and every event around them."""
    gateway.batches = [[TextDelta("a")], None, [TextDelta("b"), DONE]]
    async with serving(gateway, QUICK) as server, line(server) as client:
        client.send(post(), chat(stream=True))
        await client.head()
        await client.reader.readuntil(b": ping\n\n")
        await client.reader.readuntil(b": ping\n\n")
        gateway.go.set()
        assert b'"content":"b"' in await client.reader.readuntil(b"0\r\n\r\n")


async def test_a_stream_whose_first_word_is_late_begins_without_it(slow):
    """Proxies close after half a minute without a byte; who answers is then said in a comment."""
    async with serving(slow, QUICK) as server, line(server) as client:
        client.send(post(), chat(stream=True))
        status, headers = await client.head()
        await client.reader.readuntil(b": ping\n\n")
        slow.go.set()
        rest = await client.reader.readuntil(b"0\r\n\r\n")
    assert (status, headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert "x-mesh-node" not in headers
    assert b"x-mesh-node: attic" in rest
    assert b"data: [DONE]" in rest


async def test_a_refusal_that_is_late_is_an_event(slow):
    """There is no status left to say it with."""
    slow.late_refusal = FULL
    async with serving(slow, QUICK) as server, line(server) as client:
        client.send(post(), chat(stream=True))
        await client.head()
        await client.reader.readuntil(b": ping\n\n")
        slow.go.set()
        rest = await client.reader.readuntil(b"0\r\n\r\n")
        client.send("GET /health")
        again = await client.reply()
    assert b"all slots are taken" in rest
    assert again[0] == 200


def response(originator):
    """The head of a Responses request from that program."""
    return f"{post('/v1/responses')}\noriginator: {originator}"


ASK = json.dumps({"model": "tiny", "input": "Hi", "stream": True}).encode()


@pytest.mark.parametrize("originator", ["codex_cli_rs", "Codex Desktop"])
async def test_codex_is_told_in_the_stream_that_its_context_is_full(originator):
    """By that event alone it shortens the conversation and goes on."""
    gateway = Scripted(refusal=Failure("context_length_exceeded", "too long", elsewhere=False))
    async with serving(gateway, PATIENT) as server, line(server) as client:
        client.send(response(originator), ASK)
        status, headers = await client.head()
        said = await client.chunks()
        client.send("GET /health")
        again = await client.reply()
    last = json.loads(said.strip().rpartition(b"\ndata: ")[2])
    assert (status, headers["x-mesh-node"], again[0]) == (200, "attic", 200)
    assert last["type"] == "response.failed"
    assert last["response"]["error"]["code"] == "context_length_exceeded"


@pytest.mark.parametrize(
    ("originator", "code"),
    [("other", "context_length_exceeded"), ("codex_cli_rs", "bad_request")],
)
async def test_every_other_refusal_is_a_status(originator, code):
    """Other programs tell more of that."""
    gateway = Scripted(refusal=Failure(code, "too long", elsewhere=False))
    async with serving(gateway, PATIENT) as server, line(server) as client:
        client.send(response(originator), ASK)
        status, error = await client.error()
    assert (status, error["code"]) == (400, code)


async def test_a_bug_that_is_late_is_an_event(slow, caplog):
    """And in the log."""
    slow.batches = [5]
    async with serving(slow, QUICK) as server, line(server) as client:
        client.send(post(), chat(stream=True))
        await client.head()
        slow.go.set()
        rest = await client.reader.readuntil(b"0\r\n\r\n")
    assert b"meshd failed inside" in rest
    assert "failed inside" in caplog.text


async def test_a_refusal_in_time_is_a_status(gateway):
    """As long as nothing was written."""
    gateway.refusal = FULL
    async with serving(gateway, PATIENT) as server, line(server) as client:
        client.send(post(), chat(stream=True))
        assert (await client.error())[0] == 503


async def test_lines_of_json_have_no_comments(slow):
    """Ollama's clients read every line: silence there is silence."""
    async with serving(slow, QUICK) as server, line(server) as client:
        client.send("POST /api/chat", OLLAMA)
        _, headers = await client.head()
        slow.go.set()
        body = await client.chunks()
    assert headers["content-type"].startswith("application/x-ndjson")
    assert [json.loads(text)["done"] for text in body.splitlines()] == [False, False, True]


async def test_half_a_picture_is_not_a_picture(gateway):
    """The connection is cut without an end."""
    gateway.batches = [[RawHead(200, "image/png"), RawPart(b"\x89PNG")], [FULL]]
    async with serving(gateway) as server, line(server) as client:
        client.send("POST /v1/images/generations", b'{"model":"tiny"}')
        status, headers = await client.head()
        rest = await client.reader.read()
    assert (status, headers["content-type"]) == (200, "image/png")
    assert b"PNG" in rest
    assert not rest.endswith(b"0\r\n\r\n")


async def test_what_nobody_here_reads_is_passed_on(gateway):
    """Path, type and bytes one way; status, type and bytes back."""
    gateway.batches = [
        [RawHead(201, "audio/wav")],
        [RawPart(b"RIFF"), RawPart(b"...")],
        [Finish("stop", 0, 0)],
    ]
    async with serving(gateway) as server, line(server) as client:
        client.send("POST /v1/audio/speech?x\ncontent-type: application/json", b'{"model":"tiny"}')
        status, headers = await client.head()
        body = await client.chunks()
    (job,) = gateway.jobs
    assert (job.raw.path, job.raw.content_type) == ("/v1/audio/speech", "application/json")
    assert (status, headers["content-type"], headers["x-mesh-node"]) == (201, "audio/wav", "attic")
    assert body == b"RIFF..."


class Wire:
    """Keeps what is written; `is_cut` once it was aborted."""

    is_paused = False

    def __init__(self):
        self.data = b""
        self.is_cut = False

    def write(self, data):
        self.data += data

    async def drain(self):
        raise AssertionError("nobody is slow here")

    def abort(self):
        self.is_cut = True


class Speechless:
    """An encoder that cannot say anything."""

    ended = False

    def encode(self, batch):
        raise ZeroDivisionError

    def heartbeat(self):
        return b""


async def one_batch():
    yield [DONE]


async def test_an_answer_that_cannot_say_that_it_broke_is_cut(caplog):
    """Two answers in one, or a whole end to half an answer, would be worse."""
    wire = Wire()
    exchange = Exchange(
        wire,
        HeadWriter(),
        PATIENT,
        "r1",
        loop=asyncio.get_running_loop(),
        is_head=False,
        modern=True,
        keep=True,
    )
    with pytest.raises(ZeroDivisionError):
        await exchange.stream(Stream("", b"begun", one_batch(), Speechless()))
    exchange.refuse(ApiError(500, "x", code="internal_error"), refuse)
    exchange.close()
    assert wire.is_cut
    assert not wire.data.endswith(b"0\r\n\r\n")
    assert "stream broke off" in caplog.text


@pytest.mark.parametrize(
    ("path", "body", "keys"),
    [
        ("/v1/nope", b"{}", {"error"}),
        ("/v1/messages", b"{}", {"type", "error", "request_id"}),
        ("/v1/messages/nope", b"{}", {"type", "error", "request_id"}),
        ("/api/chat", b"{", {"error"}),
        ("/api/delete", b"{}", {"error"}),
        ("/v1/responses/resp_1", b"", {"error"}),
    ],
)
async def test_errors_take_the_shape_of_their_path(server, path, body, keys):
    """Also where the dialect itself was never asked."""
    async with line(server) as client:
        client.send(post(path), body)
        status, _, answer = await client.reply()
    assert 400 <= status < 500
    assert set(json.loads(answer)) == keys


@pytest.mark.parametrize("noise", [b"", os.urandom(INLINE_MAX_BYTES)])
async def test_a_packed_body_is_read(gateway, server, noise):
    """Agents pack what they send; a long body is unpacked aside."""
    packed = gzip.compress(chat(user=noise.hex()))
    async with line(server) as client:
        client.send(f"{post()}\ncontent-encoding: gzip", packed)
        assert (await client.reply())[0] == 200


async def test_who_asks_and_how_urgently_goes_into_the_job(gateway):
    """The key's owner and the address, hashed by whoever runs the server."""
    keys = {"right": "ann"}.get
    async with (
        serving(gateway, auth=keys, person=lambda key, address: f"{key}@{address}") as server,
        line(server) as client,
    ):
        client.send(f"{post()}\nx-api-key: right\nx-mesh-priority: batch", chat())
        assert (await client.reply())[0] == 200
    (job,) = gateway.jobs
    assert (job.person, job.priority) == ("ann@127.0.0.1", "batch")


async def test_several_choices_over_the_wire(gateway, server):
    """As one stream."""
    async with line(server) as client:
        client.send(post(), chat(n=3, stream=True))
        await client.head()
        *chunks, done = events(await client.chunks())
    assert {chunk["choices"][0]["index"] for chunk in chunks} == {0, 1, 2}
    assert done == "[DONE]"
    assert len({job.request_id for job in gateway.jobs}) == 3
