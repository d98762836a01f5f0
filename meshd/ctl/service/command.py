"""`meshctl service`: carries out what `systemd` and `launchd` planned, and says how it went."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from meshd.config import default_state_dir, usual_places
from meshd.ctl import exits
from meshd.ctl.console import Body, print_lines, progress, show
from meshd.ctl.exits import Trouble
from meshd.ctl.screen import Screen
from meshd.ctl.service import launchd, systemd
from meshd.ctl.service.plan import (
    Folder,
    Installation,
    Manager,
    Remove,
    Run,
    Step,
    Write,
    described,
    written,
)
from meshd.replacing import PUBLIC_MODE, replace_file

STEP_MAX_S = 90.0
"""Longest one program of the service manager may take: TimeoutStartSec and half as much."""

ROOT = 0

GPU_GROUPS = ("render", "video")
"""Whose the render nodes of graphics cards, and /dev/kfd, are on most systems."""

AGAIN_S = 0.5
"""Pause before a step that may fail for a moment is tried again."""


def service(args: Namespace) -> int:
    """FAILURE when a step fails; WRONG_KEY when root is needed; DEGRADED when it does not run."""
    manager = _manager()
    told = _installation(args, manager)
    if args.action == "logs":
        _replace_by(list(manager.logs(told, follow=args.follow, lines=args.lines)))
    if args.action == "status":
        body = manager.read_status(_output(manager.status(told)))
        show(args, body, _status_lines)
        return exits.OK if body["state"] in {"active", "running"} else exits.DEGRADED
    steps = _steps(manager, told, args)
    if args.print:
        _look(steps)
        return exits.OK
    if not told.personal and os.geteuid() != ROOT:
        raise Trouble(
            exits.WRONG_KEY,
            "the service of the whole machine needs root: sudo "
            f"{Path(sys.argv[0]).resolve()} service {args.action}; or --user for yours alone",
        )
    for step in steps:
        carry_out(step)
    progress(SAID[args.action].format(whose="your session" if told.personal else "this machine"))
    return exits.OK


SAID = {
    "install": "meshd runs as a service of {whose}; `meshctl status` asks it",
    "uninstall": "meshd is no service of {whose} any more",
    "start": "meshd serves",
    "stop": "meshd is stopped",
}
"""The last line of what was done."""


def _installation(args: Namespace, manager: Manager) -> Installation:
    """The machine's service, or with --user this person's; where only that one is installed, it is
    meant without --user, too."""
    program = Path(sys.argv[0]).resolve().with_name("meshd")
    account = args.run_as or os.environ.get("SUDO_USER", "")
    if account == "root" and not args.run_as:
        account = ""
    installing = args.action == "install"
    if installing and not program.exists():
        raise Trouble(exits.FAILURE, f"there is no meshd beside meshctl: {program} is missing")
    own = Installation(
        program,
        personal=True,
        home=Path.home(),
        uid=os.getuid(),
        config=usual_places()[0],
        state=default_state_dir(),
    )
    if args.user:
        return own
    if installing:
        _check_account(program, account)
    machines = Installation(
        program,
        personal=False,
        run_as=account,
        home=_home_of(account),
        manager_version=_systemd_version(),
        groups=_gpu_groups(),
    )
    only_own = manager.file(own).exists() and not manager.file(machines).exists()
    return own if only_own and not installing else machines


def _gpu_groups() -> tuple[str, ...]:
    """A unit that names a group which is not there does not start."""
    import grp  # not on every system that meshctl runs on

    there = {group.gr_name for group in grp.getgrall()}
    return tuple(name for name in GPU_GROUPS if name in there)


def _check_account(program: Path, account: str) -> None:
    """Raises Trouble when the service could not run the program."""
    if account:
        return
    if sys.platform == "darwin":
        raise Trouble(exits.USAGE, "say whose name it runs under: --run-as NAME, or use sudo")
    folder = closed_to_others(program) or closed_to_others(Path(sys.executable).resolve())
    if folder:
        raise Trouble(
            exits.FAILURE,
            f"the service's own account could not run {program}, because {folder} is closed to "
            "others; name an account that can with --run-as NAME",
        )


def closed_to_others(program: Path) -> Path | None:
    """The folder above `program` that other accounts may not pass, None when there is none."""
    return next((folder for folder in program.parents if not folder.stat().st_mode & 0o001), None)


def _home_of(account: str) -> Path:
    if not account:
        return Path("/nonexistent")
    import pwd  # not on every system that meshctl runs on

    try:
        return Path(pwd.getpwnam(account).pw_dir)
    except KeyError:
        raise Trouble(exits.USAGE, f"there is no account {account!r} on this machine") from None


def _systemd_version() -> int:
    if sys.platform == "darwin" or shutil.which("systemctl") is None:
        return 0
    found = re.search(r"systemd (\d+)", _output(("systemctl", "--version")))
    return int(found[1]) if found else 0


def _manager() -> Manager:
    if sys.platform == "darwin":
        return launchd
    if shutil.which("systemctl") is None:
        raise Trouble(
            exits.FAILURE,
            "this machine has neither systemd nor launchd; run `meshd run` under what it has "
            "(OpenRC, runit, a container's own restart policy)",
        )
    return systemd


def _steps(manager: Manager, told: Installation, args: Namespace) -> Sequence[Step]:
    match args.action:
        case "install":
            return manager.install(told)
        case "uninstall":
            return manager.uninstall(told, purge=args.purge)
        case "start":
            return manager.start(told)
        case _:
            return manager.stop(told)


def _look(steps: Sequence[Step]) -> None:
    """What would be done, and the texts that would be written."""
    print_lines([f"# {described(step)}" for step in steps])
    for path, text in written(steps).items():
        print_lines(["", f"# ---- {path}", text.rstrip("\n")])


def carry_out(step: Step) -> None:
    """Do one step. Raises Trouble."""
    try:
        match step:
            case Write():
                _write(step)
            case Folder():
                step.path.mkdir(parents=True, exist_ok=True)
                if step.owner:
                    shutil.chown(step.path, step.owner)
            case Remove():
                _remove(step.path)
            case Run():
                _run(step)
    except OSError as error:
        raise Trouble(
            exits.FAILURE, f"cannot {described(step)}: {error.strerror or error}"
        ) from None


def _write(step: Write) -> None:
    if step.keep and step.path.exists():
        return
    step.path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(step.path, step.text.encode(), mode=PUBLIC_MODE)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _run(step: Run) -> None:
    until = time.monotonic() + step.patience_s
    while said := _failure(step.argv):
        if step.may_fail or (step.otherwise and not _failure(step.otherwise)):
            return
        if time.monotonic() >= until:
            hint = "; `meshctl service logs` shows why" if UNIT_STARTS & set(step.argv) else ""
            raise Trouble(exits.FAILURE, f"{said}{hint}")
        time.sleep(AGAIN_S)


def _failure(argv: Sequence[str]) -> str:
    """Runs a program. What went wrong; empty when nothing did."""
    try:
        done = subprocess.run(  # noqa: S603 - programs of the service manager
            argv, capture_output=True, text=True, check=False, timeout=STEP_MAX_S
        )
    except subprocess.TimeoutExpired:
        return f"{' '.join(argv)} took longer than {STEP_MAX_S:.0f} s"
    said = (done.stderr or done.stdout).strip().replace("\n", "; ")
    return f"{' '.join(argv)} failed: {said}" if done.returncode else ""


UNIT_STARTS = frozenset({"restart", "start", "bootstrap", "kickstart"})
"""Words of a step after which the daemon's own log has the reason of a failure."""


def _status_lines(body: Body, screen: Screen) -> list[str]:
    lines = [f"meshd service: {body['state']}"]
    if body.get("pid"):
        lines.append(
            f"  pid {body['pid']}, restarted {body['restarts']} times"
            + f": {body['says']}" * bool(body.get("says"))
        )
    if body["state"] == "not installed":
        lines.append("  `meshctl service install` makes it one")
    elif body.get("result") not in {None, "", "success"}:
        lines.append(f"  last result: {body['result']}; `meshctl service logs` shows more")
    return lines


def _replace_by(argv: list[str]) -> None:
    """Become another program, so that its keys and its end are its own."""
    sys.stdout.flush()
    try:
        os.execvp(argv[0], argv)  # noqa: S606 - a fixed program with our own arguments
    except OSError as error:
        raise Trouble(exits.FAILURE, f"cannot run {argv[0]}: {error.strerror}") from None


def _output(argv: Sequence[str]) -> str:
    """What a program printed; nothing where it cannot be run."""
    try:
        done = subprocess.run(  # noqa: S603 - programs of the service manager
            argv, capture_output=True, text=True, check=False, timeout=STEP_MAX_S
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout
