"""Each gate says no for one reason, in words."""

from dataclasses import replace

import pytest

from meshd.core.routing.catalogue import Offer
from meshd.core.routing.demand import Demand
from meshd.core.routing.gates import blocked_by, can_go_on, fits, gates, is_open, refusal
from protocol.load import GpuRecord
from tests.core.routing.fleet import MODEL, chat, load, member, model, model_load

DEMAND = Demand(MODEL, frozenset({"chat"}), prompt_tokens=1_400, output_tokens=10)


def verdicts(*, demand=DEMAND, open_s=0.0, lost_s=0.0, excluded=False, record=None, of=None):
    """All gates for one offer."""
    offer = Offer(member(1, load=record or load()), of or model(), model_load())
    return gates(offer, demand, breaker_open_s=open_s, excluded=excluded, unreachable_s=lost_s)


def test_a_fitting_idle_node_passes_every_gate():
    """1,400 estimated tokens may be fewer than 1,000 real ones."""
    assert blocked_by(verdicts()) == ()


SEES = Demand(MODEL, frozenset({"chat", "vision"}), 10, 10)
LONG = Demand(MODEL, frozenset({"chat"}), 1_501, 10)


@pytest.mark.parametrize(
    ("case", "gate", "words"),
    [
        ({"demand": SEES}, "capability", "cannot do: vision"),
        ({"demand": LONG}, "context", "about 1501 tokens, context 1000"),
        ({"record": load(draining=True)}, "accepting", "draining"),
        ({"record": load(accepting=False)}, "accepting", "not accepting work"),
        ({"record": load(pressure="critical")}, "pressure", "memory pressure is critical"),
        ({"excluded": True}, "attempt", "already tried for this request"),
        ({"lost_s": 2.0}, "reach", "not reachable from here, next try in 2.0 s"),
        ({"open_s": 1.25}, "breaker", "failed lately, next try in 1.2 s"),
    ],
)
def test_each_gate_names_itself_and_its_reason(case, gate, words):
    """One obstacle, one gate, one sentence."""
    found = verdicts(**case)
    assert blocked_by(found) == (gate,)
    assert next(each.detail for each in found if not each.ok) == words


def test_a_model_of_unknown_context_takes_any_prompt():
    """The engine will count."""
    assert blocked_by(verdicts(demand=LONG, of=model(context_length=0))) == ()


@pytest.mark.parametrize(
    ("change", "passes"),
    [
        ({}, True),
        ({"record": load(draining=True)}, False),
        ({"record": load(accepting=False)}, False),
        ({"record": load(pressure="critical")}, False),
        ({"demand": SEES}, False),
        ({"demand": LONG}, False),
    ],
)
def test_the_short_form_agrees_with_the_verdicts(change, passes):
    """Sifting asks without words what explain answers with them."""
    demand = change.get("demand", DEMAND)
    offer = Offer(member(1, load=change.get("record") or load()), model(), model_load())
    assert (fits(offer, demand) and is_open(offer)) is passes
    assert (blocked_by(verdicts(**change)) == ()) is passes


BIG = model(size_bytes=6_000_000_000)
OTHER = model(model_id="other", size_bytes=4_000_000_000)
GB = 1_000_000_000


def memory(state, *, available=4 * GB, reserved=0, beside=(), offered=BIG, gpus=()):
    """The memory gate's words for a 6 GB model on a machine with 4 GB to spare; empty for yes."""
    named = tuple(each for each in (state, *beside) if each)
    record = load(*named, memory_available_bytes=available, reserved_bytes=reserved)
    holder = member(1, offered, OTHER, load=record)
    holder = replace(holder, capacity=replace(holder.capacity, gpus=gpus))
    every = gates(Offer(holder, offered, state), DEMAND, breaker_open_s=0.0, excluded=False)
    return next(gate.detail for gate in every if gate.name == "memory")


COLD = model_load(warm=False)


def test_a_cold_model_that_does_not_fit_is_held_back():
    """Six gigabytes into four; into eight they go."""
    assert memory(COLD) == "needs 6.0 GB, 2.0 GB too much"
    assert memory(COLD, available=8 * GB) == ""


def test_other_models_can_make_room():
    """Four gigabytes of another model go at once when nobody uses it, and are waited for else."""
    idle = model_load(model_id="other")
    assert memory(COLD, beside=(idle,)) == ""
    assert memory(COLD, available=0, reserved=6 * GB, beside=(idle,)) == ""
    assert memory(COLD, available=0, reserved=5 * GB, beside=(idle,)) != ""
    assert memory(COLD, beside=(replace(idle, in_flight=1),)) == ""
    assert memory(COLD, beside=(replace(idle, in_flight=1, warm=False),)) == ""
    assert memory(COLD, beside=(replace(idle, warm=False),)) != ""


def test_a_model_that_is_just_being_loaded_can_make_room_later():
    """It takes its memory before it is warm, and whoever asks for another waits for its turn."""
    coming = model_load(model_id="other", warm=False, queued=1)
    assert memory(COLD, available=1 * GB, reserved=6 * GB, beside=(coming,)) == ""


@pytest.mark.parametrize(
    ("state", "changes"),
    [
        (model_load(), {}),
        (model_load(warm=False, queued=1), {}),
        (None, {}),
        (COLD, {"offered": replace(BIG, emulated=True)}),
        (COLD, {"offered": replace(BIG, size_bytes=0)}),
        (COLD, {"gpus": (GpuRecord("card", 3 * GB),)}),
    ],
)
def test_what_is_there_on_its_way_or_unknown_is_left_to_the_node(state, changes):
    """Warm, being loaded, unnamed, emulated, of unknown size, or with memory on a card."""
    assert memory(state, **changes) == ""


@pytest.mark.parametrize(
    ("blocked", "code"),
    [
        ([{"capability"}, {"capability", "attempt"}], "unsupported"),
        ([{"context"}, {"capability"}], "context_length_exceeded"),
        ([{"memory"}, {"memory", "accepting"}, {"context"}], "insufficient_memory"),
        ([{"memory"}, {"accepting"}], "overloaded"),
        ([{"attempt"}], "overloaded"),
        ([], "overloaded"),
    ],
)
def test_a_refusal_says_what_would_have_to_change(blocked, code):
    """The request, the memory, or only the hour."""
    assert refusal(blocked) == code


@pytest.mark.parametrize(
    ("engine", "job", "can"),
    [
        ("llamacpp 0.3", chat(), True),
        ("upstream a server", chat(), False),
        ("upstream a server", chat(kind="completion", prompt="q"), True),
        ("upstream a server", chat(kind="completion", prompt_tokens=(1,)), False),
    ],
)
def test_an_adopted_server_goes_on_only_as_a_prompt_goes_on(engine, job, can):
    """Chats are rendered there, and begin at their beginning."""
    assert can_go_on(model(engine=engine), job) is can
