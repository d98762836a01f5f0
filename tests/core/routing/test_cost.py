"""The terms of the expected completion time, one at a time."""

import pytest

from meshd.core.routing import cost as rules
from meshd.core.routing.cost import cold_start_s, expected_completion, price_of
from meshd.core.routing.demand import Demand
from meshd.core.routing.experience import Experience
from meshd.core.routing.hardware import ANY_MACHINE
from meshd.core.routing.ledger import Outstanding
from tests.core.routing.fleet import MODEL, load, model_load

DEMAND = Demand(MODEL, frozenset({"chat"}), prompt_tokens=200, output_tokens=50)
ALONE = Experience()


def price(model=None, *, experience=ALONE, **record):
    """The price of one machine, half a second away; `record` changes its load record."""
    return price_of(load(**record), model or model_load(), at=0.0, rtt_s=0.5, experience=experience)


def cost(model=None, *, jobs=0, service_s=0.0, age_s=0.0, errors=0.0, cached=0.0, **record):
    """The cost at one machine."""
    return expected_completion(
        DEMAND,
        price(model, **record),
        Outstanding(jobs, service_s),
        age_s,
        error_ratio=errors,
        cached_ratio=cached,
    )


def test_an_idle_warm_machine_costs_its_round_trip_and_its_two_phases():
    """0.5 s away, 200 tokens at 100/s, 50 tokens at 10/s."""
    idle = cost()
    assert (idle.rtt_s, idle.prefill_s, idle.decode_s) == (0.5, 2.0, 5.0)
    assert idle.total_s == 7.5
    assert idle.first_token_s == 2.5
    assert idle.service_s == 7.0
    assert idle.generation_s == 5.0


@pytest.mark.parametrize(("age_s", "left_s"), [(0.0, 3.0), (2.0, 1.0), (9.0, 0.0)])
def test_old_backlog_drains_with_its_age(age_s, left_s):
    """Work that was queued when the record was made has been done since."""
    assert cost(model_load(backlog_s=3.0), age_s=age_s).backlog_s == left_s


def test_a_second_in_a_queue_costs_those_behind_as_well():
    """The wait is priced for them, and is not part of the expected time to the first token."""
    waiting = cost(model_load(backlog_s=3.0))
    assert waiting.queue_s == rules.QUEUE_RATIO * 3.0
    assert waiting.first_token_s == 0.5 + 3.0 + 2.0


def test_prompts_that_are_read_together_share_the_machine():
    """As much of each of the others as of the own: 200 tokens of one of 1,000 tokens, and not more
    than what is left; what they lose by it is a part of the price."""
    assert cost(model_load(reading=1, unread_tokens=1_000)).reading_s == 2.0
    assert cost(model_load(reading=2, unread_tokens=1_000)).reading_s == 4.0
    beside = cost(model_load(reading=1, unread_tokens=50))
    assert beside.reading_s == beside.queue_s == 0.5
    assert beside.first_token_s == 0.5 + 2.0 + 0.5
    assert beside.service_s == 7.5


def test_what_was_being_read_has_been_read_since():
    """Ten seconds of reading were left when the record was made."""
    assert cost(model_load(reading=9, unread_tokens=1_000), age_s=9.5).reading_s == 0.5
    assert cost(model_load(reading=9, unread_tokens=1_000), age_s=60.0).reading_s == 0.0


def test_own_dispatches_are_being_read_as_well():
    """Nobody has told of them yet."""
    sent = Outstanding(1, 4.0, prefill_s=1.5)
    assert expected_completion(DEMAND, price(), sent, 0.0).reading_s == 1.5


def test_a_prompt_that_is_read_anew_takes_time_from_a_busy_machine():
    """Half of the slots are taken, so half of it is charged; nothing of what is cached."""
    assert cost(model_load(in_flight=1)).queue_s == 1.0
    assert cost(model_load(in_flight=2), cached=0.75).queue_s == 0.5
    assert cost().queue_s == 0.0


def test_own_dispatches_wait_only_where_they_fill_the_slots():
    """Two slots: the second job finds one free; a third and fourth wait for one and two endings."""
    assert cost(jobs=1, service_s=4.0).own_dispatch_s == 0.0
    assert cost(jobs=2, service_s=8.0).own_dispatch_s == 2.0
    assert cost(jobs=3, service_s=12.0).own_dispatch_s == 4.0


def test_own_dispatches_queue_behind_those_that_the_record_shows():
    """Where every slot is taken already, each own dispatch is one more ending to wait for."""
    assert cost(model_load(in_flight=2), jobs=1, service_s=4.0).own_dispatch_s == 2.0


def test_many_own_dispatches_on_one_record_are_charged_twice():
    """Beyond OWN_MAX_ROUNDS rounds of the slots others have surely been sending, too."""
    most = 2 * rules.OWN_MAX_ROUNDS
    assert cost(jobs=most, service_s=4.0 * most).crowd_s == 0.0
    assert cost(jobs=most + 1, service_s=4.0 * (most + 1)).crowd_s == 2.0


def test_only_company_beyond_the_usual_slows():
    """A measured rate holds the usual company already; less than that is a gain."""
    beside_one = 5.0 * rules.BATCH_SLOWDOWN_RATIO
    assert cost(model_load(in_flight=1)).batch_s == pytest.approx(beside_one)
    assert cost(model_load(in_flight=7)).batch_s == pytest.approx(beside_one)
    used_to_one = Experience(beside=1.0)
    assert cost(model_load(in_flight=1), experience=used_to_one).batch_s == 0.0
    assert cost(experience=used_to_one).batch_s < 0.0


def test_memory_pressure_slows_both_phases():
    """A machine that reclaims memory computes less."""
    pressed = cost(pressure="warn")
    assert pressed.pressure_s == 7.0 * rules.PRESSURE_WARN_RATIO
    assert pressed.service_s == 7.0 * (1.0 + rules.PRESSURE_WARN_RATIO)


def test_other_models_at_work_slow_both_phases():
    """They share the machine; each of them counts."""
    alone = price_of(load(), model_load(), at=0.0, rtt_s=0.0)
    beside = price_of(load(), model_load(), at=0.0, rtt_s=0.0, busy_beside=2)
    assert beside.scale == alone.scale * (1.0 + 2 * rules.BUSY_BESIDE_RATIO)


def test_what_was_seen_from_here_corrects_what_the_node_says():
    """Work that took four times what its rates promise."""
    slow = Experience(attempts=1e9, prompt_tokens=100.0, output_tokens=10.0, seconds=8.0)
    corrected = cost(experience=slow)
    assert corrected.correction_s > 6.9
    assert corrected.service_s == pytest.approx(7.0 + corrected.correction_s)
    assert corrected.first_token_s == pytest.approx(0.5 + 2.0 * corrected.service_s / 7.0)


@pytest.mark.parametrize(
    ("trouble", "ratio"),
    [
        ({"on_battery": True}, rules.ON_BATTERY_RATIO),
        ({"hot": True}, rules.HOT_RATIO),
        ({"owner_active": True}, rules.OWNER_ACTIVE_RATIO),
    ],
)
def test_a_machine_that_its_owner_needs_costs_more_than_time(trouble, ratio):
    """It is asked when the others are that much busier; its work takes no longer."""
    needed = cost(**trouble)
    assert needed.owner_s == 7.0 * ratio
    assert needed.service_s == 7.0


def test_cached_tokens_are_not_read_again():
    """Three quarters of the prompt are there."""
    assert cost(cached=0.75).prefill_s == 0.5


def test_errors_cost_time_whoever_saw_them():
    """The worse of the node's own ratio and this router's experience."""
    whole = rules.ERROR_PENALTY_S + 7.0 * rules.ERROR_FACTOR
    assert cost(errors=0.5).penalty_s == whole / 2
    assert cost(errors=0.1, error_ratio=0.5).penalty_s == whole / 2


@pytest.mark.parametrize("nothing", [0.0, 5e-324])
def test_rates_that_were_never_measured_are_assumed(nothing):
    """Between the slowest and the fastest machine of a household. A rate whose inverse is infinite
    is none: one such peer would make every comparison fail."""
    new = cost(model_load(prompt_tps=nothing, generation_tps=nothing))
    assert new.prefill_s == pytest.approx(200 / ANY_MACHINE.prompt_tps)
    assert new.decode_s == pytest.approx(50 / ANY_MACHINE.generation_tps)


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
    unknown = price_of(load(), None, at=0.0, rtt_s=0.0)
    assert unknown.load_s == rules.LOAD_UNMEASURED_S
    assert (unknown.backlog_s, unknown.slots, unknown.ahead) == (0.0, 1, 0)


def test_work_without_tokens_takes_no_time():
    """Nothing to read, nothing to write, nothing to divide by."""
    nothing = Demand(MODEL, frozenset(), prompt_tokens=0, output_tokens=0)
    idle = expected_completion(nothing, price(), Outstanding(0, 0.0), 0.0)
    assert (idle.generation_s, idle.service_s, idle.total_s) == (0.0, 0.0, 0.5)
