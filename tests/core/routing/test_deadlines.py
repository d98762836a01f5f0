"""How long an attempt may be silent, phase by phase."""

from dataclasses import replace

import pytest

from meshd.core.routing import deadlines as rules
from meshd.core.routing.catalogue import Offer
from meshd.core.routing.cost import Cost
from meshd.core.routing.deadlines import first_event_deadline_s, inter_token_deadline_s
from meshd.core.routing.decision import Candidate
from meshd.core.routing.demand import demand_of
from tests.core.routing.fleet import MODEL, chat, load, member, model, model_load

PLAIN = chat(stream=True, max_tokens=None)
TOOLS = ({"type": "function", "function": {"name": "write"}},)


def cost(*, prefill_s=0.0, decode_s=0.0, rtt_s=0.0):
    """A cost of these terms and nothing else."""
    return Cost(rtt_s, 0.0, 0.0, 0.0, prefill_s, decode_s, 0.0)


def deadline(*, prefill_s=0.0, decode_s=0.0, alternatives=True, state=None, **job_changes):
    """The patience for one chat at a node with these two phases."""
    job = chat(**{"stream": True, **job_changes})
    priced = cost(prefill_s=prefill_s, decode_s=decode_s)
    node = Offer(member(1), model(), state or model_load(slots=1))
    chosen = Candidate(node, priced, priced.total_s, 0.0, demand_of(job, MODEL), 1.0, 0.0)
    return first_event_deadline_s(job, chosen, alternatives=alternatives)


def test_patience_is_a_multiple_of_what_was_expected():
    """A long prefill on a slow machine is given its time."""
    assert deadline(prefill_s=30.0) == 30.0 * rules.PATIENCE_FACTOR


def test_patience_lasts_for_everybody_who_may_be_read_beside_it():
    """Seven more prompts as long may come after it, and share the machine."""
    alone_s = 3.0 * rules.PATIENCE_FACTOR
    assert deadline(prefill_s=3.0, state=model_load(slots=8)) == alone_s + 7 * 3.0


def test_a_speed_that_was_only_assumed_is_doubted():
    """A server beside a graphics card may run without it."""
    untried = model_load(slots=1, prompt_tps=0.0, generation_tps=0.0)
    patience_s = 3.0 * rules.PATIENCE_FACTOR * rules.UNMEASURED_FACTOR
    assert deadline(prefill_s=3.0, state=untried) == patience_s


def test_patience_has_a_floor_and_a_ceiling():
    """Neither a fast node nor an endless one escapes them."""
    assert deadline(prefill_s=0.01) == rules.FIRST_EVENT_FLOOR_S
    assert deadline(prefill_s=1e6) == rules.FIRST_EVENT_MAX_S


def test_without_alternatives_there_is_nothing_to_gain_by_giving_up():
    """Then only the outer limit holds."""
    assert deadline(prefill_s=0.01, alternatives=False) == rules.FIRST_EVENT_MAX_S


def test_an_answer_in_one_piece_is_given_the_time_to_be_written():
    """20 tokens in 3 s as asked for; 4,096 when nobody set a bound (expected 220)."""
    assert deadline(decode_s=3.0, stream=False) == pytest.approx(3.0 * rules.PATIENCE_FACTOR)
    unbounded = deadline(decode_s=3.0, stream=False, max_tokens=None)
    assert unbounded == pytest.approx(rules.PATIENCE_FACTOR * 3.0 * rules.UNBOUNDED_TOKENS / 220)


def test_a_call_of_a_tool_is_given_the_time_to_be_written():
    """It leaves in one piece also where the answer is streamed; where none may be made, nothing
    changes."""
    called = deadline(decode_s=3.0, tools=TOOLS)
    assert called == pytest.approx(3.0 * rules.PATIENCE_FACTOR)
    assert deadline(decode_s=3.0, tools=TOOLS, tool_choice="none") == rules.FIRST_EVENT_FLOOR_S


def offer(*, engine="llamacpp", context=0, others=False, **rates):
    """A node that decodes 100 and reads 1,000 tokens/s, alone with us or not."""
    state = model_load(**{"generation_tps": 100.0, "prompt_tps": 1_000.0, "in_flight": 1, **rates})
    record = load(state, in_flight=2 if others else 1)
    return Offer(member(1, load=record), model(engine=engine, context_length=context), state)


def silence(*, alternatives=True, job=PLAIN, **of):
    """The silence after which a stream from such a node counts as stalled."""
    return inter_token_deadline_s(job, offer(**of), alternatives=alternatives)


def test_a_stream_that_is_alone_on_its_machine_stalls_within_two_seconds():
    """There is nobody whose prompt could be read in between."""
    assert silence() == rules.INTER_TOKEN_FLOOR_S


def test_a_slow_machine_is_given_a_dozen_of_its_gaps():
    """Two tokens a second: six seconds."""
    assert silence(generation_tps=2.0) == 6.0


@pytest.mark.parametrize(("max_tokens", "tokens"), [(2_000, 2_000), (None, rules.UNBOUNDED_TOKENS)])
def test_a_stream_may_be_silent_while_a_call_is_written(max_tokens, tokens):
    """As long as the longest answer allowed takes, and longer than any other silence; where no call
    may be made, nothing changes."""
    calling = chat(stream=True, max_tokens=max_tokens, tools=TOOLS)
    expected_s = rules.INTER_TOKEN_FLOOR_S + tokens / 100.0
    assert silence(job=calling) == pytest.approx(expected_s)
    assert silence(job=calling, generation_tps=1.0) == rules.CALL_MAX_S
    assert silence(job=calling, alternatives=False) == rules.CALL_MAX_S
    assert silence(job=replace(calling, tool_choice="none")) == rules.INTER_TOKEN_FLOOR_S


def test_somebody_elses_prompt_is_waited_for():
    """One fragment of it where the engine reads in fragments, all of it where it may not."""
    fragment_s = rules.FRAGMENT_TOKENS / 1_000.0
    assert silence(others=True, context=30_000) == rules.INTER_TOKEN_FLOOR_S + fragment_s
    whole = silence(others=True, context=30_000, engine="upstream http://x")
    assert whole == rules.INTER_TOKEN_FLOOR_S + 30.0
    unknown = silence(others=True, engine="ollama")
    assert unknown == rules.INTER_TOKEN_FLOOR_S + rules.CONTEXT_UNKNOWN_TOKENS / 1_000.0


@pytest.mark.parametrize(
    "blind",
    [
        {"generation_tps": 0.0},
        {"prompt_tps": 0.0, "others": True},
        {"alternatives": False},
        {"generation_tps": 0.1},
    ],
)
def test_where_nothing_is_known_or_to_be_gained_only_the_outer_limit_holds(blind):
    """Unmeasured, or nowhere else to go, or slower than anybody would bear."""
    assert silence(**blind) == rules.INTER_TOKEN_MAX_S


def test_an_offer_without_a_state_is_given_the_outer_limit():
    """Its record does not name the model."""
    assert inter_token_deadline_s(PLAIN, Offer(member(1), model(), None), alternatives=True) == 60.0
