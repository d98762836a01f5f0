"""The shipped unit under a real systemd: readiness, watchdog, restart, settings, removal."""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import urllib.request
from pathlib import Path

import pytest

from meshd.ctl.service.command import closed_to_others
from tests.e2e.daemons import free_port_pair, wait_until
from tests.services.systemd_trial import Trial, why_not

MESHCTL = Path(sys.executable).with_name("meshctl")
EMULATED = "emulated:model=echo,prompt_tps=20000,generation_tps=400,slots=2"

CLOSED = closed_to_others(MESHCTL) or closed_to_others(Path(sys.executable).resolve())
ACCOUNT = ("root",) if CLOSED else ()
"""Where this checkout or its Python lies in a closed folder, the service runs as root instead of as
an account of its own."""

pytestmark = [
    pytest.mark.skipif(bool(why_not()), reason=why_not()),
    pytest.mark.timeout(180),
    pytest.mark.slow,
]


@pytest.fixture
def port():
    """Where the service answers."""
    return free_port_pair()


@pytest.fixture
def trial(tmp_path, port):
    """A booted systemd, with settings for a service that disturbs nobody here."""
    mesh = free_port_pair()
    config = (
        f'http = "127.0.0.1:{port}"\nmesh = "127.0.0.1:{mesh}"\nno_mdns = true\nno_adopt = true\n'
        f'no_catalog = true\nengine = ["{EMULATED}"]\n'
    )
    booted = Trial(tmp_path, config)
    if Path(tempfile.gettempdir()) in MESHCTL.parents:
        drop_in(booted, "checkout", f"BindReadOnlyPaths={MESHCTL.parents[2]}")
    yield booted
    booted.end()


def drop_in(trial, name, line):
    """One more line for the unit; a checkout in /tmp is out of sight of a service with its own."""
    folder = "/etc/systemd/system/meshd.service.d"
    trial.run("mkdir", "-p", folder)
    trial.run("sh", "-c", f"printf '[Service]\\n{line}\\n' > {folder}/{name}.conf")


def service(trial, *words):
    """`meshctl service ...` in there."""
    account = [word for name in ACCOUNT for word in ("--run-as", name)]
    return trial.run(str(MESHCTL), "service", *words, *account, limit_s=120)


def healthy(port):
    """Whether /health answers."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2) as answer:
            return answer.status == 200
    except OSError:
        return False


def main_pid(trial):
    """The daemon's pid as this test sees it: the inner systemd counts in its own namespace."""
    inner = trial.show("MainPID")
    space = trial.run("readlink", "/proc/self/ns/pid").stdout.strip()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and _pid_inside(entry) == (space, inner):
            return int(entry.name)
    raise AssertionError(f"no process {inner} of the inner systemd")


def _pid_inside(entry):
    """The namespace of a process, and its pid in there."""
    try:
        space = str((entry / "ns/pid").readlink())
        lines = (entry / "status").read_text().splitlines()
    except OSError:
        return "", ""
    pids = next((line.split() for line in lines if line.startswith("NSpid:")), [""])
    return space, pids[-1]


def test_installed_means_serving_and_uninstalled_means_gone(trial, port):
    """`install` returns when /health answers, as an account of its own; `uninstall` leaves state,
    `--purge` nothing."""
    done = service(trial, "install")
    assert done.returncode == 0, done.stderr + trial.log.read_text()
    assert healthy(port)
    assert trial.show("ActiveState") == "active"
    assert trial.show("StatusText") == f"http://127.0.0.1:{port}"
    status = json.loads(service(trial, "status", "--json").stdout)
    assert status["state"] == "active"
    assert (
        trial.run("stat", "-c", "%U", f"/proc/{status['pid']}").stdout.strip()
        == (*ACCOUNT, "meshd")[0]
    )
    assert service(trial, "install").returncode == 0
    assert healthy(port)
    assert service(trial, "uninstall").returncode == 0
    assert not healthy(port)
    assert trial.show("LoadState") == "not-found"
    assert trial.run("test", "-d", "/var/lib/meshd").returncode == 0
    assert trial.run("test", "-e", "/var/cache/meshd").returncode == 1
    assert service(trial, "uninstall", "--purge").returncode == 0
    assert trial.run("test", "-e", "/var/lib/meshd").returncode == 1
    assert trial.run("test", "-e", "/etc/meshd").returncode == 1


def test_a_killed_daemon_comes_back_and_a_stuck_one_is_restarted(trial, port):
    """kill -9: back within seconds. SIGSTOP: no word of life, so the watchdog ends it."""
    drop_in(trial, "watchdog", "WatchdogSec=3")
    assert service(trial, "install").returncode == 0
    os.kill(main_pid(trial), signal.SIGKILL)
    wait_until(lambda: trial.show("NRestarts") == "1" and healthy(port), 30, "it is back")
    os.kill(main_pid(trial), signal.SIGSTOP)
    wait_until(lambda: trial.show("NRestarts") == "2" and healthy(port), 60, "it is back again")


def test_settings_that_are_wrong_are_not_tried_over_and_over(trial):
    """Exit code 2 is for a person to mend: no restart, and `install` says where to look."""
    trial.run("sh", "-c", "echo 'colour = \"red\"' >> /etc/meshd/config.toml")
    done = service(trial, "install")
    assert done.returncode == 1
    assert "service logs" in done.stderr
    assert trial.show("NRestarts") == "0"
    assert trial.show("ExecMainStatus") == "2"
