"""Claims of meshd.engine.upstream and meshd.engine.http_client, on real sockets."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from dataclasses import replace

import pytest

from meshd.core.ports import EngineError
from meshd.engine import http_client, upstream
from meshd.engine.adoption import LlamaServer
from meshd.engine.sse import first_events_apart
from meshd.engine.upstream import UpstreamEngine
from protocol.jobs import Finish, TextDelta
from tests.engine.scripted import (
    CHUNK,
    END,
    EVENTS,
    JOB,
    PLAIN,
    STREAMED,
    Script,
    adopted,
    reply,
)

OWNED = reply(b'{"data": [{"id": "m", "owned_by": "llamacpp"}]}')


@pytest.fixture
def script() -> Script:
    """A scripted server, not serving yet."""
    return Script()


async def test_the_models_of_a_server_are_listed(script):
    """Under the names it gives them, without asking any of them a question."""
    async with adopted(script) as engine:
        assert [record.model_id for record in engine.models()] == ["m", "n"]
        assert engine.stats()[0].slots == 8
    assert script.posts == []


async def test_a_named_model_is_the_only_one(script):
    """The owner chose; a model that is not listed is offered all the same."""
    async with adopted(script, model="n") as engine:
        assert [record.model_id for record in engine.models()] == ["n"]
    async with adopted(script, model="hidden") as engine:
        assert [record.model_id for record in engine.models()] == ["hidden"]


@pytest.mark.parametrize("status", [b"404 No", b"405 No", b"401 Who"])
async def test_a_named_model_needs_no_list(script, status):
    """Many servers of speech and pictures have none; one that shuts us out serves nothing."""
    script.listing = reply(b"", status=status)
    async with adopted(script, model="m") as engine:
        named = ["m"] if status != b"401 Who" else []
        assert [record.model_id for record in engine.models()] == named
    async with adopted(script) as engine:
        assert engine.models() == ()


async def test_a_stream_passes_through(script, answer):
    """Text, and the account at its end."""
    script.replies = [STREAMED]
    async with adopted(script) as engine:
        text, (finish,) = await answer(engine, JOB)
    assert text == "hi"
    assert finish.reason == "stop"


@pytest.mark.parametrize(("state", "is_waiting"), [("unloaded", True), ("loaded", False)])
async def test_the_load_of_a_cold_model_is_waiting(script, answer, state, is_waiting):
    """Its server does not time it, and it is no slow reading."""
    model = {"id": "m", "status": {"value": state}}
    script.listing = reply(json.dumps({"data": [model]}).encode())
    script.replies = [STREAMED]
    async with adopted(script) as engine:
        _, (finish,) = await answer(engine, JOB)
    assert (finish.queue_s > 0.0, finish.prompt_s > 0.0) == (is_waiting, not is_waiting)


async def test_a_key_goes_to_its_server_with_every_request(script, answer):
    """As a bearer token; without one there is no such header."""
    script.replies = [STREAMED]
    async with adopted(script, key="sk-1") as engine:
        await answer(engine, JOB)
    assert all(b"\r\nauthorization: Bearer sk-1\r\n" in head for head in script.heads)
    script.heads.clear()
    async with adopted(script):
        pass
    assert not any(b"authorization" in head for head in script.heads)


async def test_a_password_in_an_address_is_told_to_nobody(script, answer):
    """The engine's name is in records that peers get, and in failures that clients read."""
    async with adopted(script) as engine:
        address = engine.name.replace("//", "//me:s3cret@").removeprefix("upstream ")
        named = UpstreamEngine(address)
        await named.start()
        _, (failure,) = await answer(named, replace(JOB, model="gone"))
        told = [named.name, failure.message, *(record.engine for record in named.models())]
        await named.close()
    assert len(told) == 4
    assert all(engine.name in each for each in told)


async def test_a_password_in_an_address_is_sent_to_its_server(script):
    """A reverse proxy with a password would answer 401 to every question; a key goes before it."""
    async with adopted(script):
        address = script.url.replace("//", "//me:s3%40t@")
        for key, sent in (("", b"Basic bWU6czNAdA=="), ("sk-1", b"Bearer sk-1")):
            named = UpstreamEngine(address, key=key)
            await named.start()
            await named.close()
            assert b"\r\nauthorization: %b\r\n" % sent in script.heads[-1]


async def test_an_alias_is_asked_for_by_its_real_name(script, answer):
    """The server need not know its own aliases in requests."""
    script.replies = [STREAMED]
    async with adopted(script) as engine:
        await answer(engine, replace(JOB, model="also-n"))
    assert json.loads(script.posts[0])["model"] == "n"


async def test_a_stream_that_was_answered_in_one_piece_is_understood(script, answer):
    """Some servers ignore `stream`."""
    script.replies = [reply(PLAIN)]
    async with adopted(script) as engine:
        text, (finish,) = await answer(engine, JOB)
    assert (text, finish.reason) == ("hi", "stop")


async def test_connections_are_used_again(script, answer):
    """A listing and three requests, one connection."""
    script.replies = [STREAMED, reply(PLAIN), STREAMED]
    async with adopted(script) as engine:
        for _ in range(3):
            await answer(engine, JOB)
    assert script.connections == 1


async def test_a_connection_that_died_in_the_pool_costs_nothing(script, answer):
    """The request is sent again, on a new one."""
    script.replies = [STREAMED, STREAMED]
    script.closes_after_reply = True
    async with adopted(script) as engine:
        await answer(engine, JOB)
        _, (finish,) = await answer(engine, JOB)
    assert isinstance(finish, Finish)
    assert script.connections == 2


@pytest.mark.parametrize(
    ("sent", "code", "said"),
    [
        (reply(b'{"error": {"message": "no"}}', status=b"400 Bad"), "bad_request", "no"),
        (reply(b'{"error": "no such model"}', status=b"404 No"), "model_not_found", "no such"),
        (reply(b"", status=b"308 No", extra=b"location: /api\r\n"), "engine_failed", "go to /api"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 999\r\n\r\n{}", "engine_failed", "in the middle"),
        (reply(CHUNK, EVENTS), "engine_failed", "in the middle"),
        (reply(CHUNK + b"data: {oops\n\n", EVENTS), "engine_failed", "broken stream"),
        (reply(CHUNK.replace(b"hi", b"h\xc3"), EVENTS), "engine_failed", "broken stream"),
        (reply(PLAIN.replace(b"hi", b"h\xc3")), "engine_failed", "broken answer"),
        (
            reply(PLAIN).replace(b"length: %d" % len(PLAIN), b"length: 9"),
            "engine_failed",
            "broken answer",
        ),
        (b"220 mail.example ESMTP\r\n\r\n", "engine_failed", "status line"),
        (b"", "unreachable", "closed the connection"),
    ],
)
async def test_a_fault_of_the_server_is_called_by_its_name(script, answer, sent, code, said):
    """Whatever it sends, there is exactly one clear end."""
    script.replies = [sent] * 2
    script.closes_after_reply = True
    async with adopted(script) as engine:
        _, others = await answer(engine, JOB)
    (failure,) = others
    assert failure.code == code
    assert said in failure.message


async def test_what_follows_the_end_is_not_read(script, answer):
    """Some proxies say `[DONE]` twice."""
    script.replies = [reply(CHUNK + END + b"data: [DONE]\n\n", EVENTS)]
    async with adopted(script) as engine:
        text, (finish,) = await answer(engine, JOB)
    assert (text, finish.reason) == ("hi", "stop")


async def test_a_line_end_too_many_costs_a_connection_and_no_answer(script, answer):
    """Some servers count their body without it; they are asked to pack nothing, too."""
    script.replies = [reply(PLAIN) + b"\r\n", reply(PLAIN)]
    async with adopted(script) as engine:
        assert [(await answer(engine, JOB))[0] for _ in range(2)] == ["hi", "hi"]
    assert script.connections == 2
    assert all(b"\r\naccept-encoding: identity\r\n" in head for head in script.heads)


async def test_a_busy_server_says_when_to_come_back(script, answer):
    """Its Retry-After is passed on."""
    script.replies = [reply(b"{}", status=b"503 Busy", extra=b"retry-after: 7\r\n")]
    async with adopted(script) as engine:
        _, (failure,) = await answer(engine, JOB)
    assert (failure.code, failure.retry_after_s) == ("overloaded", 7.0)


async def test_leaving_closes_the_connection_so_that_the_server_stops(script):
    """Nobody generates for nobody."""
    script.replies = [b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + CHUNK]
    async with adopted(script) as engine:
        stream = engine.generate(JOB)
        assert await anext(stream) == [TextDelta("hi")]
        assert engine.stats()[0].in_flight == 1
        await stream.aclose()
        await asyncio.wait_for(script.gone.wait(), 5)
        assert engine.stats()[0].in_flight == 0


async def test_what_we_gave_up_is_not_asked_again(script, monkeypatch):
    """Only a connection that the server dropped is tried anew: else it would work twice."""
    monkeypatch.setattr(http_client, "SILENCE_MAX_S", 0.0)
    script.replies = [STREAMED, b"", STREAMED]
    async with adopted(script) as engine:
        assert [batch async for batch in engine.generate(JOB)]
        asking = asyncio.ensure_future(anext(engine.generate(JOB)))
        while len(script.posts) < 2:  # noqa: ASYNC110 - the server has no event for it
            await asyncio.sleep(0.01)
        engine._client.sweep()
        (failure,) = await asyncio.wait_for(asking, 5)
    assert "silent" in failure.message
    assert len(script.posts) == 2


async def test_a_reset_is_not_the_end_of_an_answer(unused_tcp_port):
    """A body that ends with its connection is whole when the connection was closed, not reset."""

    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nhalf a song")
        await writer.drain()
        await asyncio.sleep(0.05)
        raw = writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    async with await asyncio.start_server(serve, "127.0.0.1", unused_tcp_port):
        client = http_client.HttpClient(f"http://127.0.0.1:{unused_tcp_port}")
        exchange = await client.request("GET", "/song")
        assert await exchange.read() == b"half a song"
        with pytest.raises(http_client.ConnectionFailed, match="reset"):
            await exchange.read()
        exchange.end()


async def test_a_silent_server_is_given_up(script, monkeypatch):
    """The sweep ends what has been silent for too long."""
    monkeypatch.setattr(http_client, "SILENCE_MAX_S", 0.0)
    script.replies = [b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + CHUNK]
    async with adopted(script) as engine:
        stream = engine.generate(JOB)
        await anext(stream)
        await asyncio.sleep(0)
        engine._client.sweep()
        (failure,) = await anext(stream)
    assert "silent" in failure.message
    assert failure.elsewhere


@pytest.mark.parametrize("lister", [None, LlamaServer()])
async def test_a_server_that_is_at_work_and_lists_nothing_is_busy(script, monkeypatch, lister):
    """Many do one thing at a time. One that is silent and has no job of ours has no models."""
    monkeypatch.setattr(upstream, "LISTING_TIMEOUT_S", 0.02)
    script.listing = OWNED
    script.replies = [b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + CHUNK]
    async with adopted(script, refresh_s=0.01, lister=lister) as engine:
        stream = engine.generate(JOB)
        await anext(stream)
        script.listing, asked = b"", len(script.heads)
        while len(script.heads) < asked + 6:  # noqa: ASYNC110 - the server has no event for it
            await asyncio.sleep(0.01)
        assert [record.model_id for record in engine.models()] == ["m"]
        await stream.aclose()
        while engine.models():  # noqa: ASYNC110 - nor has the engine
            await asyncio.sleep(0.01)


async def test_a_server_that_is_down_is_an_engine_without_models(answer, unused_tcp_port):
    """It may come back; until then every request says what is wrong."""
    engine = UpstreamEngine(f"http://127.0.0.1:{unused_tcp_port}")
    await engine.start()
    assert engine.models() == ()
    _, (failure,) = await answer(engine, JOB)
    assert (failure.code, failure.elsewhere) == ("model_not_found", True)
    assert "refused" in failure.message
    await engine.close()


async def test_what_is_wrong_with_tls_is_said_in_openssls_words(answer):
    """Its error numbers mean other things to the system: 1 is no missing permission."""

    async def plainly(reader, writer):
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await reader.read()
        writer.close()

    async with await asyncio.start_server(plainly, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        engine = UpstreamEngine(f"https://127.0.0.1:{port}")
        await engine.start()
        _, (failure,) = await answer(engine, JOB)
        await engine.close()
    assert "SSL" in failure.message


@pytest.mark.parametrize(
    "listing",
    [
        reply(b"<html>"),
        reply(b"[1"),
        reply(b"[" * 9_000 + b"]" * 9_000),
        reply(b'{"error": "x"}'),
        reply(b"no", status=b"500 No"),
    ],
)
async def test_a_server_that_lists_nothing_sensible_has_no_models(script, listing):
    """It is not taken for an OpenAI-compatible one."""
    script.listing = listing
    async with adopted(script) as engine:
        assert engine.models() == ()


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"prefix_text": "begun"}, "unsupported"),
        ({"prefix_thought": "hm"}, "unsupported"),
        ({"kind": "completion", "prompt": "a", "prefix_tokens": (1,)}, "unsupported"),
        ({"kind": "completion", "prompt_tokens": (1,), "prefix_text": "b"}, "unsupported"),
    ],
)
async def test_what_a_server_cannot_do_is_left_to_other_nodes(script, answer, changes, code):
    """Said at once, without asking it."""
    async with adopted(script) as engine:
        _, (failure,) = await answer(engine, replace(JOB, **changes))
    assert (failure.code, failure.elsewhere) == (code, True)
    assert script.posts == []


async def test_loading_is_the_servers_own_affair(script):
    """A model of its own cannot be unloaded from here."""
    async with adopted(script) as engine:
        await engine.load("m")
        with pytest.raises(EngineError, match="no model"):
            await engine.load("zzz")
        with pytest.raises(EngineError, match="unload it there"):
            await engine.unload("m")


@pytest.mark.parametrize(
    ("received", "pieces"),
    [
        (b"", [b""]),
        (b"data: 1\n\ndata: 2\n\n", [b"data: 1\n\ndata: 2\n\n"]),
        (b"a\n\nb\n\nc\n\n", [b"a\n\nb\n\nc\n\n"]),
        (b"a\n\nb\n\nc\n\nd", [b"a\n\nb\n\nc\n\n", b"d"]),
        (b'{"one": "body"}', [b'{"one": "body"}']),
    ],
)
def test_the_first_events_of_a_long_read_go_ahead(received: bytes, pieces: list[bytes]) -> None:
    """Nothing is lost or reordered, and only the end of a body is an empty piece."""
    assert list(first_events_apart(received)) == pieces
