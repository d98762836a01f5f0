"""What all daemons of one machine have promised of its memory, so that no two promise the same.

Two daemons (a service and somebody's own, or two in a demonstration) share one memory and one swap.
Each keeps a file of its promises in a folder that all can see, and holds a lock on that file while
it lives: the kernel drops the lock with the process, however it ends, and the next reader drops the
file. A turn lock makes "read what is promised, decide, promise" one step.

Nothing in these files is secret, and nothing is believed beyond its numbers: two counts of bytes
for each promise, after the control group of the daemon, which says whose limits its promises
count against. Where the folder cannot be used a daemon goes by its own promises alone, and says
so once. All of this blocks for a moment: call it from a thread.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TypeVar

LOG = logging.getLogger(__name__)

FILES_MAX = 64
"""Daemons whose promises are read: far more than one machine runs."""

PROMISES_MAX = 256
"""Read of one daemon: more than its catalog holds."""

FILE_MAX_BYTES = 16 * 1024
TURN_WAIT_S = 2.0
"""For the turn lock, which is held for a millisecond; then whoever holds it is not one of us."""

TURN_POLL_S = 0.005

Promise = tuple[int, int]
"""(bytes reserved, bytes of them that the system counts as taken already)."""

Others = Mapping[str, Sequence[Promise]]
"""Promises of the other daemons, by their control group; under "" those of who does not say."""

T = TypeVar("T")


def machine_folder() -> Path:
    """Where all daemons of this machine look, also those whose unit has a /tmp of its own."""
    shared = Path("/dev/shm" if sys.platform == "linux" else "/tmp")  # noqa: S108 - meant
    return shared / "meshd-reservations"


class Ledger:
    """One daemon's promises, and the sight of the others'. One thread at a time."""

    def __init__(self, folder: Path | None = None, group: str = "") -> None:
        """`group` is the control group of this daemon."""
        self._folder = folder or machine_folder()
        self._group = group
        self._own: IO[str] | None = None
        self._own_path: Path | None = None
        self._is_alone = False
        self._promises: dict[str, Promise] = {}

    @property
    def promises(self) -> Mapping[str, Promise]:
        """This daemon's own, by model id."""
        return self._promises

    def others(self) -> Others:
        """What the other living daemons have promised."""
        with self._turn():
            return self._others()

    def decide(self, rule: Callable[[Others], tuple[T, Mapping[str, Promise]]]) -> T:
        """Let `rule` see what others promised, and keep the promises that it adds to our own,
        before anybody else has a turn."""
        with self._turn():
            result, added = rule(self._others())
            if added:
                self._promises |= added
                self._write()
            return result

    def update(self, promises: Mapping[str, Promise]) -> None:
        """These are our promises from now on."""
        if promises == self._promises and self._is_seen:
            return
        with self._turn():
            self._promises = dict(promises)
            self._write()

    def close(self) -> None:
        """Promise nothing any more."""
        self._promises = {}
        own, self._own = self._own, None
        if own is not None and self._own_path is not None:
            with contextlib.suppress(OSError):
                self._own_path.unlink()
            own.close()

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        lock = self._open_turn()
        if lock is None:
            yield
            return
        with lock:
            deadline = time.monotonic() + TURN_WAIT_S
            while not _lock(lock, fcntl.LOCK_EX):
                if time.monotonic() > deadline:
                    LOG.warning("%s: its lock is held for too long; going on", self._folder)
                    break
                time.sleep(TURN_POLL_S)
            yield

    def _open_turn(self) -> IO[str] | None:
        if self._is_alone:
            return None
        try:
            if not self._folder.is_dir():
                self._folder.mkdir(parents=True, exist_ok=True)
                self._folder.chmod(0o1777)  # for every owner's daemon, sticky as /tmp is
            return _open(self._folder / "turn", 0o666)
        except OSError as error:
            self._is_alone = True
            LOG.warning(
                "memory promised by other daemons here cannot be seen (%s: %s); "
                "this daemon counts its own alone",
                self._folder,
                error.strerror,
            )
            return None

    def _others(self) -> Others:
        if self._is_alone:
            return {}
        found: dict[str, list[Promise]] = {}
        for file in sorted(self._folder.glob("*.json"))[:FILES_MAX]:
            if file != self._own_path:
                group, promises = _living(file)
                found.setdefault(group, []).extend(promises)
        return found

    @property
    def _is_seen(self) -> bool:
        """Nobody swept our file away: systemd does when its owner logs out (RemoveIPC), macOS when
        it has not changed in three days."""
        return self._own is None or os.fstat(self._own.fileno()).st_nlink > 0

    def _write(self) -> None:
        if self._is_alone:
            return
        try:
            if self._own is not None and not self._is_seen:
                self._own.close()
                self._own = None
            if self._own is None:
                self._own_path = self._folder / f"{os.getpid()}-{os.urandom(4).hex()}.json"
                self._own = _open(self._own_path, 0o644)
                _lock(self._own, fcntl.LOCK_EX)
            self._own.seek(0)
            self._own.truncate()
            self._own.write(json.dumps([self._group, *self._promises.values()]))
            self._own.flush()
        except OSError as error:
            LOG.warning("promised memory cannot be written down: %s", error)


def _open(file: Path, mode: int) -> IO[str]:
    """Open for reading and writing. A file that is there is opened without O_CREAT, which Linux
    refuses on other people's files in a sticky folder."""
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        number = os.open(file, flags)
    except FileNotFoundError:
        number = os.open(file, flags | os.O_CREAT, mode)
        os.fchmod(number, mode)
    return os.fdopen(number, "r+", encoding="utf-8")


def _lock(file: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _living(file: Path) -> tuple[str, list[Promise]]:
    """The control group and the promises of another daemon; a file that nobody holds is dropped."""
    try:
        number = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(number, "r", encoding="utf-8") as opened:
            if _lock(opened, fcntl.LOCK_SH):
                file.unlink()
                return "", []
            return _read(opened.read(FILE_MAX_BYTES))
    except (OSError, UnicodeDecodeError):
        return "", []


def _read(text: str) -> tuple[str, list[Promise]]:
    try:
        decoded = json.loads(text)
    except (ValueError, RecursionError):
        return "", []
    listed = decoded[:PROMISES_MAX] if isinstance(decoded, list) else []
    group = listed[0] if listed and isinstance(listed[0], str) else ""
    promises = [
        (each[0], each[1])
        for each in listed
        if isinstance(each, list) and len(each) == 2 and all(_is_size(size) for size in each)
    ]
    return group, promises


def _is_size(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**63
