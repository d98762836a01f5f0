"""Claims of meshd.core.stats."""

from __future__ import annotations

import pytest

from meshd.core.stats import KEEP, LOAD_GUESS_S, Rate, SpeedMeter, load_guess_s
from protocol.fields import encode_record
from protocol.jobs import Finish
from tests.core.routing.fleet import model_load


def finish(**changes) -> Finish:
    values = {"prompt_tokens": 100, "completion_tokens": 51, "prompt_s": 0.5, "generation_s": 2.0}
    return Finish("stop", **(values | changes))


def test_a_rate_is_zero_until_measured():
    """Zero means unknown on the wire."""
    assert Rate().value == 0.0


def test_a_rate_is_amount_over_time():
    """Samples add up before they are divided, so long ones weigh more."""
    rate = Rate()
    rate.observe(10, 1.0)
    rate.observe(90, 1.0)
    assert rate.value == pytest.approx((10 * KEEP + 90) / (KEEP + 1.0))


def test_a_rate_follows_a_change_within_ten_samples():
    """Recent traffic outweighs the past."""
    rate = Rate()
    rate.observe(1_000, 1.0)
    for _ in range(10):
        rate.observe(10, 1.0)
    assert rate.value < 40


def test_no_rate_is_more_than_a_record_can_tell():
    """A load record that cannot be encoded would silence its node."""
    rate = Rate()
    rate.observe(1e9, 1e-9)
    assert encode_record(model_load(prompt_tps=rate.value))


@pytest.mark.parametrize("seconds", [0.0, -1.0])
def test_a_sample_without_a_duration_is_ignored(seconds):
    """A clock that did not move measured nothing."""
    rate = Rate()
    rate.observe(10, seconds)
    assert rate.value == 0.0


def test_speeds_come_from_finished_jobs():
    """100 tokens read in half a second; 50 gaps in two."""
    meter = SpeedMeter()
    meter.observe(finish())
    assert meter.prompt_tps == pytest.approx(200)
    assert meter.generation_tps == pytest.approx(25)


def test_cached_tokens_are_not_work():
    """A prompt that was mostly cached says little about prefill."""
    meter = SpeedMeter()
    meter.observe(finish(cached_tokens=50))
    assert meter.prompt_tps == pytest.approx(100)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"cached_tokens": 99}, (0.0, 25.0)),
        ({"completion_tokens": 3}, (200.0, 0.0)),
        ({"completion_tokens": 0, "prompt_tokens": 0}, (0.0, 0.0)),
    ],
)
def test_jobs_too_short_to_measure_leave_a_rate_alone(changes, expected):
    """Short samples measure overhead."""
    meter = SpeedMeter()
    meter.observe(finish(**changes))
    assert (meter.prompt_tps, meter.generation_tps) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("known", "told", "prompt_s", "generation_s", "waited_s"),
    [
        (False, (31.0, 4.0), 0.0, 4.0, 31.0),
        (True, (31.0, 4.0), 2.0, 4.0, 29.0),
        (True, (1.0, 4.0), 1.0, 4.0, 0.0),
        (True, (0.0, 35.0), 0.0, 5.0, 30.0),
        (False, (0.0, 35.0), 0.0, 0.0, 35.0),
    ],
)
def test_a_load_in_an_account_is_waiting_and_no_speed(
    known, told, prompt_s, generation_s, waited_s
):
    """1,000 tokens read at 500 a second, 100 said at 20, where anything is known; streamed, or in
    one piece."""
    meter = SpeedMeter()
    if known:
        meter.calibrate(500.0, 20.0)
    seen = meter.after_load(Finish("stop", 1_000, 100, prompt_s=told[0], generation_s=told[1]))
    assert (seen.prompt_s, seen.generation_s, seen.queue_s) == (prompt_s, generation_s, waited_s)
    meter.observe(seen)
    assert meter.prompt_tps >= (500.0 if known else 0.0)


def test_calibration_is_a_first_guess():
    """A trial run counts until real jobs outweigh it."""
    meter = SpeedMeter()
    meter.calibrate(500, 40)
    assert (meter.prompt_tps, meter.generation_tps) == pytest.approx((500, 40))


@pytest.mark.parametrize(
    ("in_flight", "queued", "slots", "expected"),
    [
        (0, 0, 2, 0.0),
        (1, 0, 2, 0.0),
        (2, 0, 2, 1.25),
        (2, 4, 2, 6.25),
        (1, 0, 0, 1.25),
    ],
)
def test_backlog_is_the_wait_of_a_new_job(in_flight, queued, slots, expected):
    """With jobs of 2.5 s: nothing while a slot is free, then the queue over the slots."""
    meter = SpeedMeter()
    meter.observe(finish())
    assert meter.backlog_s(in_flight, queued, slots) == pytest.approx(expected)


def test_backlog_is_zero_while_nothing_is_known():
    """No guess is made from nothing."""
    assert SpeedMeter().backlog_s(4, 4, 4) == 0.0


def test_an_answer_handed_over_in_one_piece_measures_no_speed():
    """A tool call that came at once was made before: its time is neither phase's."""
    meter = SpeedMeter()
    meter.observe(finish())
    before = meter.generation_tps, meter.prompt_tps
    meter.observe(finish(prompt_s=2.5, generation_s=1e-4))
    assert (meter.generation_tps, meter.prompt_tps) == before


def test_weights_on_a_disk_are_given_the_time_to_be_read():
    """40 GB take longer than 5; of an unknown size a middle one is assumed, and never no time."""
    assert load_guess_s(40 * 10**9) == 8 * load_guess_s(5 * 10**9) == 80.0
    assert load_guess_s(0) == LOAD_GUESS_S
