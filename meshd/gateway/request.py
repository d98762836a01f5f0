"""One request on its way: what is asked, what was tried, and what the client has been given."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import replace

from meshd.core.membership.member import MeshView
from meshd.core.ports import AnswerHead
from meshd.core.routing.catalogue import Offer
from meshd.core.routing.demand import Demand
from meshd.core.routing.gates import can_go_on
from meshd.core.routing.router import Candidate, Decision
from meshd.gateway.attempt import Attempt
from meshd.gateway.continuation import Said
from meshd.gateway.means import Means
from meshd.history import Story
from protocol.jobs import Failure, Finish, Job
from protocol.load import ModelLoad

ATTEMPTS_MAX = 8
"""Nodes tried for one request: more than a household has, and a bound on a storm of refusals."""

PROBE_BUDGET_S = 0.01
"""How long a choice waits for fresh news of the best two: five round trips of a busy Wi-Fi."""

LOST = frozenset({"unreachable", "draining", "timeout"})
"""Failures that say more of the way to a node, or of a moment, than of the node."""

FORGIVEN_S = 2.0
"""How long a node that was lost is left alone, even where nobody else is left: by then it has been
heard again if it is there, or is suspected."""

REQUEST_ID_ROOM = 80
"""Of a request id, beside the number of the attempt."""


class Request:
    """Made when a job arrives. Not for use by two tasks at once, but for a hedge and its first."""

    __slots__ = (
        "_asked", "_excluded", "_fingerprint", "_lost_at", "_unable", "began_at", "demand", "job",
        "means", "queued_s", "said", "story", "tries",
    )  # fmt: skip

    def __init__(self, means: Means, job: Job, demand: Demand, story: Story, now: float) -> None:
        self.means = means
        self.job = job
        self.demand = self._asked = demand
        self.story = story
        self.began_at = now
        self.said = Said()
        self.tries = 0
        """Attempts made; the number of the last."""
        self._excluded: dict[str, int] = {}
        """The runs of nodes (boot id by node id) that will not be asked again."""
        self._lost_at: dict[str, float] = {}
        """When each of them was lost that was; the others said no."""
        self._unable: dict[str, int] = {}
        """Those that cannot go on with what another began."""
        self.queued_s = 0.0
        """How long the last attempt has waited for a place, as its node told."""
        self._fingerprint = ""
        """Of the weights that the client was answered from, where it was."""

    async def choose(self, beside: Collection[str] = ()) -> Decision:
        """Where to try next; those in `beside` are being tried. Asks the best two how they do
        where their records leave it open."""
        means = self.means
        decision = self.best(beside)
        if decision.probe is not None and means.peers is not None:
            fresh = await self._probed(decision.probe)
            decision = means.router.reconsider(decision, fresh, means.clock())
        self.story.decided(self.demand, decision)
        return decision

    def best(self, beside: Collection[str] = ()) -> Decision:
        """The choice by the records at hand. What a client has begun to read goes on at the same
        weights if anybody has them, and never at others, nor at a server that cannot go on."""
        means = self.means
        router, view, now = means.router, means.view(), means.clock()
        excluded = self._left_out(view, beside)
        said = self.said
        if not said.begun:
            return router.choose(view, self.demand, now, excluded)
        known, anew = self._fingerprint, said.is_only_thought
        others, strangers = set(excluded), set(excluded)
        for offer in router.catalogue(view).offers(self.demand.model):
            node_id, mark = offer.member.node_id, offer.model.fingerprint
            if mark != known:
                others.add(node_id)
            if (mark and known and mark != known) or not (anew or can_go_on(offer.model, self.job)):
                strangers.add(node_id)
        if known:
            decision = router.choose(view, self.demand, now, others)
            if decision.chosen is not None or said.calls:
                return decision
        return router.choose(view, self.demand, now, strangers)

    def _left_out(self, view: MeshView, beside: Collection[str]) -> Collection[str]:
        """Nodes that are not to be asked: those in `beside`, and runs that have failed."""
        if not self._excluded and not self._unable:
            return frozenset(beside)
        members = view.members
        failed = {
            node_id
            for node_id, boot_id in (self._unable | self._excluded).items()
            if node_id in members and members[node_id].boot_id == boot_id
        }
        return failed.union(beside)

    def attempt(self, decision: Decision, why: str, limit_s: float) -> Attempt:
        """A try at the chosen node; whoever gets it ends it. `why` is one of `history.WHYS`."""
        candidate = decision.chosen
        assert candidate is not None
        means = self.means
        self.tries += 1
        member = candidate.offer.member
        record = self.story.attempt_started(member.node_id, member.name, means.clock(), why)
        return Attempt(means, decision, self._job_for(candidate), record, limit_s)

    def has_same_file(self, candidate: Candidate) -> bool:
        """Whether this candidate has the model file of the node that answered last."""
        mark = candidate.offer.model.fingerprint
        return mark != "" and mark == self._fingerprint

    def failed(self, attempt: Attempt, failure: Failure) -> None:
        """Not there again: except where only a worker died in the middle of an answer, which will
        be back in a moment, while its breaker sends the next attempt to others that can."""
        if self.said.begun and failure.code == "unsupported":
            self._unable[attempt.node_id] = attempt.candidate.offer.member.boot_id
        elif failure.code != "engine_failed" or not self.said.begun:
            self._exclude(attempt, failure)

    def forgive(self) -> None:
        """Nobody else is left: nodes that were lost, and were heard from since, may be asked again.
        A cable was put back, a laptop was opened."""
        view, now = self.means.view(), self.means.clock()
        for node_id, lost_at in list(self._lost_at.items()):
            member = view.members.get(node_id)
            if member is None or node_id == view.self_id or now - lost_at < FORGIVEN_S:
                continue
            if member.heard_at > lost_at:
                del self._lost_at[node_id]
                self._excluded.pop(node_id, None)

    def _exclude(self, attempt: Attempt, failure: Failure) -> None:
        """Not there again, unless it is started anew, or was only lost."""
        self._excluded[attempt.node_id] = attempt.candidate.offer.member.boot_id
        if failure.code in LOST:
            self._lost_at[attempt.node_id] = self.means.clock()

    @property
    def has_lost_a_peer(self) -> bool:
        """Whether another machine was asked in vain; it may be started anew."""
        return bool(self._excluded.keys() - {self.means.view().self_id})

    def answered_by(self, attempt: Attempt) -> None:
        """This attempt has begun to answer."""
        self._fingerprint = attempt.candidate.offer.model.fingerprint

    @property
    def may_start_over(self) -> bool:
        """Whether somebody is there who could begin at the beginning."""
        view, means = self.means.view(), self.means
        excluded = self._left_out(view, ())
        return means.router.choose(view, self._asked, means.clock(), excluded).chosen is not None

    def start_over(self, attempt: Attempt, failure: Failure) -> None:
        """Nothing of what was collected has left: another begins at the beginning, also one that
        could only not go on."""
        self._exclude(attempt, failure)
        self._unable.clear()
        self.said, self.demand = Said(), self._asked

    def carried_on(self, attempt: Attempt, failure: Failure) -> None:
        """Somebody is to go on where `attempt` failed: what was said is a part of the prompt."""
        self.failed(attempt, failure)
        asked, tokens = self._asked, self.said.tokens
        self.demand = replace(
            asked,
            prompt_tokens=asked.prompt_tokens + tokens,
            output_tokens=max(1, asked.output_tokens - tokens),
        )

    def seam_note(self, attempt: Attempt) -> str:
        """What a client may read of a seam."""
        same_file = self.has_same_file(attempt.candidate)
        if self.said.is_only_thought and not same_file:
            return f"begun anew on {attempt.name}"
        by_ids = same_file and self.said.exact
        return f"continued on {attempt.name}" + ("" if by_ids else " from its text")

    def ending(self) -> Finish:
        """The end of an answer whose last word got lost: it is as long as it may be."""
        return Finish(
            "length",
            prompt_tokens=self._asked.prompt_tokens,
            completion_tokens=self.said.tokens,
            counted=False,
        )

    def newest_offer(self, attempt: Attempt) -> Offer:
        """What is known now of the node that answers."""
        means = self.means
        offers = means.router.catalogue(means.view()).offers(self.demand.model)
        known = (offer for offer in offers if offer.member.node_id == attempt.node_id)
        return next(known, attempt.candidate.offer)

    def head(self, attempt: Attempt) -> AnswerHead:
        """Who answers, as it stands now."""
        offer, reason = attempt.candidate.offer, attempt.decision.reason
        waited_s = attempt.sent_at - self.began_at + self.queued_s
        return AnswerHead(
            self.job.request_id,
            offer.member.name,
            offer.member.node_id,
            offer.model.model_id,
            self.tries,
            reason if self.tries == 1 else f"{reason}; attempt {self.tries}",
            round(attempt.candidate.age_s * 1000),
            round(waited_s * 1000),
            offer.model.emulated,
        )

    def _job_for(self, candidate: Candidate) -> Job:
        """The job under the model's canonical name, with a request id of this attempt's own: a
        peer that gets two attempts must not confuse them. Most jobs are sent once, as they came."""
        job, model = self.job, self.demand.model
        if self.said.begun:
            job = self.said.resumed(job, same_file=self.has_same_file(candidate))
        if self.tries == 1 and job.model == model:
            return job
        number = f"{job.request_id[:REQUEST_ID_ROOM]}.{self.tries}"
        return replace(job, model=model, request_id=number)

    async def _probed(self, two: Collection[Candidate]) -> dict[str, ModelLoad]:
        """What the best two say of themselves within the budget, by node id."""
        peers = self.means.peers
        assert peers is not None
        members = [candidate.offer.member for candidate in two]
        asked = (peers.probe(each, self.demand.model, PROBE_BUDGET_S) for each in members)
        answers = await asyncio.gather(*asked, return_exceptions=True)
        return {
            member.node_id: answer
            for member, answer in zip(members, answers, strict=True)
            if isinstance(answer, ModelLoad)
        }
