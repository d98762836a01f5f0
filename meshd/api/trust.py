"""Pairing, joining and revoking over HTTP: bodies in and out of the trust desk.

    POST   /mesh/v1/pair    {"token": false}              -> the code or token, and its seconds
    GET    /mesh/v1/pair                                  -> what is open; no secret is in it
    DELETE /mesh/v1/pair                                  -> what is open afterwards: nothing
    POST   /mesh/v1/join    {"code", "at": "HOST:PORT"}   -> the mesh, and who let this node in
    POST   /mesh/v1/revoke  {"node"}                      -> who was told, and who was silent

That only the owner of the machine asks is `meshd.api.origin`'s to see to. Unlike a chat body, these
come from our own tools and change who can read everybody's questions, so a field that nobody knows
is an error: a misspelt `at` would knock at the wrong door.

There is no timeout here. A join waits for the other machine up to half a minute, and the desk
bounds that; a client that leaves cancels the call.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from meshd.api.body import decode_object
from meshd.api.errors import ApiError, unsupported
from meshd.api.fields import Fields
from meshd.api.paths import Route
from meshd.core.ports import TrustDesk, TrustRefused

CODE_MAX_CHARS = 4_096
"""Twice the longest token, so that whoever reads it finds the words for what is wrong with it."""

PLACE_MAX_CHARS = 300
"""`HOST:PORT`: the longest DNS name has 253 characters."""

NODE_MAX_CHARS = 128
"""A node's name or id: 63 and 32 characters at most."""


async def answer_trust(desk: TrustDesk | None, route: Route, body: bytes) -> Mapping[str, Any]:
    """The JSON object that answers one of `paths.TRUST`. Raises ApiError; 409 for a refusal."""
    if desk is None:
        raise _no_desk()
    try:
        match route:
            case Route.INVITE:
                return await _invite(desk, _fields(body))
            case Route.JOIN:
                return await _join(desk, _fields(body))
            case Route.REVOKE:
                return await _revoke(desk, _fields(body))
            case Route.WITHDRAW:
                await desk.withdraw()
            case _:
                pass
        return desk.invitations()
    except TrustRefused as refused:
        raise _refusal(str(refused)) from None


async def _invite(desk: TrustDesk, fields: Fields) -> Mapping[str, Any]:
    token = fields.flag("token")
    _nothing_left(fields)
    return await desk.invite(token=token)


async def _join(desk: TrustDesk, fields: Fields) -> Mapping[str, Any]:
    code = fields.text("code", CODE_MAX_CHARS)
    at = fields.text("at", PLACE_MAX_CHARS)
    _nothing_left(fields)
    if not code:
        raise fields.absent("code", "It is what `meshctl pair` shows on a member of the mesh.")
    return await desk.join(code, at or None)


async def _revoke(desk: TrustDesk, fields: Fields) -> Mapping[str, Any]:
    node = fields.text("node", NODE_MAX_CHARS)
    _nothing_left(fields)
    if not node:
        raise fields.absent("node", "It is the name or the id of the node to put out.")
    return await desk.revoke(node)


def _fields(body: bytes) -> Fields:
    """An empty body asks for the defaults."""
    return Fields(decode_object(body) if body else {})


def _nothing_left(fields: Fields) -> None:
    for name in fields.rest:
        raise unsupported(name[:100], f"'{name[:100]}' is not a field of this request.")


def _refusal(words: str) -> ApiError:
    return ApiError(
        409,
        words,
        code="trust_refused",
        kind="permission_error",
        headers=(("x-should-retry", "false"),),
    )


def _no_desk() -> ApiError:
    return ApiError(
        501,
        "This node was started without pairing: nobody can be let in or put out here. Ask another "
        "node of the mesh.",
        code="not_implemented",
        kind="server_error",
        headers=(("x-should-retry", "false"),),
    )
