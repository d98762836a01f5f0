"""The service on Linux: a systemd unit for the machine, or for one person's session.

The machine's unit is the recommended one: it starts at boot and survives log-outs. What it says,
and why:

- `Type=notify`: started means that `/health` answers, not that a process exists. `WatchdogSec`: the
  daemon reports life only while the mesh thread *and* the gateway loop both turn (`meshd.notify`);
- `OOMPolicy=continue` with workers that volunteer for the out-of-memory killer: a model that
  outgrows the machine costs that model, and the daemon says so to the mesh. `MemoryMax` is a fence
  for the rest of the machine, swap none: a model in swap answers nobody;
- exit code 2 is a mistake in the settings, which no restart mends;
- `SupplementaryGroups`: render nodes of graphics cards are a group's on most systems;
- hardening: no privileges, an own /tmp, a read-only system. Two usual lines are missing on purpose:
  `MemoryDenyWriteExecute` (GPU drivers and samplers compile at run time) and `PrivateDevices`
  (GPUs are devices; `DeviceAllow` names them instead).

An account of its own (`DynamicUser`) sees no home folder. Who wants the models of a home served
(Hugging Face, LM Studio, llama.cpp caches) runs the service as that person: `--run-as`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from meshd.ctl.service.plan import Folder, Installation, Remove, Run, Step, Write, example_config

UNIT = "meshd.service"
SYSTEM_UNITS = Path("/etc/systemd/system")
SYSTEM_CONFIG = Path("/etc/meshd/config.toml")
SYSTEM_STATE = (Path("/var/lib/meshd"), Path("/var/lib/private/meshd"))
"""Where StateDirectory= puts it; the second is the first one's place under DynamicUser=."""

SYSTEM_CACHE = (Path("/var/cache/meshd"), Path("/var/cache/private/meshd"))
"""Where CacheDirectory= puts it, in the same way."""

STEPS_SINCE = 254
"""The systemd that first knew RestartSteps=."""

HEAD = """\
[Unit]
Description=meshd: this machine's part of the household's AI mesh
Documentation=man:systemd.service(5)
{network}StartLimitIntervalSec=600
StartLimitBurst=10

[Service]
Type=notify
NotifyAccess=main
ExecStart={program} run --config {config} --state-dir {state} --log-format json
Restart=on-failure
RestartSec=2
{backoff}RestartPreventExitStatus=2
WatchdogSec=30
TimeoutStartSec=60
TimeoutStopSec=20
KillMode=mixed
OOMPolicy=continue
MemoryMax=90%
MemorySwapMax=0
LimitNOFILE=16384
"""

NETWORK = "Wants=network-online.target\nAfter=network-online.target\n"

BACKOFF = "RestartSteps=6\nRestartMaxDelaySec=60\n"

HARDENING = """\
OOMScoreAdjust=-200
LimitMEMLOCK=infinity
StateDirectory=meshd
StateDirectoryMode=0700
CacheDirectory=meshd
ConfigurationDirectory=meshd
UMask=0077
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
ProtectSystem=strict
ProtectHome=read-only
PrivateTmp=yes
PrivateMounts=yes
DevicePolicy=closed
DeviceAllow=char-drm rw
DeviceAllow=char-nvidia-frontend rw
DeviceAllow=char-nvidia rw
DeviceAllow=char-nvidia-uvm rw
DeviceAllow=char-nvidia-caps rw
DeviceAllow=/dev/kfd rw
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
RemoveIPC=yes
KeyringMode=private
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM
"""

WANTED_BY = "\n[Install]\nWantedBy={target}\n"


def unit_text(told: Installation) -> str:
    """The unit file."""
    place = _place(told)
    text = HEAD.format(
        network="" if told.personal else NETWORK,
        program=_quoted(told.program),
        config=_quoted(place.config),
        state=_quoted(place.state[0]),
        backoff=BACKOFF if told.manager_version >= STEPS_SINCE else "",
    )
    if not told.personal:
        account = f"User={told.run_as}\n" if told.run_as else "DynamicUser=yes\n"
        groups = f"SupplementaryGroups={' '.join(told.groups)}\n" if told.groups else ""
        text += account + groups + HARDENING
    return text + WANTED_BY.format(
        target="default.target" if told.personal else "multi-user.target"
    )


def file(told: Installation) -> Path:
    """Where the unit is."""
    return _place(told).units / UNIT


def state(told: Installation) -> Path:
    """Where the daemon keeps its state."""
    return _place(told).state[0]


def install(told: Installation) -> Sequence[Step]:
    """Everything that makes it run now and at every start."""
    place = _place(told)
    return (
        Folder(place.config.parent),
        Write(place.config, example_config(), keep=True),
        Write(place.units / UNIT, unit_text(told)),
        _systemctl(told, "daemon-reload"),
        _systemctl(told, "enable", UNIT),
        _systemctl(told, "restart", UNIT),
    )


def uninstall(told: Installation, *, purge: bool) -> Sequence[Step]:
    """Everything that takes it away again."""
    place = _place(told)
    steps: list[Step] = [
        _systemctl(told, "disable", "--now", UNIT, may_fail=True),
        Remove(place.units / UNIT),
        _systemctl(told, "daemon-reload"),
        _systemctl(told, "reset-failed", UNIT, may_fail=True),
        *([] if told.personal else [Remove(folder) for folder in SYSTEM_CACHE]),
    ]
    if purge:
        steps += [Remove(folder) for folder in (*place.state, place.config.parent)]
    return steps


def start(told: Installation) -> Sequence[Step]:
    """Start it; done when it serves."""
    return (_systemctl(told, "start", UNIT),)


def stop(told: Installation) -> Sequence[Step]:
    """Stop it until the next start of the machine."""
    return (_systemctl(told, "stop", UNIT),)


def status(told: Installation) -> tuple[str, ...]:
    """The program that says how it is, in `KEY=value` lines."""
    keys = "LoadState,ActiveState,SubState,MainPID,NRestarts,MemoryCurrent,StatusText,Result"
    return (*_manager(told), "show", UNIT, f"--property={keys}")


def read_status(printed: str) -> Mapping[str, Any]:
    """`systemctl show` as a few facts."""
    pairs = (line.partition("=") for line in printed.splitlines())
    facts = {key: value for key, _, value in pairs}
    installed = facts.get("LoadState") == "loaded"
    return {
        "state": facts.get("ActiveState", "") if installed else "not installed",
        "pid": int(facts.get("MainPID") or 0),
        "restarts": int(facts.get("NRestarts") or 0),
        "says": facts.get("StatusText", ""),
        "result": facts.get("Result", ""),
    }


def logs(told: Installation, *, follow: bool, lines: int) -> tuple[str, ...]:
    """The program that shows its log."""
    whose = ("--user-unit",) if told.personal else ("--unit",)
    return ("journalctl", *whose, UNIT, "--lines", str(lines), *(("--follow",) * follow))


class _Place:
    def __init__(self, units: Path, config: Path, state: tuple[Path, ...]) -> None:
        self.units = units
        self.config = config
        self.state = state


def _place(told: Installation) -> _Place:
    if not told.personal:
        return _Place(SYSTEM_UNITS, SYSTEM_CONFIG, SYSTEM_STATE)
    return _Place(told.home / ".config/systemd/user", told.config, (told.state,))


def _manager(told: Installation) -> tuple[str, ...]:
    return ("systemctl", "--user") if told.personal else ("systemctl",)


def _systemctl(told: Installation, *words: str, may_fail: bool = False) -> Run:
    return Run((*_manager(told), *words), may_fail)


def _quoted(path: Path) -> str:
    """A path as ExecStart= takes it: `%` begins a specifier, blanks end a word."""
    text = str(path).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{text}"' if any(letter in text for letter in " \t'") else text
