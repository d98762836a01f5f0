"""Beginning, ending, and refusing to begin."""

import asyncio
import socket
from dataclasses import replace

import pytest

from meshd.api.limits import DEFAULT
from meshd.api.server import BindError, HttpServer
from protocol.jobs import TextDelta
from tests.api.scripted import DONE, HELLO, Scripted, chat, line, post, serving


async def test_a_taken_port_is_one_clear_line():
    """Which, how to find out by whom, and what to change."""
    async with serving(Scripted()) as server:
        second = HttpServer(Scripted(), port=server.port)
        with pytest.raises(BindError) as caught:
            await second.start()
    words = str(caught.value)
    assert f"127.0.0.1:{server.port}" in words
    assert "port is taken" in words
    assert "--http" in words
    assert "\n" not in words


async def test_an_address_of_another_machine_is_one_clear_line():
    """TEST-NET-1 is nobody's."""
    with pytest.raises(BindError, match=r"192\.0\.2\.1:0: .*must be one of this machine's"):
        await HttpServer(Scripted(), host="192.0.2.1", port=0, auth={}.get).start()


async def test_a_name_that_does_not_resolve_is_one_clear_line():
    """`.invalid` never does."""
    with pytest.raises(BindError, match=r"cannot listen on nowhere\.invalid"):
        await HttpServer(Scripted(), host="nowhere.invalid", port=0, auth={}.get).start()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "attic"])
async def test_without_keys_only_loopback_is_served(host):
    """Whoever builds the server cannot forget it: nothing is bound."""
    with pytest.raises(BindError, match=r"without API keys.*meshctl keys add"):
        await HttpServer(Scripted(), host=host, port=0).start()


async def test_with_keys_every_question_needs_one():
    """From this machine too; only that something runs here may be known without."""
    key_one = {"host": "0.0.0.0", "auth": {"mk-1": "ann"}.get}
    async with serving(Scripted(), **key_one) as server, line(server) as client:
        client.send("GET /v1/models")
        refused = await client.error()
        client.send("GET /v1/models\nauthorization: Bearer mk-1")
        allowed = await client.reply()
        client.send("GET /health")
        public = await client.reply()
    assert (refused[0], refused[1]["code"]) == (401, "invalid_api_key")
    assert (allowed[0], public[0]) == (200, 200)


async def test_the_text_at_the_root_says_where_to_look():
    """For whoever opens it in a browser."""
    async with serving(Scripted(), name="attic") as server, line(server) as client:
        client.send("GET /")
        _, headers, body = await client.reply()
    assert headers["content-type"] == "text/plain; charset=utf-8"
    assert b"on attic" in body
    assert b"/v1" in body


@pytest.mark.parametrize(
    ("host", "keys", "status"),
    [
        (socket.gethostname(), None, 200),
        ("mesh.example.org", None, 403),
        ("mesh.example.org", {"k1": "anna"}, 200),
    ],
)
async def test_a_machine_may_be_asked_by_its_own_name_and_where_keys_are_asked_for_by_any(
    host, keys, status
):
    """What a proxy in front, a router or a container calls it, nobody here can know."""
    auth = keys.get if keys else None
    async with serving(Scripted(), auth=auth) as server, line(server) as client:
        client.send("GET /v1/models\nauthorization: Bearer k1", host=host)
        assert (await client.reply())[0] == status


async def test_closing_lets_running_answers_finish():
    """Nothing new is accepted meanwhile."""
    gateway = Scripted([[TextDelta("a")], None, [DONE]])
    server = HttpServer(gateway, port=0)
    await server.start()
    async with line(server) as client, line(server) as idle:
        client.send(post(), chat(stream=True))
        await client.reader.readuntil(b'"content":"a"')
        closing = asyncio.create_task(server.close(drain_s=5.0))
        assert await idle.reader.read() == b""
        gateway.go.set()
        assert b"[DONE]" in await client.reader.read()
        await closing
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", server.port)


async def test_closing_cancels_what_does_not_finish():
    """And waits until it has let go."""
    gateway = Scripted([[TextDelta("a")], None, [DONE]])
    server = HttpServer(gateway, port=0)
    await server.start()
    async with line(server) as client:
        client.send(post(), chat(stream=True))
        await client.reader.readuntil(b'"content":"a"')
        await server.close()
    assert gateway.closed.is_set()


async def test_closing_twice_or_before_the_start_is_nothing():
    """Whoever tears down need not know how far it came."""
    server = HttpServer(Scripted(), port=0)
    await server.close()
    await server.start()
    await server.close()
    await server.close()


async def test_connections_are_bounded():
    """Where all are at work, the newest is closed; those that are there go on."""
    limits = replace(DEFAULT, connections_max=1)
    gateway = Scripted([None, *HELLO])
    async with serving(gateway, limits) as server, line(server) as first:
        first.send(post(), chat())
        await gateway.waiting.wait()
        async with line(server) as second:
            assert await second.reader.read() == b""
        gateway.go.set()
        assert (await first.reply())[0] == 200


async def test_connections_on_which_nothing_is_asked_keep_nobody_out(caplog):
    """Nobody needs a key to open them; the oldest makes room, and the log says so once."""
    limits = replace(DEFAULT, connections_max=1)
    async with serving(Scripted(), limits) as server, line(server) as first:
        first.send("GET /health")
        await first.reply()
        async with line(server) as second:
            assert await first.reader.read() == b""
            second.send("GET /health")
            assert (await second.reply())[0] == 200
            async with line(server) as third:
                assert await second.reader.read() == b""
                third.send("GET /health")
                assert (await third.reply())[0] == 200
    assert caplog.text.count("more than 1 connections") == 1
