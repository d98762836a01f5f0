"""How long an attempt may be silent."""

from meshd.core.routing import deadlines as rules
from meshd.core.routing.cost import Cost
from meshd.core.routing.deadlines import first_event_deadline_s
from meshd.core.routing.demand import demand_of
from tests.core.routing.fleet import MODEL, chat


def deadline(*, prefill_s=0.0, decode_s=0.0, alternatives=True, **job_changes):
    """The patience for one chat at a node with these two phases."""
    job = chat(**{"stream": True, **job_changes})
    cost = Cost(0.0, 0.0, 0.0, 0.0, prefill_s, decode_s, 0.0)
    return first_event_deadline_s(job, demand_of(job, MODEL), cost, alternatives=alternatives)


def test_patience_is_a_multiple_of_what_was_expected():
    """A long prefill on a slow machine is given its time."""
    assert deadline(prefill_s=30.0) == 30.0 * rules.PATIENCE_FACTOR


def test_patience_has_a_floor_and_a_ceiling():
    """Neither a fast node nor an endless one escapes them."""
    assert deadline(prefill_s=0.01) == rules.FIRST_EVENT_FLOOR_S
    assert deadline(prefill_s=1e6) == rules.FIRST_EVENT_MAX_S


def test_without_alternatives_there_is_nothing_to_gain_by_giving_up():
    """Then only the outer limit holds."""
    assert deadline(prefill_s=0.01, alternatives=False) == rules.FIRST_EVENT_MAX_S


def test_an_answer_in_one_piece_is_given_the_time_to_be_written():
    """20 tokens in 3 s as asked for; 4,096 when nobody set a bound (expected 220)."""
    assert deadline(decode_s=3.0, stream=False) == 3.0 * rules.PATIENCE_FACTOR
    unbounded = deadline(decode_s=3.0, stream=False, max_tokens=None)
    assert unbounded == rules.PATIENCE_FACTOR * 3.0 * rules.UNBOUNDED_TOKENS / 220
