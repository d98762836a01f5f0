"""Text in blocks that llama.cpp may tokenise.

Before it looks words up, llama.cpp cuts a text with a regular expression, and for most families
(gpt-oss, Mistral, Qwen3.5, Gemma 4) that is `std::regex`, which goes one call deeper into the stack
for each character of a match. A match of some 26,000 characters, such as a picture in base64 or a
file of one line, ends the process, and with it everybody's answers (ggml-org/llama.cpp#27783).

A block is shorter than that. It ends in front of a space between two words, where those expressions
end a match anyway, so the tokens are the same. A text that has no such place is cut where it must
be, but in no mark of a control token.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

BLOCK_MAX_CHARS = 8_192
"""A third of what is known to overflow a stack of 8 MiB."""

SEARCH_CHARS = 1_024
"""How far back a space is looked for."""

MARK_MAX_CHARS = 64
"""Of a control token's name."""

WORD_END = re.compile(r"\S(?= \S)")
MARK = re.compile(r"[<\[]")
"""What control tokens begin with."""


def blocks_of(text: str) -> Iterator[str]:
    """The text, in pieces of at most BLOCK_MAX_CHARS."""
    begin = 0
    while len(text) - begin > BLOCK_MAX_CHARS:
        end = _cut(text, begin + BLOCK_MAX_CHARS)
        yield text[begin:end]
        begin = end
    yield text[begin:]


def _cut(text: str, latest: int) -> int:
    """Where a block ends that may last to `latest`."""
    ends = [found.end() for found in WORD_END.finditer(text, latest - SEARCH_CHARS, latest + 2)]
    marks = [found.start() for found in MARK.finditer(text, latest - MARK_MAX_CHARS, latest)]
    return (ends or marks or [latest])[-1]
