"""Claims of meshd.engine.residency: emulated models on a machine made of numbers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from meshd.core.ports import EngineError, HostReading
from meshd.core.residency.footprint import Footprint
from meshd.core.residency.offload import Card
from meshd.engine import residency
from meshd.engine.emulated import EmulatedEngine
from meshd.engine.housing import Housing
from meshd.engine.ledger import Ledger
from meshd.engine.offers import Offers
from meshd.engine.places import LoadRefused, Lodger, Machine
from meshd.engine.residency import ResidentEngine
from meshd.engine.spec import EmulatedSpec
from protocol.jobs import Failure, Finish, Job
from protocol.load import ModelRecord

GB = 10**9


class Desk:
    """A machine of 10 GB, and the models in it. Memory is taken when a model starts, and back when
    it is closed."""

    def __init__(self) -> None:
        self.taken: dict[str, int] = {}
        self.pressure = "normal"
        self.most_taken = 0
        self.broken: set[str] = set()
        self.pid_bytes: int | None = None
        self.card_bytes = 0
        self.load_s = self.close_s = 0.0
        self.on_card: dict[str, int] = {}
        self.prints: dict[str, str] = {}

    def read(self) -> HostReading:
        return HostReading(10 * GB, 10 * GB - sum(self.taken.values()), self.pressure)

    def settled(self, _pid: int) -> int | None:
        return self.pid_bytes

    def look_at_cards(self) -> tuple[Card, ...]:
        free = self.card_bytes - sum(self.on_card.values())
        return (Card("a card", self.card_bytes, free),) if self.card_bytes else ()

    def lodger(self, name: str, size_gb: float, *, wanted: bool = False, tps: float = 1e6):
        size = round(size_gb * GB)
        record = ModelRecord(
            name, "llamacpp", (f"{name}.gguf",), 8192, size_bytes=size, fingerprint=name
        )
        spec = EmulatedSpec(name=name, model=name, prompt_tps=1e6, generation_tps=tps, tokens=4)
        return Lodger(
            record,
            Footprint(size, 0, 0, 0),
            4,
            lambda layers: Model(self, spec, size, layers),
            layers=9,
            is_wanted=wanted,
        )


class Model(EmulatedEngine):
    """One emulated model that takes memory of a desk."""

    worker_pid = 1

    def __init__(self, desk: Desk, spec: EmulatedSpec, size: int, layers: int) -> None:
        """Of ten layers, head included, as many as are said lie on the desk's card."""
        super().__init__(spec)
        self.desk, self.model = desk, spec.model
        self.on_card = size * max(0, layers) // 10
        self.size = size - self.on_card

    async def start(self) -> None:
        await asyncio.sleep(self.desk.load_s)
        if self.model in self.desk.broken:
            raise EngineError(f"{self.model} is corrupt")
        self.desk.taken[self.model] = self.size
        self.desk.on_card[self.model] = self.on_card
        self.desk.most_taken = max(self.desk.most_taken, sum(self.desk.taken.values()))
        await super().start()

    async def close(self) -> None:
        await asyncio.sleep(self.desk.close_s)
        await super().close()
        self.desk.taken.pop(self.model, None)
        self.desk.on_card.pop(self.model, None)

    @property
    def trouble(self) -> str:
        return f"{self.model} is gone" if self.model in self.desk.broken else ""

    def models(self) -> Sequence[ModelRecord]:
        told = () if self.trouble else super().models()
        return [replace(each, fingerprint=self.desk.prints.get(self.model, "")) for each in told]

    def cached_prefixes(self, model_id: str) -> bytes:
        return model_id.encode()


@pytest.fixture
def desk() -> Desk:
    """A machine of 10 GB, of which 1 GB is its owner's."""
    return Desk()


@pytest.fixture
def housed(desk: Desk, tmp_path: Path):
    """`async with housed(lodger, ...) as engine`: a started residency, and its end checked."""

    @asynccontextmanager
    async def opened(*lodgers: Lodger, **housing: float):
        machine = Machine(desk.read, desk.settled, desk.look_at_cards)
        engine = ResidentEngine(
            machine,
            Ledger(tmp_path),
            Housing(**housing),
            wanted=lambda: [each for each in lodgers if each.is_wanted],
            found=lambda: [each for each in lodgers if not each.is_wanted],
        )
        try:
            await engine.start()
            await until(lambda: len(engine.models()) == len(lodgers))
            yield engine
        finally:
            await engine.close()
        assert desk.taken == {}
        assert not any(Ledger(tmp_path).others().values())

    return opened


async def until(is_so: Callable[[], bool]) -> None:
    """Let others work until it is so; the test's own time limit is the bound."""
    while not is_so():  # noqa: ASYNC110 - nothing announces it
        await asyncio.sleep(0.001)


def ask(model: str, tokens: int = 4) -> Job:
    return Job("r", "chat", model, messages=({"role": "user", "content": "q"},), max_tokens=tokens)


async def ending(engine: ResidentEngine, job: Job) -> Finish | Failure:
    async with aclosing(engine.generate(job)) as stream:
        async for batch in stream:
            last = batch[-1]
    return last


def warm(engine: ResidentEngine) -> set[str]:
    return {load.model_id for load in engine.stats() if load.warm}


async def test_a_cold_model_is_loaded_when_it_is_asked_for(desk: Desk, housed) -> None:
    """By its id or another of its names; until then it takes nothing."""
    async with housed(desk.lodger("a", 4), desk.lodger("b", 4)) as engine:
        assert (warm(engine), desk.taken) == (set(), {})
        assert isinstance(await ending(engine, ask("a.gguf")), Finish)
        assert warm(engine) == {"a"}
        assert engine.reserved_bytes == 4 * GB
        assert (engine.cached_prefixes("a"), engine.cached_prefixes("b")) == (b"a", b"")
        assert [record.model_id for record in engine.models()] == ["a", "b"]


async def test_an_account_says_how_long_its_model_was_loaded(desk: Desk, housed) -> None:
    """Whoever times the answer from outside would take the disk for a slow machine."""
    desk.load_s = 0.05
    async with housed(desk.lodger("a", 4)) as engine:
        first, second = [await ending(engine, ask("a")) for _ in range(2)]
        assert isinstance(first, Finish)
        assert isinstance(second, Finish)
        assert second.queue_s < 0.05 <= first.queue_s


async def test_wanted_models_are_warm_at_the_start(desk: Desk, housed) -> None:
    """What the owner named need not be waited for."""
    async with housed(desk.lodger("a", 4, wanted=True), desk.lodger("b", 4)) as engine:
        assert warm(engine) == {"a"}


async def test_the_least_recently_used_model_makes_room(desk: Desk, housed) -> None:
    """And never were there more in memory than fit."""
    lodgers = [desk.lodger(name, 4) for name in "abc"]
    async with housed(*lodgers) as engine:
        for name in "abac":
            assert isinstance(await ending(engine, ask(name)), Finish)
        assert warm(engine) == {"a", "c"}
    assert desk.most_taken <= 9 * GB


async def test_many_askers_share_one_load(desk: Desk, housed) -> None:
    """Ten requests for a cold model, one worker."""
    async with housed(desk.lodger("a", 4)) as engine:
        endings = await asyncio.gather(*(ending(engine, ask("a")) for _ in range(10)))
    assert all(isinstance(each, Finish) for each in endings)
    assert desk.most_taken == 4 * GB


async def test_a_busy_model_is_never_ended_for_another(desk: Desk, housed) -> None:
    """Who may wait no longer is told so, with the sum; the answer under way is whole."""
    lodgers = (desk.lodger("a", 6, tps=50), desk.lodger("b", 6))
    async with housed(*lodgers, wait_max_s=0.0) as engine:
        running = asyncio.create_task(ending(engine, ask("a", tokens=20)))
        await until(lambda: "a" in warm(engine))
        refused = await ending(engine, ask("b"))
        assert isinstance(refused, Failure)
        assert (refused.code, refused.elsewhere) == ("overloaded", True)
        assert refused.retry_after_s > 0
        assert "b needs 6.00 GB" in refused.message
        assert isinstance(await running, Finish)
        assert isinstance(await ending(engine, ask("b")), Finish)


async def test_what_can_never_fit_is_insufficient_memory(desk: Desk, housed) -> None:
    """With the arithmetic; nothing that was there is ended for it."""
    async with housed(desk.lodger("a", 4), desk.lodger("huge", 40)) as engine:
        await ending(engine, ask("a"))
        refused = await ending(engine, ask("huge"))
        assert isinstance(refused, Failure)
        assert refused.code == "insufficient_memory"
        assert "huge needs 40.0 GB" in refused.message
        assert warm(engine) == {"a"}


async def test_the_owner_may_force_it(desk: Desk, housed) -> None:
    """Explicitly, for one load."""
    async with housed(desk.lodger("huge", 40)) as engine:
        with pytest.raises(LoadRefused) as caught:
            await engine.load("huge")
        assert caught.value.code == "insufficient_memory"
        await engine.load("huge", force=True)
        assert warm(engine) == {"huge"}


async def test_a_pin_outlasts_the_daemon(desk: Desk, housed, tmp_path: Path) -> None:
    """Under any of the model's names, until it is unpinned; a model that is away keeps its pin."""
    state = tmp_path / "state"
    state.mkdir()
    async with housed(desk.lodger("a", 4), desk.lodger("b", 4), state_dir=state) as engine:
        await engine.pin("a.gguf")
        await engine.pin("b")
    async with housed(desk.lodger("b", 4), state_dir=state) as engine:
        assert engine.pinned == ("b",)
        await engine.pin("b", pinned=False)
    async with housed(desk.lodger("a", 4), desk.lodger("b", 4), state_dir=state) as engine:
        assert engine.pinned == ("a",)


async def test_a_pinned_model_stays(desk: Desk, housed) -> None:
    """Until it is unpinned."""
    async with housed(desk.lodger("a", 6), desk.lodger("b", 6)) as engine:
        await engine.load("a")
        await engine.pin("a")
        assert engine.pinned == ("a",)
        with pytest.raises(LoadRefused, match="held by pinned models"):
            await engine.load("b")
        await engine.pin("a", pinned=False)
        await engine.load("b")
        assert warm(engine) == {"b"}


async def test_unload_gives_memory_back_and_waits_for_nobody(desk: Desk, housed) -> None:
    """A busy model is not unloaded; an idle one is, and its promise ends."""
    async with housed(desk.lodger("a", 4, tps=50)) as engine:
        running = asyncio.create_task(ending(engine, ask("a", tokens=20)))
        await until(lambda: "a" in warm(engine))
        with pytest.raises(EngineError, match="a is busy: 1 requests"):
            await engine.unload("a")
        await running
        await engine.unload("a")
        assert (desk.taken, engine.reserved_bytes) == ({}, 0)


async def test_critical_pressure_sends_the_coldest_away(
    desk: Desk, housed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One at each look, and no pinned one."""
    monkeypatch.setattr(residency, "LOOK_S", 0.01)
    async with housed(*(desk.lodger(name, 2) for name in "abc")) as engine:
        for name in "abc":
            await engine.load(name)
        await engine.pin("a")
        desk.pressure = "critical"
        await until(lambda: warm(engine) == {"a"})
        await asyncio.sleep(0.05)
        assert warm(engine) == {"a"}


async def test_a_model_nobody_asks_for_goes(
    desk: Desk, housed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After its keep-alive, even where the daemon ends meanwhile; what the owner named stays."""
    monkeypatch.setattr(residency, "LOOK_S", 0.01)
    desk.close_s = 0.05
    lodgers = (desk.lodger("a", 2), desk.lodger("b", 2, wanted=True))
    async with housed(*lodgers, keep_alive_s=0.05) as engine:
        await engine.load("a")
        await until(lambda: warm(engine) == {"b"})


async def test_another_daemons_promises_count(desk: Desk, housed, tmp_path: Path) -> None:
    """It has promised 8 GB of this machine and not filled them yet."""
    other = Ledger(tmp_path)
    other.update({"x": (8 * GB, 0)})
    async with housed(desk.lodger("a", 4)) as engine:
        refused = await ending(engine, ask("a"))
        assert isinstance(refused, Failure)
        assert "8.00 GB promised" in refused.message
        other.close()
        assert isinstance(await ending(engine, ask("a")), Finish)


async def test_what_a_worker_has_not_filled_yet_stays_promised(desk: Desk, housed) -> None:
    """Weights that are mapped look available, and are not."""
    async with housed(desk.lodger("a", 4), desk.lodger("b", 4)) as engine:
        await engine.load("a")
        desk.taken["a"], desk.pid_bytes = GB, GB
        await engine.pin("a")
        desk.taken["others"] = 2 * GB
        with pytest.raises(LoadRefused, match=r"3\.00 GB promised"):
            await engine.load("b")
        del desk.taken["others"]


async def test_a_model_that_cannot_be_loaded_is_set_aside(desk: Desk, housed) -> None:
    """It is not announced for a while, its memory is promised no more; the owner may try again."""
    async with housed(desk.lodger("a", 4), desk.lodger("b", 4)) as engine:
        desk.broken.add("a")
        first = await ending(engine, ask("a"))
        again = await ending(engine, ask("a"))
        assert isinstance(first, Failure)
        assert isinstance(again, Failure)
        assert (first.code, first.message) == ("engine_failed", "a is corrupt")
        assert again.message == "a is set aside: a is corrupt"
        assert [record.model_id for record in engine.models()] == ["b"]
        assert engine.reserved_bytes == 0
        assert Offers([engine]).why_aside("a") == "a is corrupt"
        desk.broken.clear()
        await engine.load("a")
        assert warm(engine) == {"a"}
        assert not Offers([engine]).why_aside("a")


async def test_a_wanted_model_that_cannot_be_loaded_stops_the_start(desk: Desk, housed) -> None:
    """The owner named it, and learns it at once."""
    desk.broken.add("a")
    with pytest.raises(EngineError, match="a is corrupt"):
        async with housed(desk.lodger("a", 4, wanted=True)):
            pass


async def test_a_wanted_model_without_room_stays_cold(
    desk: Desk, housed, caplog: pytest.LogCaptureFixture
) -> None:
    """Room may come; a service that stops for want of it would only start again."""
    with caplog.at_level(logging.WARNING):
        async with housed(desk.lodger("huge", 40, wanted=True)) as engine:
            assert warm(engine) == set()
    assert "not loaded until there is room: huge needs 40.0 GB" in caplog.text


async def test_closing_ends_who_waits_for_a_load(desk: Desk, housed) -> None:
    """With a word, and nothing left behind."""
    async with housed(desk.lodger("a", 4)) as engine:
        waiting = asyncio.create_task(ending(engine, ask("a")))
        await asyncio.sleep(0)
    last = await waiting
    assert isinstance(last, Failure)
    assert "closed" in last.message


async def test_an_unknown_model_is_said_to_be_unknown(desk: Desk, housed) -> None:
    """To askers and to the owner."""
    async with housed(desk.lodger("a", 4)) as engine:
        last = await ending(engine, ask("z"))
        assert isinstance(last, Failure)
        assert last.code == "model_not_found"
        with pytest.raises(EngineError, match="meshctl models"):
            await engine.load("z")
