"""Models whose files change on the disk while the daemon runs, and whose workers are lost."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from meshd.engine import places, residency
from meshd.engine.ledger import Ledger
from meshd.engine.places import Lodger, Machine
from meshd.engine.residency import ResidentEngine
from protocol.jobs import Finish
from tests.engine.test_residency import GB, Desk, ask, desk, ending, housed, until, warm

__all__ = ["desk", "housed"]


def other_weights(lodger: Lodger, fingerprint: str) -> Lodger:
    """The same name, another file."""
    return replace(lodger, record=replace(lodger.record, fingerprint=fingerprint))


@asynccontextmanager
async def living_on(desk: Desk, disk: list[Lodger], folder: Path):
    """A started residency over what the disk holds, which is looked at all the time."""
    machine = Machine(desk.read, desk.settled)
    engine = ResidentEngine(machine, Ledger(folder), found=lambda: list(disk))
    try:
        await engine.start()
        await until(lambda: len(engine.models()) == len(disk))
        yield engine
    finally:
        await engine.close()


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at the disk without a pause."""
    monkeypatch.setattr(residency, "FIND_EVERY_S", 0.005)


def sizes(engine: ResidentEngine) -> dict[str, int]:
    """Bytes by model, as they are announced."""
    return {record.model_id: record.size_bytes for record in engine.models()}


async def test_a_file_that_has_grown_is_judged_by_what_it_is_now(
    desk: Desk, tmp_path: Path
) -> None:
    """A download that was found half done is not loaded into the memory of a half."""
    disk = [desk.lodger("a", 1)]
    async with living_on(desk, disk, tmp_path) as engine:
        disk[:] = [other_weights(desk.lodger("a", 4), "whole")]
        await until(lambda: sizes(engine) == {"a": 4 * GB})
        assert isinstance(await ending(engine, ask("a")), Finish)
        assert engine.reserved_bytes == 4 * GB


async def test_a_file_that_moved_is_loaded_from_where_it_lies(desk: Desk, tmp_path: Path) -> None:
    """The same weights, under the same name, in another place."""
    here, there = desk.lodger("a", 1), desk.lodger("a", 1)
    disk = [replace(here, slots=1)]
    async with living_on(desk, disk, tmp_path) as engine:
        disk[:] = [replace(there, slots=2)]
        await until(lambda: [load.slots for load in engine.stats()] == [2])


async def test_a_commoner_squeeze_takes_the_plain_name_once_the_other_is_cold(
    desk: Desk, tmp_path: Path
) -> None:
    """Until then the one in memory keeps it; afterwards both are offered."""
    rare, common = other_weights(desk.lodger("a", 4), "rare"), desk.lodger("a", 2)
    disk = [rare]
    async with living_on(desk, disk, tmp_path) as engine:
        await engine.load("a")
        disk[:] = [common, other_weights(desk.lodger("a:q8", 4), "rare"), desk.lodger("b", 1)]
        await until(lambda: "b" in sizes(engine))
        assert (warm(engine), sizes(engine)["a"]) == ({"a"}, 4 * GB)
        await engine.unload("a")
        await until(lambda: sizes(engine) == {"a": 2 * GB, "a:q8": 4 * GB, "b": GB})


async def test_what_one_search_cannot_read_the_next_one_may(
    desk: Desk, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A file that nobody foresaw hides no model for good, and is said."""
    disk: list[Lodger] = []

    def found() -> list[Lodger]:
        if not disk:
            raise LookupError("an odd file")
        return list(disk)

    engine = ResidentEngine(Machine(desk.read, desk.settled), Ledger(tmp_path), found=found)
    try:
        await engine.start()
        await until(lambda: "an odd file" in caplog.text)
        disk.append(desk.lodger("b", 1))
        await until(lambda: list(sizes(engine)) == ["b"])
    finally:
        await engine.close()


async def test_a_file_that_was_replaced_is_announced_as_what_was_loaded(desk: Desk, housed) -> None:
    """The owner unloads his model, puts another file in its place, and loads it: an answer that
    begins here is not gone on with by who has the old file."""
    async with housed(desk.lodger("a", 1, wanted=True)) as engine:
        desk.prints["a"] = "a"
        await engine.unload("a")
        await engine.load("a")
        assert [record.fingerprint for record in engine.models()] == ["a"]
        desk.prints["a"] = "other"
        await engine.unload("a")
        await engine.load("a")
        assert [record.fingerprint for record in engine.models()] == ["other"]


async def test_a_pinned_model_whose_worker_is_lost_for_good_comes_back(
    desk: Desk, housed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pin keeps what is in memory, and nothing of it is: it is loaded again when it is asked for,
    by the owner at once. Until then it is said why."""
    monkeypatch.setattr(residency, "LOOK_S", 0.01)
    async with housed(desk.lodger("a", 4)) as engine:
        await engine.load("a")
        await engine.pin("a")
        desk.broken.add("a")
        await until(lambda: engine.reserved_bytes == 0)
        assert engine.why_aside("a") == "a is gone"
        desk.broken.clear()
        await engine.load("a")
        assert (warm(engine), engine.pinned) == ({"a"}, ("a",))


async def test_a_worker_that_came_back_with_other_weights_is_announced_as_them(
    desk: Desk, housed
) -> None:
    """It was lost, and its file had been replaced meanwhile."""
    async with housed(desk.lodger("a", 1)) as engine:
        await engine.load("a")
        desk.prints["a"] = "other"
        assert [record.fingerprint for record in engine.models()] == ["other"]


async def test_a_load_that_failed_late_is_set_aside_as_long(
    desk: Desk, housed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted from when it failed: a large model takes longer to fail than it is set aside."""
    monkeypatch.setattr(places, "SET_ASIDE_S", 0.3)
    desk.load_s = 0.31
    desk.broken.add("a")
    async with housed(desk.lodger("a", 1)) as engine:
        await ending(engine, ask("a"))
        assert engine.why_aside("a") == "a is corrupt"
        assert engine.models() == ()
