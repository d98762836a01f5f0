"""What this node does now, and whether it takes more: the owner's desk for drain and requests.

It joins three parts that know nothing of each other: the history of what entered here, the intake
with what is answered here, and the mesh, where the other nodes' counters of people come from and
which says who else could carry an answer on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from meshd.core.membership.member import Member, MeshView
from meshd.core.routing.catalogue import Offer
from meshd.core.routing.demand import capabilities_of
from meshd.core.routing.gates import can_go_on, is_open
from meshd.history import RECENT, History
from meshd.intake import Intake
from meshd.visit import Visit
from protocol.load import LoadRecord, ModelRecord


class Duty:
    """The `WorkDesk` of one node. `changed` is called when what the node says of itself did."""

    def __init__(
        self,
        intake: Intake,
        history: History,
        view: Callable[[], MeshView],
        changed: Callable[[], object],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._intake = intake
        self._history = history
        self._view = view
        self._changed = changed
        self._clock = clock
        self._heard: dict[str, LoadRecord | None] = {}

    def drain(self) -> Mapping[str, Any]:
        """See `meshd.core.ports.WorkDesk.drain`."""
        self._intake.drain()
        self._changed()
        return self.duty()

    def resume(self) -> Mapping[str, Any]:
        """See `meshd.core.ports.WorkDesk.resume`."""
        self._intake.resume()
        self._changed()
        return self.duty()

    def duty(self) -> Mapping[str, Any]:
        """See `meshd.core.ports.WorkDesk.duty`."""
        running, waiting = self._intake.counts()
        return {
            "node": self._view().myself.name,
            "draining": self._intake.draining,
            "running": running,
            "waiting": waiting,
        }

    def requests(self, limit: int = RECENT) -> Mapping[str, Any]:
        """See `meshd.core.ports.WorkDesk.requests`."""
        body = self._history.recent_body(self._clock(), limit)
        return {**self.duty(), **body, "served": self._intake.rows()}

    def request(self, request_id: str) -> Mapping[str, Any] | None:
        """See `meshd.core.ports.WorkDesk.request`."""
        return self._history.body(request_id, self._clock())

    def listen(self) -> None:
        """Take in what the view says: whom the others served, and who could take what is left here.
        Called a few times a second; costs nothing for a member that said nothing new."""
        view, now, shares = self._view(), self._clock(), self._intake.shares
        for node_id, member in view.members.items():
            if node_id == view.self_id:
                continue
            load = member.load if member.state in {"alive", "suspect"} else None
            if self._heard.get(node_id) is not load:
                self._heard[node_id] = load
                shares.heard(node_id, load.people if load else (), now)
        for node_id in self._heard.keys() - view.members.keys():
            del self._heard[node_id]
            shares.heard(node_id, (), now)
        self._intake.move_on()


def offered_elsewhere(view: MeshView, visit: Visit) -> bool:
    """Whether another node could go on with what runs here: it takes work now, can do what the job
    needs, has room for what was read and said, and has the model of this one (the same file, or
    where one of the two does not know its file, the same name; but a thought is for the file). What
    a client reads as it comes needs an engine that can go on with it, once something was said."""
    job = visit.job
    is_out = job.stream and visit.has_spoken
    mine, needs = _model(view.myself, job.model), capabilities_of(job)
    known = mine.fingerprint if mine else ""
    for node_id, member in view.members.items():
        theirs = _model(member, job.model)
        if node_id == view.self_id or not member.routable or member.load is None or theirs is None:
            continue
        state = next((each for each in member.load.models if each.model_id == job.model), None)
        if (
            is_open(Offer(member, theirs, state))
            and needs.issubset(theirs.capabilities)
            and (not is_out or can_go_on(theirs, job))
            and (not theirs.context_length or visit.tokens < theirs.context_length)
            and _is_same(known, theirs.fingerprint, by_name=not visit.thinks)
        ):
            return True
    return False


def _is_same(mine: str, theirs: str, *, by_name: bool) -> bool:
    """Whether two models of one name are the same, by their fingerprints."""
    return mine == theirs if mine and theirs else by_name


def _model(member: Member, model_id: str) -> ModelRecord | None:
    """The member's model of this name."""
    models = member.capacity.models if member.capacity else ()
    return next((each for each in models if each.model_id == model_id), None)
