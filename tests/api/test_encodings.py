"""Compressed bodies: what clients send, and what would fill the memory."""

import gzip
import zlib

import pytest
import zstandard

from meshd.api.encodings import unpacked
from meshd.api.errors import ApiError

BODY = b'{"model":"tiny"}' * 100
MOST = 10_000


def bare_deflate(body):
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(body) + packer.flush()


def zstd(body):
    return zstandard.ZstdCompressor().compress(body)


def zstd_in_pieces(body):
    """A frame that does not state its size, as streaming clients make them."""
    packer = zstandard.ZstdCompressor().compressobj()
    return packer.compress(body) + packer.flush()


PACKERS = [
    ("gzip", gzip.compress),
    ("X-GZIP", gzip.compress),
    ("deflate", zlib.compress),
    ("deflate", bare_deflate),
    ("zstd", zstd),
    ("zstd", zstd_in_pieces),
    ("identity", bytes),
    ("", bytes),
]


def refused(body, encoding):
    with pytest.raises(ApiError) as caught:
        unpacked(body, encoding, MOST)
    return caught.value.status, caught.value.code


@pytest.mark.parametrize(("name", "pack"), PACKERS)
def test_what_clients_pack_is_unpacked(name, pack):
    """Agents send gzip and zstd; both kinds of deflate are about."""
    assert unpacked(pack(BODY), name, MOST) == BODY


@pytest.mark.parametrize(("name", "pack"), PACKERS[:6])
def test_the_bound_is_exact(name, pack):
    """A body of the longest size passes, one byte more does not."""
    assert unpacked(pack(bytes(MOST)), name, MOST) == bytes(MOST)
    assert refused(pack(bytes(MOST + 1)), name) == (413, "body_too_large")


@pytest.mark.parametrize(("name", "pack"), PACKERS[:6])
def test_a_bomb_is_never_unpacked(name, pack):
    """64 MiB of nothing are a few kilobytes on the way."""
    assert refused(pack(bytes(64 * 1024 * 1024)), name) == (413, "body_too_large")


@pytest.mark.parametrize(("name", "pack"), PACKERS[:6])
def test_a_body_that_is_cut_off_is_broken(name, pack):
    """Half a request is not a shorter one."""
    packed = pack(BODY)
    assert refused(packed[: len(packed) // 2], name) == (400, "invalid_encoding")


@pytest.mark.parametrize("name", ["gzip", "deflate", "zstd"])
@pytest.mark.parametrize("body", [b"{}", b"\xff" * 20])
def test_what_is_not_packed_is_said(name, body):
    """A proxy that unpacks and leaves the header is the usual cause."""
    assert refused(body, name) == (400, "invalid_encoding")


def test_gzip_may_come_in_members():
    """Concatenated files are one file to gzip."""
    packed = gzip.compress(b"{") + gzip.compress(b"}")
    assert unpacked(packed, "gzip", MOST) == b"{}"


def test_gzip_may_not_come_in_crumbs():
    """A million empty members would keep the loop busy for minutes."""
    assert refused(gzip.compress(b"") * 1_000, "gzip") == (400, "invalid_encoding")


@pytest.mark.parametrize("name", ["br", "gzip, zstd", "nonsense"])
def test_other_encodings_are_refused_with_what_is_served(name):
    """RFC 9110 lets an answer name what would have been taken."""
    with pytest.raises(ApiError) as caught:
        unpacked(b"x", name, MOST)
    assert caught.value.status == 415
    assert caught.value.headers == (("accept-encoding", "gzip, x-gzip, deflate, zstd"),)
