"""Filter: who may take this job at all. A gate says no for one reason, in words for a person.

Gates come before the score because no price makes up for them: a model that cannot see, a context
that is too short, a machine about to swap. `explain` prints all of them for every candidate.

The breaker and the path are soft gates. When nothing else is left, trying a node that failed a
moment ago beats refusing the client; every other gate is hard.

When nobody passes, `refusal` says which failure that is for the client: what no node can do at all,
what no node has the memory for, or what none can take just now.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from meshd.core.routing.demand import Demand
from protocol.frozen import frozen
from protocol.jobs import Job
from protocol.load import LoadRecord, ModelRecord

if TYPE_CHECKING:  # the catalogue asks who takes work
    from meshd.core.routing.catalogue import Offer

CONTEXT_SLACK_RATIO = 1.5
"""How far the token estimate may be off: only a prompt that is too long even then is filtered."""

BREAKER = "breaker"
REACH = "reach"
SOFT = frozenset({BREAKER, REACH})
"""Gates that give way when nobody passes."""

OUR_ENGINES = ("llamacpp", "mlx", "emulated")
"""By the first word of their name; all others are servers that were adopted."""

NODE = "node"
"""First word of the engine's name where the adopted server is a node."""

GIGABYTE = 1_000_000_000


@frozen
class Gate:
    """One verdict."""

    name: str
    ok: bool
    detail: str


def gates(
    offer: Offer,
    demand: Demand,
    *,
    breaker_open_s: float,
    excluded: bool,
    unreachable_s: float = 0.0,
) -> tuple[Gate, ...]:
    """Every gate for one offer, in the order of their cost to the person who hits them."""
    load = offer.member.load
    assert load is not None
    return (
        _capability(offer, demand),
        _context(offer, demand),
        _accepting(load),
        _pressure(load),
        _memory(offer),
        Gate("attempt", not excluded, "already tried for this request" if excluded else ""),
        Gate(
            REACH,
            unreachable_s <= 0,
            f"not reachable from here, next try in {unreachable_s:.1f} s"
            if unreachable_s > 0
            else "",
        ),
        Gate(
            BREAKER,
            breaker_open_s <= 0,
            f"failed lately, next try in {breaker_open_s:.1f} s" if breaker_open_s > 0 else "",
        ),
    )


def blocked_by(verdicts: tuple[Gate, ...]) -> tuple[str, ...]:
    """Names of the gates that said no; empty for an eligible offer."""
    return tuple(gate.name for gate in verdicts if not gate.ok)


def fits(offer: Offer, demand: Demand) -> bool:
    """Whether the demand passes the gates that depend on what it is: capability and context."""
    longest = offer.model.context_length
    return demand.capabilities.issubset(offer.model.capabilities) and (
        longest == 0 or demand.prompt_tokens <= longest * CONTEXT_SLACK_RATIO
    )


def is_open(offer: Offer) -> bool:
    """Whether the node passes the gates that depend on its records alone: accepting, pressure,
    memory."""
    load = offer.member.load
    assert load is not None
    accepting = load.accepting and not load.draining and load.pressure != "critical"
    return accepting and _missing_bytes(offer) == 0


def is_ours(model: ModelRecord) -> bool:
    """Whether the model runs in an engine of ours, and not in an adopted server."""
    return model.engine.split(" ")[0] in OUR_ENGINES


def is_second_hand(model: ModelRecord) -> bool:
    """Whether the adopted server is a node itself: there it may come from anywhere, even here."""
    return model.engine.split(" ")[0] == NODE


def can_go_on(model: ModelRecord, job: Job) -> bool:
    """Whether its engine could go on with an answer to this job of which some was said elsewhere:
    an adopted server can only where that is simply more of the prompt."""
    return is_ours(model) or (job.kind == "completion" and job.prompt is not None)


def refusal(blocked: Collection[Collection[str]]) -> str:
    """The failure code (protocol.jobs.FAILURES) for candidates blocked by these gates each."""
    if blocked and all("capability" in names for names in blocked):
        return "unsupported"
    if blocked and all({"capability", "context"} & set(names) for names in blocked):
        return "context_length_exceeded"
    if any("memory" in names for names in blocked) and all(
        {"capability", "context", "memory"} & set(names) for names in blocked
    ):
        return "insufficient_memory"
    return "overloaded"


def _capability(offer: Offer, demand: Demand) -> Gate:
    missing = sorted(demand.capabilities.difference(offer.model.capabilities))
    return Gate("capability", not missing, f"cannot do: {', '.join(missing)}" if missing else "")


def _context(offer: Offer, demand: Demand) -> Gate:
    longest = offer.model.context_length
    fits_in = longest == 0 or demand.prompt_tokens <= longest * CONTEXT_SLACK_RATIO
    detail = f"about {demand.prompt_tokens} tokens, context {longest}"
    return Gate("context", fits_in, "" if fits_in else detail)


def _accepting(load: LoadRecord) -> Gate:
    if load.draining:
        return Gate("accepting", False, "draining")
    return Gate("accepting", load.accepting, "" if load.accepting else "not accepting work")


def _pressure(load: LoadRecord) -> Gate:
    critical = load.pressure == "critical"
    return Gate("pressure", not critical, "memory pressure is critical" if critical else "")


def _memory(offer: Offer) -> Gate:
    missing = _missing_bytes(offer)
    detail = (
        f"needs {offer.model.size_bytes / GIGABYTE:.1f} GB, {missing / GIGABYTE:.1f} GB too much"
        if missing
        else ""
    )
    return Gate("memory", not missing, detail)


def _missing_bytes(offer: Offer) -> int:
    """What the machine lacks to hold the weights: 0 when they are there or on their way, or when
    they fit into what is free and what its other models hold, an accelerator's own memory counted
    as free. Idle ones go at once, busy ones are waited for, which the node counts as part of the
    load. What is promised to models that are in memory, or on their way into it, is no sum to take
    away but what their going gives back. The node, which knows better, reserves before it loads.
    """
    load, capacity, state = offer.member.load, offer.member.capacity, offer.load
    if state is None or state.warm or state.in_flight or state.queued or offer.model.emulated:
        return 0
    assert load is not None
    assert capacity is not None
    held = {each.model_id for each in load.models if each.warm or each.in_flight}
    weights = sum(each.size_bytes for each in capacity.models if each.model_id in held)
    room = load.memory_available_bytes + sum(gpu.memory_bytes for gpu in capacity.gpus)
    return max(0, offer.model.size_bytes - room - max(weights, load.reserved_bytes))
