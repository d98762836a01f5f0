"""The kinds of single value a field may hold: whole numbers, numbers, text, words, bytes.

Each kind validates one value, translates it between Python and msgpack's types, and can say in
words what it allows (`str(kind)`, which SPEC.md's tables are made of). Encoding validates as
strictly as decoding: a bound that only the receiver checks turns our own bug into a peer's counter.

Left out on purpose: coercion. Text is never a number and a boolean is never an integer; the one
exception is that a whole number is accepted where a number is due, because msgpack encoders of
other languages shorten 1.0 to 1.
"""

from __future__ import annotations

import struct
from typing import Any

from protocol import limits
from protocol.errors import ProtocolError

U64_MAX = 2**64 - 1
I64_MIN = -(2**63)
TOKEN_ID_MAX = 2**31 - 1
"""Engines hold token ids in 32 signed bits."""
TOKEN_BYTES = 4


def wrong_type(wanted: str, got: object) -> ProtocolError:
    """The refusal of a value of another type; says the type that came, never the value."""
    return ProtocolError("type", f"expected {wanted}, got {type(got).__name__}")


class Int:
    """A whole number in [lowest, highest]."""

    def __init__(self, lowest: int = 0, highest: int = U64_MAX) -> None:
        self.lowest = lowest
        self.highest = highest

    def __str__(self) -> str:
        return f"integer {_number(self.lowest)} to {_number(self.highest)}"

    def decode(self, raw: Any) -> int:
        if type(raw) is not int:
            raise wrong_type("integer", raw)
        if not self.lowest <= raw <= self.highest:
            raise ProtocolError("range", f"integer outside [{self.lowest}, {self.highest}]")
        return raw

    encode = decode


class Float:
    """A finite number in [lowest, highest]; NaN and infinities never cross the wire."""

    def __init__(self, lowest: float = 0.0, highest: float = 1e18) -> None:
        self.lowest = lowest
        self.highest = highest

    def __str__(self) -> str:
        return f"number {self.lowest:g} to {self.highest:g}"

    def decode(self, raw: Any) -> float:
        if type(raw) is not float and type(raw) is not int:
            raise wrong_type("number", raw)
        # NaN is below, above and equal to nothing, so this refuses it too.
        if not self.lowest <= raw <= self.highest:
            raise ProtocolError("range", f"number outside [{self.lowest:g}, {self.highest:g}]")
        return float(raw)

    encode = decode


class Bool:
    """True or false, never 0 or 1."""

    def __str__(self) -> str:
        return "boolean"

    def decode(self, raw: Any) -> bool:
        if type(raw) is not bool:
            raise wrong_type("boolean", raw)
        return raw

    encode = decode


class Text:
    """Unicode text of `shortest` to `longest` characters, or of ASCII alone when `ascii_only`."""

    def __init__(self, longest: int, shortest: int = 0, *, ascii_only: bool = False) -> None:
        self.longest = longest
        self.shortest = shortest
        self.ascii_only = ascii_only

    def __str__(self) -> str:
        kind = "ASCII text" if self.ascii_only else "text"
        return f"{kind}, {_number(self.shortest)} to {_number(self.longest)} characters"

    def decode(self, raw: Any) -> str:
        if type(raw) is not str:
            raise wrong_type("text", raw)
        if not self.shortest <= len(raw) <= self.longest:
            raise ProtocolError(
                "length", f"text of {len(raw)} characters, not {self.shortest} to {self.longest}"
            )
        if not raw.isascii():
            self._check_unicode(raw)
        return raw

    encode = decode

    def _check_unicode(self, text: str) -> None:
        if self.ascii_only:
            raise ProtocolError("range", "text is not ASCII")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ProtocolError("type", "text holds a lone surrogate") from None


class Choice:
    """One word of a set, sent as its index, so that the set is append-only too.

    A later version may know more words. A receiver reads an index beyond its own words as
    `otherwise`, the word that is safe to assume; without one it refuses, and such a set can grow
    only with the protocol's version.
    """

    def __init__(self, *words: str, otherwise: str | None = None) -> None:
        assert otherwise is None or otherwise in words, otherwise
        self.words = words
        self.otherwise = otherwise
        self.index = {word: index for index, word in enumerate(words)}

    def __str__(self) -> str:
        words = ", ".join(f"{index} {word}" for index, word in enumerate(self.words))
        return f"index: {words}" + (f"; others read as {self.otherwise}" if self.otherwise else "")

    def encode(self, value: str) -> int:
        if type(value) is not str:
            raise wrong_type("a word", value)
        index = self.index.get(value)
        if index is None:
            raise ProtocolError("range", f"not one of {', '.join(self.words)}")
        return index

    def decode(self, raw: Any) -> str:
        if type(raw) is not int:
            raise wrong_type("index", raw)
        if 0 <= raw < len(self.words):
            return self.words[raw]
        if self.otherwise is None or raw < 0:
            raise ProtocolError("range", f"choice {raw} of {len(self.words)}")
        return self.otherwise


class Bytes:
    """A byte string of at most `longest` bytes (exactly, when `exact`)."""

    def __init__(self, longest: int, *, exact: bool = False) -> None:
        self.longest = longest
        self.shortest = longest if exact else 0

    def __str__(self) -> str:
        if self.shortest:
            return f"{_number(self.longest)} bytes"
        return f"0 to {_number(self.longest)} bytes"

    def decode(self, raw: Any) -> bytes:
        if type(raw) is not bytes:
            raise wrong_type("bytes", raw)
        if not self.shortest <= len(raw) <= self.longest:
            raise ProtocolError(
                "length", f"{len(raw)} bytes, not {self.shortest} to {self.longest}"
            )
        return raw

    encode = decode


class Hex:
    """A fixed number of bytes on the wire, lower-case hexadecimal text in Python."""

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self.raw = Bytes(size_bytes, exact=True)

    def __str__(self) -> str:
        return str(self.raw)

    def encode(self, value: str) -> bytes:
        try:
            packed = bytes.fromhex(value)
        except (ValueError, TypeError):
            raise ProtocolError("type", "expected hexadecimal text") from None
        if packed.hex() != value:
            raise ProtocolError("type", "expected lower-case hexadecimal without spaces")
        return self.raw.encode(packed)

    def decode(self, raw: Any) -> str:
        return self.raw.decode(raw).hex()


class Tokens:
    """Token ids, packed four bytes each, little-endian.

    One byte string instead of a list, because one prompt can hold a million of them: a receiver
    may then refuse every long list before it allocates one. A single id, the usual case in a
    stream, takes the short way.
    """

    def __str__(self) -> str:
        return f"0 to {_number(limits.TOKEN_IDS_MAX)} token ids, 4 bytes each, little-endian"

    def encode(self, value: tuple[int, ...]) -> bytes:
        if type(value) is not tuple:
            raise wrong_type("tuple", value)
        if len(value) == 1 and type(value[0]) is int and 0 <= value[0] <= TOKEN_ID_MAX:
            return value[0].to_bytes(TOKEN_BYTES, "little")
        self._check(len(value))
        if not set(map(type, value)) <= {int}:
            raise ProtocolError("type", "token ids are integers")
        if value and not 0 <= min(value) <= max(value) <= TOKEN_ID_MAX:
            raise _token_range()
        return struct.pack(f"<{len(value)}I", *value)

    def decode(self, raw: Any) -> tuple[int, ...]:
        if type(raw) is not bytes:
            raise wrong_type("bytes", raw)
        if len(raw) == TOKEN_BYTES:
            token = int.from_bytes(raw, "little")
            if token > TOKEN_ID_MAX:
                raise _token_range()
            return (token,)
        if len(raw) % TOKEN_BYTES:
            raise ProtocolError("length", f"{len(raw)} bytes are not whole token ids")
        self._check(len(raw) // TOKEN_BYTES)
        tokens = struct.unpack(f"<{len(raw) // TOKEN_BYTES}I", raw)
        if tokens and max(tokens) > TOKEN_ID_MAX:
            raise _token_range()
        return tokens

    def _check(self, count: int) -> None:
        if count > limits.TOKEN_IDS_MAX:
            raise ProtocolError("length", f"{count} tokens, limit {limits.TOKEN_IDS_MAX}")


def _token_range() -> ProtocolError:
    return ProtocolError("range", f"token ids are whole numbers up to {TOKEN_ID_MAX}")


def _number(value: int) -> str:
    """For people: powers of two that nobody knows by heart are written as powers."""
    powers = {U64_MAX: "2^64-1", I64_MIN: "-2^63", 2**31 - 1: "2^31-1"}
    return powers.get(value, f"{value:,}")
