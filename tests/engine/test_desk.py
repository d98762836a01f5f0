"""Claims of meshd.engine.desk: the owner's words reach the right engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshd.core.ports import HostReading, RequestFailed
from meshd.core.residency.footprint import Footprint
from meshd.engine.desk import Desk
from meshd.engine.emulated import EmulatedEngine
from meshd.engine.ledger import Ledger
from meshd.engine.places import Lodger, Machine
from meshd.engine.residency import ResidentEngine
from meshd.engine.spec import EmulatedSpec
from protocol.load import ModelRecord

GB = 10**9


class Model(EmulatedEngine):
    """An emulated model with a process, which it has not."""

    worker_pid = None
    trouble = ""

    def cached_prefixes(self, _model_id: str) -> bytes:
        return b""


def lodger(name: str, size_gb: int) -> Lodger:
    record = ModelRecord(name, "llamacpp", (f"{name}.gguf",), fingerprint=name)
    need = Footprint(size_gb * GB, 0, 0, 0)
    return Lodger(record, need, 4, lambda _layers: Model(EmulatedSpec(model=name)), is_wanted=True)


@pytest.fixture
async def desk(tmp_path: Path):
    """A desk over a machine of 10 GB with models `m` (2 GB, warm), `huge`, and an emulated one."""
    machine = Machine(lambda: HostReading(10 * GB, 9 * GB, "normal"), lambda _pid: None)
    lodgers = [lodger("m", 2), lodger("huge", 40)]
    resident = ResidentEngine(machine, Ledger(tmp_path), wanted=lambda: lodgers)
    other = EmulatedEngine(EmulatedSpec(model="other"))
    await resident.start()
    yield Desk([other, resident])
    await resident.close()


async def refusal(desk: Desk, action: str, model: str) -> tuple[str, str]:
    with pytest.raises(RequestFailed) as caught:
        await desk.change(action, model, force=False)
    return caught.value.failure.code, caught.value.failure.message


async def test_each_word_changes_the_state(desk: Desk) -> None:
    """And the answer is the state afterwards, by the model's own id."""
    state = {"model": "m", "warm": True, "pinned": False, "reserved_bytes": 2 * GB}
    assert await desk.change("load", "m.gguf", force=False) == state
    assert await desk.change("pin", "m", force=False) == state | {"pinned": True}
    assert await desk.change("unpin", "m", force=False) == state
    gone = {"warm": False, "reserved_bytes": 0}
    assert await desk.change("unload", "m", force=False) == state | gone


async def test_a_load_that_does_not_fit_is_refused_with_its_sum_and_can_be_forced(
    desk: Desk,
) -> None:
    """507 for the client, with the arithmetic; the owner's override is explicit."""
    code, message = await refusal(desk, "load", "huge")
    assert code == "insufficient_memory"
    assert "huge needs 40.0 GB" in message
    assert (await desk.change("load", "huge", force=True))["warm"]


async def test_models_elsewhere_are_not_pinned(desk: Desk) -> None:
    """Their server keeps house itself; loading it is its own business too."""
    assert (await desk.change("load", "other", force=False))["warm"]
    assert "only models here are pinned" in (await refusal(desk, "pin", "other"))[1]


async def test_an_unknown_model_is_said_to_be_unknown(desk: Desk) -> None:
    """404, and where to look."""
    code, message = await refusal(desk, "unload", "z")
    assert (code, "meshctl models" in message) == ("model_not_found", True)
