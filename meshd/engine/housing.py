"""How the owner wants this machine's memory kept: what is left free, how long a model stays, and
which models stay for good.

Pins are the owner's word and outlast the daemon: they are kept in the state directory, whole or not
at all (written beside and renamed). A model that is pinned and not there, because its disk is not
plugged in today, keeps its pin. Where the file cannot be read or written a pin lasts as long as the
daemon, and that is said once.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path

import msgspec

from meshd.config import Settings
from meshd.core.residency.plan import KEEP_ALIVE_S
from meshd.core.routing.courtesy import QUEUE_WAIT_S
from meshd.replacing import replace_file
from protocol import limits
from protocol.frozen import frozen

LOG = logging.getLogger(__name__)

PINS_FILE = "pinned-models.json"

PINS_MAX = 256
"""Models that may be pinned: what a catalog keeps (`catalog.ENTRIES_KEPT_MAX`)."""

FILE_MAX_BYTES = PINS_MAX * (4 * limits.TEXT_MAX_CHARS + 8)


@frozen
class Housing:
    """How the owner wants memory kept."""

    reserve_bytes: int | None = None
    """For the owner's own programs; None: `plan.reserve_bytes` of the machine."""
    keep_alive_s: float = KEEP_ALIVE_S
    wait_max_s: float = QUEUE_WAIT_S
    """Longest wait for memory that busy models hold."""
    state_dir: Path | None = None
    """Where pins are kept; None keeps none beyond the daemon's life."""


def housing_of(settings: Settings) -> Housing:
    """As the settings say it."""
    return Housing(
        settings.memory_reserve_bytes,
        settings.keep_alive_s,
        settings.queue_wait_s,
        settings.state_dir,
    )


class Pins:
    """The ids of pinned models. Reading and changing block on the disk: use a thread."""

    def __init__(self, state_dir: Path | None) -> None:
        self._file = state_dir / PINS_FILE if state_dir is not None else None
        self._ids: frozenset[str] = frozenset()

    def __contains__(self, model_id: str) -> bool:
        return model_id in self._ids

    def load(self) -> None:
        """Read what was kept; nothing where nothing can be read."""
        if self._file is None or not self._file.exists():
            return
        try:
            with self._file.open("rb") as opened:
                ids = msgspec.json.decode(opened.read(FILE_MAX_BYTES), type=list[str])
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            LOG.warning("pins cannot be read, pin your models again (%s: %s)", self._file, error)
            return
        self._ids = frozenset(ids[:PINS_MAX])

    def change(self, model_id: str, *, pinned: bool) -> None:
        """Pin or unpin, and keep it."""
        ids = self._ids | {model_id} if pinned else self._ids - {model_id}
        if ids == self._ids or len(ids) > PINS_MAX:
            return
        self._ids = ids
        if self._file is not None:
            _replace(self._file, sorted(ids))


def _replace(file: Path, ids: Collection[str]) -> None:
    try:
        replace_file(file, msgspec.json.encode(ids))
    except OSError as error:
        LOG.warning("pins last until this daemon ends: %s cannot be written: %s", file, error)
