"""The API keys of people who ask from other machines: made here, shown once, kept as hashes.

A key is `mk-` and 256 random bits. What is stored is its SHA-256, which is enough: slow hashes
protect secrets that people choose, by making each guess dear, and nobody guesses 256 random bits. A
slow hash would only let strangers burn this machine's time with wrong keys.

`meshctl keys` writes the file, the daemon reads it: whole, replaced by rename, read anew within
LOOK_EVERY_S of a change, in a thread, because disks can be slow. A file that has become unreadable
leaves the keys as they were and is said once; one that was removed leaves none. A presented key is
compared with all entries, whichever matches, so the time taken tells nothing.

Only an address that other machines reach asks for keys: `door_keys`. Who comes over loopback to a
node that listens nowhere else is taken for its owner.

Each key has a person's name. It is what fair queueing shares by, and what a log may mention; the
key itself is in neither.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import os
import re
import secrets
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from meshd.address import is_loopback
from meshd.replacing import FOLDER_MODE, replace_file
from meshd.rhythm import Steady, until_next
from protocol.frozen import frozen

log = logging.getLogger(__name__)

KEYS_FILE = "api_keys.json"
FORMAT = 1
KEY_PREFIX = "mk-"
KEY_BYTES = 32

KEYS_MAX = 256
"""Keys of one node: a small company; all are compared for each request, 0.1 ms in all."""

KEY_MAX_CHARS = 512
"""Longest key that is looked at; ours have 46 characters."""

FILE_MAX_BYTES = 256 * 1024
"""Most that is read: KEYS_MAX entries of 200 bytes, five times over."""

LOOK_EVERY_S = 1.0
"""How often the file is looked at: a key that was removed works at most this much longer."""

NAME_SHAPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,62}")


class KeysError(Exception):
    """The keys cannot be read, or not be changed so; the text says why and what to do."""


@frozen
class ApiKey:
    """One entry. `sha256` is of the whole key, hexadecimal; `made` is a date for people."""

    name: str
    sha256: str
    made: str


def add_key(state_dir: Path, name: str, today: str) -> str:
    """Make a key for `name` and return it, for the only time. Raises KeysError."""
    if not NAME_SHAPE.fullmatch(name):
        raise KeysError(
            f"{name!r} is not a name for a key; use 1-63 of a-z, 0-9, '-', '_', '.', '@'"
        )
    kept = list_keys(state_dir)
    if any(key.name == name for key in kept):
        raise KeysError(f"there is a key named {name} already; remove it first, or choose another")
    if len(kept) >= KEYS_MAX:
        raise KeysError(f"there are {KEYS_MAX} keys already; remove one that nobody uses")
    text = KEY_PREFIX + secrets.token_urlsafe(KEY_BYTES)
    _save(state_dir / KEYS_FILE, (*kept, ApiKey(name, _digest(text), today)))
    return text


def remove_key(state_dir: Path, name: str) -> None:
    """Take a key back; daemons notice within LOOK_EVERY_S. Raises KeysError."""
    kept = list_keys(state_dir)
    left = tuple(key for key in kept if key.name != name)
    if len(left) == len(kept):
        names = ", ".join(key.name for key in kept) or "none"
        raise KeysError(f"there is no key named {name!r}; there are: {names}")
    _save(state_dir / KEYS_FILE, left)


def list_keys(state_dir: Path) -> tuple[ApiKey, ...]:
    """Every key, oldest first; none when there is no file. Raises KeysError."""
    path = state_dir / KEYS_FILE
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(FILE_MAX_BYTES)
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise KeysError(f"cannot read {path}: {error.strerror}") from None
    if os.name == "posix" and mode & 0o022:
        raise KeysError(
            f"{path} can be changed by others (mode {mode & 0o777:04o}), who could let themselves "
            f"in; run: chmod 600 {path}"
        )
    try:
        return _parsed(json.loads(text))
    except (ValueError, TypeError, KeyError, RecursionError):
        raise KeysError(
            f"{path} is damaged; restore it from a copy, or remove it and make the keys again"
        ) from None


def door_keys(host: str, state_dir: Path) -> KeyStore | None:
    """What to ask for at an HTTP address: None on loopback, where no key is asked for.

    Raises KeysError where other machines reach it and there are no keys, or none that can be read.
    Once open, the door stays shut to all if the last key is removed: compare with `is None`.
    """
    if is_loopback(host):
        return None
    store = KeyStore(state_dir)
    if not len(store):
        raise KeysError(
            f"listening on {host} would let other machines ask without an API key; make one with "
            f"`meshctl keys add NAME --state-dir {state_dir}`, or listen on 127.0.0.1 here and run "
            "a node on those machines too"
        )
    return store


class KeyStore:
    """Who may ask, for the HTTP server. Raises KeysError when the file cannot be used at first.

    Everything answers from memory, except `refresh`; `keep_fresh` is a task for its owner.
    """

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._path = state_dir / KEYS_FILE
        self._stamp = _stamp(self._path)
        self._keys = list_keys(state_dir)
        self._trouble = ""
        """Why the file could not be read when it was last tried; said once."""

    def __len__(self) -> int:
        """How many keys there are; with none, only this machine may ask."""
        return len(self._keys)

    def person_of(self, presented: str | None) -> str | None:
        """Whose key this is, None when nobody's. Takes the same time for every wrong key."""
        if presented is None or len(presented) > KEY_MAX_CHARS:
            return None
        digest = _digest(presented).encode()
        person = None
        for key in self._keys:
            if hmac.compare_digest(key.sha256.encode(), digest):
                person = key.name
        return person

    def refresh(self) -> None:
        """Read the file again if it has changed. Never raises; waits for the disk."""
        stamp = _stamp(self._path)
        if stamp == self._stamp:
            return
        try:
            self._keys = list_keys(self._state_dir)
        except KeysError as error:
            if str(error) != self._trouble:
                log.warning("the API keys stay as they were: %s", error)
            self._trouble = str(error)
        else:
            self._stamp, self._trouble = stamp, ""

    async def keep_fresh(self) -> None:
        """Refresh every LOOK_EVERY_S until cancelled."""
        steady = Steady("look at the API keys")
        while True:
            await asyncio.sleep(until_next(LOOK_EVERY_S, time.monotonic()))
            with steady:
                await asyncio.to_thread(self.refresh)


def _parsed(kept: Any) -> tuple[ApiKey, ...]:
    """Raises ValueError, TypeError or KeyError for anything that `_save` does not write."""
    if kept["format"] != FORMAT:
        raise ValueError("another format")
    return tuple(
        ApiKey(str(row["name"]), str(row["sha256"]), str(row["made"]))
        for row in kept["keys"][:KEYS_MAX]
    )


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """Changes whenever the file does: it is always replaced, so at least its inode is new."""
    try:
        seen = path.stat()
    except OSError:
        return None
    return seen.st_mtime_ns, seen.st_size, seen.st_ino


def _save(path: Path, keys: tuple[ApiKey, ...]) -> None:
    """Replace the file whole, readable by its owner only. Raises KeysError."""
    body = {"format": FORMAT, "keys": [asdict(key) for key in keys]}
    try:
        # `sudo meshctl keys add` shall not make a file that the service's user cannot read.
        path.parent.mkdir(parents=True, exist_ok=True, mode=FOLDER_MODE)
        replace_file(path, json.dumps(body, indent=1).encode() + b"\n", like=path.parent)
    except OSError as error:
        raise KeysError(
            f"cannot write {path}: {error.strerror}; make room, or make the directory writable"
        ) from None
