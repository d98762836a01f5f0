"""Reading a Mac. Its parsers are tested on recorded output; this reader has run on no Mac yet.

macOS keeps its figures behind commands rather than files, and starting one takes about 5 ms, too
long for a reading. So `read` gives what is known and, when that is REFRESH_S old, lets a thread
look again: a load report is at most that much behind, and nobody waits.
"""

from __future__ import annotations

import os
import platform
import subprocess
import threading
import time
from collections.abc import Callable

from meshd.core.ports import HostFacts, HostReading
from meshd.host import parse

REFRESH_S = 1.0
"""How old a reading may grow: the kernel's pressure level moves in seconds, and a peer hears of
this machine once a second anyway."""

COMMAND_TIMEOUT_S = 2.0
"""Longest wait for one command; each takes milliseconds on a healthy Mac."""

FACTS = ("sysctl", "machdep.cpu.brand_string", "hw.memsize", "hw.physicalcpu")
LEVEL = ("sysctl", "-n", "kern.memorystatus_vm_pressure_level")

Run = Callable[[tuple[str, ...]], str]


def run_command(command: tuple[str, ...]) -> str:
    """A command's output, empty where it fails."""
    try:
        done = subprocess.run(  # noqa: S603 - constant commands
            command, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout


class MacProbe:
    """The HostProbe of macOS. The GPU shares the memory: on Apple Silicon the system lets a
    process wire about three quarters of it."""

    GPU_SHARE = 0.75
    """Metal's recommended working set on machines with 36 GB and more; smaller ones get 2/3."""

    def __init__(self, run: Run = run_command) -> None:
        self._run = run
        self._sysctl = parse.sysctl(run(FACTS))
        self._total = int(self._sysctl.get("hw.memsize", "0"))
        self._looking = threading.Lock()
        self._reading, self._read_at = self._look(), time.monotonic()

    def facts(self) -> HostFacts:
        chip = self._sysctl.get("machdep.cpu.brand_string", "") or platform.machine()
        apple = chip.startswith("Apple")
        return HostFacts(
            system=f"{platform.system()} {platform.machine()}",
            chip=chip,
            cores=int(self._sysctl.get("hw.physicalcpu", "0")) or os.cpu_count() or 1,
            memory_total_bytes=self._total,
            gpus=((chip, int(self._total * self.GPU_SHARE)),) if apple else (),
        )

    def read(self) -> HostReading:
        stale = time.monotonic() - self._read_at >= REFRESH_S
        if stale and self._looking.acquire(blocking=False):
            threading.Thread(target=self._refresh, name="host-probe", daemon=True).start()
        return self._reading

    def _refresh(self) -> None:
        try:
            self._reading, self._read_at = self._look(), time.monotonic()
        finally:
            self._looking.release()

    def _look(self) -> HostReading:
        available = parse.vm_stat_available(self._run(("vm_stat",)))
        load = os.getloadavg()[0] / (os.cpu_count() or 1)
        return HostReading(
            memory_total_bytes=self._total,
            memory_available_bytes=self._total if available is None else available,
            pressure=parse.macos_level(self._run(LEVEL)),
            cpu_ratio=min(1.0, load),
            on_battery=parse.pmset_on_battery(self._run(("pmset", "-g", "batt"))),
            hot=parse.pmset_hot(self._run(("pmset", "-g", "therm"))),
            owner_active=parse.hid_active(self._run(("ioreg", "-c", "IOHIDSystem", "-d", "4"))),
        )
