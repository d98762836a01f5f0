"""HTTP/1.1 answers, from bytes: enough of RFC 9112 to listen to a model server, and no more.

Pure: bytes in, body out, cut anywhere. The three ways to end a body are known (a length, chunks,
the end of the connection); informational answers before the real one are passed over; chunk
extensions and trailers are skipped. Everything is bounded, and whatever is malformed is an
`HttpError`: a connection on which one answer was misread would give its rest to the next asker.
So one that brings more than its answer (a line end, mostly) is not used again.

Why not a library: adopted servers are the gateway's busiest path. A general client spends 130 us on
a request and 10 us on each chunk of a stream; this one a fifth of it, and needs none of the rest
(redirects, cookies, compression, proxies).
"""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import repeat

HEAD_MAX_BYTES = 64 * 1024
"""Status line and headers; common servers allow 8 to 64 KiB."""

LINE_MAX_BYTES = 1_024
"""A chunk's size with its extension, or one trailer."""

TRAILERS_MAX = 32
"""Header lines after the last chunk."""

INTERIM_MAX = 32
"""Informational answers before the real one, of which servers send one or two. Without an end to
them a server would hold up everybody: they come in faster than they are passed over."""

BURST_BYTES = 1_024
"""A read of so much may hold many chunks: a token of a stream is a chunk of 200 to 300 bytes."""

_STATUS = re.compile(rb"HTTP/1\.([01]) (\d{3})(?: |$)")
_LENGTH = re.compile(rb"\d{1,18}")
_HEX_DIGITS = b"0123456789abcdefABCDEF"
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;.*)?")

_HEAD, _COUNTED, _CHUNK_SIZE, _CHUNK_DATA, _CHUNK_END, _TRAILERS, _UNTIL_CLOSE, _DONE = range(8)


class HttpError(ValueError):
    """Not an HTTP/1.1 answer, or one that ended too early."""


class ResponseReader:
    """One answer. `status` is 0 until its head is here."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        """Lower-case names; of a repeated header the last one."""
        self.keep_alive = False
        """May the connection serve another request once this answer is whole?"""
        self._state = _HEAD
        self._rest = b""
        self._left = 0
        self._trailers = 0
        self._interims = 0

    @property
    def is_whole(self) -> bool:
        """The answer has ended."""
        return self._state == _DONE

    def feed(self, received: bytes) -> bytes:
        """The part of the body that `received` holds. Raises HttpError."""
        rest = self._rest + received if self._rest else received
        was_whole = self._state == _DONE
        if self._state == _HEAD:
            rest = self._read_head(rest)
        if self._state == _COUNTED:
            body, rest = rest[: self._left], rest[self._left :]
            self._left -= len(body)
            if not self._left:
                self._state = _DONE
        elif self._state == _UNTIL_CLOSE:
            body, rest = rest, b""
        elif self._state in {_HEAD, _DONE}:
            body = b""
        else:
            body, rest = self._read_chunks(rest)
        if self._state == _DONE and rest:
            if was_whole:
                raise HttpError("bytes after the end of the answer")
            rest, self.keep_alive = b"", False
        self._rest = rest
        return body

    def close(self) -> None:
        """The connection has ended. Raises HttpError when the answer has not."""
        if self._state == _UNTIL_CLOSE:
            self._state = _DONE
        if self._state != _DONE:
            raise HttpError("the connection was closed in the middle of the answer")

    def _read_head(self, rest: bytes) -> bytes:
        while self._state == _HEAD:
            end = rest.find(b"\r\n\r\n")
            if end < 0:
                if len(rest) > HEAD_MAX_BYTES:
                    raise HttpError(f"headers are longer than {HEAD_MAX_BYTES} bytes")
                return rest
            head, rest = rest[:end], rest[end + 4 :]
            self._take_head(head)
        return rest

    def _take_head(self, head: bytes) -> None:
        lines = head.split(b"\r\n")
        found = _STATUS.match(lines[0])
        if found is None:
            raise HttpError("it does not begin with an HTTP/1.1 status line")
        status = int(found[2])
        if 100 <= status < 200:
            self._interims += 1
            if self._interims > INTERIM_MAX:
                raise HttpError("informational answers without end, and none to the request")
            return
        headers = {}
        for line in lines[1:]:
            name, colon, value = line.partition(b":")
            if not colon:
                raise HttpError("a header without a colon")
            headers[name.lower()] = value.strip()
        self.status, self.headers = status, headers
        connection = headers.get(b"connection", b"").lower()
        self.keep_alive = found[1] == b"1" and connection != b"close"
        self._choose_body(headers)

    def _choose_body(self, headers: dict[bytes, bytes]) -> None:
        packed = headers.get(b"content-encoding", b"identity").lower()
        if packed not in {b"identity", b""}:
            raise HttpError(
                f"its answer is packed ({packed.decode('latin-1'):.20}), which was not asked for; "
                "the server or a proxy before it must not"
            )
        length = headers.get(b"content-length")
        if headers.get(b"transfer-encoding", b"").lower().endswith(b"chunked"):
            self._state = _CHUNK_SIZE
        elif self.status in {204, 304}:
            self._state = _DONE
        elif length is None:
            self._state, self.keep_alive = _UNTIL_CLOSE, False
        elif _LENGTH.fullmatch(length):
            self._left = int(length)
            self._state = _COUNTED if self._left else _DONE
        else:
            raise HttpError("content-length is not a number")

    def _read_chunks(self, rest: bytes) -> tuple[bytes, bytes]:
        """The data of the chunks that are here, and the bytes that are not understood yet."""
        parts: list[bytes] = []
        at, size = 0, len(rest)
        if self._state == _CHUNK_SIZE and size > BURST_BYTES:
            at = _burst(rest, parts)
        while self._state != _DONE:
            if self._state == _CHUNK_SIZE:
                at = _whole_chunks(rest, at, parts)
            elif self._state == _CHUNK_DATA:
                take = min(self._left, size - at)
                if not take:
                    break
                parts.append(rest[at : at + take])
                at += take
                self._left -= take
                if not self._left:
                    self._state = _CHUNK_END
                continue
            end = rest.find(b"\r\n", at)
            if end < 0:
                if size - at > LINE_MAX_BYTES:
                    raise HttpError("a chunk's size line is too long")
                break
            line, at = rest[at:end], end + 2
            if self._state == _CHUNK_SIZE:
                self._left = _chunk_size(line)
                self._state = _CHUNK_DATA if self._left else _TRAILERS
            else:
                self._take_line(line)
        return b"".join(parts), rest[at:]

    def _take_line(self, line: bytes) -> None:
        if self._state == _CHUNK_END:
            if line:
                raise HttpError("a chunk is longer than its size")
            self._state = _CHUNK_SIZE
            return
        self._trailers += 1
        if self._trailers > TRAILERS_MAX:
            raise HttpError("too many trailers")
        if not line:
            self._state = _DONE


def _burst(rest: bytes, parts: list[bytes]) -> int:
    """Many chunks at once, without a step for each: adds the data of the first ones and says where
    the next begins, 0 unless every line end here is one of the chunks' own."""
    pieces = rest.split(b"\r\n")
    data = pieces[1:-1:2]
    if b"" in data:
        del data[data.index(b"") :]  # from the last chunk on
    sizes, lengths = pieces[: 2 * len(data) : 2], list(map(len, data))
    digits = b"".join(sizes)
    if not all(sizes) or digits.translate(None, _HEX_DIGITS):
        return 0
    if list(map(int, sizes, repeat(16))) != lengths:
        return 0
    parts += data
    return len(digits) + sum(lengths) + 4 * len(data)


def _whole_chunks(rest: bytes, at: int, parts: list[bytes]) -> int:
    """The usual case: adds the data of the chunks from `at` on that are whole, up to one that is
    not or has none, and says where that begins. Raises HttpError."""
    find = rest.find
    while (end := find(b"\r\n", at)) >= 0:
        begin = end + 2
        after = begin + _chunk_size(rest[at:end])
        if after == begin or rest[after : after + 2] != b"\r\n":
            break
        parts.append(rest[begin:after])
        at = after + 2
    return at


@lru_cache(maxsize=1024)
def _chunk_size(line: bytes) -> int:
    found = _CHUNK.fullmatch(line)
    if found is None:
        raise HttpError("a chunk without a size")
    return int(found[1], 16)
