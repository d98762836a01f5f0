"""What this router saw itself corrects what nodes say."""

import pytest

from meshd.core.routing import experience as rules
from meshd.core.routing.experience import NO_EXPERIENCE, Completion, Experiences
from protocol.jobs import Finish

RATES = (100.0, 10.0)
AS_SAID = Completion(1.0, 11.0, 100, 0, 100, 0.0)
"""100 tokens read and 100 written at RATES take 11 s."""


def slowed(factor):
    """The same work, taking longer."""
    return Completion(factor, 11.0 * factor, 100, 0, 100, 0.0)


def seen(*completions, now=0.0, batch=1.0):
    """The correction at `now` after these completions at time 0."""
    table = Experiences()
    for each in completions:
        table.finished("a", "m", each, batch, 0.0)
    return table.of("a", "m", now).correction(*RATES)


def test_a_machine_that_keeps_its_word_is_not_corrected():
    """Nor is one that was never seen."""
    assert seen(*[AS_SAID] * 5) == 1.0
    assert NO_EXPERIENCE.correction(*RATES) == 1.0


def test_small_deviations_are_the_company_of_the_moment():
    """Up to TOLERANCE either way nothing is corrected."""
    assert seen(slowed(1.3)) == 1.0
    assert seen(slowed(1 / 1.3)) == 1.0


def test_a_machine_slowed_four_times_is_known_within_a_few_attempts():
    """Two answers of an earlier, faster time, and five slow ones."""
    correction = seen(AS_SAID, AS_SAID, *[slowed(4.0)] * 5)
    assert correction > 0.8 * 4.0 / rules.TOLERANCE


def test_a_node_that_corrects_its_own_figures_is_not_punished_twice():
    """What took four times as long is as expected once its rates say a quarter."""
    table = Experiences()
    table.finished("a", "m", slowed(4.0), 1.0, 0.0)
    known = table.of("a", "m", 0.0)
    assert known.correction(*RATES) > 1.5
    assert known.correction(RATES[0] / 4, RATES[1] / 4) == pytest.approx(1.0)


def test_observations_fade_with_time():
    """A machine that was left alone gets its chance again."""
    later = seen(slowed(4.0), now=20 * rules.HALF_LIFE_S)
    assert later == pytest.approx(1.0, abs=0.01)


def test_corrections_are_bounded():
    """Beyond the bounds something else is wrong."""
    assert seen(*[slowed(1_000.0)] * 9) == rules.CORRECTION_MAX
    assert seen(*[slowed(0.01)] * 9) == rules.CORRECTION_MIN


def test_the_wait_for_a_slot_is_not_the_machines_speed():
    """Nine seconds of queue, as the node says; never more than passed before the first byte."""
    assert seen(Completion(10.0, 20.0, 100, 0, 100, 9.0)) == 1.0
    assert seen(Completion(1.0, 44.0, 100, 0, 100, 40.0)) > 1.5


def test_crowding_that_the_score_assumed_explains_slowness():
    """Decoded four times slower in company that was known to slow it so."""
    assert seen(Completion(1.0, 41.0, 100, 0, 100, 0.0), batch=4.0) == 1.0


@pytest.mark.parametrize(
    "nothing",
    [Completion(0.0, rules.SAMPLE_MIN_S / 2, 9, 0, 9, 0.0), Completion(1.0, 9.0, 9, 9, 0, 0.0)],
)
def test_what_says_nothing_of_the_machine_is_left_out(nothing):
    """Too short to time, or no tokens worked on."""
    table = Experiences()
    table.finished("a", "m", nothing, 1.0, 0.0)
    assert len(table) == 0


def test_usual_company_is_learnt_while_busy():
    """Idle records say nothing of what a stream has beside it."""
    table = Experiences()
    for _ in range(60):
        table.met("a", "m", 3)
    table.met("a", "m", 0)
    assert table.of("a", "m", 0.0).beside == pytest.approx(2.0, abs=0.01)


def test_the_table_is_bounded():
    """The pair touched least recently gives way."""
    table = Experiences()
    for number in range(rules.ENTRIES_MAX + 3):
        table.met(str(number), "m", 2)
    assert len(table) == rules.ENTRIES_MAX
    assert table.of("0", "m", 0.0) is NO_EXPERIENCE


def test_a_completion_is_made_of_the_last_event_and_two_times():
    """Token counts are the engine's, times are taken here."""
    finish = Finish("stop", 30, 20, cached_tokens=10, queue_s=0.5)
    assert Completion.of(finish, 1.0, 3.0) == Completion(1.0, 3.0, 30, 10, 20, 0.5)
