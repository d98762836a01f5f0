"""The terms of the expected completion time, one at a time."""

import pytest

from meshd.core.routing import cost as rules
from meshd.core.routing.cost import cold_start_s, expected_completion
from meshd.core.routing.demand import Demand
from meshd.core.routing.ledger import Outstanding
from tests.core.routing.fleet import MODEL, load, model_load

DEMAND = Demand(MODEL, frozenset({"chat"}), prompt_tokens=200, output_tokens=50)


def cost(model=None, *, jobs=0, service_s=0.0, age_s=0.0, error_ratio=0.0, **record):
    """The cost at one machine; `record` changes its load record."""
    return expected_completion(
        DEMAND,
        load(**record),
        model or model_load(),
        Outstanding(jobs, service_s),
        rtt_s=0.5,
        age_s=age_s,
        error_ratio=error_ratio,
    )


def test_an_idle_warm_machine_costs_its_round_trip_and_its_two_phases():
    """0.5 s away, 200 tokens at 100/s, 50 tokens at 10/s."""
    idle = cost()
    assert (idle.rtt_s, idle.prefill_s, idle.decode_s) == (0.5, 2.0, 5.0)
    assert idle.total_s == 7.5
    assert idle.first_token_s == 2.5
    assert idle.service_s == 7.0


@pytest.mark.parametrize(("age_s", "left_s"), [(0.0, 3.0), (2.0, 1.0), (9.0, 0.0)])
def test_old_backlog_drains_with_its_age(age_s, left_s):
    """Work that was queued when the record was made has been done since."""
    assert cost(model_load(backlog_s=3.0), age_s=age_s).backlog_s == left_s


def test_own_dispatches_count_only_when_they_fill_the_slots():
    """The first two find a free slot each; a third waits for half of what was sent."""
    assert cost(jobs=1, service_s=4.0).own_dispatch_s == 0.0
    assert cost(jobs=2, service_s=8.0).own_dispatch_s == 4.0


def test_streams_decoded_together_slow_each_other():
    """One neighbour costs BATCH_SLOWDOWN_RATIO; the slots bound how many there can be."""
    beside_one = 5.0 * (1 + rules.BATCH_SLOWDOWN_RATIO)
    assert cost(jobs=1).decode_s == pytest.approx(beside_one)
    assert cost(model_load(in_flight=7)).decode_s == pytest.approx(beside_one)


def test_memory_pressure_slows_both_phases():
    """A machine that reclaims memory computes less."""
    pressed = cost(pressure="warn")
    assert pressed.prefill_s == 2.0 * rules.PRESSURE_WARN_FACTOR
    assert pressed.decode_s == 5.0 * rules.PRESSURE_WARN_FACTOR


def test_errors_cost_time_whoever_saw_them():
    """The worse of the node's own ratio and this router's experience."""
    assert cost(error_ratio=0.5).penalty_s == rules.ERROR_PENALTY_S / 2
    reported = expected_completion(
        DEMAND,
        load(error_ratio=0.4),
        model_load(),
        Outstanding(0, 0.0),
        rtt_s=0.0,
        age_s=0.0,
        error_ratio=0.1,
    )
    assert reported.penalty_s == rules.ERROR_PENALTY_S * 0.4


def test_rates_that_were_never_measured_are_assumed():
    """Between the slowest and the fastest machine of a household."""
    new = cost(model_load(prompt_tps=0.0, generation_tps=0.0))
    assert new.prefill_s == 200 / rules.PROMPT_TPS_UNMEASURED
    assert new.decode_s == 50 / rules.GENERATION_TPS_UNMEASURED


@pytest.mark.parametrize(
    ("model", "seconds"),
    [
        (model_load(), 0.0),
        (model_load(warm=False, load_s=3.0), 3.0),
        (model_load(warm=False), rules.LOAD_UNMEASURED_S),
        (None, rules.LOAD_UNMEASURED_S),
    ],
)
def test_a_cold_model_costs_its_load_time(model, seconds):
    """Measured where possible, assumed otherwise."""
    assert cold_start_s(model) == seconds


def test_a_machine_without_a_model_record_is_priced_by_assumption():
    """Capacity without load: cold, unmeasured, empty."""
    unknown = expected_completion(
        DEMAND, load(), None, Outstanding(0, 0.0), rtt_s=0.0, age_s=0.0, error_ratio=0.0
    )
    assert unknown.load_s == rules.LOAD_UNMEASURED_S
    assert unknown.backlog_s == 0.0
