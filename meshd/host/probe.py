"""Which probe reads this machine."""

from __future__ import annotations

import os
import platform

from meshd.core.ports import HostFacts, HostProbe, HostReading


def host_probe() -> HostProbe:
    """The probe of this operating system; one that knows only what Python knows elsewhere."""
    system = platform.system()
    if system == "Linux":
        from meshd.host.linux import LinuxProbe

        return LinuxProbe()
    if system == "Darwin":
        from meshd.host.macos import MacProbe

        return MacProbe()
    return PlainProbe()


def settled_bytes(pid: int) -> int | None:
    """What a process has really taken of the memory that is available, file pages not counted;
    None where this system does not say."""
    if platform.system() == "Linux":
        from meshd.host.linux import anonymous_bytes

        return anonymous_bytes(pid)
    return None


class PlainProbe:
    """For systems without a reader: no memory is claimed, so nothing large is placed here."""

    def facts(self) -> HostFacts:
        system = f"{platform.system()} {platform.machine()}"
        return HostFacts(system, platform.processor() or system, os.cpu_count() or 1, 0)

    def read(self) -> HostReading:
        return HostReading(memory_total_bytes=0, memory_available_bytes=0, pressure="normal")
