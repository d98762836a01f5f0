"""Claims of meshd.engine.mlx_pieces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.engine.mlx_pieces import BYTES, byte_level_piece, piece_of, sentence_piece

CHARACTERS = {byte: character for character, byte in BYTES.items()}


def test_every_byte_has_one_character():
    """The alphabet of a byte-level vocabulary is whole, and no two bytes share a letter of it."""
    assert sorted(BYTES.values()) == list(range(256))


@given(st.binary(max_size=20))
def test_any_bytes_survive_the_byte_level_alphabet(raw):
    """Half a character as well as a whole one."""
    assert byte_level_piece("".join(CHARACTERS[byte] for byte in raw)) == raw


@pytest.mark.parametrize(
    ("token", "said"),
    [
        ("Ġthe", b" the"),
        ("Ċ", b"\n"),
        ("ĉ", b"\t"),
        ("Ã©", "é".encode()),
        ("ðŁĺ", b"\xf0\x9f\x98"),
        ("<think>", b"<think>"),
        ("日本", "日本".encode()),
    ],
)
def test_a_byte_level_token_is_its_bytes(token, said):
    """A token that was added later, outside the alphabet, is written as it is."""
    assert byte_level_piece(token) == said


@pytest.mark.parametrize(
    ("token", "said"),
    [
        ("▁the", b" the"),
        ("▁▁", b"  "),
        ("<0x0A>", b"\n"),
        ("<0xF0>", b"\xf0"),
        ("<0xF0>x", b"<0xF0>x"),
        ("é", "é".encode()),
    ],
)
def test_a_sentencepiece_token_is_its_bytes(token, said):
    """Spaces and bytes that are no text have a spelling of their own."""
    assert sentence_piece(token) == said


@pytest.mark.parametrize(
    ("decoder", "spelling"),
    [
        ('{"type":"ByteLevel","add_prefix_space":false}', byte_level_piece),
        ('{"type":"Sequence","decoders":[{"type":"ByteLevel"}]}', byte_level_piece),
        (
            '{"type":"Sequence","decoders":[{"type":"ByteFallback"},{"type":"Fuse"}]}',
            sentence_piece,
        ),
        ("", sentence_piece),
    ],
)
def test_the_decoder_tells_the_spelling(decoder, spelling):
    """As the tokenizer's own file names it."""
    assert piece_of(decoder) is spelling
