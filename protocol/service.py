"""The mDNS advert: what a node tells everybody on the link, members or not.

Only what a peer needs in order to knock: a format version, the node's id, its mesh label, and its
ports. No secret, no model, no load, no name. Everything here is a hint from an unauthenticated
medium; it makes a candidate, never a member.
"""

from __future__ import annotations

from collections.abc import Mapping

from protocol import limits
from protocol.errors import ProtocolError
from protocol.fields import Hex, Int, Text, record, wire

SERVICE_TYPE = "_meshd._tcp.local."
ADVERT_VERSION = "1"
TXT_VALUE_MAX_BYTES = 128
"""Longest TXT value read: twice the longest that version 1 writes."""


@record
class NodeAdvert:
    """One node's advert. `mesh` is a one-way label of the mesh key, equal for all its members."""

    node_id: str = wire(Hex(limits.NODE_ID_BYTES))
    mesh: str = wire(Text(limits.MESH_LABEL_MAX_CHARS, shortest=1, ascii_only=True))
    control_port: int = wire(Int(1, 65_535))
    relay_port: int = wire(Int(1, 65_535))
    door_port: int = wire(Int(0, 65_535), default=0)
    """Where somebody is invited to pair now; 0 while nobody is."""


def instance_name(node_id: str) -> str:
    """The service instance: unique by key, so no conflict probing is needed."""
    return f"{node_id}.{SERVICE_TYPE}"


def advert_to_txt(advert: NodeAdvert) -> dict[bytes, bytes]:
    """TXT properties; the control port travels in the SRV record."""
    txt = {
        b"v": ADVERT_VERSION.encode(),
        b"id": advert.node_id.encode(),
        b"mesh": advert.mesh.encode(),
        b"relay": str(advert.relay_port).encode(),
    }
    if advert.door_port:
        txt[b"door"] = str(advert.door_port).encode()
    return txt


def advert_from_txt(txt: Mapping[bytes, bytes | None], control_port: int | None) -> NodeAdvert:
    """Raises ProtocolError for an advert of another version, or one that is not well formed."""
    if _text(txt, b"v") != ADVERT_VERSION:
        raise ProtocolError("version", "advert of another version")
    relay = _port(txt, b"relay")
    door = _port(txt, b"door") if b"door" in txt else 0
    node_id = NODE_ID.decode(NODE_ID.encode(_text(txt, b"id")))
    mesh = MESH.decode(_text(txt, b"mesh"))
    return NodeAdvert(node_id, mesh, PORT.decode(control_port), relay, door)


NODE_ID = Hex(limits.NODE_ID_BYTES)
MESH = Text(limits.MESH_LABEL_MAX_CHARS, shortest=1, ascii_only=True)
PORT = Int(1, 65_535)


def _port(txt: Mapping[bytes, bytes | None], key: bytes) -> int:
    text = _text(txt, key)
    if not (text.isascii() and text.isdigit()):
        raise ProtocolError("type", f"{key.decode()} port is not a number")
    return PORT.decode(int(text))


def _text(txt: Mapping[bytes, bytes | None], key: bytes) -> str:
    value = txt.get(key)
    if value is None:
        raise ProtocolError("truncated", f"TXT key {key.decode()} is missing")
    if len(value) > TXT_VALUE_MAX_BYTES:
        raise ProtocolError("length", f"TXT key {key.decode()} is too long")
    try:
        return value.decode("ascii")
    except UnicodeDecodeError:
        raise ProtocolError("type", f"TXT key {key.decode()} is not ASCII") from None
