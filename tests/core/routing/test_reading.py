"""How fast a model reads, and what it is reading now."""

import pytest

from meshd.core.routing.reading import LEFT_MIN_RATIO, STALE_MAX, Reading
from protocol.jobs import Finish


def reading(tps: float = 100.0) -> Reading:
    """A model that is believed to read so many tokens a second."""
    made = Reading(0.0)
    made.told_tps = tps
    return made


def finish(tokens: int, prompt_s: float, *, cached: int = 0) -> Finish:
    return Finish(
        "stop",
        prompt_tokens=tokens,
        completion_tokens=1,
        cached_tokens=cached,
        prompt_s=prompt_s,
    )


def test_a_prompt_alone_is_read_at_the_whole_rate() -> None:
    """1,000 tokens at 100 a second: 700 are left after three seconds."""
    model = reading()
    model.begin(1, 1_000, 0.0)
    assert model.left(3.0) == (1, 700)


def test_two_prompts_share_the_machine() -> None:
    """Half the rate each, from the moment that there are two."""
    model = reading()
    model.begin(1, 1_000, 0.0)
    model.begin(2, 400, 2.0)
    assert model.left(4.0) == (2, 700 + 300)


def test_the_first_word_ends_a_reading_whatever_was_estimated() -> None:
    """The rest belongs to those who still read."""
    model = reading()
    model.begin(1, 1_000, 0.0)
    model.begin(2, 1_000, 0.0)
    model.read(1, 2.0)
    assert model.left(3.0) == (1, 1_000 - 100 - 100)


def test_what_is_still_being_read_is_never_nothing() -> None:
    """The estimate was too low: somebody who comes now shares with it all the same."""
    model = reading()
    model.begin(1, 1_000, 0.0)
    assert model.left(60.0) == (1, 1_000 * LEFT_MIN_RATIO)


def test_crowded_readings_teach_the_rate_of_a_machine_and_not_of_a_crowd() -> None:
    """Four prompts of 1,000 tokens together took ten seconds each: 400 tokens a second."""
    model = reading()
    for number in range(4):
        model.begin(number, 1_000, 0.0)
    for number in range(4):
        model.read(number, 10.0)
        model.end(number, finish(1_000, 10.0), 15.0)
    assert model.tps == pytest.approx(400.0)


def test_a_short_prompt_beside_a_long_one_teaches_the_same() -> None:
    """100 tokens took a second, since half went to the other; that took 6 s for 1,100 in all."""
    model = reading(200.0)
    model.begin(1, 1_100, 0.0)
    model.begin(2, 100, 0.0)
    model.end(2, finish(100, 1.0), 1.0)
    model.end(1, finish(1_100, 6.0), 6.0)
    assert model.tps == pytest.approx(200.0)


@pytest.mark.parametrize("told", [finish(1_000, 5.0, cached=990), finish(8, 0.1), None])
def test_what_was_not_read_teaches_nothing(told) -> None:
    """A cached prompt, one of a few tokens, and one whose answer broke off."""
    model = reading()
    model.begin(1, 1_000, 0.0)
    model.end(1, told, 5.0)
    assert model.tps == 100.0


def test_an_answer_in_one_piece_counts_as_read_when_the_estimate_says_so() -> None:
    """Its first word comes with its last, long after the prompt was read."""
    model = reading()
    model.begin(1, 200, 0.0, speaks=False)
    assert model.left(1.0) == (1, 100)
    assert model.left(9.0) == (0, 0)


@pytest.mark.parametrize(("company", "tps"), [(0, 50.0), (1, 100.0)])
def test_an_answer_in_one_piece_teaches_only_if_it_was_alone(company, tps) -> None:
    """Nobody knows which part of its time it shared."""
    model = reading()
    for number in range(company):
        model.begin(9 + number, 1_000, 0.0)
    model.begin(1, 200, 0.0, speaks=False)
    model.end(1, finish(200, 4.0), 8.0)
    assert model.tps == tps


def test_nothing_is_kept_of_what_is_over() -> None:
    """However it ended, and however often that is said."""
    model = reading()
    for number in range(50):
        model.begin(number, 100, float(number))
        model.read(number, number + 0.5)
        model.end(number, None, number + 0.7)
        model.end(number, finish(100, 1.0), number + 0.8)
    assert model.left(60.0) == (0, 0)
    assert (model._prompts, model._shares) == ({}, {})


def test_an_estimated_end_frees_the_machine_for_the_others() -> None:
    """200 tokens of each are read in four seconds; then the rest has the machine to itself."""
    model = reading()
    model.begin(1, 1_000, 0.0)
    model.begin(2, 200, 0.0, speaks=False)
    assert model.left(6.0) == (1, 1_000 - 200 - 200)


def test_estimated_ends_of_what_ended_sooner_are_not_kept() -> None:
    """A thousand answers that came a hundred times as soon as was thought."""
    model = reading()
    for number in range(1_000):
        model.begin(number, 1_000, number * 0.1, speaks=False)
        model.end(number, None, number * 0.1 + 0.05)
    assert len(model._ends) <= STALE_MAX + 1
