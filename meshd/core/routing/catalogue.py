"""Which nodes offer which model, and what a name that a client wrote stands for.

Two spellings of one model must not become two queues: a name is matched exactly first, then as an
alias, then without regard to case and without a trailing `:latest`, then as another spelling that
can mean one model only (`meshd.core.routing.names`, which also has the reserved words). There is no
fuzzy match: a model that nobody offers is an error that lists what is offered, never a silent
substitute.

A new membership view mostly differs from the last by a few load records, and a row that did not
change is the same object. So `update` looks at each row's identity: records alone replace offers in
place, and only a change of who offers what builds the table anew. Each model's shelf counts its
changes, so that what is derived from offers knows when to look.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from meshd.core.membership.member import Member, MeshView
from meshd.core.routing.demand import capabilities_of, prompt_tokens_of
from meshd.core.routing.gates import is_open
from meshd.core.routing.names import WORDS, Known, choose, spelt
from protocol.frozen import frozen
from protocol.jobs import Job
from protocol.load import LoadRecord, ModelLoad, ModelRecord

CHAT = frozenset({"chat"})
"""What is needed where nobody says."""

UNHEARD = LoadRecord(0, 0, 0, 0, 0, "normal", accepting=True, models=())
"""Stands in for the load of a member that was not heard since this node slept."""

LATEST_TAG = ":latest"
"""The tag that Ollama adds to a name without one."""


@frozen
class Offer:
    """One model on one node: the unit that is filtered, scored and picked."""

    member: Member
    model: ModelRecord
    load: ModelLoad | None
    """The model's state in the node's last load record, or in its answer to a probe since; None
    when the record does not name it."""
    probed_at: float | None = None
    """When `load` was received, where it is the answer to a probe (monotonic s)."""

    @property
    def at(self) -> float:
        """When `load` was received (monotonic s)."""
        return self.member.load_at if self.probed_at is None else self.probed_at


@dataclass(slots=True)
class Shelf:
    """Every offer of one model."""

    offers: list[Offer] = field(default_factory=list)
    places: dict[str, int] = field(default_factory=dict)
    """Where in `offers` a node's is."""
    revision: int = 0

    def put(self, offer: Offer) -> None:
        """Add a node's offer, or replace it."""
        place = self.places.setdefault(offer.member.node_id, len(self.offers))
        self.offers[place : place + 1] = [offer]
        self.revision += 1


class Catalogue:
    """Every offer of one membership view, by canonical model id."""

    def __init__(self, view: MeshView) -> None:
        self._build(view)

    def _build(self, view: MeshView) -> None:
        self.view = view
        self._shelves: dict[str, Shelf] = {}
        self._names: dict[str, str] = {}
        aliases: dict[str, str] = {}
        for member in view.members.values():
            if member.routable:
                self._take(member, aliases)
        for alias, model_id in aliases.items():
            self._names.setdefault(alias, model_id)
        for name, model_id in list(self._names.items()):
            self._names.setdefault(_folded(name), model_id)

    def update(self, view: MeshView) -> None:
        """Follow the membership to a newer view."""
        last = self.view.members
        changed = [new for node_id, new in view.members.items() if last.get(node_id) is not new]
        same_nodes = len(view.members) == len(last)
        if not same_nodes or any(not _same_offers(last.get(new.node_id), new) for new in changed):
            self._build(view)
            return
        self.view = view
        for member in changed:
            if member.routable:
                self._refresh(member)

    def resolve(self, name: str, job: Job | None = None) -> str | None:
        """The canonical id that `name` stands for, None when nobody offers it. A reserved word
        stands for a model that can take the job: `meshd.core.routing.names`."""
        if name in WORDS:
            if job is None:
                return choose(name, self._known(), CHAT)
            return choose(name, self._known(), capabilities_of(job), prompt_tokens_of(job))
        return self._names.get(name) or self._names.get(_folded(name)) or spelt(name, self._known())

    def shelf(self, model_id: str) -> Shelf:
        """The offers of a canonical id, with their places and revision."""
        return self._shelves.get(model_id) or Shelf()

    def offers(self, model_id: str) -> list[Offer]:
        """Who offers a canonical id; in no particular order."""
        return self.shelf(model_id).offers

    def models(self) -> Mapping[str, list[Offer]]:
        """All offers by canonical id."""
        return {model_id: shelf.offers for model_id, shelf in self._shelves.items()}

    def _known(self) -> Iterable[Known]:
        for model_id, shelf in self._shelves.items():
            records = [offer.model for offer in shelf.offers]
            taking = [offer.model.context_length for offer in shelf.offers if is_open(offer)]
            yield Known(
                model_id,
                tuple([alias for record in records for alias in record.aliases]),
                next((record.quantisation for record in records if record.quantisation), ""),
                frozenset([word for record in records for word in record.capabilities]),
                max(record.size_bytes for record in records),
                any(offer.load is not None and offer.load.warm for offer in shelf.offers),
                all(record.emulated for record in records),
                bool(taking),
                0 if 0 in taking else max(taking, default=0),
            )

    def _take(self, member: Member, aliases: dict[str, str]) -> None:
        assert member.capacity is not None
        loads = _loads_of(member)
        for model in member.capacity.models:
            shelf = self._shelves.setdefault(model.model_id, Shelf())
            shelf.put(Offer(member, model, loads.get(model.model_id)))
            self._names[model.model_id] = model.model_id
            for alias in model.aliases:
                aliases.setdefault(alias, model.model_id)

    def _refresh(self, member: Member) -> None:
        """Only the member's records, state or path changed. What a probe has told since its last
        record stays."""
        assert member.capacity is not None
        loads = _loads_of(member)
        for model in member.capacity.models:
            shelf = self._shelves[model.model_id]
            last = shelf.offers[shelf.places[member.node_id]]
            if last.probed_at is not None and last.probed_at > member.load_at:
                shelf.put(Offer(member, model, last.load, last.probed_at))
            else:
                shelf.put(Offer(member, model, loads.get(model.model_id)))


def holders_away(view: MeshView, job: Job) -> list[Member]:
    """Members that offer what the job names, and get no work because they are doubted or gone, or
    because they have not been heard since this node slept."""
    known = {
        node_id: replace(member, state="alive", load=member.load or UNHEARD)
        for node_id, member in view.members.items()
        if (member.load is None) == (member.state == "alive") and member.capacity is not None
    }
    catalogue = Catalogue(replace(view, members=known))
    model_id = catalogue.resolve(job.model, job)
    offers = catalogue.offers(model_id) if model_id is not None else []
    return [view.members[offer.member.node_id] for offer in offers]


def _same_offers(last: Member | None, new: Member) -> bool:
    return last is not None and last.routable == new.routable and last.capacity == new.capacity


def _loads_of(member: Member) -> dict[str, ModelLoad]:
    assert member.load is not None
    return {load.model_id: load for load in member.load.models}


def _folded(name: str) -> str:
    return name.casefold().removesuffix(LATEST_TAG)
