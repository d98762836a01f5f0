"""What model files said of themselves when they were last read, kept in the state directory.

Reading a head takes 50 ms, most of it for the vocabulary; a machine with a hundred models would
think for five seconds at every start. A file with the same path, size and time of change is not
read again. The file of answers is ours and may be lost: whatever is wrong with it, it is empty.
"""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path
from typing import Protocol

import msgspec

from meshd.core.residency.footprint import ModelShape
from meshd.engine.gguf import GgufHead, inspect
from meshd.engine.tool_calls import takes_calls
from meshd.replacing import replace_file

LOG = logging.getLogger(__name__)

FILE_NAME = "catalog.json"
FORMAT = 2
"""Raised when the answers change their meaning: older files are then read anew."""

HEADS_MAX = 512
"""Answers kept, about 600 bytes each; twice what a catalog holds."""

FILE_MAX_BYTES = 4 * 1024 * 1024


class ModelHead(Protocol):
    """What a model on the disk says of itself. 0 or empty where it does not."""

    @property
    def context_length(self) -> int: ...
    @property
    def quantisation(self) -> str: ...
    @property
    def size_bytes(self) -> int: ...
    @property
    def fingerprint(self) -> str: ...


class Seen(msgspec.Struct, frozen=True, array_like=True):
    """The wanted facts of one file."""

    size_bytes: int
    modified_ns: int
    kind: str
    context_length: int
    quantisation: str
    fingerprint: str
    shape: ModelShape
    calls_tools: bool
    embeds: bool


class _Kept(msgspec.Struct):
    format: int
    heads: dict[str, Seen]


class HeadCache:
    """Facts of model files by path. Blocks on the disk: use it from one thread at a time."""

    def __init__(self, folder: Path | None) -> None:
        """Kept in `folder`; None keeps nothing beyond this object."""
        self._file = folder / FILE_NAME if folder else None
        self._heads = self._load()
        self._asked: dict[str, Seen] = {}
        self._is_changed = False

    def read(self, path: Path) -> Seen:
        """The facts of a file. Raises EngineError with one line, or OSError."""
        try:
            status = path.stat()
        except FileNotFoundError:
            inspect(path)
            raise
        known = self._heads.get(str(path))
        if known is None or (known.size_bytes, known.modified_ns) != (
            status.st_size,
            status.st_mtime_ns,
        ):
            known = _seen(inspect(path), status)
            self._is_changed = True
        self._asked[str(path)] = known
        return known

    def save(self) -> None:
        """Keep what was asked for since the last save, and forget the rest."""
        asked, self._asked = self._asked, {}
        is_changed = self._is_changed or asked.keys() != self._heads.keys()
        self._heads, self._is_changed = asked, False
        if self._file is None or not is_changed:
            return
        kept = dict(list(asked.items())[:HEADS_MAX])
        try:
            replace_file(self._file, msgspec.json.encode(_Kept(FORMAT, kept)), flush=False)
        except OSError as error:
            LOG.warning("what was read of model files cannot be kept: %s", error)

    def _load(self) -> dict[str, Seen]:
        if self._file is None:
            return {}
        with contextlib.suppress(OSError, msgspec.MsgspecError):
            with self._file.open("rb") as opened:
                kept = msgspec.json.decode(opened.read(FILE_MAX_BYTES), type=_Kept)
            return kept.heads if kept.format == FORMAT else {}
        return {}


def _seen(head: GgufHead, status: os.stat_result) -> Seen:
    return Seen(
        size_bytes=status.st_size,
        modified_ns=status.st_mtime_ns,
        kind=head.kind,
        context_length=head.context_length,
        quantisation=head.quantisation,
        fingerprint=head.fingerprint,
        shape=head.shape,
        calls_tools=takes_calls(head.template),
        embeds=head.embeds,
    )
