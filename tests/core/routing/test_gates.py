"""Each gate says no for one reason, in words."""

import pytest

from meshd.core.routing.catalogue import Offer
from meshd.core.routing.demand import Demand
from meshd.core.routing.gates import blocked_by, gates
from tests.core.routing.fleet import MODEL, load, member, model, model_load

DEMAND = Demand(MODEL, frozenset({"chat"}), prompt_tokens=1_400, output_tokens=10)


def verdicts(*, demand=DEMAND, open_s=0.0, excluded=False, record=None, of=None):
    """All gates for one offer."""
    offer = Offer(member(1, load=record or load()), of or model(), model_load())
    return gates(offer, demand, breaker_open_s=open_s, excluded=excluded)


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
