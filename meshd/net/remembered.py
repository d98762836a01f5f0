"""The links that worked last time, kept so that a restart needs no multicast.

A small JSON file, replaced whole. It is a hint like an advert: whatever is in it becomes a
candidate and proves itself again. So a file that is missing, damaged or hostile costs nothing but
its contents, and it is not flushed to the disk: losing it costs one round of discovery, waiting
for an SD card would cost heartbeats.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from meshd.address import parse_host_port
from meshd.replacing import replace_file

PEERS_FILE = "peers.json"
FORMAT = 1

REMEMBERED_MAX = 256
"""Links kept: more than a household owns, and all dialled within a minute after a restart."""

FILE_MAX_BYTES = 256 * 1024
"""Most that is read: REMEMBERED_MAX links of the longest host name, four times over."""


REMEMBER_EVERY_S = 10.0
"""How often the file may be written: once per change is too often for an SD card."""


class PeersFile:
    """The file of one node: read once, written when what is remembered has changed."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / PEERS_FILE
        self._links: tuple[str, ...] = ()
        self._due = float("-inf")
        self._failing = False

    def load(self) -> tuple[str, ...]:
        """The links of last time, best first. Raises ValueError, in one line."""
        self._links = load_remembered(self._path)
        return self._links

    def keep(self, links: tuple[str, ...], now: float) -> None:
        """Remember these, unless it was done less than REMEMBER_EVERY_S ago. The same ones in
        another order are no change: whoever was heard last is first, and that changes with every
        frame. Raises ValueError, in one line, at the first of several failures."""
        if now < self._due or not links or set(links) == set(self._links):
            return
        self._due = now + REMEMBER_EVERY_S
        try:
            save_remembered(self._path, links)
        except OSError as error:
            said, self._failing = self._failing, True
            if not said:
                raise ValueError(_cannot_write(self._path, error)) from None
        else:
            self._links, self._failing = links, False


def load_remembered(path: Path) -> tuple[str, ...]:
    """The links in the file, best first; none when there is no file.

    Raises ValueError, in one line, when there is one that cannot be used.
    """
    try:
        with path.open("rb") as file:
            text = file.read(FILE_MAX_BYTES)
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise ValueError(f"cannot read remembered peers in {path}: {error.strerror}") from None
    try:
        kept = json.loads(text)
        links = kept["peers"] if kept["format"] == FORMAT else []
        return tuple(link for link in links if _is_link(link))[:REMEMBERED_MAX]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise ValueError(f"remembered peers in {path} are damaged and will be replaced") from None


def save_remembered(path: Path, links: Sequence[str]) -> None:
    """Replace the file. Raises OSError."""
    kept = {"format": FORMAT, "peers": list(links[:REMEMBERED_MAX])}
    replace_file(path, json.dumps(kept, indent=1).encode(), flush=False)


def _cannot_write(path: Path, error: OSError) -> str:
    return (
        f"cannot remember peers in {path}: {error.strerror}; make room, or make the directory "
        "writable: until then a restart finds only what --peer names and mDNS shows"
    )


def _is_link(link: object) -> bool:
    try:
        return isinstance(link, str) and bool(parse_host_port(link))
    except ValueError:
        return False
