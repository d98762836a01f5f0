"""Finding the facts: the daemon is asked, then this machine is looked at."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from meshd.address import is_loopback
from meshd.config import ConfigError, Settings, find_config, load_settings
from meshd.ctl import exits
from meshd.ctl.console import node_of
from meshd.ctl.doctor import pace
from meshd.ctl.doctor.facts import Daemon, Facts
from meshd.ctl.doctor.network import try_members, try_multicast
from meshd.ctl.doctor.ports import holder_of
from meshd.ctl.exits import Trouble
from meshd.ctl.service.installed import state_dir_of
from meshd.ctl.service.systemd import SYSTEM_UNITS, UNIT

STATUS = "/mesh/v1/status"
STRANGERS = "control_strangers"
"""The daemon's counter of connections that did not show the mesh key."""

ASK_S = 3.0
"""Longest wait for the daemon: a doctor who waits is no help."""

KNOCKS_S = 3.0
"""Time from one look at that counter to the next: a stranger knocks every two seconds or so."""

VENDORS = {"0x10de": "an NVIDIA GPU", "0x1002": "an AMD GPU"}
"""PCI vendors whose accelerators can run models; Intel's and virtual ones are left alone."""

CARDS = Path("/sys/class/drm")

SYSTEM_PYTHON = Path("/usr/bin/python3")


def gather(args: Namespace) -> Facts:
    """Everything there is to know, in two or three seconds."""
    settings, wrong = _settings()
    status: Mapping[str, Any] = {}
    began = time.monotonic()
    try:
        status, daemon = node_of(args, ASK_S).get(STATUS), Daemon(args.node, answers=True)
    except Trouble as trouble:
        if trouble.code == exits.USAGE:
            raise
        daemon = _daemon(args.node, trouble, wrong)
    facts = Facts(
        system=platform.system(),
        now_unix_s=time.time(),
        daemon=daemon,
        status=status,
        gpus_present=gpus_present(CARDS),
        disk_free_bytes=free_bytes(state_dir_of(settings)) if settings else None,
        state_dir=str(state_dir_of(settings)) if settings else "",
        mdns_wanted=settings.mdns if settings else True,
        python_gain=python_gain(SYSTEM_PYTHON) if platform.system() == "Linux" else None,
        multicast=None,
    )
    hosts = [endpoint.rpartition(":")[0] for endpoint in facts.myself.get("endpoints", ())]
    return replace(
        facts,
        multicast=try_multicast([host for host in hosts if _is_ipv4(host)]),
        reaches=try_members(facts.peers),
        strangers=_strangers(args, facts, began),
    )


def _strangers(args: Namespace, facts: Facts, began: float) -> int:
    """Who knocked before may be a member by now, so in company only new knocks count."""
    before = facts.counter(STRANGERS)
    if not before or not facts.company:
        return before
    time.sleep(max(0.0, began + KNOCKS_S - time.monotonic()))
    with suppress(Trouble):
        later = replace(facts, status=node_of(args, ASK_S).get(STATUS))
        return max(0, later.counter(STRANGERS) - before)
    return 0


def gpus_present(cards: Path) -> tuple[str, ...]:
    """Accelerators that Linux lists, by vendor."""
    found = []
    for card in sorted(cards.glob("card[0-9]*")):
        with suppress(OSError):
            vendor = (card / "device/vendor").read_text().strip()
            if vendor in VENDORS:
                found.append(VENDORS[vendor])
    return tuple(dict.fromkeys(found))


def python_gain(other: Path) -> float | None:
    """How many times as fast `other` runs our kind of code as this Python does; None where it is
    the same one, or cannot run a node. Not for macOS, whose stub would offer to install one."""
    if not other.exists() or other.samefile(Path(sys.executable)):
        return None
    with suppress(OSError, subprocess.TimeoutExpired, ValueError):
        done = subprocess.run(  # noqa: S603 - a fixed program
            [other, "-I", pace.__file__], capture_output=True, text=True, check=False, timeout=ASK_S
        )
        return pace.step_ns() / float(done.stdout)
    return None


def _settings() -> tuple[Settings | None, str]:
    """The daemon's settings as a person's own daemon would read them, or what is wrong."""
    try:
        return load_settings({}, os.environ, find_config(None, os.environ)), ""
    except ConfigError as error:
        return None, str(error)


def _daemon(url: str, trouble: Trouble, settings_error: str) -> Daemon:
    place = urlsplit(url)
    holder = holder_of(place.port) if place.port and is_loopback(place.hostname or "") else ""
    ours = holder.startswith(("meshd", "python"))
    return Daemon(
        url,
        answers=False,
        trouble=str(trouble),
        spoke=trouble.code != exits.UNREACHABLE,
        holder="" if ours else holder,
        settings_error=settings_error,
        service=_service(),
    )


def _service() -> str:
    if not (SYSTEM_UNITS / UNIT).exists() or shutil.which("systemctl") is None:
        return ""
    with suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run(  # noqa: S603 - a fixed program
            ["systemctl", "is-active", UNIT],  # noqa: S607
            capture_output=True,
            text=True,
            check=False,
            timeout=ASK_S,
        )
        return done.stdout.strip()
    return ""


def free_bytes(folder: Path) -> int | None:
    """Left on the disk of a folder, there or not yet; None where this account may not look."""
    with suppress(OSError):
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        return shutil.disk_usage(existing).free
    return None


def _is_ipv4(host: str) -> bool:
    try:
        return ip_address(host).version == 4
    except ValueError:
        return False
