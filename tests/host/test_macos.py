"""The Mac reader on recorded command output; it has not run on a Mac."""

from __future__ import annotations

from meshd.host.macos import MacProbe

OUTPUT = {
    "sysctl machdep.cpu.brand_string hw.memsize hw.physicalcpu": (
        "machdep.cpu.brand_string: Apple M4 Pro\nhw.memsize: 51539607552\nhw.physicalcpu: 14\n"
    ),
    "sysctl -n kern.memorystatus_vm_pressure_level": "2\n",
    "vm_stat": "VM: (page size of 16384 bytes)\nPages free:   1000.\nPages inactive: 500.\n",
    "pmset -g batt": "Now drawing from 'Battery Power'\n",
    "pmset -g therm": "Note: No thermal warning level has been recorded\n",
    "ioreg -c IOHIDSystem -d 4": '  | |     "HIDIdleTime" = 2000000000\n',
}


def recorded(command: tuple[str, ...]) -> str:
    return OUTPUT[" ".join(command)]


def test_a_mac_is_read_from_its_commands() -> None:
    """Chip, memory, the kernel's own pressure level, power."""
    probe = MacProbe(recorded)
    facts, reading = probe.facts(), probe.read()
    assert (facts.chip, facts.cores, facts.memory_total_bytes) == ("Apple M4 Pro", 14, 51539607552)
    assert facts.gpus == (("Apple M4 Pro", 38654705664),)
    assert reading.pressure == "warn"
    assert reading.memory_available_bytes == 1500 * 16384
    assert reading.on_battery
    assert not reading.hot
    assert reading.owner_active


def test_a_mac_whose_commands_fail_is_neutral() -> None:
    """No output anywhere: normal pressure, no memory claimed, no error."""
    probe = MacProbe(lambda command: "")
    assert probe.read().pressure == "normal"
    assert probe.facts().memory_total_bytes == 0
    assert probe.facts().gpus == ()
