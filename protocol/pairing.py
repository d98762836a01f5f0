"""The pairing door: four messages that make a stranger a member, and what it is given.

A third plane, beside control and relay, because a newcomer has no mesh yet: no label, no envelope,
no key that anybody vouches for. A frame is `MSHD`, one version byte, and one msgpack array
`[kind, [fields of the message ...]]`; everything else (append-only ids and fields, bounds, one
error family) is as on the other planes.

    newcomer                                   member
    PairHello(invitation, spake, key)    ->
                                         <-    PairReply(spake, key)
    PairConfirm(tag)                     ->    compares; a wrong tag is a wrong try
                                         <-    PairWelcome(sealed Welcome)
                                         <-    at any step instead: PairRefusal(reason)

`spake` is SPAKE2's message over edwards25519 (RFC 9382's exchange with the constants of the Python
package `spake2` 0.9), 33 bytes: the side's letter and one point. The newcomer is side A. From the
agreed key K and the transcript T = SHA-256(hello frame) + SHA-256(reply frame) follow

    tag      = blake2b(T, key=K, person="meshd pair tag",  32 bytes)
    seal key = blake2b(T, key=K, person="meshd pair seal", 32 bytes)
    sealed   = XSalsa20-Poly1305(seal key, nonce of 24 zero bytes, msgpack of Welcome's fields)

The nonce may be constant because a seal key seals one message. Ids are 64-95.
"""

from __future__ import annotations

from typing import Any, cast

from protocol import limits
from protocol.codec import pack, unpack
from protocol.errors import ProtocolError, UnknownMessageError
from protocol.fields import (
    Bytes,
    Choice,
    ListOf,
    Record,
    Text,
    decode_record,
    encode_record,
    record,
    wire,
)
from protocol.messages import PUBLIC_KEY, Endpoint
from protocol.trust import TrustRecord

HEADER = limits.MAGIC + bytes([limits.PROTOCOL_VERSION])

FRAME_MAX_BYTES = 64 * 1024
"""One frame at the door: the largest Welcome takes 41 KiB."""

INVITATION_BYTES = 8
"""A token's name on the wire; an 8-digit code has the empty name."""

SPAKE_BYTES = 33
TAG_BYTES = 32

SPONSORS_MAX = 32
"""Members a newcomer is told of; gossip brings the rest within a second."""

WELCOME_MAX_BYTES = FRAME_MAX_BYTES - 1024
"""A sealed Welcome."""

REFUSALS = ("wrong", "closed", "busy", "revoked", "malformed")
"""Why the door says no: the secret does not match; no such invitation, or no more; too many at
once, or the member is itself joining another mesh; this node id was revoked; a frame out of turn.
Unproven, so a hint to a person, no more."""


@record
class Sponsor:
    """A member as a newcomer needs it: its pinned key, and where to knock."""

    public_key: str = wire(PUBLIC_KEY)
    name: str = wire(Text(limits.NAME_MAX_CHARS))
    endpoints: tuple[Endpoint, ...] = wire(ListOf(Record(Endpoint), limits.ENDPOINTS_MAX))


@record
class Welcome:
    """What a member gives a newcomer that has shown the code. The first sponsor is the giver."""

    trust: TrustRecord = wire(Record(TrustRecord))
    sponsors: tuple[Sponsor, ...] = wire(ListOf(Record(Sponsor), SPONSORS_MAX))


@record
class PairHello:
    """I was invited (`invitation` is a token's name, empty for a code), and this is my key."""

    invitation: bytes = wire(Bytes(INVITATION_BYTES))
    spake: bytes = wire(Bytes(SPAKE_BYTES, exact=True))
    public_key: str = wire(PUBLIC_KEY)


@record
class PairReply:
    """Go on. Independent of the secret, so whoever asks learns nothing from it."""

    spake: bytes = wire(Bytes(SPAKE_BYTES, exact=True))
    public_key: str = wire(PUBLIC_KEY)


@record
class PairConfirm:
    """I knew the secret, and this is the exchange I saw."""

    tag: bytes = wire(Bytes(TAG_BYTES, exact=True), repr=False)


@record
class PairWelcome:
    """You did. That this opens proves to the newcomer that the member knew the secret too."""

    sealed: bytes = wire(Bytes(WELCOME_MAX_BYTES))


@record
class PairRefusal:
    """No."""

    reason: str = wire(Choice(*REFUSALS, otherwise="closed"))


PAIRING_KINDS: dict[int, type[Any]] = {
    64: PairHello,
    65: PairReply,
    66: PairConfirm,
    67: PairWelcome,
    68: PairRefusal,
}
PAIRING_KIND_OF: dict[type[Any], int] = {cls: kind for kind, cls in PAIRING_KINDS.items()}

PairingMessage = PairHello | PairReply | PairConfirm | PairWelcome | PairRefusal


def encode_pairing(message: PairingMessage) -> bytes:
    """The frame of one message. Raises ProtocolError when a value is out of bounds."""
    return HEADER + pack([PAIRING_KIND_OF[type(message)], encode_record(message)])


def decode_pairing(frame: bytes) -> PairingMessage:
    """The message in a frame. Raises ProtocolError for anything else, in bounded work."""
    if not frame.startswith(limits.MAGIC):
        raise ProtocolError("magic", "does not begin with MSHD")
    if not frame.startswith(HEADER):
        raise ProtocolError("version", "a frame of another version")
    values = unpack(frame[len(HEADER) :], FRAME_MAX_BYTES, limits.CONTROL_LIST_MAX)
    if type(values) is not list:
        raise ProtocolError("type", "a frame holds an array")
    if len(values) < 2:
        raise ProtocolError("truncated", f"{len(values)} of 2 frame fields")
    if type(values[0]) is not int:
        raise ProtocolError("type", "message id is not an integer")
    cls = PAIRING_KINDS.get(values[0])
    if cls is None:
        raise UnknownMessageError(values[0])
    return cast(PairingMessage, decode_record(cls, values[1]))


def encode_welcome(welcome: Welcome) -> bytes:
    """A Welcome as PairWelcome seals it. Raises ProtocolError when it is out of bounds."""
    return pack(encode_record(welcome))


def decode_welcome(packed: bytes) -> Welcome:
    """The Welcome that `encode_welcome` packed. Raises ProtocolError."""
    return decode_record(Welcome, unpack(packed, FRAME_MAX_BYTES, limits.CONTROL_LIST_MAX))
