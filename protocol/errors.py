"""The one family of errors that bytes from outside can raise."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar


class ProtocolError(ValueError):
    """A frame, advert or record that is not valid meshd version 1.

    `code` is one of the small fixed set `CODES`, so that receivers can count by it without an
    attacker choosing how many counters there are; `detail` is for a person and never holds
    payload bytes.
    """

    CODES: ClassVar[Mapping[str, str]] = MappingProxyType(
        {
            "magic": "the frame does not begin with MSHD",
            "version": "a frame or advert of another protocol version",
            "malformed": "not msgpack: cut short, corrupt, or nested or listed beyond measure",
            "trailing": "bytes after the end of the frame's array",
            "truncated": "fewer elements than the frame or the record requires",
            "type": "a value of another type than its field declares",
            "range": "a number or a word outside the set its field allows",
            "length": "a frame, text, byte string or list longer (or shorter) than allowed",
            "unknown": "a message id or union tag this version does not know",
        }
    )

    def __init__(self, code: str, detail: str) -> None:
        assert code in self.CODES, code
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class UnknownMessageError(ProtocolError):
    """A well-formed frame whose message id this version does not know: ignored and counted."""

    def __init__(self, kind: int) -> None:
        super().__init__("unknown", f"message id {kind}")
        self.kind = kind
