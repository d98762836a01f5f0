"""A real systemd for a test: booted in namespaces of its own, asked with nsenter, always ended."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

from tests.e2e.daemons import wait_until

SYSTEMD = Path("/usr/lib/systemd/systemd")
CGROUPS = Path("/sys/fs/cgroup/systemd")
BOOT = Path(__file__).with_name("boot.sh")
BOOT_MAX_S = 30.0


def why_not() -> str:
    """Why this machine cannot boot one; empty when it can."""
    if os.geteuid() != 0:
        return "needs root"
    if not SYSTEMD.exists() or shutil.which("nsenter") is None:
        return "no systemd here"
    return "" if CGROUPS.is_dir() else "no cgroup hierarchy of systemd's to make a branch in"


class Trial:
    """One booted systemd. `config` becomes the service's settings."""

    def __init__(self, home: Path, config: str) -> None:
        self._branch = CGROUPS / f"meshd-trial-{os.getpid()}"
        self._branch.mkdir(exist_ok=True)
        (home / "config.toml").write_text(config)
        self.log = home / "systemd.log"
        with self.log.open("wb") as log:
            self._outer = subprocess.Popen(
                [
                    *("bash", "-c", 'echo $$ > "$1"; shift; exec "$@"', "branch"),
                    str(self._branch / "cgroup.procs"),
                    *("unshare", "--fork", "--pid", "--mount", "--uts", "--ipc", "--cgroup"),
                    *("--kill-child", "bash", str(BOOT), str(home)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        wait_until(self._answers, BOOT_MAX_S, "systemd is up")

    def run(self, *argv: str, limit_s: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a program in there, as root."""
        pid = str(self._inner())
        return subprocess.run(
            ["nsenter", "-t", pid, "--mount", "--pid", "--uts", "--ipc", "--cgroup", *argv],
            capture_output=True,
            text=True,
            check=False,
            timeout=limit_s,
        )

    def show(self, key: str) -> str:
        """One property of the unit."""
        return self.run("systemctl", "show", "meshd", f"--property={key}", "--value").stdout.strip()

    def end(self) -> None:
        """Kill the namespace's PID 1, and with it all that runs in there."""
        with suppress(ProcessLookupError):
            os.kill(self._inner() or self._outer.pid, signal.SIGKILL)
        self._outer.kill()
        self._outer.wait(10)
        for folder in sorted(self._branch.rglob("*"), reverse=True):
            if folder.is_dir():
                with suppress(OSError):
                    folder.rmdir()
        with suppress(OSError):
            self._branch.rmdir()

    def _inner(self) -> int:
        children = Path(f"/proc/{self._outer.pid}/task/{self._outer.pid}/children").read_text()
        return int(next(iter(children.split()), 0))

    def _answers(self) -> bool:
        return bool(self._inner()) and self.run("systemctl", "show").returncode == 0
