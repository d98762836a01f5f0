"""What installing a service does to a machine, as a list that can be read before it is done.

Pure: `systemd` and `launchd` turn an `Installation` into steps, `command` carries the steps out,
and `--print` shows them instead. So what is tested is exactly what is done, and a person who is
asked for root can see why.

The rules that both systems share:

- the service runs `meshd` from the environment that `meshctl` was started from, so an upgrade there
  is an upgrade of the service: `install` again, or just `meshctl service stop` and `start`;
- installing twice is an upgrade in place: every step may find its work done;
- settings live in one commented file that is written once and never overwritten;
- uninstalling leaves state and settings, which are the owner's; `--purge` takes them too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from meshd.options import OPTIONS
from protocol.frozen import frozen

ACTIONS = ("install", "uninstall", "start", "stop", "status", "logs")

CONFIG_HEAD = """\
# Settings of the meshd service. Take the # off a line to change it, then
# `meshctl service stop` and `meshctl service start`. `meshctl config check --config FILE` shows
# what holds, and where it comes from.
"""

EXAMPLES = {
    "name": '"kitchen"',
    "http": '"127.0.0.1:8787"',
    "mesh": '"0.0.0.0:8788"',
    "peer": '["192.168.1.20:8788"]',
    "no_mdns": "false",
    "interface": '["eth0"]',
    "mesh_key_file": '"mesh.key"',
    "engine": '["llamacpp:/models/model.gguf", "openai:http://127.0.0.1:8080"]',
    "model_dir": '["/models"]',
    "no_catalog": "false",
    "no_adopt": "false",
    "memory_reserve": '"2GB"',
    "keep_alive": '"30m"',
    "queue_wait": '"2m"',
    "on_battery": '"half"',
    "when_hot": '"half"',
    "when_used": '"half"',
    "under_pressure": '"half"',
    "log_format": '"json"',
}
"""How each setting is written in TOML; a test holds them against the settings there are."""

TOLD_BY_UNIT = frozenset({"state_dir", "log_format"})
"""Settings that the service's own command line gives."""


@frozen
class Write:
    """Put `text` at `path`, whole or not at all. With `keep`, only where nothing is yet."""

    path: Path
    text: str
    keep: bool = False


@frozen
class Folder:
    """Have a folder, owned by `owner` when one is named."""

    path: Path
    owner: str = ""


@frozen
class Remove:
    """Take away a file or a whole folder, where it is there."""

    path: Path


@frozen
class Run:
    """Run a program. With `may_fail`, its failure means that there was nothing to do."""

    argv: tuple[str, ...]
    may_fail: bool = False
    otherwise: tuple[str, ...] = ()
    """What is run where that fails, and may do as well."""
    patience_s: float = 0.0
    """How long to go on trying what may fail for a moment."""


Step = Write | Folder | Remove | Run


@frozen
class Installation:
    """Whose service, and of what."""

    program: Path
    """The `meshd` to run."""
    personal: bool
    """A service of one person's session, without root, instead of the machine's."""
    run_as: str = ""
    """The account of a machine's service; empty: one of its own."""
    home: Path = Path("/nonexistent")
    """The account's home, for its models and caches; and the place of a personal service."""
    config: Path = Path("/nonexistent")
    """A personal service's settings and state: where `meshctl` looks for them too. The machine's
    have one place on each system."""
    state: Path = Path("/nonexistent")
    groups: tuple[str, ...] = ()
    """Groups of this machine that may use its graphics cards."""
    uid: int = 0
    """The person's number, which names a session to launchd."""
    manager_version: int = 0
    """systemd's, for what only newer ones know."""


class Manager(Protocol):
    """systemd or launchd, as planners: the modules of these names."""

    def file(self, told: Installation) -> Path:
        """The unit or property list, which is there when the service is installed."""
        ...

    def state(self, told: Installation) -> Path:
        """The daemon's state directory."""
        ...

    def install(self, told: Installation) -> Sequence[Step]:
        """Everything that makes it run now and at every start."""
        ...

    def uninstall(self, told: Installation, *, purge: bool) -> Sequence[Step]:
        """Everything that takes it away again."""
        ...

    def start(self, told: Installation) -> Sequence[Step]:
        """Start it; done when it serves."""
        ...

    def stop(self, told: Installation) -> Sequence[Step]:
        """Stop it until the next start of the machine."""
        ...

    def status(self, told: Installation) -> tuple[str, ...]:
        """The program that says how it is."""
        ...

    def read_status(self, printed: str) -> Mapping[str, Any]:
        """What that program printed: `state` (`not installed` when there is none) and details."""
        ...

    def logs(self, told: Installation, *, follow: bool, lines: int) -> tuple[str, ...]:
        """The program that shows its log."""
        ...


def described(step: Step) -> str:
    """One line for a person who looks before leaping."""
    match step:
        case Write():
            return f"write {step.path}" + (" (if it is not there yet)" if step.keep else "")
        case Folder():
            return f"have the folder {step.path}" + (f", owned by {step.owner}" * bool(step.owner))
        case Remove():
            return f"remove {step.path}"
        case Run():
            return f"run {' '.join(step.argv)}" + f" or {' '.join(step.otherwise)}" * bool(
                step.otherwise
            )


def example_config() -> str:
    """Every setting with its meaning, all of them commented out."""
    parts = [CONFIG_HEAD]
    for option in OPTIONS:
        if option.key in TOLD_BY_UNIT:
            continue
        parts.append(f"\n# {option.help}\n#{option.key} = {EXAMPLES[option.key]}\n")
    return "".join(parts)


def written(steps: Sequence[Step]) -> dict[Path, str]:
    """The files that these steps write, for `--print` and tests."""
    return {step.path: step.text for step in steps if isinstance(step, Write)}
