"""Which nodes offer which model, and what a name that a client wrote stands for.

Two spellings of one model must not become two queues: a name is matched exactly first, then as an
alias, then without regard to case and without a trailing `:latest`. There is no fuzzy match: a
model that nobody offers is an error that lists what is offered, never a silent substitute.

Building the table costs a walk over all members; it is done once per membership view and kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from meshd.core.membership.member import Member, MeshView
from protocol.load import ModelLoad, ModelRecord

LATEST_TAG = ":latest"
"""The tag that Ollama adds to a name without one."""


@dataclass(frozen=True, slots=True)
class Offer:
    """One model on one node: the unit that is filtered, scored and picked."""

    member: Member
    model: ModelRecord
    load: ModelLoad | None
    """The model's state in the node's last load record; None when the record does not name it."""


class Catalogue:
    """Every offer of one membership view, by canonical model id."""

    def __init__(self, view: MeshView) -> None:
        self.view = view
        self._offers: dict[str, list[Offer]] = {}
        self._names: dict[str, str] = {}
        aliases: dict[str, str] = {}
        for member in view.members.values():
            if member.routable:
                self._take(member, aliases)
        for alias, model_id in aliases.items():
            self._names.setdefault(alias, model_id)
        for name, model_id in list(self._names.items()):
            self._names.setdefault(_folded(name), model_id)

    def _take(self, member: Member, aliases: dict[str, str]) -> None:
        assert member.capacity is not None
        assert member.load is not None
        loads = {load.model_id: load for load in member.load.models}
        for model in member.capacity.models:
            offer = Offer(member, model, loads.get(model.model_id))
            self._offers.setdefault(model.model_id, []).append(offer)
            self._names[model.model_id] = model.model_id
            for alias in model.aliases:
                aliases.setdefault(alias, model.model_id)

    def resolve(self, name: str) -> str | None:
        """The canonical id that `name` stands for, None when nobody offers it."""
        return self._names.get(name) or self._names.get(_folded(name))

    def offers(self, model_id: str) -> list[Offer]:
        """Who offers a canonical id; in no particular order."""
        return self._offers.get(model_id, [])

    def models(self) -> Mapping[str, list[Offer]]:
        """All offers by canonical id."""
        return self._offers


def _folded(name: str) -> str:
    return name.casefold().removesuffix(LATEST_TAG)
