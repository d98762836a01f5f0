"""The machine under the benchmark: which core runs what, and what a process costs."""

from __future__ import annotations

import math
import os
import platform
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from meshd.ctl.doctor.pace import step_ns

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def cores() -> list[int]:
    """The cores this process may use."""
    return sorted(os.sched_getaffinity(0))


def assign(roles: Sequence[str]) -> dict[str, int | None]:
    """A core for each role: its own where there are enough, the last one shared by the rest.

    With one core nothing is pinned: the scheduler does it better.
    """
    free = cores()
    if len(free) == 1:
        return dict.fromkeys(roles, None)
    return {role: free[min(index, len(free) - 1)] for index, role in enumerate(roles)}


@contextmanager
def pinned(core: int | None) -> Iterator[None]:
    """Processes started inside run on this core alone, from their first instruction."""
    before = os.sched_getaffinity(0)
    if core is not None:
        os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def pin(pid: int, core: int | None) -> None:
    """From now on a process and all below it, with all their threads, run on this core alone; on
    any of ours when it is None."""
    allowed = {core} if core is not None else set(cores())
    for member in family(pid):
        for thread in Path(f"/proc/{member}/task").iterdir():
            os.sched_setaffinity(int(thread.name), allowed)


def family(pid: int) -> list[int]:
    """A process and all below it."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int(_stat(int(entry.name))[1])
            except (OSError, IndexError):
                continue
            parents.setdefault(parent, []).append(int(entry.name))
    found = [pid]
    for member in found:
        found.extend(parents.get(member, []))
    return found


def cpu_s(pid: int) -> float:
    """Processor seconds used so far by a process and all below it; steps of 10 ms."""
    ticks = 0
    for member in family(pid):
        fields = _stat(member)
        ticks += int(fields[11]) + int(fields[12])
    return ticks / TICKS_PER_S


def rss_mb(pid: int) -> float:
    """Resident memory of a process and all below it, in 10**6 bytes."""
    total_kib = 0
    for member in family(pid):
        for line in Path(f"/proc/{member}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                total_kib += int(line.split()[1])
    return total_kib * 1024 / 1e6


def describe(placed: dict[str, int | None]) -> dict[str, Any]:
    """What the figures were measured on."""
    chip = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            chip = line.partition(":")[2].strip()
            break
    return {
        "chip": chip,
        "cores": len(cores()),
        "core_of": placed,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "python_step_ns": round(step_ns()),
        "uvloop": version("uvloop"),
        "load_before": round(os.getloadavg()[0], 2),
        "network": "loopback",
    }


def summary(samples: Sequence[float]) -> dict[str, float]:
    """Median and 99th percentile (nearest rank)."""
    ordered = sorted(samples)
    rank = math.ceil(0.99 * len(ordered)) - 1
    return {"p50": round(statistics.median(ordered), 3), "p99": round(ordered[rank], 3)}


def difference(more: dict[str, float], less: dict[str, float]) -> dict[str, float]:
    """What the one adds to the other, quantile by quantile."""
    return {name: round(more[name] - less[name], 3) for name in more}


def _stat(pid: int) -> list[str]:
    """/proc/PID/stat from the state on; the name before it may hold anything."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
