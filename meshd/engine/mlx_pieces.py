"""The bytes that a token stands for, from how its vocabulary writes it.

A tokenizer decodes whole answers; streaming needs the bytes of one token, because a character may
straddle two. Vocabularies write bytes in one of two ways:

- byte level (GPT-2, Llama 3, Qwen, SmolLM): each byte is a printable character; the 188 bytes that
  are printable in Latin-1 are themselves, the other 68 are the characters from U+0100 on, in order;
- SentencePiece (Llama 2, Mistral, Gemma): text as it is, a space written as U+2581, and bytes that
  are no text as `<0x0A>`.

Control tokens stand for nothing. Tokens that were added to a vocabulary later (`<think>`) are
written as they are, in both ways.
"""

from __future__ import annotations

import re
from collections.abc import Callable

SPACE = "\u2581"
BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def _byte_level() -> dict[str, int]:
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {
        chr(0x100 + place): byte for place, byte in enumerate(others)
    }


BYTES = _byte_level()
"""Character of a byte-level vocabulary -> byte (OpenAI's GPT-2 `encoder.py`)."""


def byte_level_piece(token: str) -> bytes:
    """A token of a byte-level vocabulary."""
    if all(character in BYTES for character in token):
        return bytes(map(BYTES.__getitem__, token))
    return token.encode()


def sentence_piece(token: str) -> bytes:
    """A token of a SentencePiece vocabulary."""
    byte = BYTE.fullmatch(token)
    return bytes.fromhex(byte.group(1)) if byte else token.replace(SPACE, " ").encode()


def piece_of(decoder: str) -> Callable[[str], bytes]:
    """How the vocabulary of a tokenizer with this `decoder` (its JSON) writes tokens."""
    return byte_level_piece if "ByteLevel" in decoder else sentence_piece
