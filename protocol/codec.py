"""One message to one frame, and back.

A frame is `MSHD`, one version byte, and one msgpack array
`[mesh, sender, boot_id, sequence, kind, [fields of the message ...], ...]`. Elements after the
sixth belong to later versions and are skipped.

`decode` is total: any bytes give `(Envelope, message)` or raise `ProtocolError`. Work is bounded
by the frame's length, which the caller bounds first: time is linear in it, memory at most about
100 bytes for each byte of it (an empty object is one byte on the wire), plus one tower of nested
lists whose cost `limits.CONTROL_LIST_MAX` and `RELAY_LIST_MAX` state.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import msgpack

from protocol import limits
from protocol.envelope import Envelope
from protocol.errors import ProtocolError, UnknownMessageError
from protocol.fields import decode_record, encode_record
from protocol.jobs import Job
from protocol.messages import (
    CONTROL_KINDS,
    KIND_OF,
    KINDS,
    RELAY_KINDS,
    ControlMessage,
    Message,
)

HEADER = limits.MAGIC + bytes([limits.PROTOCOL_VERSION])
ENVELOPE_FIELDS = 4
FRAME_FIELDS = ENVELOPE_FIELDS + 2


@dataclass(frozen=True, slots=True)
class Plane:
    """One socket's share of the protocol: its message ids and its bounds."""

    kinds: Mapping[int, type[Any]]
    frame_max_bytes: int
    list_max: int


CONTROL = Plane(CONTROL_KINDS, limits.CONTROL_FRAME_MAX_BYTES, limits.CONTROL_LIST_MAX)
RELAY = Plane(RELAY_KINDS, limits.RELAY_FRAME_MAX_BYTES, limits.RELAY_LIST_MAX)
EITHER = Plane(KINDS, limits.RELAY_FRAME_MAX_BYTES, limits.RELAY_LIST_MAX)


def encode(envelope: Envelope, message: Message) -> bytes:
    """The frame of one message. Raises ProtocolError when a value or the frame is out of bounds."""
    kind = KIND_OF[type(message)]
    frame = HEADER + pack([*encode_record(envelope), kind, encode_record(message)])
    _check_length("frame", len(frame), frame_limit(kind))
    return frame


def decode_control(frame: bytes) -> tuple[Envelope, ControlMessage]:
    """A frame from the control socket. Raises ProtocolError; relay messages are unknown here."""
    envelope, message = _decode(frame, CONTROL)
    return envelope, cast(ControlMessage, message)


def decode_relay(frame: bytes) -> tuple[Envelope, Any]:
    """A frame from the relay socket. Raises ProtocolError; control messages are unknown here."""
    return _decode(frame, RELAY)


def decode(frame: bytes) -> tuple[Envelope, Any]:
    """A frame of either plane. Raises ProtocolError."""
    return _decode(frame, EITHER)


def encode_job(job: Job) -> bytes:
    """A job as JobOpen and JobChunk carry it. Raises ProtocolError when it is out of bounds."""
    packed = pack(encode_record(job))
    _check_length("job", len(packed), limits.JOB_MAX_BYTES)
    return packed


def decode_job(packed: bytes) -> Job:
    """The job that `encode_job` packed. Raises ProtocolError."""
    return decode_record(Job, unpack(packed, limits.JOB_MAX_BYTES))


def frame_limit(kind: int) -> int:
    """Bytes that a frame of this message id may take."""
    return (CONTROL if kind in CONTROL_KINDS else RELAY).frame_max_bytes


def pack(value: Any) -> bytes:
    """msgpack bytes of plain values. Raises ProtocolError for what msgpack cannot express."""
    try:
        return cast(bytes, msgpack.packb(value))
    except (TypeError, ValueError, OverflowError) as error:
        raise ProtocolError("type", f"cannot be packed: {error}") from None


def unpack(packed: bytes, longest: int, list_max: int = limits.RELAY_LIST_MAX) -> Any:
    """The plain value in `packed`, which is at most `longest` bytes and holds no list of more
    than `list_max` elements. Raises ProtocolError."""
    _check_length("input", len(packed), longest)
    try:
        return msgpack.unpackb(packed, max_array_len=list_max)
    except msgpack.ExtraData:
        raise ProtocolError("trailing", "bytes after the end of the array") from None
    except Exception as error:  # noqa: BLE001
        # msgpack has no single error family: ValueError, StackError, FormatError,
        # UnicodeDecodeError, and OverflowError for timestamps have all been seen.
        detail = f"cut short, too deep or long, or not msgpack ({type(error).__name__})"
        raise ProtocolError("malformed", detail) from None


def _decode(frame: bytes, plane: Plane) -> tuple[Envelope, Any]:
    if len(frame) < len(HEADER) or not frame.startswith(limits.MAGIC):
        raise ProtocolError("magic", "does not begin with MSHD")
    if frame[len(limits.MAGIC)] != limits.PROTOCOL_VERSION:
        raise ProtocolError("version", f"version {frame[len(limits.MAGIC)]}")
    _check_length("frame", len(frame), plane.frame_max_bytes)
    values = unpack(frame[len(HEADER) :], plane.frame_max_bytes, plane.list_max)
    if type(values) is not list:
        raise ProtocolError("type", "a frame holds an array")
    if len(values) < FRAME_FIELDS:
        raise ProtocolError("truncated", f"{len(values)} of {FRAME_FIELDS} frame fields")
    envelope = decode_record(Envelope, values[:ENVELOPE_FIELDS])
    kind = values[ENVELOPE_FIELDS]
    if type(kind) is not int:
        raise ProtocolError("type", "message id is not an integer")
    cls = plane.kinds.get(kind)
    if cls is None:
        raise UnknownMessageError(kind)
    _check_length("frame", len(frame), frame_limit(kind))
    return envelope, decode_record(cls, values[ENVELOPE_FIELDS + 1])


def _check_length(what: str, size: int, most: int) -> None:
    if size > most:
        raise ProtocolError("length", f"{what} of {size} bytes, limit {most}")
