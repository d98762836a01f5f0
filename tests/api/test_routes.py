"""Exchanges over real sockets, byte for byte where it matters."""

import asyncio
import json
import socket

import pytest

from protocol.jobs import Failure, TextDelta
from tests.api.scripted import DONE, chat, events, line, post, serving


async def test_a_chat_comes_with_its_headers(server):
    """Every header of the design, and the client's own request id."""
    async with line(server) as client:
        client.send(f"{post()}\nx-request-id: mine-1", chat())
        status, headers, body = await client.reply()
    assert status == 200
    assert json.loads(body)["choices"][0]["message"]["content"] == "Hello"
    assert headers.pop("date").endswith("GMT")
    assert headers == {
        "content-type": "application/json",
        "content-length": str(len(body)),
        "x-request-id": "mine-1",
        "request-id": "mine-1",
        "x-mesh-node": "attic",
        "x-mesh-model": "tiny",
        "x-mesh-attempts": "1",
        "x-mesh-route-reason": "only",
        "x-mesh-load-age-ms": "7",
        "x-mesh-queue-ms": "3",
    }


async def test_a_stream_comes_with_its_headers(server):
    """Unbuffered, uncached, in chunks; the connection lives on."""
    async with line(server) as client:
        client.send(post(), chat(stream=True))
        status, headers = await client.head()
        body = await client.chunks()
        client.send("GET /health")
        again = await client.reply()
    assert status == 200
    assert headers["content-type"] == "text/event-stream; charset=utf-8"
    assert headers["cache-control"] == "no-cache"
    assert headers["x-accel-buffering"] == "no"
    assert headers["transfer-encoding"] == "chunked"
    assert headers["x-mesh-node"] == "attic"
    assert events(body)[-1] == "[DONE]"
    assert again[0] == 200


async def test_every_event_is_written_when_it_comes(gateway, server):
    """The first words are here while the rest is still being thought of."""
    gateway.batches = [[TextDelta("a")], None, [TextDelta("b"), DONE]]
    async with line(server) as client:
        client.send(post(), chat(stream=True))
        await client.head()
        first = await client.reader.readuntil(b'"content":"a"')
        gateway.go.set()
        rest = await client.reader.readuntil(b"0\r\n\r\n")
    assert b'"role"' in first
    assert b'"content":"b"' in rest


async def test_a_connection_answers_one_request_after_another(server):
    """Also when they were sent together."""
    async with line(server) as client:
        client.send(post(), chat())
        client.send(post(), chat())
        assert [(await client.reply())[0] for _ in range(2)] == [200, 200]


async def test_http_1_0_gets_a_stream_without_chunks(server):
    """And the end of the connection as the end of the answer."""
    async with line(server) as client:
        body = chat(stream=True)
        client.writer.write(
            b"POST /v1/chat/completions HTTP/1.0\r\ncontent-length: %d\r\n\r\n%b"
            % (len(body), body)
        )
        _, headers = await client.head()
        rest = await client.reader.read()
    assert "transfer-encoding" not in headers
    assert events(rest)[-1] == "[DONE]"


async def test_a_client_that_wants_to_close_is_let_go(server):
    """With the header that says so."""
    async with line(server) as client:
        client.send("GET /health\nconnection: close")
        _, headers, _ = await client.reply()
        assert await client.reader.read() == b""
    assert headers["connection"] == "close"


@pytest.mark.parametrize("path", ["/", "/health"])
async def test_head_is_get_without_the_body(server, path):
    """Uptime checks ask so."""
    async with line(server) as client:
        client.send(f"HEAD {path}")
        head = await client.head()
        client.send(f"GET {path}")
        whole = await client.reply()
    assert head[0] == whole[0] == 200
    assert head[1]["content-length"] == whole[1]["content-length"]


@pytest.mark.parametrize("name", ["a b", "x" * 97, "é"])
async def test_an_unfit_request_id_is_replaced(server, name):
    """Not repeated into a header."""
    async with line(server) as client:
        client.send(f"GET /health\nx-request-id: {name}")
        _, headers, _ = await client.reply()
    assert headers["x-request-id"].startswith("req-")


async def test_a_request_id_in_use_is_replaced(gateway, server):
    """Two requests under one id would mix their answers on the relay."""
    gateway.batches = [[TextDelta("a")], None, [DONE]]
    async with line(server) as one, line(server) as two:
        one.send(f"{post()}\nx-request-id: same", chat(stream=True))
        first = await one.head()
        two.send(f"{post()}\nx-request-id: same", chat(stream=True))
        second = await two.head()
    assert first[1]["x-request-id"] == "same"
    assert second[1]["x-request-id"].startswith("req-")


async def test_a_chunked_body_is_read(server):
    """Without a length in front."""
    async with line(server) as client:
        client.send(f"{post()}\ntransfer-encoding: chunked")
        client.writer.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(chat()), chat()))
        assert (await client.reply())[0] == 200


async def test_a_body_in_pieces_is_put_together(server):
    """Byte by byte at worst."""
    body = chat()
    async with line(server) as client:
        client.send(f"{post()}\ncontent-length: {len(body)}")
        for byte in body:
            client.writer.write(bytes([byte]))
            await client.writer.drain()
        assert (await client.reply())[0] == 200


async def test_a_client_that_asks_first_is_told_to_go_on(server):
    """curl does with a large body, and waits a second for the word."""
    body = chat()
    async with line(server) as client:
        client.send(f"{post()}\nexpect: 100-continue\ncontent-length: {len(body)}")
        interim = await client.reader.readuntil(b"\r\n\r\n")
        client.writer.write(body)
        assert (await client.reply())[0] == 200
    assert interim == b"HTTP/1.1 100 Continue\r\n\r\n"


async def test_a_body_with_a_wrong_content_type_is_read(server):
    """If it is JSON, it is JSON."""
    async with line(server) as client:
        client.send("POST /v1/chat/completions\ncontent-type: text/plain", chat())
        assert (await client.reply())[0] == 200


@pytest.mark.parametrize(
    ("head", "body", "status", "code"),
    [
        ("POST /v1/chat/completions", b"", 400, "invalid_json"),
        ("POST /v1/chat/completions", b"{", 400, "invalid_json"),
        ("POST /v1/chat/completions", b'{"a":' * 100_000, 400, "invalid_json"),
        ("POST /v1/chat/completions", b"{}", 400, "missing_required_parameter"),
        ("GET /nope", b"", 404, "unknown_url"),
        ("GET /v1/models/nope", b"", 404, "model_not_found"),
        ("GET /v1/chat/completions", b"", 405, "method_not_allowed"),
        ("CONNECT evil.com:443", b"", 404, "unknown_url"),
        ("POST /v1/embeddings", b"{}", 400, "missing_required_parameter"),
        ("GET /health\norigin: https://evil.com", b"", 403, "origin_not_allowed"),
        ("POST /v1/chat/completions\ncontent-encoding: br", b"x", 415, "unsupported_encoding"),
        ("POST /v1/chat/completions\ncontent-encoding: gzip", b"x", 400, "invalid_encoding"),
        ("POST /v1/chat/completions\nx-mesh-priority: now", b"{}", 400, "invalid_value"),
    ],
)
async def test_a_bad_request_is_an_error_in_shape(server, head, body, status, code):
    """Over the wire, whole, and never a 500."""
    async with line(server) as client:
        client.send(head, body)
        got, error = await client.error()
    assert (got, error["code"]) == (status, code)
    assert set(error) == {"message", "type", "param", "code"}


async def test_a_refusal_is_a_status_with_a_date_to_come_back(gateway, server):
    """As the SDKs read it."""
    gateway.refusal = Failure("overloaded", "all slots are taken", True, 3.0)
    async with line(server) as client:
        client.send(post(), chat(stream=True))
        status, headers, _ = await client.reply()
    assert (status, headers["retry-after"], headers["x-mesh-node"]) == (503, "3", "attic")


async def test_a_refusal_says_which_request_it_was(server):
    """In the header too, by the name under which Anthropic's SDKs look for it."""
    async with line(server) as client:
        client.send("POST /v1/messages", b"{}")
        _, headers, body = await client.reply()
    assert headers["request-id"] == json.loads(body)["request_id"]


async def test_a_strange_host_is_refused(server):
    """DNS rebinding ends here."""
    async with line(server) as client:
        client.send("GET /health", host="evil.com")
        assert (await client.error())[0] == 403


async def test_a_proxy_like_request_is_answered(server):
    """Some clients name the whole URL."""
    async with line(server) as client:
        client.send("GET http://localhost/health?x")
        assert (await client.reply())[0] == 200


async def test_a_page_on_this_machine_may_ask_first(server):
    """A preflight needs no key and no route, and has no body."""
    async with line(server) as client:
        client.send("OPTIONS /v1/chat/completions\norigin: http://localhost:3000")
        status, headers = await client.head()
    assert status == 204
    assert headers["access-control-allow-origin"] == "http://localhost:3000"
    assert "x-stainless-os" in headers["access-control-allow-headers"]
    assert "content-length" not in headers


async def test_a_page_on_this_machine_may_read_answers(server):
    """Errors too."""
    async with line(server) as client:
        client.send("GET /nope\norigin: tauri://localhost")
        _, headers, _ = await client.reply()
    assert headers["access-control-allow-origin"] == "tauri://localhost"


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("GET /v1/models", 401),
        ("GET /v1/models\nauthorization: Bearer wrong", 401),
        ("GET /v1/models\nauthorization: Bearer right", 200),
        ("GET /v1/models\nx-api-key: right", 200),
        ("GET /health", 200),
        ("GET /", 200),
    ],
)
async def test_with_keys_on_only_health_is_public(gateway, head, status):
    """And a missing key is told how to be sent."""
    async with serving(gateway, auth={"right": "ann"}.get) as server, line(server) as client:
        client.send(head)
        assert (await client.reply())[0] == status


async def test_without_keys_any_key_will_do(server):
    """Clients insist on sending one."""
    async with line(server) as client:
        client.send("GET /v1/models\nauthorization: Bearer sk-dummy")
        assert (await client.reply())[0] == 200


@pytest.mark.parametrize(
    "raw",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\0\0\0\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nbad\x00name: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nx: " + b"y" * 20_000 + b"\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: 99999999999999999999\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    ],
)
async def test_what_is_not_http_is_a_400_in_shape(server, raw):
    """And the end of the connection."""
    async with line(server) as client:
        client.writer.write(raw)
        status, error = await client.error()
        assert await client.reader.read() == b""
    assert (status, error["code"]) == (400, "invalid_http")


async def test_an_answer_that_breaks_off_says_so(gateway, server):
    """No SDK notices a stream that just stops."""
    gateway.batches = [[TextDelta("a")]]
    async with line(server) as client:
        client.send(post(), chat(stream=True))
        await client.head()
        *_, last = events(await client.chunks())
    assert last["error"]["code"] == "engine_failed"


async def test_a_bug_in_the_stream_is_an_error_event(gateway, server, caplog):
    """In the client's stream and in our log."""
    gateway.batches = [[TextDelta("a")], 5]
    async with line(server) as client:
        client.send(post(), chat(stream=True))
        await client.head()
        *_, last = events(await client.chunks())
    assert last["error"]["code"] == "engine_failed"
    assert "stream broke off" in caplog.text


async def test_a_bug_of_ours_is_a_500_in_shape(gateway, server, caplog):
    """With the request id to find it by."""
    gateway.batches = [5]
    async with line(server) as client:
        client.send(f"{post()}\nx-request-id: find-me", chat())
        status, error = await client.error()
    assert (status, error["code"]) == (500, "internal_error")
    assert "find-me" in caplog.text


async def test_a_client_that_is_gone_before_its_answer_is_no_fault_of_ours(server, caplog):
    """A page that is closed while it asks, or a machine that wakes to questions long given up,
    fills no log with tracebacks. The question and the end come in one moment, several times."""
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            await asyncio.sleep(0.01)
            client.sendall(b"GET /mesh/v1/status HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
        await asyncio.sleep(0.02)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_small_answers_are_not_held_back(server):
    """Nagle's algorithm is off: it would add 40 ms to every stream."""
    async with line(server) as client:
        client.send("GET /health")
        await client.reply()
        (transport,) = server._listener._connections.values()
        accepted = transport.get_extra_info("socket")
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
