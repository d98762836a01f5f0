"""Three nodes that answer by script, and one story that any of them can tell from any word on."""

from __future__ import annotations

import asyncio
import time
from random import Random

from meshd.core.ports import Note
from meshd.core.routing.router import Router
from meshd.gateway import MeshGateway
from meshd.history import History
from protocol.jobs import Failure, Finish, Queued, TextDelta
from tests.core.routing.fleet import load, member, model, model_load, view

DONE = Finish("stop", 3, 2)
REFUSED = Failure("overloaded", "full", elsewhere=True)
BROKEN = Failure("engine_failed", "crashed", elsewhere=True)
GONE = Failure("unreachable", "the connection closed", elsewhere=True)
LEAVING = Failure("draining", "this node is shutting down", elsewhere=True)
STALL = "stall"
WORDS = [TextDelta("Par"), TextDelta("is"), DONE]
OPTIONS = ("peers", "fingerprints", "clock")
SPEEDS = (1000.0, 100.0, 10.0)
"""Of node1, node2 and node3: the best first."""

STORY = [f"word{number} " for number in range(12)]
PROMPT_TOKENS = 7


class Neighbours:
    """The `Peers` of a gateway: who answers a nudge, and what a probe tells."""

    def __init__(self, *silent, loads=None):
        self.silent = set(silent)
        self.loads = loads or {}
        self.nudged = []
        self.probed = []

    async def probe(self, to, model_id, timeout_s):
        """What was stated, or no answer."""
        self.probed.append(to.name)
        if to.name not in self.loads:
            raise TimeoutError
        return self.loads[to.name]

    def nudge(self, to):
        """Remembered."""
        self.nudged.append(to.name)

    def silent_s(self, to):
        """For ever, or not at all."""
        return 3600.0 if to.name in self.silent else 0.0


class Household:
    """Records who was asked and which streams were closed."""

    def __init__(
        self,
        peers=None,
        hedges=None,
        fingerprints=("same",) * 3,
        clock=time.monotonic,
        **scripts,
    ):
        self.scripts = scripts
        self.asked = []
        self.jobs = []
        self.closed = []
        self.told = []
        self.members = [
            member(
                number + 1,
                model(fingerprint=mark),
                load=load(model_load(generation_tps=tps)),
            )
            for number, (tps, mark) in enumerate(zip(SPEEDS, fingerprints, strict=True))
        ]
        self.version = 0
        self.router = Router(Random(1))
        self.history = History()
        self.gateway = MeshGateway(
            self.router,
            self.view,
            self.generate,
            status=dict,
            members=dict,
            unreachable=lambda node_id, _cause: self.told.append(node_id),
            peers=peers,
            hedges=hedges,
            history=self.history,
            clock=clock,
        )
        self.seen = view(*self.members)

    def view(self):
        """What the gateway sees now."""
        return self.seen

    def become(self, *members):
        """The household is another from now on."""
        self.members = list(members)
        self.seen = view(*self.members)

    async def until_asked(self, name):
        """Returns once an attempt is at the node."""
        while name not in self.asked:  # noqa: ASYNC110 - what it waits for has no event
            await asyncio.sleep(0.005)

    def replace(self, number, changed):
        """Member `number` is another now, and the gateway is told."""
        self.members[number - 1] = changed
        self.seen = view(*self.members)
        self.gateway.view_changed(self.seen)

    async def generate(self, to, job, _demand):
        """The script of a node; of a list of lists each attempt takes the next."""
        self.asked.append(to.name)
        self.jobs.append(job)
        try:
            async for batch in self.batches(to, job):
                yield batch
        finally:
            self.closed.append(to.name)

    async def batches(self, to, job):
        """One event after the other, or a batch where the script has one."""
        for step in self.scripts[to.name]:
            if step == STALL:
                await asyncio.sleep(3600)
            elif isinstance(step, float):
                await asyncio.sleep(step)
            else:
                yield step if isinstance(step, list) else [step]

    async def read(self, job):
        """Submit and read to the end: (head, events)."""
        answer = await self.gateway.submit(job)
        return answer.head, [event async for batch in answer.events for event in batch]

    @property
    def is_tidy(self):
        """No lease, no open stream, no open request."""
        return (
            len(self.router.ledger) == 0
            and sorted(self.asked) == sorted(self.closed)
            and not self.gateway.open_attempts
            and not self.history.recent_body(0.0)["open"]
        )


class Storytellers(Household):
    """Each node tells STORY, from the word that a job says; `ends` maps a node to how many words it
    says in each of its attempts and what happens then."""

    def __init__(self, *, ids=True, last="stop", **ends):
        options = {name: ends.pop(name) for name in OPTIONS if name in ends}
        super().__init__(**options)
        self.ends = {name: list(attempts) for name, attempts in ends.items()}
        self.ids = ids
        self.last = last

    async def batches(self, to, job):
        """The rest of the story, a word at a time."""
        attempts = self.ends.get(to.name, [])
        count, end = attempts.pop(0) if attempts else (len(STORY), None)
        first = len(job.prefix_tokens or job.prefix_text.split())
        last = len(STORY) if job.max_tokens is None else min(len(STORY), first + job.max_tokens)
        for number in range(first, min(last, first + count)):
            yield [TextDelta(STORY[number], (number,) if self.ids else ())]
            await asyncio.sleep(0)
        if end == STALL:
            await asyncio.sleep(3600)
        elif end is not None:
            yield [end]
        else:
            yield [Finish(self.last, PROMPT_TOKENS + first, last - first)]


def text_of(events):
    """What a client reads."""
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def notes_of(events):
    """What it may read in comments."""
    return [event.text for event in events if isinstance(event, Note)]


def places_of(events):
    """Where it was told that its job waits."""
    return [event.position for event in events if isinstance(event, Queued)]
