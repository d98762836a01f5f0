"""One machine on paper, in virtual time: slots, a queue, a batch, a cache and a meter of speed.

A job waits for a slot, first come first served; then its prompt is read and its answer decoded. All
prompts being read share the machine's prefill rate equally; each of `b` jobs in the slots decodes
at `generation_tps / (1 + batch_slowdown * (b - 1))`. What a machine says of itself comes from the
product's own code: `SpeedMeter` learns from the jobs that end, `Reading` follows the prompts that
are being read, `admission.played` reckons the wait.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from dataclasses import dataclass, replace

from meshd.core.routing.admission import Outlook, Pace, played
from meshd.core.routing.fairness import Ticket
from meshd.core.routing.lengths import OutputLengths
from meshd.core.routing.prefix import CachedPrefixes, Cut
from meshd.core.routing.reading import Reading
from meshd.core.stats import SpeedMeter
from protocol.jobs import Finish
from protocol.load import ModelLoad

MODEL = "model"


@dataclass(frozen=True)
class Spec:
    """The true figures of one machine."""

    name: str
    prompt_tps: float
    generation_tps: float
    slots: int
    batch_slowdown: float
    conversations: int = 8
    """Prompts that it holds in its cache."""


GPU = Spec("gpu", 4_000.0, 90.0, 8, 0.05, 16)
MAC_LARGE = Spec("mac-large", 900.0, 45.0, 2, 0.2, 8)
MAC_SMALL = Spec("mac-small", 350.0, 22.0, 1, 0.3, 4)
PI = Spec("pi", 25.0, 4.0, 1, 0.8, 2)
HOUSEHOLD = (GPU, GPU, MAC_LARGE, MAC_LARGE, MAC_SMALL, MAC_SMALL, PI, PI, PI, PI)
"""2 GPU PCs, 2+2 Macs, 4 Pis."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request: when and where it enters, and how much work it is."""

    number: int
    at: float
    entry: int
    prompt_tokens: int
    output_tokens: int
    blocks: tuple[Cut, ...] = ()
    """Pieces of the prompt; `size_bytes` counts tokens."""
    guess: float = 1.0
    """The entry node's estimate of the prompt's length, over its length."""


@dataclass(slots=True, eq=False)
class Work:
    """A request at a machine."""

    request: Request
    arrived: float
    prompt_left: float = 0.0
    output_left: float = 0.0
    cached_tokens: int = 0
    started: float = 0.0
    first: float = math.inf


class Machine:
    """One machine; time only moves when `advance` is called."""

    def __init__(self, spec: Spec, wrong: tuple[float, float], *, caches: bool) -> None:
        self.spec = spec
        self.speed = 1.0
        """Below 1, everything takes longer."""
        self.fails = False
        self.now = 0.0
        self.running: list[Work] = []
        self.waiting: deque[Work] = deque()
        self.completed = 0
        self.lengths = OutputLengths()
        self.meter = SpeedMeter()
        self.meter.calibrate(spec.prompt_tps * wrong[0], spec.generation_tps * wrong[1])
        self.reading = Reading(0.0)
        self.prefixes = CachedPrefixes(spec.conversations) if caches else None
        self._held: OrderedDict[bytes, tuple[Cut, ...]] = OrderedDict()
        self._digest: bytes | None = b""

    def submit(self, request: Request, now: float) -> None:
        """A request arrives. The caller has advanced this machine to `now`."""
        self.waiting.append(Work(request, now))
        self._fill()

    def withdraw(self, request: Request) -> None:
        """Take a request out of the queue."""
        self.waiting = deque(work for work in self.waiting if work.request is not request)

    def wait_s(self, request: Request) -> float | None:
        """What the machine tells a request that waits of its start; None for one that does not."""
        places = (place for place, work in enumerate(self.waiting) if work.request is request)
        place = next(places, None)
        return None if place is None else self._outlook().waits_s[place]

    def advance(self, now: float) -> list[Work]:
        """Time passes; the jobs that ended on the way, in order."""
        ended: list[Work] = []
        while True:
            at = self.next_event()
            if at > now:
                self._progress(now - self.now)
                self.now = now
                return ended
            self._progress(at - self.now)
            self.now = at
            ended += self._turn()

    def next_event(self) -> float:
        """When the next phase of a job ends, if nothing else happens; infinite when idle."""
        if not self.running:
            return math.inf
        prefill_tps, decode_tps = self._rates()
        left = min(
            work.prompt_left / prefill_tps
            if work.prompt_left > 0
            else work.output_left / decode_tps
            for work in self.running
        )
        return self.now + left

    def would_end(self, request: Request) -> float:
        """When `request` would end if it arrived now and nothing came after it."""
        twin = Machine.__new__(Machine)
        twin.spec, twin.speed, twin.now, twin.completed = self.spec, self.speed, self.now, 0
        twin.prefixes, twin._held, twin.fails = None, self._held, False
        twin.running = [replace(work) for work in self.running]
        twin.waiting = deque(replace(work) for work in self.waiting)
        twin.meter, twin.lengths, twin.reading = SpeedMeter(), OutputLengths(), Reading(self.now)
        twin.submit(request, self.now)
        while True:
            for work in twin.advance(twin.next_event()):
                if work.request is request:
                    return twin.now

    def alone_s(self, request: Request) -> float:
        """How long `request` would take here on an idle machine: never longer than it will."""
        uncached = max(1, request.prompt_tokens - self.cached_tokens(request))
        work_s = uncached / self.spec.prompt_tps + request.output_tokens / self.spec.generation_tps
        return work_s / self.speed

    def cached_tokens(self, request: Request) -> int:
        """Tokens of the prompt that are in the cache now."""
        best = 0
        for held in self._held.values():
            for mine, its in zip(held, request.blocks, strict=False):
                if mine.key != its.key:
                    break
                best = max(best, its.size_bytes)
        return min(best, request.prompt_tokens - 1)

    def load(self, *, backlog: bool = True) -> ModelLoad:
        """What the machine would say of itself now; without `backlog`, which takes longest, less of
        it."""
        running, waiting, slots = len(self.running), len(self.waiting), self.spec.slots
        if self._digest is None and self.prefixes is not None:
            self._digest = self.prefixes.digest()
        self.reading.told_tps = self.meter.prompt_tps
        reading, unread_tokens = self.reading.left(self.now)
        return ModelLoad(
            model_id=MODEL,
            warm=True,
            slots=slots,
            in_flight=running,
            queued=waiting,
            backlog_s=self._backlog_s() if backlog else 0.0,
            prompt_tps=self.reading.tps,
            generation_tps=self.meter.generation_tps,
            load_s=0.0,
            prefixes=self._digest or b"",
            reading=reading,
            unread_tokens=unread_tokens,
        )

    def _backlog_s(self) -> float:
        """When a job that arrives now would start, as the product's intake reckons it."""
        return self._outlook().backlog_s if len(self.running) >= self.spec.slots else 0.0

    def _outlook(self) -> Outlook:
        pace = Pace(self.meter.prompt_tps, self.meter.generation_tps)
        running = [self._ticket(work) for work in self.running]
        waiting = [self._ticket(work) for work in self.waiting]
        return played(waiting, running, self.spec.slots, pace, self.now)

    def _ticket(self, work: Work) -> Ticket:
        request = work.request
        prompt_tokens = round((request.prompt_tokens - work.cached_tokens) * request.guess)
        ticket = Ticket("", prompt_tokens, self.lengths.expected(""), work.arrived)
        ticket.started = work.started
        return ticket

    def _rates(self) -> tuple[float, float]:
        reading = sum(1 for work in self.running if work.prompt_left > 0)
        crowd = 1.0 + self.spec.batch_slowdown * (len(self.running) - 1)
        prefill_tps = self.speed * self.spec.prompt_tps / max(1, reading)
        return prefill_tps, self.speed * self.spec.generation_tps / crowd

    def _progress(self, seconds: float) -> None:
        if seconds <= 0 or not self.running:
            return
        prefill_tps, decode_tps = self._rates()
        for work in self.running:
            if work.prompt_left > 0:
                work.prompt_left -= prefill_tps * seconds
            else:
                work.output_left -= decode_tps * seconds

    def _turn(self) -> list[Work]:
        """Phases that have ended end; free slots are filled."""
        ended = []
        for work in self.running:
            if work.first == math.inf and work.prompt_left <= 1e-6:
                work.prompt_left, work.first = 0.0, self.now
                self.reading.read(work.request.number, self.now)
                self._remember(work.request)
            if work.first < math.inf and work.output_left <= 1e-6:
                ended.append(work)
        for work in ended:
            self.running.remove(work)
            self.completed += 1
            finish = finish_of(work, self.now)
            self.meter.observe(finish)
            self.reading.end(work.request.number, finish, self.now)
            self.lengths.observe("", work.request.output_tokens)
        self._fill()
        return ended

    def _fill(self) -> None:
        while self.waiting and len(self.running) < self.spec.slots:
            work = self.waiting.popleft()
            request = work.request
            work.started = self.now
            work.cached_tokens = self.cached_tokens(request) if self._held else 0
            work.prompt_left = request.prompt_tokens - work.cached_tokens
            work.output_left = request.output_tokens
            guessed = round(request.prompt_tokens * request.guess)
            self.reading.begin(request.number, guessed, self.now)
            self.running.append(work)

    def _remember(self, request: Request) -> None:
        if self.prefixes is None or not request.blocks:
            return
        self.prefixes.served(request.blocks)
        keys = {cut.key for cut in request.blocks}
        for last in [last for last in self._held if last in keys]:
            del self._held[last]
        self._held[request.blocks[-1].key] = request.blocks
        while len(self._held) > self.spec.conversations:
            self._held.popitem(last=False)
        self._digest = None


def finish_of(work: Work, now: float) -> Finish:
    """The event that ends the answer."""
    return Finish(
        "stop",
        prompt_tokens=work.request.prompt_tokens,
        completion_tokens=work.request.output_tokens,
        cached_tokens=work.cached_tokens,
        prompt_s=work.first - work.started,
        generation_s=now - work.first,
        queue_s=work.started - work.arrived,
    )
