"""The service on macOS: a LaunchDaemon of the machine, or a LaunchAgent of one person's session.

The daemon is the default, run under the installing person's name. From macOS 15 on, Local Network
privacy stops a background *agent* that no user has allowed from reaching other machines: its
connections fail with EHOSTUNREACH while loopback works, often without any question being asked.
Daemons are exempt (Apple's TN3179). It also serves while nobody is logged in.

`ProcessType` Interactive keeps macOS from slowing it down as background work; `KeepAlive` restarts
it unless it ended well, not sooner than ThrottleInterval (launchd has no growing back-off).

Recorded, not run: no machine of ours that builds this has macOS. The plists are parsed and their
keys compared with launchd.plist(5) in the tests; the commands are as launchctl(1) documents them.
"""

from __future__ import annotations

import plistlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from meshd.ctl.service.plan import Folder, Installation, Remove, Run, Step, Write, example_config

LABEL = "local.meshd"
PLIST = f"{LABEL}.plist"
LOG = "meshd.log"

DAEMONS = Path("/Library/LaunchDaemons")
DAEMON_LOGS = Path("/Library/Logs/meshd")
DAEMON_SUPPORT = Path("/Library/Application Support/meshd")
"""Settings and state of a machine's service."""

OPEN_FILES = 16_384
"""launchd's own default is 256: fewer than a busy endpoint has connections."""

THROTTLE_S = 10
"""launchd's own shortest pause between two starts, said aloud."""

EXIT_S = 20
"""What a stopping node gets to hand its streams over, before SIGKILL."""


RELEASE_S = EXIT_S + 10.0
"""`bootout` returns before the service has ended, and launchd keeps its label for some seconds
more: until then `bootstrap` fails with "5: Input/output error"."""


def plist(told: Installation) -> Mapping[str, Any]:
    """The property list as a mapping."""
    place = _place(told)
    keys: dict[str, Any] = {
        "Label": LABEL,
        "ProgramArguments": [
            str(told.program),
            "run",
            *("--config", str(place.config)),
            *("--state-dir", str(place.state)),
            *("--log-format", "json"),
        ],
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "ThrottleInterval": THROTTLE_S,
        "ExitTimeOut": EXIT_S,
        "ProcessType": "Interactive",
        "SoftResourceLimits": {"NumberOfFiles": OPEN_FILES},
        "HardResourceLimits": {"NumberOfFiles": OPEN_FILES},
        "Umask": 0o077,
        "StandardOutPath": str(place.logs / LOG),
        "StandardErrorPath": str(place.logs / LOG),
    }
    if not told.personal:
        keys["UserName"] = told.run_as
        keys["EnvironmentVariables"] = {"HOME": str(told.home)}
    return keys


def plist_text(told: Installation) -> str:
    """The property list as a file's text."""
    return plistlib.dumps(plist(told)).decode()


def file(told: Installation) -> Path:
    """Where the property list is."""
    return _place(told).plist


def state(told: Installation) -> Path:
    """Where the daemon keeps its state."""
    return _place(told).state


def install(told: Installation) -> Sequence[Step]:
    """Everything that makes it run now and at every start."""
    place = _place(told)
    return (
        Folder(place.logs, told.run_as),
        Folder(place.state, told.run_as),
        Folder(place.config.parent),
        Write(place.config, example_config(), keep=True),
        Write(place.plist, plist_text(told)),
        Run(("launchctl", "bootout", f"{place.domain}/{LABEL}"), may_fail=True),
        Run(("launchctl", "enable", f"{place.domain}/{LABEL}")),
        Run(("launchctl", "bootstrap", place.domain, str(place.plist)), patience_s=RELEASE_S),
    )


def uninstall(told: Installation, *, purge: bool) -> Sequence[Step]:
    """Everything that takes it away again."""
    place = _place(told)
    steps: list[Step] = [
        Run(("launchctl", "bootout", f"{place.domain}/{LABEL}"), may_fail=True),
        Remove(place.plist),
    ]
    if purge:
        steps += [Remove(place.state), Remove(place.config.parent), Remove(place.logs)]
    return steps


def start(told: Installation) -> Sequence[Step]:
    """Start it; a service that was booted out comes back."""
    place = _place(told)
    return (
        Run(
            ("launchctl", "kickstart", f"{place.domain}/{LABEL}"),
            otherwise=("launchctl", "bootstrap", place.domain, str(place.plist)),
            patience_s=RELEASE_S,
        ),
    )


def stop(told: Installation) -> Sequence[Step]:
    """Stop it until the next start of the machine, or log-in."""
    return (Run(("launchctl", "bootout", f"{_place(told).domain}/{LABEL}")),)


def status(told: Installation) -> tuple[str, ...]:
    """The program that says how it is, as `launchctl print` writes it."""
    return ("launchctl", "print", f"{_place(told).domain}/{LABEL}")


def logs(told: Installation, *, follow: bool, lines: int) -> tuple[str, ...]:
    """The program that shows its log."""
    file = _place(told).logs / LOG
    return ("tail", "-n", str(lines), *(("-F",) * follow), str(file))


RESULTS = {"0": "success", "(never exited)": ""}
"""What launchd says of nothing wrong, in systemd's words."""


def read_status(printed: str) -> Mapping[str, Any]:
    """`launchctl print` as a few facts. The first `state = ` line is the service's own; those of
    its endpoints come below."""
    facts: dict[str, str] = {}
    for line in printed.splitlines():
        key, equals, value = line.strip().partition(" = ")
        if equals:
            facts.setdefault(key, value)
    result = facts.get("last exit code", "")
    return {
        "state": facts.get("state", "not installed"),
        "pid": int(facts.get("pid", "0")),
        "restarts": max(0, int(facts.get("runs", "1")) - 1),
        "result": RESULTS.get(result, result),
    }


class _Place:
    def __init__(self, domain: str, plist: Path, config: Path, state: Path, logs: Path) -> None:
        self.domain = domain
        self.plist = plist
        self.config = config
        self.state = state
        self.logs = logs


def _place(told: Installation) -> _Place:
    if not told.personal:
        return _Place(
            "system",
            DAEMONS / PLIST,
            DAEMON_SUPPORT / "config.toml",
            DAEMON_SUPPORT / "state",
            DAEMON_LOGS,
        )
    library = told.home / "Library"
    return _Place(
        f"gui/{told.uid}",
        library / "LaunchAgents" / PLIST,
        told.config,
        told.state,
        library / "Logs/meshd",
    )
