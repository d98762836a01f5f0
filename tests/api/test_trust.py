"""Pairing, joining and revoking over HTTP, in front of a desk that keeps what it was asked."""

import asyncio
import json
import socket

import pytest

from meshd.api.errors import ApiError
from meshd.api.paths import OWNERS, Route
from meshd.api.trust import answer_trust
from tests.api.scripted import Desk, Scripted, line, serving

PAIR, JOIN, REVOKE = "/mesh/v1/pair", "/mesh/v1/join", "/mesh/v1/revoke"


async def refused(desk, route, body=b""):
    with pytest.raises(ApiError) as caught:
        await answer_trust(desk, route, body)
    return caught.value


@pytest.mark.parametrize(
    ("body", "token"), [(b"", False), (b"{}", False), (b'{"token":true}', True)]
)
async def test_an_invitation_is_a_code_unless_a_token_is_asked_for(body, token):
    """With the desk's own body."""
    desk = Desk()
    invited = await answer_trust(desk, Route.INVITE, body)
    assert desk.asked == [("invite", token)]
    assert invited["expires_s"] == 120.0


async def test_what_is_open_is_told_and_withdrawing_leaves_nothing():
    """Both answers have one shape."""
    desk = Desk()
    await answer_trust(desk, Route.INVITE, b"")
    seen = await answer_trust(desk, Route.INVITATIONS, b"")
    left = await answer_trust(desk, Route.WITHDRAW, b"")
    assert [row["kind"] for row in seen["invitations"]] == ["code"]
    assert left == {"door": None, "invitations": []}


@pytest.mark.parametrize(
    ("body", "at"),
    [
        ({"code": "1234 5678"}, None),
        ({"code": "1234 5678", "at": None}, None),
        ({"code": "1234 5678", "at": ""}, None),
        ({"code": "1234 5678", "at": "attic:8790"}, "attic:8790"),
    ],
)
async def test_a_join_hands_over_the_code_and_the_place(body, at):
    """The code as it was typed: what it means is the desk's to say."""
    desk = Desk()
    joined = await answer_trust(desk, Route.JOIN, json.dumps(body).encode())
    assert desk.asked == [("join", "1234 5678", at)]
    assert joined == {"mesh": "0f0f0f0f", "sponsors": ["attic"]}


async def test_a_revocation_says_who_was_told():
    """And who could not be."""
    answer = await answer_trust(Desk(), Route.REVOKE, b'{"node":"attic"}')
    assert answer == {"node": "attic", "told": ["desk"], "silent": ["shed"], "epoch": 1}


@pytest.mark.parametrize(
    ("route", "body"),
    [
        (Route.INVITE, b""),
        (Route.INVITATIONS, b""),
        (Route.WITHDRAW, b""),
        (Route.JOIN, b'{"code":"1"}'),
        (Route.REVOKE, b'{"node":"x"}'),
    ],
)
async def test_a_refusal_of_the_desk_is_a_409_in_its_words(route, body):
    """And no client shall try again by itself: a wrong code costs a try."""
    error = await refused(Desk("no such window; ask for another"), route, body)
    assert (error.status, error.code) == (409, "trust_refused")
    assert error.message == "no such window; ask for another"
    assert error.headers == (("x-should-retry", "false"),)


@pytest.mark.parametrize("route", sorted(OWNERS, key=lambda route: route.name))
async def test_a_node_without_a_desk_says_so(route):
    """501, whatever was asked."""
    error = await refused(None, route)
    assert (error.status, error.code) == (501, "not_implemented")


@pytest.mark.parametrize(
    ("route", "body", "param"),
    [
        (Route.INVITE, b'{"token":1}', "token"),
        (Route.INVITE, b'{"tokn":true}', "tokn"),
        (Route.INVITE, b"[]", None),
        (Route.JOIN, b"", "code"),
        (Route.JOIN, b'{"code":""}', "code"),
        (Route.JOIN, b'{"code":12345678}', "code"),
        (Route.JOIN, b'{"code":"1","to":"x"}', "to"),
        (Route.JOIN, json.dumps({"code": "1" * 5000}).encode(), "code"),
        (Route.JOIN, json.dumps({"code": "1", "at": "x" * 301}).encode(), "at"),
        (Route.REVOKE, b"{}", "node"),
        (Route.REVOKE, b'{"node":["x"]}', "node"),
        (Route.REVOKE, b'{"node":"x","yes":true}', "yes"),
    ],
)
async def test_a_body_that_is_not_understood_changes_nothing(route, body, param):
    """400 that names the field, and the desk is not asked."""
    desk = Desk()
    error = await refused(desk, route, body)
    assert (error.status, error.param) == (400, param)
    assert desk.asked == []


async def test_the_owner_is_answered_over_loopback():
    """Each route, through the server."""
    desk = Desk()
    async with serving(Scripted(), trust=desk) as server, line(server) as client:
        answers = []
        for head, body in (
            (f"POST {PAIR}", b'{"token": false}'),
            (f"GET {PAIR}", b""),
            (f"DELETE {PAIR}", b""),
            (f"POST {JOIN}", b'{"code":"1234 5678"}'),
            (f"POST {REVOKE}", b'{"node":"attic"}'),
        ):
            client.send(head, body)
            answers.append(await client.reply())
    assert [status for status, _, _ in answers] == [200] * 5
    assert json.loads(answers[0][2])["code"] == "1234 5678"
    assert [question[0] for question in desk.asked] == [
        *("invite", "invitations", "withdraw", "invitations", "join", "revoke")
    ]


@pytest.mark.parametrize("origin", ["http://localhost:3000", "https://evil.com", "app://x", "null"])
@pytest.mark.parametrize("path", [PAIR, JOIN, REVOKE])
async def test_no_page_of_another_origin_reaches_the_desk(path, origin):
    """Not even pages and applications on this machine, which may ask for chats."""
    desk = Desk()
    async with serving(Scripted(), trust=desk) as server, line(server) as client:
        client.send(f"POST {path}\norigin: {origin}\ncontent-type: text/plain", b"{}")
        status, _ = await client.error()
    assert status == 403
    assert desk.asked == []


async def test_a_name_that_could_be_rebound_reaches_no_desk():
    """A page at http://evil.local, pointed at 127.0.0.1, is its own origin."""
    desk = Desk()
    async with serving(Scripted(), trust=desk) as server, line(server) as client:
        client.send(f"GET {PAIR}", host="evil.local")
        status, error = await client.error()
    assert (status, error["code"]) == (403, "owner_only")
    assert desk.asked == []


def own_address() -> str:
    """An address of this machine that is not loopback, "" where it has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect_ex(("192.0.2.1", 9))
        return str(probe.getsockname()[0]).replace("0.0.0.0", "").replace("127.0.0.1", "")


@pytest.mark.skipif(not own_address(), reason="this machine has no address but loopback")
async def test_another_machine_needs_a_key_first():
    """Asked over an address that is not loopback: 401 without, and through with one."""
    desk, host = Desk(), own_address()
    async with serving(Scripted(), host=host, auth={"mk-1": "ann"}.get, trust=desk) as server:
        reader, writer = await asyncio.open_connection(host, server.port)
        request = f"GET {PAIR} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n"
        writer.write(f"{request}\r\n".encode())
        without = await reader.read()
        writer.close()
        reader, writer = await asyncio.open_connection(host, server.port)
        writer.write(f"{request}authorization: Bearer mk-1\r\n\r\n".encode())
        with_key = await reader.read()
        writer.close()
    assert without.startswith(b"HTTP/1.1 401")
    assert with_key.startswith(b"HTTP/1.1 200")
    assert desk.asked == [("invitations",)]


async def test_a_join_may_take_its_time():
    """The desk bounds it; the connection waits, and other requests are answered meanwhile."""
    desk = Desk()
    desk.go.clear()
    async with serving(Scripted(), trust=desk) as server, line(server) as client:
        client.send(f"POST {JOIN}", b'{"code":"1234 5678"}')
        async with line(server) as other:
            other.send("GET /health")
            assert (await other.reply())[0] == 200
        desk.go.set()
        assert (await client.reply())[0] == 200
