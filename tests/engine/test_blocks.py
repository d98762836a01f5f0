"""Claims of meshd.engine.blocks, and what llama.cpp makes of long texts because of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.engine.blocks import BLOCK_MAX_CHARS, blocks_of
from meshd.engine.bundled import bundled_gguf
from meshd.engine.llamacpp import LlamaModel
from tests.engine.modelfiles import speller

ALMOST = "x" * (BLOCK_MAX_CHARS - 5)
OVERFLOWING = 100_000
"""Characters of one word: four times what ended the process."""


@given(st.lists(st.sampled_from(["word ", " ", "\n", "<|mark|>", "[x]", "é" * 3_000, "z" * 9_000])))
def test_blocks_are_the_text_and_none_is_long(parts):
    """Nothing is lost, whatever the text is made of."""
    blocks = list(blocks_of("".join(parts)))
    assert "".join(blocks) == "".join(parts)
    assert max(map(len, blocks)) <= BLOCK_MAX_CHARS


@pytest.mark.parametrize(
    ("text", "second"),
    [
        (ALMOST + " one two three", " two three"),
        (ALMOST + "<|mark|> and more", "<|mark|> and more"),
        (ALMOST + "[MARK] and more", "[MARK] and more"),
        (ALMOST + "123456789", "6789"),
        (ALMOST + "  \n", None),
    ],
)
def test_a_block_ends_before_a_word_or_a_mark(text, second):
    """Where the tokens stay what they are."""
    assert [*blocks_of(text), None][1] == second


def test_a_long_text_has_the_tokens_that_it_had():
    """Of words, that is: each block ends where a word does."""
    model = LlamaModel(bundled_gguf(), context=64, slots=1, threads=1)
    line = " The sea, as they say, is 70 percent of it all; nobody's ships know it.\n\n  - so"
    assert model.tokenize(line * 300) == model.tokenize(line) * 300


@pytest.mark.parametrize("pooling", [0, 3])
def test_a_word_without_end_does_not_end_the_process(tmp_path, pooling):
    """As gpt-oss's texts are cut into words; what stands around a text stands there once."""
    path = speller(tmp_path / "m.gguf", pooling_type=pooling)
    model = LlamaModel(path, context=64, slots=1, threads=1)
    begin, *inner, end = model.tokenize("a" * OVERFLOWING + "b")
    assert (begin, end) == ((0, 1) if pooling else (0, 3))
    assert set(inner) == ({2, 3} if pooling else {2})
    assert model.continuation("a" * OVERFLOWING) == [2] * OVERFLOWING
