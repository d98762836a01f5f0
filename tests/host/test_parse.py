"""Recorded output of real machines, read into numbers; and that anything else is neutral."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from meshd.host import parse
from meshd.host.parse import CpuTimes, Stall

MEMINFO_PI5 = """\
MemTotal:        8256544 kB
MemFree:         5231760 kB
MemAvailable:    7164912 kB
HugePages_Total:       0
"""

PSI = """\
some avg10=12.50 avg60=3.10 avg300=0.80 total=123456
full avg10=1.25 avg60=0.40 avg300=0.10 total=4567
"""

CPUINFO_PI5 = """\
processor\t: 0
BogoMIPS\t: 108.00
processor\t: 1
processor\t: 2
processor\t: 3
Revision\t: d04171
Model\t\t: Raspberry Pi 5 Model B Rev 1.0
"""

CPUINFO_PC = """\
processor\t: 0
model name\t: AMD RYZEN AI MAX+ 395 w/  Radeon 8060S
physical id\t: 0
core id\t\t: 0

processor\t: 1
model name\t: AMD RYZEN AI MAX+ 395 w/  Radeon 8060S
physical id\t: 0
core id\t\t: 1

processor\t: 2
physical id\t: 0
core id\t\t: 0
"""

KFD_STRIX_HALO = (
    "cpu_cores_count 0\nsimd_count 80\ndrm_render_minor 128\ngfx_target_version 110501\n"
)
KFD_PROCESSOR = "cpu_cores_count 32\nsimd_count 0\ndrm_render_minor 0\ngfx_target_version 0\n"

VM_STAT = """\
Mach Virtual Memory Statistics: (page size of 16384 bytes)
Pages free:                               53824.
Pages active:                            612345.
Pages inactive:                          601234.
Pages speculative:                         9876.
Pages throttled:                              0.
Pages wired down:                        212345.
Pages purgeable:                          12345.
"""

SYSCTL = """\
machdep.cpu.brand_string: Apple M4 Pro
hw.memsize: 51539607552
hw.physicalcpu: 14
"""

PMSET_BATTERY = """\
Now drawing from 'Battery Power'
 -InternalBattery-0 (id=22544483)\t81%; discharging; 6:12 remaining present: true
"""

PMSET_MAINS = "Now drawing from 'AC Power'\n -InternalBattery-0\t100%; charged; 0:00 remaining\n"

PMSET_THROTTLED = (
    "CPU_Scheduler_Limit \t= 100\n\tCPU_Available_CPUs \t= 8\n\tCPU_Speed_Limit \t= 62\n"
)


def test_meminfo_is_in_bytes() -> None:
    """The kernel writes kB and means 1,024 bytes; counts without a unit are no sizes."""
    info = parse.meminfo(MEMINFO_PI5)
    assert info["MemTotal"] == 8256544 * 1024
    assert info["MemAvailable"] == 7164912 * 1024
    assert "HugePages_Total" not in info


def test_stall_shares_are_ratios() -> None:
    """PSI prints percent of the last ten seconds."""
    assert parse.memory_stall(PSI) == Stall(some_ratio=0.125, full_ratio=0.0125)


@pytest.mark.parametrize(
    ("some", "full", "available", "level"),
    [
        (0.0, 0.0, 0.50, "normal"),
        (0.0, 0.0, None, "normal"),
        (0.099, 0.019, 0.10, "normal"),
        (0.10, 0.0, 0.50, "warn"),
        (0.0, 0.02, 0.50, "warn"),
        (0.0, 0.0, 0.099, "warn"),
        (0.40, 0.0, 0.50, "critical"),
        (0.0, 0.10, 0.50, "critical"),
        (0.0, 0.0, 0.039, "critical"),
    ],
)
def test_pressure_is_the_worst_of_three_witnesses(
    some: float, full: float, available: float | None, level: str
) -> None:
    """Row by row: what some task waits, what all wait, what is left."""
    assert parse.pressure_level(Stall(some, full), available) == level


def test_cgroup_files() -> None:
    """The v2 line among v1's, `max` as no limit, and what can be given back."""
    assert parse.cgroup_path("4:memory:/x\n0::/system.slice/meshd.service\n") == (
        "/system.slice/meshd.service"
    )
    assert parse.cgroup_path("4:memory:/x\n") is None
    assert parse.cgroup_limit("max\n") is None
    assert parse.cgroup_limit("4294967296\n") == 4294967296
    assert parse.cgroup_reclaimable("anon 5\ninactive_file 4096\n") == 4096


def test_chip_name_prefers_the_board() -> None:
    """A Pi is known by its board; a PC by its processor, spaces tidied."""
    board = "Raspberry Pi 5 Model B Rev 1.0\0"
    assert parse.chip_name(CPUINFO_PI5, board) == "Raspberry Pi 5 Model B Rev 1.0"
    assert parse.chip_name(CPUINFO_PI5, "") == "Raspberry Pi 5 Model B Rev 1.0"
    assert parse.chip_name(CPUINFO_PC, "") == "AMD RYZEN AI MAX+ 395 w/ Radeon 8060S"
    assert parse.chip_name("", "") == ""


def test_hyperthreads_are_not_cores() -> None:
    """Three processors on two cores are two; on ARM every processor is a core."""
    assert parse.physical_cores(CPUINFO_PC) == 2
    assert parse.physical_cores(CPUINFO_PI5) == 4


def test_cpu_ratio_is_the_busy_share_between_two_readings() -> None:
    """Idle and waiting for a disk are not busy; no time passed is 0, not a division by zero."""
    earlier = parse.cpu_times("cpu  100 0 100 700 100 0 0 0 0 0\ncpu0 1 2 3\n")
    later = parse.cpu_times("cpu  150 0 100 750 100 0 0 0 0 0\n")
    assert earlier == CpuTimes(busy=200, total=1000)
    assert later is not None
    assert later.ratio_since(earlier) == 0.5
    assert later.ratio_since(later) == 0.0


def test_a_mouse_is_not_a_laptop() -> None:
    """Batteries of attached devices say nothing about the machine's own power."""
    mouse = {"type": "Battery", "status": "Discharging", "scope": "Device"}
    laptop = {"type": "Battery", "status": "Discharging", "scope": ""}
    plugged = {"type": "Mains", "online": "1"}
    assert not parse.on_battery({"hidpp_battery_0": mouse})
    assert parse.on_battery({"BAT0": laptop, "AC": {"type": "Mains", "online": "0"}})
    assert not parse.on_battery({"BAT0": laptop, "AC": plugged})
    assert not parse.on_battery({})


def test_the_hottest_zone_counts() -> None:
    """Millidegrees; zones that cannot be read are left out."""
    assert parse.hottest_c({"zone0": "48250\n", "zone1": "81000\n", "zone2": ""}) == 81.0
    assert parse.hottest_c({}) is None


def test_strix_halo_is_known_by_its_gfx_id() -> None:
    """Its models may use the shared memory too; a card of its own has only its VRAM."""
    assert parse.kfd_gfx(KFD_STRIX_HALO) == "gfx1151"
    assert parse.kfd_gfx("gfx_target_version 90012\n") == "gfx90c"
    assert parse.kfd_render_minor(KFD_STRIX_HALO) == 128
    assert parse.kfd_gfx(KFD_PROCESSOR) is None
    assert parse.amd_usable_bytes("gfx1151", 1, 100) == 101
    assert parse.amd_usable_bytes("gfx1100", 24, 100) == 24


def test_nvidia_names_may_hold_commas_and_memory_may_be_missing() -> None:
    """One line a GPU; boards whose memory is not their own print [N/A] and are left out."""
    text = "NVIDIA H100 80GB HBM3, 81559\nNVIDIA GB10, [N/A]\n"
    assert parse.nvidia_smi(text) == (("NVIDIA H100 80GB HBM3", 81559 * 1024**2),)


def test_macos_commands() -> None:
    """vm_stat counts pages of its own size; pmset names the source of power."""
    assert parse.vm_stat_available(VM_STAT) == 16384 * (53824 + 601234 + 9876 + 12345)
    assert parse.sysctl(SYSCTL)["machdep.cpu.brand_string"] == "Apple M4 Pro"
    assert parse.sysctl(SYSCTL)["hw.memsize"] == "51539607552"
    assert [parse.macos_level(word) for word in ("1\n", "2\n", "4\n", "")] == [
        "normal",
        "warn",
        "critical",
        "normal",
    ]
    assert parse.pmset_on_battery(PMSET_BATTERY)
    assert not parse.pmset_on_battery(PMSET_MAINS)
    assert parse.pmset_hot(PMSET_THROTTLED)
    assert not parse.pmset_hot("Note: No thermal warning level has been recorded\n")


@pytest.mark.parametrize(
    ("read", "neutral"),
    [
        (parse.meminfo, {}),
        (parse.memory_stall, Stall()),
        (parse.cgroup_path, None),
        (parse.cgroup_limit, None),
        (parse.cgroup_reclaimable, 0),
        (parse.cpu_times, None),
        (parse.physical_cores, 0),
        (parse.kfd_gfx, None),
        (parse.kfd_render_minor, None),
        (parse.nvidia_smi, ()),
        (parse.sysctl, {}),
        (parse.vm_stat_available, None),
        (parse.macos_level, "normal"),
        (parse.pmset_on_battery, False),
        (parse.pmset_hot, False),
    ],
)
def test_nothing_to_read_is_neutral(read: Callable[[str], object], neutral: object) -> None:
    """A missing file reads as empty text, and costs nothing but its own figure."""
    assert read("") == neutral


@given(st.text(max_size=300))
@example("0\x1f")
def test_no_text_raises(text: str) -> None:
    """Kernels and tools may print anything at all."""
    parse.pressure_level(parse.memory_stall(f"some avg10={text}"), None)
    parse.cpu_times(f"cpu {text}")
    parse.cgroup_limit(text)
    parse.chip_name(text, text)
    parse.kfd_gfx(f"gfx_target_version {text}")
    parse.vm_stat_available(text)
    parse.hottest_c({"zone": text})
    parse.macos_level(text)


@pytest.mark.parametrize(("idle_s", "active"), [(3, True), (119, True), (121, False)])
def test_an_owner_at_the_keys_is_seen_by_the_idle_time(idle_s: int, active: bool) -> None:
    """In the shape of `ioreg -c IOHIDSystem`, shortened; no line means nobody."""
    text = f'  | |   {{\n  | |     "HIDIdleTime" = {idle_s * 10**9}\n  | |   }}\n'
    assert parse.hid_active(text) is active
    assert parse.hid_active("") is False
