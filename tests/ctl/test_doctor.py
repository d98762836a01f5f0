"""The doctor's rules, one table of facts and findings; and what it reads from this machine."""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from meshd.ctl import exits
from meshd.ctl.app import main
from meshd.ctl.doctor.facts import Daemon, Facts, Multicast, Reach
from meshd.ctl.doctor.gather import free_bytes, gpus_present, python_gain
from meshd.ctl.doctor.network import try_members
from meshd.ctl.doctor.ports import holder_of, inodes_of, read_lsof
from meshd.ctl.doctor.rules import RULES, diagnose

NOW = 1_700_000_000.0


def member(name: str, **changed: Any) -> dict[str, Any]:
    """A healthy member's row of a status."""
    row: dict[str, Any] = {
        "id": name,
        "name": name,
        "state": "alive",
        "incarnation": int((NOW - 3600) * 1000),
        "endpoints": [f"192.168.1.{len(name)}:8788"],
        "address": None,
        "capacity": {"software": "0.1.0", "gpus": []},
        "load": {"pressure": "normal", "draining": False},
        "models": [{"id": "m"}],
    }
    return row | changed


def status(*members: dict[str, Any], **changed: Any) -> dict[str, Any]:
    """A status told by the first of `members`."""
    rows = members or (member("desk"), member("attic"))
    return {"self": rows[0]["id"], "members": rows, "counters": {}, "notices": []} | changed


def facts(**changed: Any) -> Facts:
    """A healthy machine in a mesh of two."""
    base: dict[str, Any] = {
        "system": "Linux",
        "now_unix_s": NOW,
        "daemon": Daemon("http://127.0.0.1:8787", answers=True),
        "status": status(),
        "multicast": Multicast(heard_self=True, heard_others=3),
        "reaches": (Reach("attic", "192.168.1.5:8788", "open"),),
        "disk_free_bytes": 500 * 2**30,
        "state_dir": "/var/lib/meshd",
    }
    return Facts(**(base | changed))


SILENT = Reach("attic", "192.168.1.5:8788", "silent")
UNREACHABLE = Reach("attic", "192.168.1.5:8788", "unreachable")
ALONE = status(member("desk"))
DOWN = {"status": {}, "reaches": ()}

CASES: dict[str, tuple[dict[str, Any], str]] = {
    "nobody answers": (
        DOWN | {"daemon": Daemon("http://x", answers=False, trouble="refused")}, "daemon"),
    "another program has the port": (
        DOWN | {"daemon": Daemon("http://x", answers=False, holder="nginx (7)")}, "daemon"),
    "it wants a key": (
        DOWN | {"daemon": Daemon("http://x", answers=False, trouble="a key!", spoke=True)},
        "daemon"),
    "the settings are wrong": (
        DOWN | {"daemon": Daemon("http://x", answers=False, settings_error="line 3")}, "daemon"),
    "the disk is nearly full": ({"disk_free_bytes": 50 * 2**20}, "disk"),
    "macOS keeps it from the network": (
        {"system": "Darwin", "reaches": (UNREACHABLE,)}, "local-network"),
    "UDP 5353 is held": (
        {"multicast": Multicast("Address already in use", "avahi (9)")}, "mdns-port"),
    "multicast does not even come back": (
        {"multicast": Multicast(heard_self=False, heard_others=0)}, "mdns-blocked"),
    "nobody is heard": (
        {"multicast": Multicast(heard_self=True, heard_others=0), "status": ALONE, "reaches": ()},
        "no-multicast"),
    "nobody can be connected to": ({"reaches": (SILENT,)}, "isolation"),
    "one cannot be connected to": (
        {"reaches": (SILENT, Reach("cellar", "192.168.1.6:8788", "open"))}, "firewall"),
    "long prompts hang on their way": (
        {"reaches": (Reach("attic", "192.168.1.5:8788", "choked"),)}, "large-packets"),
    "it tells docker's address": (
        {"status": status(member("desk", endpoints=["172.17.0.2:8788"]), member("attic"))},
        "interface"),
    "it has IPv6 only": (
        {"status": status(member("desk", endpoints=["[fd00::1]:8788"]), member("attic"))},
        "ipv6-only"),
    "a stranger knocks": (
        {"strangers": 4}, "wrong-key"),
    "its identity was copied": (
        {"status": status(notices=[{"age_s": 1, "text": "the state directory was copied"}])},
        "cloned-identity"),
    "a clock is ahead": (
        {"status": status(member("desk"), member("attic", incarnation=int((NOW + 3600) * 1000)))},
        "clock"),
    "versions differ": (
        {"status": status(
            member("desk"), member("attic", capacity={"software": "0.2.0", "gpus": []}))},
        "versions"),
    "a member is lost": ({"status": status(member("desk"), member("attic", state="dead"))},
                         "members"),
    "nobody has a model": (
        {"status": status(member("desk", models=[]), member("attic", models=[]))}, "engines"),
    "a GPU is not seen": ({"gpus_present": ("an NVIDIA GPU",)}, "gpu"),
    "memory is short": (
        {"status": status(
            member("desk", load={"pressure": "critical", "draining": False}), member("attic"))},
        "memory"),
    "it was told to drain": (
        {"status": status(
            member("desk", load={"pressure": "normal", "draining": True}), member("attic"))},
        "draining"),
    "the system's Python is quicker": ({"python_gain": 1.5}, "python"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_each_trouble_is_named_and_nothing_else(case: str) -> None:
    """One cause, one finding, with something to do."""
    changed, check = CASES[case]
    (finding,) = diagnose(facts(**changed))
    assert finding.check == check
    assert finding.fix


def test_a_healthy_machine_has_no_findings() -> None:
    """And a node without models is healthy in company."""
    assert diagnose(facts()) == []
    borrowing = status(member("desk", models=[]), member("attic"))
    assert diagnose(facts(status=borrowing)) == []
    assert diagnose(facts(python_gain=1.1)) == []


@pytest.mark.parametrize("heard_self", [True, False])
def test_multicast_is_nothing_to_who_does_not_want_it(heard_self: bool) -> None:
    """With --no-mdns its silence is no finding, and its cure no help."""
    heard = Multicast(heard_self=heard_self, heard_others=0)
    assert diagnose(facts(multicast=heard, mdns_wanted=False, status=ALONE, reaches=())) == []


def test_what_could_not_be_told_is_no_finding() -> None:
    """A doctor who guesses is worse than none."""
    assert diagnose(facts(multicast=None, reaches=(), disk_free_bytes=None)) == []


def test_every_rule_has_its_case() -> None:
    """A rule nobody tests may say anything."""
    assert len({check for _, check in CASES.values()}) == len(RULES)


def test_the_holder_of_a_port_is_found_here() -> None:
    """By name and number, where the process is ours to see."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        assert f"({os.getpid()})" in holder_of(listening.getsockname()[1])


def test_proc_tables_and_lsof_are_read() -> None:
    """Recorded text: a listening and a connected socket; two processes."""
    table = (
        "  sl  local_address rem_address   st tx rx tr tm retr uid timeout inode\n"
        "   0: 0100007F:2253 00000000:0000 0A 0:0 0:0 0 0 0 4711 1\n"
        "   1: 0100007F:2253 0100007F:9999 01 0:0 0:0 0 0 0 4712 1\n"
    )
    assert inodes_of(table, 0x2253) == {"4711"}
    assert inodes_of(table, 80) == set()
    assert read_lsof("p12\ncmeshd\nf3\np13\ncnginx\n") == ["meshd (12)", "nginx (13)"]


def test_connections_are_tried_for_real() -> None:
    """Open, and refused; a member without an address is left out."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        place = f"127.0.0.1:{listening.getsockname()[1]}"
        rows = [member("a", address=place), member("b", endpoints=[])]
        assert try_members(rows) == (Reach("a", place, "open"),)
    assert try_members([member("a", address=place)]) == (Reach("a", place, "refused"),)


def test_graphics_cards_are_read_from_the_system(tmp_path: Path) -> None:
    """By vendor; a virtual one is none."""
    for name, vendor in (("card0", "0x10de"), ("card1", "0x1af4"), ("card2", "0x10de")):
        (tmp_path / name / "device").mkdir(parents=True)
        (tmp_path / name / "device/vendor").write_text(vendor + "\n")
    assert gpus_present(tmp_path) == ("an NVIDIA GPU",)


def test_a_folder_where_we_may_not_look_is_no_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service's state is closed to the person who asks the doctor."""
    assert (free_bytes(tmp_path / "not" / "yet") or 0) > 0

    def refuse(path: Path, *_: object, **__: object) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "exists", refuse)
    assert free_bytes(tmp_path) is None


def test_another_python_is_asked_how_fast_it_is(tmp_path: Path) -> None:
    """Not this one itself, nor one that cannot run a node."""
    assert python_gain(Path(sys.executable).resolve()) is None
    assert python_gain(tmp_path / "none") is None
    other = tmp_path / "python3"
    for said, is_quicker in (("echo 1", True), ("echo 1000000000", False), ("exit 1", None)):
        other.write_text(f"#!/bin/sh\n{said}\n")
        other.chmod(0o755)
        gain = python_gain(other)
        assert (gain and gain > 1) is is_quicker


def test_a_daemon_that_is_down_is_degraded(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 5, and JSON for those who read it with a program."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        assert main(["doctor", "--node", url, "--json"]) == exits.DEGRADED
    body = json.loads(capsys.readouterr().out)
    assert body["schema_version"] == 1
    assert body["findings"][0]["check"] == "daemon"


def findings(capsys: pytest.CaptureFixture[str], url: str) -> dict[str, str]:
    """What the doctor says of each check, asked as a person asks."""
    main(["doctor", "--node", url, "--json"])
    return {row["check"]: row["what"] for row in json.loads(capsys.readouterr().out)["findings"]}


def test_a_node_that_wants_a_key_is_not_told_to_start(
    daemon: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """It runs; its owner only has to say who asks."""
    daemon.status = 401
    assert "wants an API key that it knows" in findings(capsys, daemon.url)["daemon"]


@pytest.mark.parametrize(("later", "named"), [(7, False), (9, True)])
def test_strangers_of_before_are_members_by_now(
    daemon: Any, capsys: pytest.CaptureFixture[str], later: int, named: bool
) -> None:
    """A newcomer knocks until it is paired; in company only who still knocks is one."""
    now, then = [
        {**daemon.bodies["/mesh/v1/status"], "counters": {"control_strangers": count}}
        for count in (7, later)
    ]
    daemon.bodies = {**daemon.bodies, "/mesh/v1/status": [now, then]}
    assert ("wrong-key" in findings(capsys, daemon.url)) is named


def test_a_url_that_is_none_is_usage(capsys: pytest.CaptureFixture[str]) -> None:
    """As for every other command."""
    assert main(["doctor", "--node", "http://attic:port"]) == exits.USAGE
    assert "not the URL of a node" in capsys.readouterr().err


def test_an_answer_of_another_version_is_one_line(
    daemon: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """And no traceback."""
    daemon.bodies = {"/mesh/v1/status": {"self": "a", "members": [{"id": "b", "name": "b"}]}}
    assert main(["doctor", "--node", daemon.url]) == exits.FAILURE
    assert "not one of meshd" in capsys.readouterr().err
