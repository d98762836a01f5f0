"""The models of this machine, in memory by turns: loaded when asked for, never beyond what fits.

One `Engine` over many model files. Each file in memory is an engine of its own (a worker process);
this part decides none of what goes in and out, it carries out what `meshd.core.residency` says:

- a job for a cold model loads it: memory is promised on the whole machine (`ledger`) before the
  worker starts, models that must go for it are ended first, and those who wait for the same model
  share one load. Loads take turns, so that two of them never count the same memory;
- whoever holds a model, even while it is loaded, makes it busy: it stays. Whoever needs its place
  waits (`foyer`), and after a while it takes no new jobs before that one's turn;
- every LOOK_S, while anything is loaded: what the workers really took is written into the promises,
  a model nobody asked for goes, and under critical pressure the coldest one goes;
- a model that cannot be loaded is set aside for places.SET_ASIDE_S, with the reason; the owner may
  ask for it at once.

The owner's words are `load` (with `force`), `unload`, `pin` and `unpin`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from time import monotonic
from typing import Any

from meshd.core.ports import EngineError, EventStream
from meshd.core.residency.offload import Split
from meshd.core.residency.plan import Refused, plan_expiry, plan_shed
from meshd.engine.failures import failure_of
from meshd.engine.foyer import Foyer
from meshd.engine.housing import Housing, Pins
from meshd.engine.ledger import Ledger
from meshd.engine.places import LoadRefused, Lodger, Machine, Place, accounted
from meshd.engine.room import look_around
from meshd.rhythm import Steady
from protocol.jobs import Failure, Job
from protocol.load import ModelLoad, ModelRecord

LOG = logging.getLogger(__name__)

LOOK_S = 2.0
"""Between two looks at memory: pressure is a ten-second average, and a look costs a millisecond."""

FIND_EVERY_S = 60.0
"""Between two looks at the disks: a model pulled a minute ago is there. Each costs some `stat`s."""

REPLANS_MAX = 8
"""A model chosen to go may become busy before it goes; then the choice is made anew."""

Find = Callable[[], Sequence[Lodger]]


class ResidentEngine:
    """`Engine` over the model files of this machine."""

    name = "llamacpp"

    def __init__(
        self,
        machine: Machine,
        ledger: Ledger,
        housing: Housing | None = None,
        *,
        wanted: Find = tuple,
        found: Find = tuple,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """`wanted` names what the owner asked for, once, and may raise EngineError; `found` names
        what else lies on the disks, every FIND_EVERY_S. Both are called in a thread."""
        self._machine = machine
        self._ledger = ledger
        self._housing = housing or Housing()
        self._pins = Pins(self._housing.state_dir)
        self._wanted = wanted
        self._found = found
        self._clock = clock
        self._places: dict[str, Place] = {}
        self._names: dict[str, str] = {}
        self._foyer = Foyer(self._places, self._loading, clock)
        self._turn = asyncio.Lock()
        self._owners: list[asyncio.Task[None]] = []
        self._starting = True

    def rehouse(self, housing: Housing) -> None:
        """Keep memory like this from now on; what is in memory stays until its time comes."""
        self._housing = housing

    async def start(self) -> None:
        """Returns when the wanted models are warm, or stay cold for want of memory, which is said
        in the log. Raises EngineError when one cannot be loaded at all."""
        await asyncio.to_thread(self._pins.load)
        self._take(await asyncio.to_thread(self._wanted))
        wanted = list(self._places.values())
        for work in (self._look_for_ever(), self._find_for_ever()):
            self._owners.append(asyncio.create_task(work, name="engine: residency"))
        for place in wanted:
            try:
                await self._warm(place)
            except LoadRefused as refused:
                LOG.warning("not loaded until there is room: %s", refused)
        self._starting = False

    async def close(self) -> None:
        self._foyer.close()
        engines = {place.engine for place in self._held()}  # one of them may be on its way out
        loads = [place.loading for place in self._places.values() if place.loading is not None]
        for task in (*self._owners, *loads):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, EngineError):
                await task
        engines |= {place.engine for place in self._held()}
        await asyncio.gather(*(engine.close() for engine in engines if engine is not None))
        self._places.clear()
        await asyncio.to_thread(self._ledger.close)

    def models(self) -> Sequence[ModelRecord]:
        """Warm ones first: a node announces no more than the wire allows."""
        return tuple(place.record() for place in self._announced())

    def stats(self) -> Sequence[ModelLoad]:
        return tuple(self._foyer.load(place) for place in self._announced())

    async def load(self, model_id: str, *, force: bool = False) -> None:
        """Make a model warm; `force` by the owner goes beyond what memory allows. Raises
        EngineError, and of it LoadRefused when the memory cannot be had."""
        place = self._place(model_id)
        if place.is_broken:
            await self._drop(place)
            place = self._place(model_id)  # its file may have been looked at meanwhile
        await self._warm(place, force=force)

    async def unload(self, model_id: str) -> None:
        """Give a model's memory back. Raises EngineError while it is busy."""
        place = self._place(model_id)
        if place.jobs or place.loading is not None:
            raise EngineError(
                f"{place.model_id} is busy: {place.jobs} requests are running or waiting, "
                "or it is being loaded; try again when they are done"
            )
        await self._drop(place)

    async def pin(self, model_id: str, *, pinned: bool = True) -> None:
        """Keep a model in memory once it is there, whatever else wants its place; or no longer.
        Raises EngineError for a model that is not known."""
        place = self._place(model_id)
        place.is_pinned = pinned
        await asyncio.to_thread(self._pins.change, place.model_id, pinned=pinned)

    def generate(self, job: Job) -> EventStream:
        return self._generate(job)

    def cached_prefixes(self, model_id: str) -> bytes:
        """What a model's cache holds, as `core.routing.prefix` tells it; empty for nothing."""
        place = self._places.get(model_id)
        return place.cached_prefixes() if place is not None else b""

    def knows(self, model: str) -> bool:
        """It is a model of this machine, by its id or another name, set aside or not."""
        return model in self._names

    def why_aside(self, model: str) -> str:
        """Why a model of this machine is set aside; empty where it is not."""
        place = self._places.get(self._names.get(model, ""))
        return place.why_aside(self._clock()) if place is not None else ""

    def id_of(self, model: str) -> str:
        """The id of a model that is known."""
        return self._names[model]

    def waits(self) -> list[Mapping[str, Any]]:
        """Which models wait for memory that others keep busy, and how long, for people."""
        return self._foyer.rows()

    @property
    def pinned(self) -> tuple[str, ...]:
        """The models that were pinned."""
        return tuple(place.model_id for place in self._places.values() if place.is_pinned)

    @property
    def reserved_bytes(self) -> int:
        """What this daemon has promised to its models."""
        return sum(reserved for reserved, _ in self._ledger.promises.values())

    # Journeys

    async def _generate(self, job: Job) -> EventStream:
        place = self._places.get(self._names.get(job.model, ""))
        if place is None or self._foyer.is_closed:
            missing = f"this machine has no model {job.model!r}"
            yield [failure_of("model_not_found", missing, elsewhere=True)]
            return
        place.jobs += 1
        asked_at = None
        try:
            if not self._foyer.is_open(place):
                asked_at = self._clock()
                words = self._foyer.admit(place, job, self._housing.wait_max_s)
                async with aclosing(words):
                    async for word in words:
                        yield [word]
                        if isinstance(word, Failure):
                            return
            assert place.engine is not None
            waited_s = 0.0 if asked_at is None else self._clock() - asked_at
            stream = place.engine.generate(replace(job, model=place.own_id()))
            async with aclosing(stream):
                async for batch in stream:
                    yield accounted(batch, waited_s) if waited_s else batch
        finally:
            place.jobs -= 1
            place.last_used_s = self._clock()
            self._foyer.tell()

    async def _warm(self, place: Place, *, force: bool = False) -> None:
        """Load, or wait for who loads it; `force` insists. One who leaves does not stop a load."""
        while not place.is_warm:
            is_own = place.loading is None
            await asyncio.wait([task := self._loading(place, force=force)])
            if task.cancelled():
                raise EngineError(f"{place.model_id} was not loaded: this engine was closed")
            try:
                task.result()
            except LoadRefused:
                if is_own or not force:
                    raise

    def _loading(self, place: Place, *, force: bool = False) -> asyncio.Task[None]:
        """The load at hand, or one that begins now."""
        if place.loading is None:
            work = self._load(place, force=force)
            task = asyncio.create_task(work, name=f"engine: load {place.model_id}")
            place.begin_loading(task, self._clock())
            return task
        return place.loading

    async def _load(self, place: Place, *, force: bool) -> None:
        async with self._turn:
            if place.engine is not None and not place.is_leaving:
                return
            began = self._clock()
            place.split = await self._make_room(place, force=force)
            engine = place.lodger.make(place.split.layers)
            try:
                await engine.start()
            except BaseException as error:
                place.trouble, place.failed_at_s = str(error), self._clock()
                await engine.close()
                await self._promise({})
                raise
            place.hold(engine)
            self._foyer.came_in(place)
            place.load_s, place.last_used_s = self._clock() - began, self._clock()
            words = filter(None, (place.split.host.words(), place.split.words()))
            LOG.info("%s is loaded: %s", place.model_id, ", ".join(words))

    async def _make_room(self, place: Place, *, force: bool) -> Split:
        """Promise the memory, end what must go: how the model is divided then, or LoadRefused."""
        fought_for: tuple[str, ...] = ()
        for _ in range(REPLANS_MAX):
            await self._promise({})
            look = partial(look_around, self._machine, self._ledger, self._housing.reserve_bytes)
            rule = await asyncio.to_thread(look, place.lodger, force=force)
            residents = self._foyer.residents(self._held())
            if self._starting and place.lodger.is_wanted:  # not in the place of one named before
                residents = [replace(each, busy=each.busy or each.kept) for each in residents]
            outcome = await asyncio.to_thread(self._ledger.decide, partial(rule, residents))
            if isinstance(outcome, Refused):
                raise LoadRefused(outcome)
            going = [self._places[model_id] for model_id in outcome.evict]
            coming = {place.model_id: outcome.split.host.total_bytes}
            if all(each.resident().may_go for each in going):
                for each in going:
                    await self._evict(each, f"makes room for {place.model_id}", coming)
            if not any(each.engine for each in going):
                return outcome.split
            fought_for = outcome.evict
        busy = f"{place.model_id} needs the memory of models that are asked for again and again"
        raise LoadRefused(Refused("overloaded", busy, fought_for))

    async def _evict(self, place: Place, why: str, coming: Mapping[str, int] | None = None) -> None:
        """End an idle model's process; its memory is back when this returns. What is `coming`
        stays promised: model id, bytes."""
        engine = place.engine
        if engine is None or not place.resident().may_go:
            return
        LOG.info("%s is unloaded: %s", place.model_id, why)
        place.is_leaving = True
        try:
            place.last = next(iter(engine.stats()), place.last)
            await engine.close()
        finally:
            place.engine, place.is_leaving = None, False
            self._foyer.went(place)
        await self._promise(coming or {})

    async def _drop(self, place: Place) -> None:
        async with self._turn:
            await self._evict(place, "it was asked for")

    async def _promise(self, coming: Mapping[str, int]) -> None:
        """Our promises are what is held now, as far as it has settled, and who is coming."""
        held = [(each.model_id, each.needs_bytes, each.worker_pid) for each in self._held()]
        held += [(key, needs_bytes, None) for key, needs_bytes in coming.items()]
        await asyncio.to_thread(self._write_down, held, coming.keys())

    def _write_down(
        self, held: Sequence[tuple[str, int, int | None]], coming: Collection[str]
    ) -> None:
        """In a thread: looking at processes, and the ledger, touch files."""
        promises = {}
        for model_id, total, pid in held:
            told = self._machine.settled_bytes(pid) if pid is not None else None
            settled = total if told is None else min(total, told)
            promises[model_id] = (total, 0 if model_id in coming else settled)
        self._ledger.update(promises)

    # Looking after memory

    async def _find_for_ever(self) -> None:
        """Models come to a disk, and leave it, while a daemon runs."""
        steady = Steady("search for models")
        while True:
            with steady:
                found = await asyncio.to_thread(self._found)
                self._follow({lodger.record.model_id: lodger for lodger in found})
                self._take(found)
            await asyncio.sleep(FIND_EVERY_S)

    def _take(self, lodgers: Sequence[Lodger]) -> None:
        """Offer these as well. Who is known by its id or its weights keeps its place."""
        weights = {place.lodger.record.fingerprint for place in self._places.values()} - {""}
        for lodger in lodgers:
            if lodger.record.fingerprint not in weights:
                model_id = lodger.record.model_id
                self._places.setdefault(model_id, Place(lodger, is_pinned=model_id in self._pins))
        self._name()

    def _follow(self, present: Mapping[str, Lodger]) -> None:
        """Cold models are what their files are now: one that moved is loaded from where it lies,
        and one whose weights are gone, or are others by now, is offered no more as it was."""
        for place in list(self._places.values()):
            is_idle = place.engine is None and not place.jobs and place.loading is None
            if not is_idle or place.lodger.is_wanted:
                continue
            lodger = present.get(place.model_id)
            if lodger and lodger.record.fingerprint == place.lodger.record.fingerprint:
                place.lodger = lodger
            else:
                del self._places[place.model_id]

    def _name(self) -> None:
        self._names = {
            alias: place.model_id
            for place in reversed(self._places.values())
            for alias in place.lodger.record.aliases
        }
        self._names |= {model_id: model_id for model_id in self._places}

    async def _look_for_ever(self) -> None:
        steady = Steady("care for models in memory")
        while True:
            await asyncio.sleep(LOOK_S)
            if not self._turn.locked() and any(self._held()):
                async with self._turn:
                    with steady:
                        await self._look()

    async def _look(self) -> None:
        for place in self._held():
            if place.is_set_aside(0.0):
                place.trouble, place.failed_at_s = place.why_aside(0.0), self._clock()
                await self._evict(place, place.trouble)
        reading = await asyncio.to_thread(self._machine.read)
        await self._promise({})
        residents = [each.resident() for each in self._held()]
        for model_id in plan_expiry(residents, self._clock(), self._housing.keep_alive_s):
            await self._evict(self._places[model_id], "nobody asked for it in a long time")
        if reading.pressure == "critical":
            coldest = plan_shed([each.resident() for each in self._held()])
            if coldest is not None:
                await self._evict(self._places[coldest], "memory pressure is critical")

    def _held(self) -> list[Place]:
        return [place for place in self._places.values() if place.engine is not None]

    def _announced(self) -> list[Place]:
        now = self._clock()
        told = [place for place in self._places.values() if not place.is_set_aside(now)]
        return sorted(told, key=lambda place: not place.is_warm)

    def _place(self, model_id: str) -> Place:
        place = self._places.get(self._names.get(model_id, ""))
        if place is None:
            raise EngineError(f"this machine has no model {model_id!r}; `meshctl models` lists all")
        return place
