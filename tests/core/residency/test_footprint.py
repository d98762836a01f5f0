"""The sum of what a model takes, row by row."""

from __future__ import annotations

from dataclasses import replace

import pytest

from meshd.core.residency.footprint import (
    RUNTIME_BYTES,
    UNKNOWN_SHAPE,
    ModelShape,
    choose_context,
    footprint,
    gigabytes,
)

SMOLLM2 = ModelShape(30, 576, 9, 90, 64, 64, 1536, 49_152)
LLAMA_8B = ModelShape(32, 4096, 32, 256, 128, 128, 14_336, 128_256)
GB = 10**9


def test_the_cache_is_llama_cpps_own_figure() -> None:
    """`llama_kv_cache: size = 512.00 MiB (4096 cells, 32 layers)` for an 8B model with f16."""
    assert footprint(5 * GB, LLAMA_8B, 4096, 1).kv_bytes == 512 * 1024**2


def test_every_slot_owns_its_whole_context() -> None:
    """No long conversation takes another's room."""
    one, four = (footprint(GB, LLAMA_8B, 4096, slots) for slots in (1, 4))
    assert four.kv_bytes == 4 * one.kv_bytes


def test_what_recurrent_layers_remember_is_counted_once_for_each_conversation() -> None:
    """However long it is; and a context is chosen with it in mind."""
    hybrid = replace(LLAMA_8B, state_bytes=GB)
    for context in (4096, 8192):
        plain, whole = (footprint(GB, shape, context, 4) for shape in (LLAMA_8B, hybrid))
        assert whole.kv_bytes == plain.kv_bytes + 4 * GB
    assert choose_context(131_072, hybrid, 4, 48 * GB) == 8_192


def test_conversations_that_are_kept_take_room_beside_those_that_run() -> None:
    """As much again, up to the bound; and a longer pass takes more to compute with."""
    plain = footprint(GB, LLAMA_8B, 4096, 1)
    kept = footprint(GB, LLAMA_8B, 4096, 1, kept_max_bytes=GB)
    bounded = footprint(GB, LLAMA_8B, 4096, 4, kept_max_bytes=GB)
    assert kept.kv_bytes == 2 * plain.kv_bytes
    assert bounded.kv_bytes == 4 * plain.kv_bytes + GB
    longer = footprint(GB, LLAMA_8B, 4096, 1, pass_tokens=2048)
    assert longer.prefill_bytes > 2 * plain.prefill_bytes


@pytest.mark.parametrize(("context", "measured"), [(4096, 521), (8192, 880)])
def test_the_sum_covers_what_was_measured_and_little_more(context: int, measured: int) -> None:
    """Resident MiB of a worker with SmolLM2-135M Q4_1 and four slots, after a long prompt."""
    told = footprint(98_879_872, SMOLLM2, context, 4).total_bytes / 1024**2
    assert measured <= told <= measured * 1.2


def test_a_file_that_does_not_say_its_shape_counts_half_as_much_again() -> None:
    """Something must be kept for its cache."""
    unknown = footprint(4 * GB, UNKNOWN_SHAPE, 4096, 4)
    assert unknown.total_bytes == 6 * GB + RUNTIME_BYTES


def test_the_words_add_up() -> None:
    """A person can check the refusal."""
    need = footprint(5 * GB, LLAMA_8B, 4096, 4)
    parts = (need.weights_bytes, need.kv_bytes, need.prefill_bytes, need.runtime_bytes)
    assert sum(parts) == need.total_bytes
    assert need.words().startswith(f"{gigabytes(need.total_bytes)} (5.00 GB weights + 2.15 GB KV")


@pytest.mark.parametrize(
    ("own", "memory_gb", "context"),
    [
        (131_072, 1_000, 32_768),
        (131_072, 48, 16_384),
        (131_072, 24, 8_192),
        (131_072, 8, 4_096),
        (2_048, 1_000, 2_048),
        (2_048, 1, 2_048),
        (0, 1_000, 4_096),
    ],
)
def test_nobody_asked_for_a_context(own: int, memory_gb: int, context: int) -> None:
    """The longest step that the model was made for and a quarter of the memory holds."""
    assert choose_context(own, LLAMA_8B, 4, memory_gb * GB) == context


@pytest.mark.parametrize(("size", "words"), [(700_000_000, "0.70 GB"), (24 * GB, "24.0 GB")])
def test_sizes_are_said_as_people_say_them(size: int, words: str) -> None:
    """Two digits where they matter, one where they do not."""
    assert gigabytes(size) == words
