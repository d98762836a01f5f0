"""Replacing a file whole: state, keys, settings, units.

A reader finds the old content or the new, never a part, also when power fails in between: the new
content is written beside the old, made to last, and put in its place in one step.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PRIVATE_MODE = 0o600
"""Readable by its owner only: what most of our files are."""

PUBLIC_MODE = 0o644
"""For files that are everybody's to read, such as units and settings."""

FOLDER_MODE = 0o700


@contextmanager
def alone_in(folder: Path, *, make: bool = False) -> Iterator[None]:
    """For who reads a file of `folder`, changes it and replaces it: others who do wait their turn,
    and lose nothing. `make` makes the folder. Where it cannot be held, nobody waits."""
    handle = -1
    with suppress(ImportError, OSError):
        import fcntl  # not on every system that meshctl runs on

        if make:
            folder.mkdir(parents=True, exist_ok=True, mode=FOLDER_MODE)
        handle = os.open(folder, os.O_RDONLY)
        fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        yield
    finally:
        if handle >= 0:
            os.close(handle)


def replace_file(
    path: Path,
    content: bytes,
    *,
    mode: int = PRIVATE_MODE,
    flush: bool = True,
    like: Path | None = None,
) -> None:
    """Put `content` at `path`, whole or not at all. Raises OSError.

    `flush` waits until it would survive a power cut. `like` is a file or folder whose owner shall
    own the file, where root writes it for somebody.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=FOLDER_MODE)
    handle, draft_name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    draft = Path(draft_name)
    try:
        with os.fdopen(handle, "wb") as file:
            if os.name == "posix":
                os.fchmod(file.fileno(), mode)
            if like is not None and os.name == "posix" and os.geteuid() == 0:
                owner = like.stat()
                os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
            file.write(content)
            if flush:
                file.flush()
                os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    if flush:
        _flush_names(path.parent)


def _flush_names(folder: Path) -> None:
    """Make what a folder lists last; its new file is there, but under its name only by then. Not
    every file system can, and Windows has no such thing: then it lasts a moment later."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
