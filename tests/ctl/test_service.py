"""The service plans: what they write and run on Linux and macOS; the shipped files agree."""

from __future__ import annotations

import configparser
import plistlib
import shutil
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from meshd.config import load_settings
from meshd.ctl import exits
from meshd.ctl.app import main
from meshd.ctl.exits import Trouble
from meshd.ctl.service import command, launchd, systemd
from meshd.ctl.service.command import carry_out, closed_to_others
from meshd.ctl.service.plan import (
    EXAMPLES,
    Installation,
    Remove,
    Run,
    Write,
    described,
    example_config,
    written,
)
from meshd.options import OPTIONS
from tests.project.sources import ROOT

MESHCTL = str(Path(sys.executable).with_name("meshctl"))
PROGRAM = Path("/usr/local/bin/meshd")
MACHINE = Installation(PROGRAM, personal=False)
NAMED = Installation(PROGRAM, personal=False, run_as="kim", home=Path("/srv/kim"))
OWN = Installation(
    PROGRAM,
    personal=True,
    home=Path("/srv/kim"),
    uid=1000,
    config=Path("/srv/kim/.config/meshd/config.toml"),
    state=Path("/srv/kim/.local/state/meshd"),
)
MAC = Installation(PROGRAM, personal=False, run_as="owner", home=Path("/Users/owner"))
SUPPORT = Path("/Users/owner/Library/Application Support/meshd")
MAC_OWN = Installation(
    PROGRAM,
    personal=True,
    home=Path("/Users/owner"),
    uid=501,
    config=SUPPORT / "config.toml",
    state=SUPPORT,
)

PLIST_KEYS = {
    "EnvironmentVariables", "ExitTimeOut", "HardResourceLimits", "KeepAlive", "Label",
    "ProcessType", "ProgramArguments", "RunAtLoad", "SoftResourceLimits", "StandardErrorPath",
    "StandardOutPath", "ThrottleInterval", "Umask", "UserName",
}  # fmt: skip
"""Those of launchd.plist(5) that are ours; launchd ignores a misspelt key without a word."""

PRINTED = """\
system/local.meshd = {
	active count = 1
	path = /Library/LaunchDaemons/local.meshd.plist
	type = LaunchDaemon
	state = running

	program = /usr/local/bin/meshd
	runs = 3
	pid = 412
	last exit code = 1
	endpoints = {
		"x" = {
			state = not running
		}
	}
}
"""  # fmt: skip
"""In the shape of `launchctl print`, shortened."""


def unit(text: str) -> configparser.ConfigParser:
    """A unit file, parsed; of a key given twice the last one counts."""
    read = configparser.ConfigParser(strict=False, interpolation=None)
    read.optionxform = str  # type: ignore[method-assign,assignment]
    read.read_string(text)
    return read


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("systemd/meshd.service", systemd.unit_text(MACHINE)),
        ("launchd/local.meshd.plist", launchd.plist_text(MAC)),
        ("launchd/local.meshd.agent.plist", launchd.plist_text(MAC_OWN)),
    ],
)
def test_a_shipped_file_is_what_install_writes(file: str, text: str) -> None:
    """Who installs by hand gets what `meshctl service install` gives."""
    assert (ROOT / file).read_text("utf-8") == text


def test_the_shipped_unit_of_a_session_is_what_install_writes_for_any_home() -> None:
    """systemd fills in %h."""
    text = (ROOT / "systemd/meshd-user.service").read_text("utf-8").replace("%h", "/srv/kim")
    own = replace(OWN, program=Path("/srv/kim/.local/bin/meshd"))
    assert text == systemd.unit_text(own)


def test_the_unit_waits_for_readiness_and_for_words_of_life() -> None:
    """Started means serving; a daemon that hangs is restarted; wrong settings are not."""
    service = unit(systemd.unit_text(MACHINE))["Service"]
    assert service["Type"] == "notify"
    assert int(service["WatchdogSec"]) > 0
    assert service["Restart"] == "on-failure"
    assert service["RestartPreventExitStatus"] == "2"
    assert service["OOMPolicy"] == "continue"


@pytest.mark.parametrize(
    "forbidden", ["MemoryDenyWriteExecute", "PrivateDevices", "PrivateNetwork"]
)
def test_nothing_that_stops_a_gpu_or_a_compiler_at_run_time(forbidden: str) -> None:
    """These two lines of every hardening guide would cost the models."""
    assert forbidden not in unit(systemd.unit_text(MACHINE))["Service"]


def test_an_account_of_its_own_unless_one_is_named() -> None:
    """DynamicUser by default; --run-as for the models of a home."""
    assert unit(systemd.unit_text(MACHINE))["Service"]["DynamicUser"] == "yes"
    assert unit(systemd.unit_text(NAMED))["Service"]["User"] == "kim"
    assert "User" not in unit(systemd.unit_text(OWN))["Service"]


def test_growing_pauses_only_where_systemd_knows_them() -> None:
    """252 (Debian 12) would complain at each load of the unit."""
    old = Installation(PROGRAM, personal=False, manager_version=252)
    new = Installation(PROGRAM, personal=False, manager_version=254)
    assert "RestartSteps" not in unit(systemd.unit_text(old))["Service"]
    assert unit(systemd.unit_text(new))["Service"]["RestartMaxDelaySec"] == "60"


def test_a_program_with_odd_letters_in_its_path_is_quoted() -> None:
    """ExecStart= splits at blanks and replaces %."""
    odd = Installation(Path("/opt/my tools/100%/meshd"), personal=False)
    assert '"/opt/my tools/100%%/meshd"' in systemd.unit_text(odd)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
@pytest.mark.parametrize("told", [MACHINE, NAMED])
def test_systemd_itself_finds_the_unit_well_guarded(told: Installation, tmp_path: Path) -> None:
    """`systemd-analyze verify` is silent but for the program's place, and exposure is at most 3."""
    file = tmp_path / "meshd.service"
    file.write_text(systemd.unit_text(Installation(Path("/bin/true"), False, told.run_as)))
    verified = analyze("verify", str(file))
    assert verified.returncode == 0
    assert verified.stderr == ""
    secure = analyze("security", "--offline=true", "--threshold=30", str(file))
    assert secure.returncode == 0, secure.stdout[-400:]


def analyze(*words: str) -> subprocess.CompletedProcess[str]:
    """Runs systemd-analyze."""
    return subprocess.run(
        ["systemd-analyze", *words], capture_output=True, text=True, check=False, timeout=30
    )


@pytest.mark.parametrize("told", [MAC, MAC_OWN])
def test_a_plist_has_only_keys_that_launchd_knows(told: Installation) -> None:
    """And parses as one."""
    keys = plistlib.loads(launchd.plist_text(told).encode())
    assert set(keys) <= PLIST_KEYS
    assert keys["ProgramArguments"][0] == str(PROGRAM)
    assert keys["KeepAlive"] == {"SuccessfulExit": False}


def test_the_machines_plist_names_an_account_and_the_sessions_does_not() -> None:
    """A LaunchDaemon without UserName would be root; an agent is its person anyway."""
    assert launchd.plist(MAC)["UserName"] == "owner"
    assert "UserName" not in launchd.plist(MAC_OWN)


@pytest.mark.parametrize("told", [MACHINE, OWN])
def test_installing_twice_keeps_the_settings_on_linux(told: Installation) -> None:
    """Only the unit is written anew; the service is restarted, so an upgrade takes hold."""
    steps = systemd.install(told)
    kept = [step for step in steps if isinstance(step, Write) and step.keep]
    assert [step.path.name for step in kept] == ["config.toml"]
    assert (
        Run((*("systemctl",), *(["--user"] * told.personal), "restart", "meshd.service")) in steps
    )


def test_installing_on_macos_replaces_what_runs() -> None:
    """bootout may find nothing; bootstrap then loads the new plist."""
    runs = [step for step in launchd.install(MAC_OWN) if isinstance(step, Run)]
    assert [(run.argv[1], run.may_fail) for run in runs] == [
        ("bootout", True),
        ("enable", False),
        ("bootstrap", False),
    ]
    assert runs[-1].argv[2] == "gui/501"


@pytest.mark.parametrize("planner", [systemd, launchd])
@pytest.mark.parametrize("told", [MAC, MAC_OWN])
def test_uninstalling_keeps_state_unless_told(planner: object, told: Installation) -> None:
    """Only --purge removes settings and state, which are the owner's."""
    steps = planner.uninstall(told, purge=False)  # type: ignore[attr-defined]
    purged = planner.uninstall(told, purge=True)  # type: ignore[attr-defined]
    gone = [step.path for step in steps if isinstance(step, Remove)]
    kept = {"/etc/meshd", "/var/lib/meshd", str(SUPPORT), str(launchd.DAEMON_SUPPORT)}
    assert gone[0] == planner.file(told)  # type: ignore[attr-defined]
    assert kept.isdisjoint(map(str, gone))
    assert len([step for step in purged if isinstance(step, Remove)]) > 2


def test_statuses_are_read_from_what_the_managers_print() -> None:
    """Recorded text; nothing printed means not installed."""
    shown = "LoadState=loaded\nActiveState=active\nMainPID=7\nNRestarts=2\nStatusText=http://x"
    assert systemd.read_status(shown) == {
        "state": "active", "pid": 7, "restarts": 2, "says": "http://x", "result": "",
    }  # fmt: skip
    assert systemd.read_status("LoadState=not-found\n")["state"] == "not installed"
    assert launchd.read_status(PRINTED) == {
        "state": "running", "pid": 412, "restarts": 2, "result": "1",
    }  # fmt: skip
    assert launchd.read_status("")["state"] == "not installed"


@pytest.mark.parametrize(("said", "result"), [("(never exited)", ""), ("0", "success"), ("9", "9")])
def test_launchds_word_for_nothing_wrong_is_no_trouble(said: str, result: str) -> None:
    """Of a service that runs since the start, or was stopped as asked, no reason need be shown."""
    printed = PRINTED.replace("last exit code = 1", f"last exit code = {said}")
    assert launchd.read_status(printed)["result"] == result


def test_every_setting_has_an_example_that_loads(tmp_path: Path) -> None:
    """The shipped settings with every # taken off are valid; as shipped they change nothing."""
    text = example_config()
    assert tomllib.loads(text) == {}
    lines = [line.removeprefix("#") if " = " in line else "" for line in text.splitlines()]
    file = tmp_path / "config.toml"
    file.write_text("\n".join(lines))
    load_settings({"state_dir": str(tmp_path)}, {}, file)
    assert {option.key for option in OPTIONS} - set(EXAMPLES) <= {"state_dir"}


@pytest.mark.skipif(shutil.which("systemctl") is None, reason="no systemctl here")
def test_print_shows_every_step_and_does_none(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A person who is asked for root can look first."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "own"))
    monkeypatch.setattr("sys.argv", [MESHCTL])
    assert main(["service", "install", "--user", "--print"]) == exits.OK
    shown = capsys.readouterr().out
    assert "# run systemctl --user daemon-reload" in shown
    assert "Type=notify" in shown
    assert f"--config {tmp_path / 'own/meshd/config.toml'}" in shown  # where `config set` writes
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(shutil.which("systemctl") is None, reason="no systemctl here")
@pytest.mark.parametrize("whose", ["--user", "--run-as=root"])
def test_a_service_without_a_program_is_not_installed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, whose: str
) -> None:
    """`python -m meshd.ctl` has no meshd beside it; a unit that names none would fail for ever."""
    monkeypatch.setattr("sys.argv", [str(ROOT / "meshd/ctl/__main__.py")])
    assert main(["service", "install", whose, "--print"]) == exits.FAILURE
    assert "there is no meshd beside meshctl" in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("systemctl") is None, reason="no systemctl here")
@pytest.mark.parametrize(("machines", "says"), [(False, "systemctl --user"), (True, "systemctl")])
def test_the_only_service_there_is_needs_no_flag(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    machines: bool,
    says: str,
) -> None:
    """`meshctl service stop`, as the settings advise it, stops the one that was installed."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(systemd, "SYSTEM_UNITS", tmp_path / "etc")
    for folder in (".config/systemd/user", *(["etc"] * machines)):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / systemd.UNIT).touch()
    assert main(["service", "stop", "--print"]) == exits.OK
    assert capsys.readouterr().out == f"# run {says} stop meshd.service\n"


def test_what_fails_for_a_moment_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """launchd refuses a service that has just ended; one that is not loaded can be loaded."""
    monkeypatch.setattr(command, "AGAIN_S", 0.0)
    at_the_third = f'echo x >> "{tmp_path}/tries"; test $(wc -l < "{tmp_path}/tries") -ge 3'
    carry_out(Run(("sh", "-c", at_the_third), patience_s=20))
    carry_out(Run(("false",), otherwise=("touch", str(tmp_path / "loaded"))))
    assert (tmp_path / "loaded").exists()
    with pytest.raises(Trouble, match="false failed"):
        carry_out(Run(("false",), otherwise=("false",)))


def test_the_groups_that_may_use_graphics_cards_are_named_where_they_are() -> None:
    """An account of its own is in none of them, and /dev/dri is theirs; one that is not there would
    keep the unit from starting."""
    told = replace(MACHINE, groups=("render", "video"))
    assert unit(systemd.unit_text(told))["Service"]["SupplementaryGroups"] == "render video"
    assert "SupplementaryGroups" not in systemd.unit_text(MACHINE)


def test_each_step_can_be_said_in_a_line() -> None:
    """For --print, and for the message when one fails."""
    steps = [*launchd.install(MAC), *launchd.uninstall(MAC, purge=True)]
    assert all("\n" not in described(step) for step in steps)
    assert launchd.DAEMONS / launchd.PLIST in written(steps)


def test_a_closed_folder_above_the_program_is_found(tmp_path: Path) -> None:
    """A service's own account cannot run what lies in somebody's private home."""
    closed = tmp_path / "home"
    (closed / "bin").mkdir(parents=True)
    closed.chmod(0o700)
    assert closed_to_others(closed / "bin/meshd") == closed
