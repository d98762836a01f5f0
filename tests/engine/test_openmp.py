"""Claims of meshd.engine.openmp: where the threads of a model may run."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from meshd.engine import openmp
from meshd.engine.bundled import bundled_gguf
from meshd.engine.cards import installed_backends
from meshd.engine.supervisor import LlamaEngine, WorkerOptions

BINDING = {"OMP_PROC_BIND", "OMP_PLACES"}


@pytest.fixture
def environment(monkeypatch):
    """An environment of its own, without OpenMP's variables."""
    own = {
        name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))
    }
    monkeypatch.setattr(os, "environ", own)
    return own


@pytest.fixture
def machine(monkeypatch):
    """`machine(cores, backends)`: what there is to compute with."""

    def have(cores, *backends, quota=math.inf):
        monkeypatch.setattr(openmp, "physical_cores", lambda: cores)
        monkeypatch.setattr(openmp, "quota_cores", lambda: quota)
        monkeypatch.setattr(openmp, "installed_backends", lambda: backends)

    return have


@pytest.mark.parametrize("threads", [0, 4])
def test_threads_that_fill_the_machine_have_a_core_each(environment, machine, threads):
    """Then none has to wait for one that waits for its core."""
    machine(4)
    assert openmp.prepare(threads, layers=-1) == 4
    assert environment.keys() >= BINDING


@pytest.mark.parametrize("threads", [1, 3, 8])
def test_other_numbers_are_left_to_the_system(environment, machine, threads):
    """Two models of two threads each would meet on the same two of four cores."""
    machine(4)
    assert openmp.prepare(threads, layers=-1) == threads
    assert not environment.keys() & BINDING


@pytest.mark.parametrize(("quota", "threads"), [(0.5, 1), (2.0, 2), (2.5, 3), (16.0, 8)])
def test_a_container_gets_the_threads_that_it_has_time_for(environment, machine, quota, threads):
    """Nowhere in particular, because others use the same cores; and never more than there are."""
    machine(8, quota=quota)
    assert openmp.prepare(0, layers=-1) == threads
    assert bool(environment.keys() & BINDING) is (threads == 8)


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, math.inf),
        ({"cpu.max": "max 100000\n"}, math.inf),
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "400000 100000\n", "a/b/cpu.max": "200000 100000\n"}, 2.0),
        ({"a/cpu.max": "100000 100000\n", "a/b/cpu.max": "max 100000\n"}, 1.0),
        ({"cpu/c/cpu.cfs_quota_us": "-1\n", "cpu/c/cpu.cfs_period_us": "100000\n"}, math.inf),
        ({"cpu/c/cpu.cfs_quota_us": "50000\n", "cpu/c/cpu.cfs_period_us": "100000\n"}, 0.5),
    ],
)
def test_the_time_that_a_container_has_is_read_from_every_group_above(tmp_path, files, cores):
    """The smallest holds; no limit is no number."""
    groups = {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    for name, text in {
        "proc/self/cgroup": "2:cpuset:/x\n1:cpuacct,cpu:/c\n0::/a/b\n",
        **groups,
    }.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    assert openmp.quota_cores(tmp_path) == cores


def test_a_driver_of_cards_is_not_held_to_one_core(environment, machine):
    """Its threads inherit what the thread that loads it may use."""
    machine(4, "vulkan")
    openmp.prepare(0, layers=12)
    assert not environment.keys() & BINDING


def test_a_model_that_stays_off_the_cards_is_bound(environment, machine):
    """No driver is loaded for it."""
    machine(4, "vulkan")
    openmp.prepare(0, layers=0)
    assert environment.keys() >= BINDING


def test_the_owners_number_of_looks_wins(environment, machine):
    """Whoever sets OpenMP's variables knows the machine better."""
    machine(4)
    environment["GOMP_SPINCOUNT"] = "7"
    openmp.prepare(0, layers=-1)
    assert environment["GOMP_SPINCOUNT"] == "7"


@pytest.mark.parametrize("variable", sorted(openmp.PLACING))
def test_an_owner_who_places_threads_does_so_alone(environment, machine, variable):
    """And they look no longer than such that may share a core."""
    machine(4)
    environment[variable] = "false"
    openmp.prepare(0, layers=-1)
    assert environment.keys() & openmp.PLACING == {variable}
    assert environment["GOMP_SPINCOUNT"] == str(openmp.SPINS_FREE)


def affinities(pid):
    """The cores that each thread of a process may run on."""
    tasks = [int(task.name) for task in Path(f"/proc/{pid}/task").iterdir()]
    return {frozenset(os.sched_getaffinity(task)) for task in tasks}


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="only Linux binds threads")
@pytest.mark.skipif(bool(installed_backends()), reason="this llama.cpp was built for cards")
@pytest.mark.skipif(openmp.physical_cores() < 2, reason="one core has nothing to divide")
@pytest.mark.skipif(openmp.quota_cores() < openmp.physical_cores(), reason="not all cores are ours")
async def test_a_loaded_model_has_a_thread_on_each_core():
    """And one that may run anywhere: the one that speaks with the daemon."""
    everywhere = frozenset(os.sched_getaffinity(0))
    engine = LlamaEngine(bundled_gguf(), WorkerOptions(context=128, slots=1, model_id="m"))
    await engine.start()
    try:
        found = affinities(engine.worker_pid)
    finally:
        await engine.close()
    assert everywhere in found
    assert len(found - {everywhere}) == openmp.physical_cores()
