"""What this machine has room for at one moment: looking around, once for each load."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from meshd.core.ports import MemoryLimit
from meshd.core.residency.plan import (
    Admitted,
    Refused,
    Room,
    plan_load,
    reserve_bytes,
    tightest,
)
from meshd.core.residency.residents import Resident
from meshd.engine.ledger import Ledger, Others, Promise
from meshd.engine.places import Lodger, Machine

Decision = tuple[Admitted | Refused, Mapping[str, Promise]]
"""What is to be done, and what is promised for it."""

Rule = Callable[[Sequence[Resident], Others], Decision]
"""Decides beside these residents of this daemon and these promises of the others."""


def look_around(
    machine: Machine, ledger: Ledger, kept_bytes: int | None, lodger: Lodger, *, force: bool
) -> Rule:
    """The machine's memory and its cards as they are now, and how to decide by them. `kept_bytes`
    are the owner's; None: `plan.reserve_bytes`. Blocks, for seconds where there are cards."""
    reading = machine.read()
    cards = machine.cards() if lodger.layers is not None else ()
    total, model_id = reading.memory_total_bytes, lodger.record.model_id
    limits = reading.limits or (MemoryLimit("", reading.memory_available_bytes),)
    reserve = reserve_bytes(total) if kept_bytes is None else kept_bytes

    def rule(residents: Sequence[Resident], others: Others) -> Decision:
        available, unsettled = tightest(limits, ledger.promises.values(), others)
        outcome = plan_load(
            model_id,
            lodger.need,
            Room(total, available, reserve, unsettled),
            residents,
            force=force,
            layers=lodger.layers or 0,
            cards=cards,
        )
        if isinstance(outcome, Refused):
            return outcome, {}
        return outcome, {model_id: (outcome.split.host.total_bytes, 0)}

    return rule
