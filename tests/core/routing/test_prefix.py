"""Claims of meshd.core.routing.prefix."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.core.routing.prefix import (
    BLOCK_CHARS,
    CUTS_MAX,
    DIGEST_BYTES,
    KEYS_MAX,
    CachedPrefixes,
    cached_ratio,
    cuts_of,
)
from protocol.jobs import Job


def chat(*texts: str, **changes) -> Job:
    """A conversation of these messages."""
    turns = tuple({"role": "user", "content": text} for text in texts)
    return replace(Job("r", "chat", "m", messages=turns), **changes)


def holding(*jobs: Job, conversations: int = 4) -> bytes:
    """The digest of a machine that read these prompts."""
    cache = CachedPrefixes(conversations)
    for job in jobs:
        cache.served(cuts_of(job))
    return cache.digest()


def test_a_machine_knows_the_conversation_that_it_served():
    """The same prompt again is held to its end."""
    job = chat("a", "b")
    assert cached_ratio(holding(job), cuts_of(job)) == 1.0


def test_a_machine_knows_for_certain_what_it_holds_itself():
    """The same answers as the filter's, without its false ones."""
    cache = CachedPrefixes(4)
    assert cache.held_ratio(cuts_of(chat("a"))) == 0.0
    cache.served(cuts_of(chat("a" * 99)))
    next_turn = cuts_of(chat("a" * 99, "b"))
    assert cache.held_ratio(next_turn) == cached_ratio(cache.digest(), next_turn)
    assert cache.held_ratio(cuts_of(chat("b"))) == 0.0
    assert cache.held_ratio(()) == 0.0
    cache.clear()
    assert cache.held_ratio(next_turn) == 0.0


def test_a_digest_is_made_anew_when_something_was_served():
    """And only then: it is asked for with every load report."""
    cache = CachedPrefixes(4)
    cache.served(cuts_of(chat("a")))
    first = cache.digest()
    assert cache.digest() is first
    cache.served(cuts_of(chat("b")))
    assert cached_ratio(cache.digest(), cuts_of(chat("b"))) == 1.0


def test_the_next_turn_is_held_up_to_what_is_new():
    """The longer the new message, the smaller the part."""
    short, long = chat("a" * 99, "b"), chat("a" * 99, "b" * 999)
    digest = holding(chat("a" * 99))
    assert 0.7 < cached_ratio(digest, cuts_of(short)) < 1.0
    assert 0.0 < cached_ratio(digest, cuts_of(long)) < 0.2


@pytest.mark.parametrize(
    "other",
    [
        chat("x", "a"),
        chat("a", tools=[{"type": "function"}]),
        Job("r", "completion", "m", prompt="a"),
    ],
)
def test_what_begins_differently_is_not_held(other):
    """Other first words, other tools, another kind of prompt."""
    assert cached_ratio(holding(chat("a")), cuts_of(other)) == 0.0


def test_the_order_of_fields_does_not_matter():
    """Two clients may write the same message differently."""
    one = Job("r", "chat", "m", messages=({"role": "user", "content": "a"},))
    two = Job("s", "chat", "m", messages=({"content": "a", "role": "user"},))
    assert cuts_of(one) == cuts_of(two)


def test_a_text_is_cut_into_blocks():
    """A prompt that goes on after the same blocks is held that far."""
    text = "".join(chr(97 + index % 26) for index in range(4 * BLOCK_CHARS))
    first = Job("r", "completion", "m", prompt=text)
    second = replace(first, prompt=text[: 2 * BLOCK_CHARS] + "!" * 2 * BLOCK_CHARS)
    assert len(cuts_of(first)) == 4
    assert cached_ratio(holding(first), cuts_of(second)) == 0.5


def test_a_machine_holds_no_more_conversations_than_it_has_room_for():
    """The one that was idle longest goes first; being asked again makes it young."""
    a, b, c = chat("a"), chat("b"), chat("c")
    digest = holding(a, b, a, c, conversations=2)
    assert [cached_ratio(digest, cuts_of(job)) for job in (a, b, c)] == [1.0, 0.0, 1.0]


def test_a_conversation_that_goes_on_takes_no_second_place():
    """Its next turn continues in the same cache."""
    other = chat("x")
    digest = holding(other, chat("a"), chat("a", "b"), chat("a", "b", "c"), conversations=2)
    assert cached_ratio(digest, cuts_of(other)) == 1.0


def test_an_empty_cache_says_nothing():
    """Nor does one that was cleared, nor a job without a prompt."""
    cache = CachedPrefixes(2)
    cache.served(cuts_of(chat("a")))
    cache.clear()
    cache.served(())
    assert cache.digest() == b""
    assert cached_ratio(b"", cuts_of(chat("a"))) == 0.0
    assert cached_ratio(holding(chat("a")), ()) == 0.0


@pytest.mark.parametrize(
    "job", [Job("r", "embedding", "m", inputs=("a",)), Job("r", "completion", "m", prompt="")]
)
def test_what_is_not_cached_is_not_cut(job):
    """Embeddings leave nothing behind, and an empty text has no pieces."""
    assert cuts_of(job) == ()


def test_a_digest_of_another_size_is_not_understood():
    """A later version may tell more; this one then knows nothing."""
    assert cached_ratio(b"\xff" * 64, cuts_of(chat("a"))) == 0.0


def test_cuts_and_keys_are_bounded():
    """A prompt of a thousand messages, and a machine with a thousand slots."""
    long = chat(*map(str, range(1_000)))
    assert len(cuts_of(long)) == CUTS_MAX
    cache = CachedPrefixes(1_000)
    for index in range(1_000):
        cache.served(cuts_of(chat(str(index))))
    digest = cache.digest()
    assert len(digest) == DIGEST_BYTES
    assert sum(byte.bit_count() for byte in digest) <= 4 * KEYS_MAX


def test_a_long_conversation_is_known_by_its_end():
    """Who answered its last turn has nearly all of it; who left early has less than that."""
    texts = [f"message {index} {'x' * 400}" for index in range(300)]
    now = cuts_of(chat(*texts))
    assert cached_ratio(holding(chat(*texts[:298])), now) > 0.98
    assert cached_ratio(holding(chat(*texts[:64])), now) < 0.22


def test_strangers_rarely_look_known():
    """A full digest errs on fewer than one prompt in twenty."""
    digest = holding(*(chat(f"known {index}") for index in range(KEYS_MAX)), conversations=KEYS_MAX)
    strangers = [cuts_of(chat(f"stranger {index}")) for index in range(1_000)]
    assert sum(cached_ratio(digest, cuts) > 0 for cuts in strangers) < 50


@given(st.lists(st.lists(st.text("ab", max_size=2), max_size=4), max_size=12), st.integers(1, 4))
def test_what_was_served_last_is_always_known(conversations, room):
    """There are no false misses."""
    cache = CachedPrefixes(room)
    for texts in conversations:
        cuts = cuts_of(chat(*texts))
        cache.served(cuts)
        assert not cuts or cached_ratio(cache.digest(), cuts) == 1.0
