"""Text that an operating system shows, turned into numbers. Pure: no file is opened here.

Each function takes one file or command output as text and gives None, or an empty value, for
anything it cannot read: kernels, boards and tools differ, and a missing figure must be neutral
rather than stop a daemon.

Pressure is a stall, never "used". A machine that caches files looks full and is well; one that
waits for memory suffers, whatever its gauges say. So the rule asks the kernel first: Linux counts
the share of time in which some task (`some`) or every task (`full`) waited for memory, and macOS
keeps a level of its own. Available memory is the second witness, because a model's load can take
the last gigabyte faster than a ten-second average moves.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from meshd.core.routing.hardware import AMD_APU_GFX
from protocol.frozen import frozen

WARN_SOME_RATIO = 0.10
"""Some task waited for memory a tenth of the last 10 s: the first a person would notice."""

CRITICAL_SOME_RATIO = 0.40
"""Something waits nearly half the time: the machine is thrashing, work placed here crawls."""

WARN_FULL_RATIO = 0.02
"""Nothing at all ran for 2 % of the last 10 s for want of memory; a healthy machine shows 0."""

CRITICAL_FULL_RATIO = 0.10
"""Nothing ran for a tenth of the time; user-space out-of-memory killers act from about here."""

WARN_AVAILABLE_RATIO = 0.10
"""Below a tenth of memory available (earlyoom's default threshold to end a process)."""

CRITICAL_AVAILABLE_RATIO = 0.04
"""So little that one prompt's cache may not fit: nothing new is placed here."""

HOT_C = 80.0
"""Degrees Celsius at which a Raspberry Pi 5 starts to slow down; laptops follow at 90-100."""

MACOS_LEVELS = {1: "normal", 2: "warn", 4: "critical"}
"""`kern.memorystatus_vm_pressure_level` (xnu, bsd/sys/kern_memorystatus_notify.h)."""


@frozen
class Stall:
    """Shares of the last 10 s spent waiting for memory, in [0, 1]."""

    some_ratio: float = 0.0
    full_ratio: float = 0.0


def pressure_level(stall: Stall, available_ratio: float | None) -> str:
    """`normal`, `warn` or `critical`: the worst that any of the three witnesses says."""
    share = 1.0 if available_ratio is None else available_ratio
    if (
        stall.some_ratio >= CRITICAL_SOME_RATIO
        or stall.full_ratio >= CRITICAL_FULL_RATIO
        or share < CRITICAL_AVAILABLE_RATIO
    ):
        return "critical"
    if (
        stall.some_ratio >= WARN_SOME_RATIO
        or stall.full_ratio >= WARN_FULL_RATIO
        or share < WARN_AVAILABLE_RATIO
    ):
        return "warn"
    return "normal"


# Linux


def meminfo(text: str) -> dict[str, int]:
    """`/proc/meminfo` in bytes, by the kernel's own names."""
    found = re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE)
    return {name: int(number) * 1024 for name, number in found}


def memory_stall(text: str) -> Stall:
    """`/proc/pressure/memory`, or a cgroup's `memory.pressure`."""
    found = dict(re.findall(r"^(some|full) avg10=([0-9.]+)", text, re.MULTILINE))
    shares = {kind: _number(percent) / 100 for kind, percent in found.items()}
    return Stall(shares.get("some", 0.0), shares.get("full", 0.0))


def cgroup_path(text: str) -> str | None:
    """The cgroup v2 path in `/proc/self/cgroup`, such as `/system.slice/meshd.service`."""
    found = re.search(r"^0::(/.*)$", text, re.MULTILINE)
    return found[1] if found else None


def cgroup_v1_path(text: str) -> str | None:
    """The path of the memory controller of cgroup v1 in `/proc/self/cgroup`."""
    found = re.search(r"^\d+:(?:\w+,)*memory(?:,\w+)*:(/.*)$", text, re.MULTILINE)
    return found[1] if found else None


def cgroup_limit(text: str) -> int | None:
    """`memory.max` or `memory.high` in bytes; None for `max`, which is no limit."""
    word = text.strip()
    return int(word) if word.isdecimal() else None


def cgroup_reclaimable(text: str) -> int:
    """Bytes in `memory.stat` that the kernel gives back before a limit bites: file pages, as in
    MemAvailable. The `total_` lines of cgroup v1 count the groups below as well."""
    pages = dict(re.findall(r"^(?:total_)?((?:in)?active_file) (\d+)$", text, re.MULTILINE))
    return sum(int(number) for number in pages.values())


def rss_anonymous(status: str) -> int | None:
    """`/proc/PID/status`: bytes that a process holds for itself alone, file pages not counted."""
    found = re.search(r"^RssAnon:\s+(\d+) kB$", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else None


@frozen
class CpuTimes:
    """Jiffies since boot, all processors together."""

    busy: int
    total: int

    def ratio_since(self, earlier: CpuTimes) -> float:
        """The busy share of the time between two readings, 0 when no time passed."""
        total = self.total - earlier.total
        return max(0.0, min(1.0, (self.busy - earlier.busy) / total)) if total > 0 else 0.0


def cpu_times(text: str) -> CpuTimes | None:
    """The first line of `/proc/stat`. Waiting for a disk is not busy; guest time is in user."""
    found = re.match(r"cpu +((?:\d+ ?)+)", text)
    jiffies = [int(word) for word in found[1].split()[:8]] if found else []
    if len(jiffies) < 5:
        return None
    idle = jiffies[3] + jiffies[4]
    return CpuTimes(busy=sum(jiffies) - idle, total=sum(jiffies))


def chip_name(cpuinfo: str, device_tree_model: str) -> str:
    """What a person calls this machine's processor: the board where there is one (a Pi says so
    in its device tree), else the processor's own name."""
    board = device_tree_model.rstrip("\0").strip()
    if board:
        return board
    names = re.findall(r"^(?:model name|Model|Hardware)\s*: *(.+)$", cpuinfo, re.MULTILINE)
    return " ".join(names[0].split()) if names else ""


def physical_cores(cpuinfo: str) -> int:
    """Cores without their hyperthreads; where the kernel does not tell them apart (ARM has none),
    every processor listed."""
    pairs = set(re.findall(r"^physical id\s*: (\d+)$.*?^core id\s*: (\d+)$", cpuinfo, _BLOCK))
    return len(pairs) or len(re.findall(r"^processor\s*:", cpuinfo, re.MULTILINE))


_BLOCK = re.MULTILINE | re.DOTALL


def on_battery(supplies: Mapping[str, Mapping[str, str]]) -> bool:
    """From `/sys/class/power_supply/*/{type,online,status,scope}`: a battery drains and no mains
    is connected. The batteries of mice and headsets (`scope` Device) do not count."""
    rows = [row for row in supplies.values() if row.get("scope") != "Device"]
    mains = any(row.get("type") in {"Mains", "USB"} and row.get("online") == "1" for row in rows)
    drains = any(
        row.get("type") == "Battery" and row.get("status") == "Discharging" for row in rows
    )
    return drains and not mains


def hottest_c(zones: Mapping[str, str]) -> float | None:
    """From `/sys/class/thermal/thermal_zone*/temp` by zone: the hottest, in degrees Celsius."""
    found = [re.fullmatch(r"(-?\d+)\s*", text) for text in zones.values()]
    return max((int(each[1]) / 1000 for each in found if each), default=None)


# Accelerators


def kfd_gfx(properties: str) -> str | None:
    """The gfx id in a KFD topology node's `properties`: 110501 is gfx1151; None for a processor."""
    found = re.search(r"^gfx_target_version (\d+)$", properties, re.MULTILINE)
    version = int(found[1]) if found else 0
    if version == 0:
        return None
    major, minor, step = version // 10_000, version // 100 % 100, version % 100
    return f"gfx{major}{minor:x}{step:x}"


def kfd_render_minor(properties: str) -> int | None:
    """The DRM render node (128 and up) of a KFD topology node, which ties it to a card."""
    found = re.search(r"^drm_render_minor (\d+)$", properties, re.MULTILINE)
    return int(found[1]) if found else None


def amd_usable_bytes(gfx: str | None, vram_bytes: int, gtt_bytes: int) -> int:
    """What a model may use: VRAM, and in a processor's own graphics the shared part too."""
    return vram_bytes + (gtt_bytes if gfx in AMD_APU_GFX else 0)


def nvidia_smi(text: str) -> tuple[tuple[str, int], ...]:
    """`nvidia-smi --query-gpu=name,memory.total --format=csv,noheader,nounits`: name and bytes.
    Boards with one memory for all (Grace, Jetson) print [N/A] there and are left out."""
    found = re.findall(r"^(.+), (\d+)$", text, re.MULTILINE)
    return tuple((name.strip(), int(mebibytes) * 1024**2) for name, mebibytes in found)


# macOS


def sysctl(text: str) -> dict[str, str]:
    """`sysctl NAME ...` as printed: `hw.memsize: 34359738368` a line."""
    return dict(re.findall(r"^([\w.]+): (.*)$", text, re.MULTILINE))


def vm_stat_available(text: str) -> int | None:
    """Bytes that `vm_stat` counts as free, inactive, speculative or purgeable: what macOS hands
    out before it compresses or swaps."""
    size = re.search(r"page size of (\d+) bytes", text)
    pages = {
        name: int(count)
        for name, count in re.findall(r"^Pages ([a-z ]+):\s+(\d+)\.$", text, re.MULTILINE)
    }
    if not size or "free" not in pages:
        return None
    kinds = ("free", "inactive", "speculative", "purgeable")
    return int(size[1]) * sum(pages.get(kind, 0) for kind in kinds)


def macos_level(text: str) -> str:
    """The kernel's own pressure level; normal where it says none."""
    word = text.strip()
    return MACOS_LEVELS.get(int(word), "normal") if word.isdecimal() else "normal"


def pmset_on_battery(text: str) -> bool:
    """`pmset -g batt`: its first line names the power source."""
    return "'Battery Power'" in text


def pmset_hot(text: str) -> bool:
    """`pmset -g therm`: the processor is held below its full speed."""
    found = re.search(r"CPU_Speed_Limit\s*=\s*(\d+)", text)
    return found is not None and int(found[1]) < 100


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


OWNER_IDLE_S = 120.0
"""Whoever has not touched keyboard or pointer for this long is not at the machine."""


def hid_active(text: str) -> bool:
    """From `ioreg -c IOHIDSystem`: whether somebody has touched keyboard or pointer lately. The
    system counts nanoseconds since then."""
    found = re.search(r'"HIDIdleTime" = (\d+)', text)
    return found is not None and int(found[1]) / 1e9 < OWNER_IDLE_S
