"""A decision in JSON's types: every candidate, every gate, every term of the score.

The names are part of the HTTP interface and stay as they are; new ones may join. Terms are seconds
and add up to `score_s`, by which is chosen; `expected_s` is the part of it that the asker waits,
without `queue_s`, `owner_s`, `penalty_s` and `crowd_s`: `rtt_s` round trip; `backlog_s` the node's
queue, drained by its record's age; `own_dispatch_s` and `crowd_s` what this node has sent there
since; `load_s` cold start, and before it the wait for memory that busy models hold; `prefill_s` the
prompt's uncached part and `decode_s` the answer, at the node's own rates; `reading_s` the prompts
that are read beside it; `queue_s` what others wait because of this request; `batch_s` more or less
company than usual there; `pressure_s` memory pressure, and other models at work there;
`correction_s` what attempts from here have taken more, or less, than the node's rates say;
`owner_s` on battery, hot or in use; `penalty_s` errors. Where a node is not `measured`, its rates
are those hoped for of its kind of machine (`hardware`).
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from meshd.core.routing.decision import Candidate, Decision
from meshd.core.routing.demand import Demand
from meshd.core.routing.hardware import is_measured


def decision_body(demand: Demand, decision: Decision) -> dict[str, Any]:
    """The body of `/mesh/v1/explain`. Candidates are ordered: eligible first, then by score."""
    ordered = sorted(decision.candidates, key=lambda x: (bool(x.blocked_by), x.score_s))
    chosen = decision.chosen
    return {
        "model": demand.model,
        "demand": {
            "prompt_tokens": demand.prompt_tokens,
            "output_tokens": demand.output_tokens,
            "capabilities": sorted(demand.capabilities),
        },
        "chosen": chosen.offer.member.name if chosen else None,
        "chosen_id": chosen.offer.member.node_id if chosen else None,
        "reason": decision.reason,
        "candidates": [_candidate_body(candidate) for candidate in ordered],
    }


def _candidate_body(candidate: Candidate) -> dict[str, Any]:
    offer = candidate.offer
    return {
        "node": offer.member.name,
        "id": offer.member.node_id,
        "eligible": not candidate.blocked_by,
        "warm": bool(offer.load and offer.load.warm),
        "measured": is_measured(offer),
        "load_age_s": round(candidate.age_s, 3),
        "cached_ratio": round(candidate.cached_ratio, 3),
        "gates": [asdict(gate) for gate in candidate.gates],
        "terms": {name: round(value, 4) for name, value in candidate.cost._asdict().items()},
        "score_s": round(candidate.score_s, 4),
        "expected_s": round(candidate.cost.expected_s, 4),
    }
