"""The runs behind `benchmarks.membership`: the same for our daemons and for the rivals' nodes.

A crew is a mesh of N processes, one on each host of a LAN made of network namespaces. A run waits
until the crew is whole and a second more, does something to one of its nodes, and reads from the
sightings when the last of the others knew. Deaths of anybody else are counted as pairs (who says
it, of whom).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

from benchmarks.machine import cpu_s, rss_mb
from benchmarks.measure import say
from tests.e2e.daemons import Daemon
from tests.netns.fleet import HTTP, HTTP_PORT, MESH, Fleet
from tests.netns.networks import Lan, loss
from tests.netns.sightings import Sightings
from tests.netns.watch import POLL_S
from tests.netns.within import connect, interface_bytes

DEAD_LIMIT_S = 60.0
"""serf on the LAN takes ten seconds; a minute means that it will not happen."""

POLLED_MAX = 10
"""Daemons polled every POLL_S. More are polled more seldom, or the polling itself would keep the
machine busy: 20 answers a second of 30 members each cost a tenth of a core per daemon."""

AFTERMATH_S = 1.0
"""Watched on after a run, for deaths that follow."""

REST_S = 5.0
"""From whole to idle: the last joins are still being told, and whoever was cut off holds its
verdicts back for three seconds (`MembershipConfig.uplink_seen_s`)."""


class Crew(Protocol):
    """What a run needs of a mesh."""

    lan: Lan

    @property
    def watch(self) -> Sightings: ...

    @property
    def names(self) -> list[str]: ...

    def kill(self, name: str) -> float: ...

    def restart(self, *names: str) -> None: ...

    def wait_dead(self, gone: Sequence[str], since: float, limit_s: float) -> float: ...

    def settle(self) -> object: ...

    def pids(self) -> list[int]: ...


class Daemons(Fleet):
    """Our daemons as a crew."""

    def restart(self, *names: str) -> None:
        """Bring back what was killed."""
        self.start(*names)

    def pids(self) -> list[int]:
        """Of all that run."""
        return [node.process.pid for node in self.nodes.values() if node.process is not None]


def daemons(home: Path, lan: Lan, *flags: str) -> Daemons:
    """A crew of our daemons, polled as often as the machine can bear."""
    return Daemons(home, lan, *flags, poll_s=poll_s(len(lan.hosts)))


def poll_s(nodes: int) -> float:
    """Seconds between two looks at each of so many daemons."""
    return POLL_S * max(1.0, nodes / POLLED_MAX)


def killed(crew: Crew, runs: int) -> dict[str, Any]:
    """kill -9 of one node after the other: seconds until all others knew."""
    took, wrong = [], 0
    crew.settle()
    for number in range(runs):
        victim = crew.names[number % len(crew.names)]
        began = crew.kill(victim)
        took.append(crew.wait_dead([victim], began, DEAD_LIMIT_S) - began)
        crew.watch.stay(AFTERMATH_S)
        wrong += len(crew.watch.false_deaths(began, victim))
        crew.restart(victim)
        crew.settle()
        say(f"    killed {victim}: {took[-1]:.2f} s")
    return spread(crew, took, wrong)


def silent(crew: Crew, runs: int) -> dict[str, Any]:
    """One cable after the other is pulled: seconds until all others knew. Each time from rest: a
    machine whose own cable was out a moment ago is slow, on purpose, to accuse others."""
    took, wrong = [], 0
    crew.settle()
    for number in range(runs):
        victim, host = crew.names[number % len(crew.names)], crew.lan.hosts[number % crew.lan.size]
        began = time.monotonic()
        crew.lan.cut(host)
        took.append(crew.wait_dead([victim], began, DEAD_LIMIT_S) - began)
        crew.watch.stay(AFTERMATH_S)
        crew.lan.mend(host)
        wrong += len(crew.watch.false_deaths(began, victim))
        crew.settle()
        crew.watch.stay(REST_S)
        say(f"    cut off {victim}: {took[-1]:.2f} s")
    return spread(crew, took, wrong)


def spread(crew: Crew, took: Sequence[float], false_deaths: int) -> dict[str, Any]:
    """The figures of one kind of run."""
    return {
        "n": len(crew.names),
        "runs": len(took),
        "p50_s": round(statistics.median(took), 3),
        "max_s": round(max(took), 3),
        "false_deaths": false_deaths,
    }


def lossy(crew: Crew, percent: int, seconds: float) -> dict[str, Any]:
    """So many of a hundred frames are lost, at random, at the switch: who was called dead."""
    began = time.monotonic()
    crew.lan.forbid(loss(percent))
    crew.watch.stay(seconds)
    crew.lan.forbid()
    crew.watch.stay(AFTERMATH_S)
    return {"n": len(crew.names), "false_deaths": len(crew.watch.false_deaths(began))}


def joins(home: Path, nodes: int, runs: int, *, typed: bool) -> dict[str, Any]:
    """A new machine joins a mesh of `nodes` - 1, again and again: seconds until all list all."""
    took, from_spawn = [], []
    flags = ("--no-mdns", "--peer", "10.87.0.1:18788") if typed else ()
    with ExitStack() as stack:
        lan = stack.enter_context(Lan("typed" if typed else "mdns", nodes))
        fleet = Daemons(home, lan, *flags, poll_s=poll_s(nodes), start_all=False)
        stack.enter_context(fleet)
        last = fleet.names[-1]
        fleet.start(*fleet.others(last))
        for number in range(runs):
            newcomer = Daemon(
                home, f"new{number}", *flags, *_key_of(fleet), netns=fleet.host(last).netns
            )
            stack.callback(newcomer.stop)
            spawned, served, seen = _join(fleet, newcomer)
            took.append(seen - served)
            from_spawn.append(seen - spawned)
            say(f"    joined: {took[-1]:.2f} s after it serves, {from_spawn[-1]:.2f} s after start")
            newcomer.stop()
    return {
        "p50": round(statistics.median(took), 3),
        "max": round(max(took), 3),
        "from_start": {
            "p50": round(statistics.median(from_spawn), 3),
            "max": round(max(from_spawn), 3),
        },
    }


def _key_of(fleet: Fleet) -> tuple[str, str]:
    return ("--mesh-key-file", str(fleet.key_file))


def _join(fleet: Fleet, newcomer: Daemon) -> tuple[float, float, float]:
    """When the newcomer was spawned, when it served, and when all saw it and it saw all."""
    last = fleet.names[-1]
    rest = fleet.others(last)
    fleet.watch.wait(lambda: fleet.watch.agree("alive", rest, rest), 30, "the mesh is whole")
    fleet.watch.forget(last)
    spawned = time.monotonic()
    newcomer.start(http=HTTP, mesh=MESH)
    while not _serves(newcomer):
        time.sleep(0.002)
    served = time.monotonic()
    everybody = [*rest, newcomer.name]
    fleet.watch.wait(
        lambda: (
            fleet.watch.agree("alive", rest, [newcomer.name])
            and fleet.watch.agree("alive", [last], everybody, served)
        ),
        30,
        f"{newcomer.name} joined",
    )
    seen = [fleet.watch.seen_at("alive", newcomer.name, fleet.names, spawned)]
    seen += [fleet.watch.seen_at("alive", name, [last], spawned) for name in rest]
    return spawned, served, max(seen)


def _serves(newcomer: Daemon) -> bool:
    try:
        connect(newcomer.netns, "127.0.0.1", HTTP_PORT).close()
    except OSError:
        return False
    return True


def resting(crew: Crew, seconds: float) -> dict[str, Any]:
    """What each process of a mesh costs while nothing happens, on average.

    Bytes are those that leave its host's interface, Ethernet, IP and TCP headers included.
    """
    crew.watch.stay(REST_S)
    pids, began = crew.pids(), time.monotonic()
    bytes_before = [interface_bytes(host.netns, host.interface)[1] for host in crew.lan.hosts]
    cpu_before = sum(cpu_s(pid) for pid in pids)
    look_away = getattr(crew.watch, "look_away", crew.watch.stay)
    look_away(seconds)
    took_s = time.monotonic() - began
    cpu_used = sum(cpu_s(pid) for pid in pids) - cpu_before
    sent = [
        interface_bytes(host.netns, host.interface)[1] - before
        for host, before in zip(crew.lan.hosts, bytes_before, strict=True)
    ]
    return {
        "n": len(pids),
        "bytes_per_s": round(statistics.fmean(sent) / took_s),
        "cpu_ratio": round(cpu_used / took_s / len(pids), 4),
        "rss_mb": round(statistics.fmean(rss_mb(pid) for pid in pids), 1),
    }
