"""A recorded machine in a folder, read as if it were this one."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshd.core.ports import HostReading, MemoryLimit
from meshd.host.linux import LinuxProbe, anonymous_bytes

MEBIBYTE = 1024**2


def machine(root: Path, files: dict[str, str]) -> LinuxProbe:
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return LinuxProbe(root)


def test_a_pi_is_read_whole(tmp_path: Path) -> None:
    """Chip, cores, memory, heat: what its peers will see of it."""
    probe = machine(
        tmp_path,
        {
            "proc/meminfo": "MemTotal: 8256544 kB\nMemAvailable: 7164912 kB\n",
            "proc/cpuinfo": "processor\t: 0\nprocessor\t: 1\nprocessor\t: 2\nprocessor\t: 3\n",
            "proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0",
            "proc/pressure/memory": "some avg10=0.00 avg60=0 avg300=0 total=0\n",
            "sys/class/thermal/thermal_zone0/temp": "84000\n",
        },
    )
    facts, reading = probe.facts(), probe.read()
    assert (facts.chip, facts.cores, facts.gpus) == ("Raspberry Pi 5 Model B Rev 1.0", 4, ())
    assert reading.memory_available_bytes == 7164912 * 1024
    assert reading.pressure == "normal"
    assert reading.hot


def test_a_units_limit_is_the_machines_size(tmp_path: Path) -> None:
    """MemoryMax of the service, or of any slice above it, bounds both figures; clean file pages
    under the limit still count as available."""
    group = "sys/fs/cgroup/system.slice/meshd.service"
    probe = machine(
        tmp_path,
        {
            "proc/meminfo": "MemTotal: 16000000 kB\nMemAvailable: 9000000 kB\n",
            "proc/self/cgroup": "0::/system.slice/meshd.service\n",
            f"{group}/memory.max": f"{4096 * MEBIBYTE}\n",
            f"{group}/memory.high": "max\n",
            f"{group}/memory.current": f"{3072 * MEBIBYTE}\n",
            f"{group}/memory.stat": f"inactive_file {1024 * MEBIBYTE}\n",
            f"{group}/memory.pressure": "some avg10=55.0 x\n",
            "sys/fs/cgroup/system.slice/memory.max": f"{8192 * MEBIBYTE}\n",
        },
    )
    reading = probe.read()
    assert reading.memory_total_bytes == 4096 * MEBIBYTE
    assert reading.memory_available_bytes == 2048 * MEBIBYTE
    assert reading.pressure == "critical"
    assert reading.group == "/system.slice/meshd.service"
    assert reading.limits == (
        MemoryLimit("", 9_000_000 * 1024),
        MemoryLimit("/system.slice/meshd.service", 2048 * MEBIBYTE),
        MemoryLimit("/system.slice", 8192 * MEBIBYTE),
    )


def test_strix_halo_offers_its_shared_memory(tmp_path: Path) -> None:
    """VRAM plus GTT, named by product and gfx id; connectors are not cards."""
    device = "sys/class/drm/card1/device"
    probe = machine(
        tmp_path,
        {
            f"{device}/mem_info_vram_total": "536870912\n",
            f"{device}/mem_info_gtt_total": "66571993088\n",
            f"{device}/drm/renderD128/dev": "226:128\n",
            "sys/class/drm/card1-HDMI-A-1/status": "connected\n",
            "sys/class/kfd/kfd/topology/nodes/1/properties": (
                "drm_render_minor 128\ngfx_target_version 110501\n"
            ),
        },
    )
    assert probe.facts().gpus == (("AMD gfx1151", 536870912 + 66571993088),)


def test_a_machine_that_shows_nothing_is_neutral(tmp_path: Path) -> None:
    """An empty /proc stops nothing."""
    probe = machine(tmp_path, {})
    assert probe.read() == HostReading(0, 0, "normal")
    assert probe.facts().cores >= 1


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="reads this machine: needs Linux")
def test_this_machine_can_be_read() -> None:
    """The real files, whatever they say, make sense together."""
    probe = LinuxProbe()
    reading = probe.read()
    assert 0 < reading.memory_available_bytes <= reading.memory_total_bytes
    assert reading.pressure in {"normal", "warn", "critical"}
    assert 0.0 <= reading.cpu_ratio <= 1.0
    assert probe.facts() is probe.facts()


def test_a_limit_of_cgroup_v1_is_the_machines_size(tmp_path: Path) -> None:
    """Older systems, and containers on them; the huge number above it is no limit."""
    top = "sys/fs/cgroup/memory"
    probe = machine(
        tmp_path,
        {
            "proc/meminfo": "MemTotal: 16000000 kB\nMemAvailable: 9000000 kB\n",
            "proc/self/cgroup": "8:pids:/\n4:cpu,memory:/box\n0::/\n",
            f"{top}/memory.limit_in_bytes": "9223372036854771712\n",
            f"{top}/box/memory.limit_in_bytes": f"{1536 * MEBIBYTE}\n",
            f"{top}/box/memory.usage_in_bytes": f"{1024 * MEBIBYTE}\n",
            f"{top}/box/memory.stat": (
                f"inactive_file 1\ntotal_inactive_file {100 * MEBIBYTE}\n"
                f"total_active_file {200 * MEBIBYTE}\n"
            ),
        },
    )
    reading = probe.read()
    assert reading.memory_total_bytes == 1536 * MEBIBYTE
    assert reading.memory_available_bytes == 812 * MEBIBYTE
    assert reading.group == "/box"
    assert [limit.group for limit in reading.limits] == ["", "/box"]


def test_what_a_process_holds_for_itself_is_read(tmp_path: Path) -> None:
    """Its mapped files are not counted; of one that is gone nothing is known."""
    machine(tmp_path, {"proc/7/status": "VmRSS:\t  900 kB\nRssAnon:\t  600 kB\n"})
    assert anonymous_bytes(7, tmp_path) == 600 * 1024
    assert anonymous_bytes(8, tmp_path) is None
