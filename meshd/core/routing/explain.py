"""A decision in JSON's types: every candidate, every gate, every term of the score."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from meshd.core.routing.demand import Demand
from meshd.core.routing.router import Candidate, Decision


def decision_body(demand: Demand, decision: Decision) -> dict[str, Any]:
    """The body of `/mesh/v1/explain`. Candidates are ordered: eligible first, then by score."""
    ordered = sorted(decision.candidates, key=lambda x: (bool(x.blocked_by), x.cost.total_s))
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
        "load_age_s": round(candidate.age_s, 3),
        "gates": [asdict(gate) for gate in candidate.gates],
        "terms": {name: round(value, 4) for name, value in asdict(candidate.cost).items()},
        "score_s": round(candidate.cost.total_s, 4),
    }
