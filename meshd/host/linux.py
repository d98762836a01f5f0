"""Reading a Linux machine: files under /proc and /sys, nothing started, nothing waited for.

`root` stands before every path, so that a folder of recorded files can play another machine.
Limits of a container or a unit (cgroup v2, or v1's memory controller) count as the machine's own: a
daemon that may use 4 GB has 4 GB.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from meshd.core.ports import HostFacts, HostReading, MemoryLimit
from meshd.host import parse
from meshd.host.gpu import amd_gpus, nvidia_gpus
from protocol.frozen import frozen

ZONES_MAX = 64
"""Thermal zones and power supplies read: more than any machine shows."""


V2_FILES = (("memory.max", "memory.high"), "memory.current")
V1_FILES = (("memory.limit_in_bytes",), "memory.usage_in_bytes")
"""Of a cgroup: its limits, and what it uses. v1's soft limit is a wish and no limit."""


@frozen
class _Group:
    """A cgroup with a memory controller: its limits, and what it uses."""

    limits: tuple[Path, ...]
    usage: Path
    folder: Path
    path: str


@frozen
class _Memory:
    total: int
    limits: tuple[MemoryLimit, ...]
    stall: parse.Stall

    @property
    def available(self) -> int:
        return min((each.available_bytes for each in self.limits), default=0)


class LinuxProbe:
    """The HostProbe of Linux. A reading takes well below a millisecond; the first `facts` may take
    seconds where an NVIDIA driver has to wake up, so a daemon asks for it off its loop."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._facts: HostFacts | None = None
        self._groups = tuple(self._cgroups())
        self._cpu = parse.cpu_times(self._text("proc/stat"))

    def facts(self) -> HostFacts:
        if self._facts is None:
            self._facts = self._look()
        return self._facts

    def read(self) -> HostReading:
        memory = self._memory()
        ratio = memory.available / memory.total if memory.total else None
        return HostReading(
            memory_total_bytes=memory.total,
            memory_available_bytes=memory.available,
            pressure=parse.pressure_level(memory.stall, ratio),
            cpu_ratio=self._cpu_ratio(),
            on_battery=parse.on_battery(self._supplies()),
            hot=(parse.hottest_c(self._zones()) or 0.0) >= parse.HOT_C,
            group=self._groups[0].path if self._groups else "",
            limits=memory.limits,
        )

    def _look(self) -> HostFacts:
        cpuinfo = self._text("proc/cpuinfo")
        machine = os.uname()
        chip = parse.chip_name(cpuinfo, self._text("proc/device-tree/model"))
        return HostFacts(
            system=f"{machine.sysname} {machine.machine}",
            chip=chip or machine.machine,
            cores=parse.physical_cores(cpuinfo) or os.cpu_count() or 1,
            memory_total_bytes=self._memory().total,
            gpus=amd_gpus(self._root) + nvidia_gpus(self._root),
        )

    def _memory(self) -> _Memory:
        """The machine's figures, made smaller by every cgroup limit on the way up to the root."""
        info = parse.meminfo(self._text("proc/meminfo"))
        machine = total = info.get("MemTotal", 0)
        limits = [MemoryLimit("", info.get("MemAvailable", 0))] if total else []
        stalls = [parse.memory_stall(self._text("proc/pressure/memory"))]
        for group in self._groups:
            told = [parse.cgroup_limit(_read(file)) for file in group.limits]
            limit = min((number for number in told if number is not None), default=None)
            if limit is None or limit >= machine:  # v1 writes "no limit" as a huge one
                continue
            used = parse.cgroup_limit(_read(group.usage)) or 0
            spare = parse.cgroup_reclaimable(_read(group.folder / "memory.stat"))
            total = min(total, limit)
            limits.append(MemoryLimit(group.path, max(0, min(limit, limit - used + spare))))
            stalls.append(parse.memory_stall(_read(group.folder / "memory.pressure")))
        some, full = max(s.some_ratio for s in stalls), max(s.full_ratio for s in stalls)
        return _Memory(total, tuple(limits), parse.Stall(some, full))

    def _cgroups(self) -> Iterable[_Group]:
        """This process's own group and all above it; v1's first, which has the say where it is."""
        text, top = self._text("proc/self/cgroup"), self._root / "sys/fs/cgroup"
        kinds = (
            (top / "memory", parse.cgroup_v1_path(text), V1_FILES),
            (top, parse.cgroup_path(text), V2_FILES),
        )
        for mount, path, (limits, usage) in kinds:
            if path is None:
                continue
            own = mount / path.lstrip("/")
            for group in (own, *own.parents):
                if group.is_relative_to(mount):
                    name = f"/{group.relative_to(mount)}".removesuffix("/.")
                    files = tuple(group / each for each in limits)
                    yield _Group(files, group / usage, group, name)

    def _cpu_ratio(self) -> float:
        """Since the last reading."""
        earlier, now = self._cpu, parse.cpu_times(self._text("proc/stat"))
        self._cpu = now
        return now.ratio_since(earlier) if now and earlier else 0.0

    def _supplies(self) -> dict[str, dict[str, str]]:
        names = ("type", "online", "status", "scope")
        return {
            folder.name: {name: _read(folder / name).strip() for name in names}
            for folder in _folders(self._root / "sys/class/power_supply", "*")
        }

    def _zones(self) -> dict[str, str]:
        found = _folders(self._root / "sys/class/thermal", "thermal_zone*")
        return {zone.name: _read(zone / "temp") for zone in found}

    def _text(self, path: str) -> str:
        return _read(self._root / path)


def anonymous_bytes(pid: int, root: Path = Path("/")) -> int | None:
    """What a process holds for itself alone; None when it is gone."""
    return parse.rss_anonymous(_read(root / f"proc/{pid}/status"))


def _folders(parent: Path, pattern: str) -> list[Path]:
    try:
        return sorted(parent.glob(pattern))[:ZONES_MAX]
    except OSError:
        return []


def _read(path: Path) -> str:
    """The file's text, empty where it cannot be had."""
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""
