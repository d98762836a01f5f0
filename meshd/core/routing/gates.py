"""Filter: who may take this job at all. A gate says no for one reason, in words for a person.

Gates come before the score because no price makes up for them: a model that cannot see, a context
that is too short, a machine about to swap. Each gate is one line of GATES; `explain` prints all of
them for every candidate, so the table is also the documentation.

The breaker is a soft gate. When nothing else is left, trying a node that failed a moment ago beats
refusing the client; every other gate is hard.
"""

from __future__ import annotations

from dataclasses import dataclass

from meshd.core.routing.catalogue import Offer
from meshd.core.routing.demand import Demand
from protocol.load import LoadRecord

CONTEXT_SLACK_RATIO = 1.5
"""How far the token estimate may be off: only a prompt that is too long even then is filtered."""

BREAKER = "breaker"


@dataclass(frozen=True, slots=True)
class Gate:
    """One verdict."""

    name: str
    ok: bool
    detail: str


def gates(
    offer: Offer, demand: Demand, *, breaker_open_s: float, excluded: bool
) -> tuple[Gate, ...]:
    """Every gate for one offer, in the order of their cost to the person who hits them."""
    load = offer.member.load
    assert load is not None
    return (
        _capability(offer, demand),
        _context(offer, demand),
        _accepting(load),
        _pressure(load),
        Gate("attempt", not excluded, "already tried for this request" if excluded else ""),
        Gate(
            BREAKER,
            breaker_open_s <= 0,
            f"failed lately, next try in {breaker_open_s:.1f} s" if breaker_open_s > 0 else "",
        ),
    )


def blocked_by(verdicts: tuple[Gate, ...]) -> tuple[str, ...]:
    """Names of the gates that said no; empty for an eligible offer."""
    return tuple(gate.name for gate in verdicts if not gate.ok)


def _capability(offer: Offer, demand: Demand) -> Gate:
    missing = sorted(demand.capabilities.difference(offer.model.capabilities))
    return Gate("capability", not missing, f"cannot do: {', '.join(missing)}" if missing else "")


def _context(offer: Offer, demand: Demand) -> Gate:
    longest = offer.model.context_length
    fits = longest == 0 or demand.prompt_tokens <= longest * CONTEXT_SLACK_RATIO
    detail = f"about {demand.prompt_tokens} tokens, context {longest}"
    return Gate("context", fits, "" if fits else detail)


def _accepting(load: LoadRecord) -> Gate:
    if load.draining:
        return Gate("accepting", False, "draining")
    return Gate("accepting", load.accepting, "" if load.accepting else "not accepting work")


def _pressure(load: LoadRecord) -> Gate:
    critical = load.pressure == "critical"
    return Gate("pressure", not critical, "memory pressure is critical" if critical else "")
