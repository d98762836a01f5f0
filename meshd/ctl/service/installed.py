"""Where the machine's service keeps its state: its unit says so, and no setting does."""

from __future__ import annotations

import sys
from pathlib import Path

from meshd.config import Settings
from meshd.ctl.service import launchd, systemd
from meshd.ctl.service.plan import Installation, Manager


def state_dir_of(settings: Settings) -> Path:
    """The state directory of the daemon that these settings are for: where none is told and the
    machine's service is installed, that one's."""
    if settings.origins["state_dir"] != "default":
        return settings.state_dir
    manager: Manager = launchd if sys.platform == "darwin" else systemd
    machines = Installation(Path("meshd"), personal=False)
    return manager.state(machines) if manager.file(machines).exists() else settings.state_dir
