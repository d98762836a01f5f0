"""Settings that change while the daemon runs: the file is looked at, and what can be taken over is.

Which settings those are stands beside each of them (`Option.live`); of the others the log says that
they wait for a restart. A file that cannot be used, half written or mistyped, changes nothing: the
old settings stay, and the log says what is wrong with the line.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from meshd.config import ConfigError, Settings
from meshd.options import OPTIONS, Option
from meshd.rhythm import Steady, until_next

log = logging.getLogger(__name__)

LOOK_EVERY_S = 2.0
"""Pause between looks at the file: a person saves it and looks at the log."""

Reread = Callable[[], tuple[Settings, Path | None]]
"""The settings as they would be now, and the file they come from. Raises ConfigError."""

Stamp = tuple[int, int] | None


def changed(old: Settings, new: Settings) -> Sequence[Option]:
    """The options whose values differ."""
    return [
        option
        for option in OPTIONS
        if any(getattr(old, name) != getattr(new, name) for name in option.fields)
    ]


def taken_over(old: Settings, new: Settings) -> Settings:
    """The old settings with the new values of what can change live."""
    names = [name for option in OPTIONS if option.live for name in option.fields]
    return dataclasses.replace(old, **{name: getattr(new, name) for name in names})


class Watch:
    """One daemon's settings file. `apply` is given the settings that hold from now on."""

    def __init__(
        self, settings: Settings, reread: Reread, apply: Callable[[Settings], object]
    ) -> None:
        self._settings = settings
        self._reread = reread
        self._apply = apply

    async def watch(self, file: Path) -> None:
        """Look for ever. Owned, and cancelled, by the daemon."""
        seen = await asyncio.to_thread(_stamp, file)
        steady = Steady("look at the settings")
        while True:
            await asyncio.sleep(until_next(LOOK_EVERY_S, time.monotonic()))
            now = await asyncio.to_thread(_stamp, file)
            if now != seen and now is not None:
                with steady:
                    await self.look()
            seen = now

    async def look(self) -> None:
        """Read the settings again, and take over what can be."""
        try:
            new, _ = await asyncio.to_thread(self._reread)
        except ConfigError as error:
            log.warning("the settings stay as they were: %s", error)
            return
        options = changed(self._settings, new)
        live = [option.key for option in options if option.live]
        later = [option.key for option in options if not option.live]
        if live:
            self._settings = taken_over(self._settings, new)
            self._apply(self._settings)
            log.info("taken over from the settings: %s", ", ".join(live))
        if later:
            log.warning("changed, but only from the next start on: %s", ", ".join(later))


def _stamp(file: Path) -> Stamp:
    """What changes with the file; None while there is none."""
    try:
        now = file.stat()
    except OSError:
        return None
    return now.st_mtime_ns, now.st_size
