"""Golden bytes: what must decode for ever, what must be refused for ever, and how to tell.

A vector is a JSON object. `form` says what its bytes are: a `control`, `relay` or `door` frame, a
`job`, a single `record` (its class in `of`), or an `advert` (`txt` properties and `port` instead of
bytes). Bytes are hexadecimal; long ones are a list of `[hexadecimal, times]`.

- An accepted vector holds the `value` that must come out (`inventory.plain` of it); fields that
  were appended after it was written may come out beside it. `canonical` vectors are also what an
  encoder of this version must produce from that value; the others come from older or newer
  versions, or from encoders with other habits. When a record grows, its canonical vectors become
  such others, under the name of the form they show, and new ones are written.
- A refused vector holds the `code` that must be raised, and where it is not plain, `why`.

An accepted vector is never rewritten: a change that breaks one breaks every node in the field.
Rows for new messages are appended by `python -m protocol vectors --write`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from protocol import codec
from protocol.envelope import Envelope
from protocol.errors import ProtocolError
from protocol.fields import decode_record, encode_record
from protocol.inventory import least, plain, records, typical
from protocol.jobs import Job
from protocol.limits import JOB_MAX_BYTES
from protocol.messages import CONTROL_KINDS, KIND_OF
from protocol.pairing import PAIRING_KIND_OF, decode_pairing, encode_pairing
from protocol.service import NodeAdvert, advert_from_txt, advert_to_txt

Vector = Mapping[str, Any]

EXAMPLES = {"least": least, "typical": typical}


def examples() -> list[dict[str, Any]]:
    """Two canonical vectors of everything that this version declares, and of the advert."""
    return [
        _example(f"{cls.__name__} {name}", make(cls))
        for cls in (*records(), NodeAdvert)
        for name, make in EXAMPLES.items()
    ]


def missing(accepted: Sequence[Vector]) -> list[dict[str, Any]]:
    """The examples that no accepted vector has the name of yet."""
    names = {vector["name"] for vector in accepted}
    return [vector for vector in examples() if vector["name"] not in names]


def check_accepted(vector: Vector) -> str | None:
    """What is wrong with this version, None when the vector decodes (and encodes) as it says."""
    try:
        value = _decode(vector)
    except ProtocolError as error:
        return f"{vector['name']}: refused ({error})"
    seen, told = _plain(value), vector["value"]
    whole = json.dumps(seen) == json.dumps(told)
    if not (whole if vector["canonical"] else _holds(seen, told)):
        return f"{vector['name']}: decoded to {json.dumps(seen)}"
    if vector["canonical"] and (again := _encode(vector["form"], value)) != _wire(vector):
        return f"{vector['name']}: encoded again to {again!r}"
    return None


def check_refused(vector: Vector) -> str | None:
    """What is wrong with this version, None when the vector is refused with its code."""
    try:
        value = _decode(vector)
    except ProtocolError as error:
        if error.code == vector["code"]:
            return None
        return f"{vector['name']}: refused with {error.code}, not {vector['code']} ({error})"
    return f"{vector['name']}: accepted as {_plain(value)}"


def packed(vector: Vector) -> bytes:
    """The bytes of a vector that has any."""
    parts = vector["bytes"]
    if isinstance(parts, str):
        return bytes.fromhex(parts)
    return b"".join(bytes.fromhex(piece) * times for piece, times in parts)


def _holds(seen: Any, told: Any) -> bool:
    """Whether `seen` is `told`, save for fields that `told` is too old to name."""
    if isinstance(told, dict) and isinstance(seen, dict):
        return bool(told) == bool(seen) and all(
            key in seen and _holds(seen[key], value) for key, value in told.items()
        )
    if isinstance(told, list) and isinstance(seen, list):
        return len(seen) == len(told) and all(map(_holds, seen, told))
    return json.dumps(seen) == json.dumps(told)


def _example(name: str, value: Any) -> dict[str, Any]:
    head: dict[str, Any] = {"name": name, "form": "record", "of": type(value).__name__}
    if type(value) is Job:
        head = {"name": name, "form": "job"}
    elif type(value) is NodeAdvert:
        head = {"name": name, "form": "advert"}
    elif type(value) in PAIRING_KIND_OF:
        head = {"name": name, "form": "door"}
    elif type(value) in KIND_OF:
        control = KIND_OF[type(value)] in CONTROL_KINDS
        head = {"name": name, "form": "control" if control else "relay"}
        envelope = typical(Envelope) if name.endswith("typical") else least(Envelope)
        value = (envelope, value)
    wire = _encode(head["form"], value)
    shown = {"bytes": wire.hex()} if isinstance(wire, bytes) else wire
    return {**head, **shown, "value": _plain(value), "canonical": True}


def _decode(vector: Vector) -> Any:
    match vector["form"]:
        case "control":
            return codec.decode_control(packed(vector))
        case "relay":
            return codec.decode_relay(packed(vector))
        case "door":
            return decode_pairing(packed(vector))
        case "job":
            return codec.decode_job(packed(vector))
        case "record":
            (cls,) = (cls for cls in records() if cls.__name__ == vector["of"])
            return decode_record(cls, codec.unpack(packed(vector), JOB_MAX_BYTES))
        case _:
            txt = {key.encode(): value.encode() for key, value in vector["txt"].items()}
            return advert_from_txt(txt, vector["port"])


def _encode(form: str, value: Any) -> bytes | dict[str, Any]:
    match form:
        case "control" | "relay":
            return codec.encode(*value)
        case "door":
            return encode_pairing(value)
        case "job":
            return codec.encode_job(value)
        case "record":
            return codec.pack(encode_record(value))
        case _:
            txt = {key.decode(): text.decode() for key, text in advert_to_txt(value).items()}
            return {"txt": txt, "port": value.control_port}


def _wire(vector: Vector) -> bytes | dict[str, Any]:
    if vector["form"] == "advert":
        return {"txt": vector["txt"], "port": vector["port"]}
    return packed(vector)


def _plain(value: Any) -> Any:
    """As `plain`, with a frame's envelope and message side by side."""
    if dataclasses.is_dataclass(value):
        return plain(value)
    envelope, message = value
    return {**plain(envelope), **plain(message)}
