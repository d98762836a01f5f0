"""Runs turned into figures: what `benchmarks.membership` cannot do with real machines.

Each function returns one JSON-ready dict. Virtual seconds throughout; the network is a LAN with
round trips of about a millisecond, unless said otherwise. A figure "seen by all" is the time from
the event until the last running node shows it.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

from tests.sim.mesh import Mesh
from tests.sim.scale import WIRELESS_FROM, settled_mesh
from tests.sim.shell import SimNode, load_record

WARM_S = 5.0
"""A mesh that has just formed has not measured its round trips, and waits longer for its probes."""

STARVED_SHARE = 0.1
STARVED_SECONDS = 120.0
BLOCKED_S = (0.1, 1.0)
SLICE_S = 0.02
"""A starved process is kept from running for a time drawn from BLOCKED_S, then runs for SLICE_S,
and so on: four busy loops on two slow cores, and worse."""

SPLIT_S = 60.0
IDLE_S = 60.0


def detect(nodes: int, seeds: int) -> dict[str, Any]:
    """Killed and silent hosts: time until seen by all, and deaths of anybody else. A mesh too
    large for simulated connections knows no difference between the two."""
    figures: dict[str, Any] = {"nodes": nodes, "runs": seeds}
    if nodes < WIRELESS_FROM:
        figures["killed"] = _detect(nodes, seeds, lambda mesh, who: mesh.nodes[who].crash(), 2.0)
    figures["silent"] = _detect(nodes, seeds, lambda mesh, who: mesh.isolate(who), 10.0)
    return figures


def _detect(
    nodes: int, seeds: int, befall: Callable[[Mesh, int], None], most_s: float
) -> dict[str, Any]:
    took, false_deaths = [], 0
    for seed in range(seeds):
        mesh = settled_mesh(seed, nodes)
        mesh.world.run(WARM_S + mesh.world.rng.random())
        victim = mesh.world.rng.randrange(nodes)
        befall(mesh, victim)
        others = [index for index in range(nodes) if index != victim]
        seen = _seen_by(mesh, victim, others)
        took.append(mesh.world.run_until(seen, most_s, 0.005))
        mesh.world.run(1.0)
        name = mesh.nodes[victim].who.node_id
        false_deaths += len(_dead_pairs(mesh, others) - {(i, name) for i in others})
    return _spread(took) | {"false_deaths": false_deaths}


def _seen_by(mesh: Mesh, victim: int, others: list[int]) -> Callable[[], bool]:
    """Whether all others hold the victim for dead; looks at those first who did not, last time."""
    waiting = list(others)

    def seen() -> bool:
        while waiting and mesh.row_state(waiting[-1], victim) == "dead":
            waiting.pop()
        return not waiting

    return seen


def _dead_pairs(mesh: Mesh, observers: list[int]) -> set[tuple[int, str]]:
    return {
        (index, node_id)
        for index in observers
        for node_id, row in mesh.rows(index).items()
        if row.state == "dead"
    }


def starved(nodes: int, seeds: int) -> dict[str, Any]:
    """One node in ten is starved for two minutes: deaths of anybody, all false, per run."""
    deaths = []
    for seed in range(seeds):
        mesh = settled_mesh(seed, nodes, encoded=False)
        for node in mesh.world.rng.sample(mesh.nodes, max(1, round(nodes * STARVED_SHARE))):
            _starve(mesh, node)
        mesh.world.run(STARVED_SECONDS)
        deaths.append(len({whom for _, _, whom in mesh.deaths}))
    return {
        "n": nodes,
        "runs": seeds,
        "false_deaths_per_120s": statistics.fmean(deaths),
        "blocked_s": BLOCKED_S,
    }


def _starve(mesh: Mesh, node: SimNode) -> None:
    def block() -> None:
        node.stop()
        mesh.world.after(mesh.world.rng.uniform(*BLOCKED_S), free)

    def free() -> None:
        node.resume()
        mesh.world.after(SLICE_S, block)

    block()


def load(nodes: int, seeds: int) -> dict[str, Any]:
    """One node's load changes, five times at random moments: time until seen by all."""
    took = []
    for seed in range(seeds):
        mesh = settled_mesh(seed, nodes)
        for in_flight in range(1, 6):
            mesh.world.run(mesh.world.rng.random())
            victim = mesh.world.rng.randrange(nodes)
            record = load_record(in_flight)
            node = mesh.nodes[victim]
            node.put(lambda machine, now, record=record: machine.report(record, now))  # type: ignore[misc]
            took.append(
                mesh.world.run_until(lambda: mesh.sees_load(victim, in_flight), 5.0, 0.002)  # noqa: B023
            )
    return {"nodes": nodes, "runs": seeds} | _spread(took)


def heal(nodes: int, seeds: int) -> dict[str, Any]:
    """The halves of a mesh are apart for a minute: time from the cable's return until all agree."""
    took = []
    for seed in range(seeds):
        mesh = settled_mesh(seed, nodes)
        half = mesh.world.rng.sample(range(nodes), nodes // 2)
        for one in half:
            for other in set(range(nodes)) - set(half):
                mesh.cut(one, other)
        mesh.world.run(SPLIT_S + mesh.world.rng.random())
        mesh.world.heal()
        took.append(mesh.world.run_until(mesh.agreed, 30.0))
    return {"nodes": nodes, "runs": seeds, "split_s": SPLIT_S} | _spread(took)


def idle(nodes: int, seeds: int) -> dict[str, Any]:
    """A quiet mesh: bytes and frames each node sends per second, without encryption's share."""
    rates, frames = [], []
    for seed in range(seeds):
        mesh = settled_mesh(seed, nodes)
        before = sum(node.traffic.bytes for node in mesh.nodes)
        count = sum(node.traffic.frames for node in mesh.nodes)
        mesh.world.run(IDLE_S)
        share = IDLE_S * nodes
        rates.append((sum(node.traffic.bytes for node in mesh.nodes) - before) / share)
        frames.append((sum(node.traffic.frames for node in mesh.nodes) - count) / share)
    return {
        "n": nodes,
        "runs": seeds,
        "bytes_per_s": round(statistics.fmean(rates), 1),
        "frames_per_s": round(statistics.fmean(frames), 1),
    }


def _spread(seconds: list[float]) -> dict[str, Any]:
    ordered = sorted(seconds)
    return {
        "p50_s": round(statistics.median(ordered), 3),
        "p99_s": round(ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))], 3),
        "max_s": round(ordered[-1], 3),
    }


MEASURES = {measure.__name__: measure for measure in (detect, starved, load, heal, idle)}
