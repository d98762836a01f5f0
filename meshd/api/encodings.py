"""Compressed request bodies, unpacked within bounds: gzip, deflate, zstd.

Codex and other agents send zstd or gzip, because a conversation of a megabyte shrinks to a tenth. A
few kilobytes can also unpack to gigabytes, so unpacking stops at the bound on bodies: what it would
have grown to is never known, and never in memory.

`deflate` is zlib's format by the standard and bare deflate by the habit of some clients; the first
bytes tell which. Several encodings on top of each other are not served: nobody sends them.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

from meshd.api.errors import ApiError

GZIP_WINDOW = 16 + zlib.MAX_WBITS
"""zlib's number for "gzip's header and checksum around it"."""

GZIP_MEMBERS_MAX = 64
"""Members of one body: each costs a copy of what follows it. Clients send one."""

ZSTD_WINDOW_MAX_BYTES = 32 * 1024 * 1024
"""Memory that one zstd body may ask for: twice the longest body."""

IDENTITY = "identity"


class _TooLargeError(Exception):
    """There is more than the bound allows."""


class _DamagedError(Exception):
    """Not what it is said to be; the text says how."""


def unpacked(body: bytes, encoding: str, most_bytes: int) -> bytes:
    """The body that was packed as `encoding`. Raises ApiError: 400, 413 or 415."""
    name = encoding.strip().lower()
    if name in ("", IDENTITY):
        return body
    unpack = _KNOWN.get(name)
    if unpack is None:
        raise ApiError(
            415,
            f"Bodies with content-encoding '{encoding[:40]}' are not served. Send plain JSON, or "
            f"one of: {', '.join(_KNOWN)}.",
            code="unsupported_encoding",
            headers=(("accept-encoding", ", ".join(_KNOWN)),),
        )
    try:
        return unpack(body, most_bytes)
    except _TooLargeError:
        raise ApiError(
            413,
            f"The request body unpacks to more than {most_bytes} bytes. Send less text, or smaller "
            "pictures.",
            code="body_too_large",
        ) from None
    except (zlib.error, _DamagedError, EOFError) as error:
        raise ApiError(
            400,
            f"The request body is not {name} as its content-encoding says: {error}.",
            code="invalid_encoding",
        ) from None


def _gzip(body: bytes, most_bytes: int) -> bytes:
    """One gzip member after another, as the format allows."""
    parts: list[bytes] = []
    left = most_bytes
    rest = body
    for _ in range(GZIP_MEMBERS_MAX):
        unpacker = zlib.decompressobj(GZIP_WINDOW)
        part = _whole(unpacker, rest, left)
        left -= len(part)
        parts.append(part)
        rest = unpacker.unused_data
        if not rest:
            return b"".join(parts)
    raise EOFError(f"it has more than {GZIP_MEMBERS_MAX} members")


def _deflate(body: bytes, most_bytes: int) -> bytes:
    is_zlib = len(body) > 1 and body[0] & 0x0F == 8 and int.from_bytes(body[:2], "big") % 31 == 0
    return _whole(zlib.decompressobj(zlib.MAX_WBITS if is_zlib else -15), body, most_bytes)


def _whole(unpacker: zlib._Decompress, body: bytes, most_bytes: int) -> bytes:
    unpacked = unpacker.decompress(body, most_bytes + 1)
    if len(unpacked) > most_bytes:
        raise _TooLargeError
    if not unpacker.eof:
        raise EOFError("it ends too early")
    return unpacked


def _zstd(body: bytes, most_bytes: int) -> bytes:
    """One frame. A size that it states is checked first and not believed afterwards."""
    import zstandard  # hardly anybody sends it

    unpacker = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_MAX_BYTES)
    try:
        stated = zstandard.get_frame_parameters(body).content_size
        if stated != zstandard.CONTENTSIZE_UNKNOWN and stated > most_bytes:
            raise _TooLargeError
        try:
            return unpacker.decompress(body, max_output_size=most_bytes, allow_extra_data=False)
        except zstandard.ZstdError:
            with unpacker.stream_reader(body) as reader:
                if len(reader.read(most_bytes + 1)) > most_bytes:
                    raise _TooLargeError from None
            raise
    except zstandard.ZstdError as error:
        raise _DamagedError(str(error)) from None


_KNOWN: dict[str, Callable[[bytes, int], bytes]] = {
    "gzip": _gzip,
    "x-gzip": _gzip,
    "deflate": _deflate,
    "zstd": _zstd,
}
