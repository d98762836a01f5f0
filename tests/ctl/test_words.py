"""Quantities in words, row by row."""

from __future__ import annotations

import pytest

from meshd.ctl.words import bytes_words, counted, rate_words, seconds_words


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (None, "-"),
        (0, "0 B"),
        (999, "999 B"),
        (1_000, "1 kB"),
        (8_454_701_056, "8.5 GB"),
        (25_276_510_208, "25.3 GB"),
        (999_600_000, "1 GB"),
        (512_000_000_000, "512 GB"),
    ],
)
def test_bytes_are_decimal_and_short(count: float | None, words: str) -> None:
    """Three digits and a unit, rounding up into the next unit where it must."""
    assert bytes_words(count) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, "-"),
        (0.0, "0 ms"),
        (0.00001, "0.01 ms"),
        (0.00042, "0.4 ms"),
        (0.012, "12 ms"),
        (0.9999, "1 s"),
        (3.14, "3.1 s"),
        (99.0, "99 s"),
        (120, "2 min"),
        (7_200, "2 h"),
        (1_000_000, "11.6 d"),
    ],
)
def test_durations_use_their_largest_sensible_unit(seconds: float | None, words: str) -> None:
    """From hundredths of a millisecond to days."""
    assert seconds_words(seconds) == words


def test_a_rate_of_zero_has_not_been_measured() -> None:
    """The wire says 0 for unknown; people should not read "0 tokens a second"."""
    assert [rate_words(rate) for rate in (0.0, None, 41.53, 1234.5)] == ["-", "-", "41.5", "1234"]


def test_one_is_not_many() -> None:
    """People notice "1 nodes"."""
    assert [counted(count, "node") for count in (0, 1, 2)] == ["0 nodes", "1 node", "2 nodes"]
