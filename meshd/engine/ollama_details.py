"""What an Ollama server says of its models besides, where its owner named it as any server of
OpenAI's format.

Its OpenAI list tells names only. But a model is asked to think in Ollama's own words, and one that
cannot refuses them; so each is looked up once, as that of a server which was found (`adoption`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

from meshd.engine import habits
from meshd.engine.listing import Listed

LOOKED_UP_MAX = 16
"""Models in one listing, which has its time; those that are left are looked up in the next one."""


class Details:
    """Of one server's models."""

    def __init__(self) -> None:
        self._known: dict[str, habits.Shown] = {}

    async def added(
        self, listed: Sequence[Listed], get: Callable[[str, Any], Awaitable[Any]]
    ) -> list[Listed]:
        """The same models, with what they can do. Raises ConnectionFailed."""
        names = [each.record.model_id for each in listed]
        for name in [name for name in names if name not in self._known][:LOOKED_UP_MAX]:
            try:
                self._known[name] = habits.ollama_show(await get("/api/show", {"model": name}))
            except ValueError:
                self._known[name] = habits.Shown()  # a proxy before it may let nothing else pass
        self._known = {name: self._known[name] for name in names if name in self._known}
        return [self._with(each) for each in listed]

    def _with(self, each: Listed) -> Listed:
        can = self._known.get(each.record.model_id, habits.Shown()).capabilities
        words = dict.fromkeys((*each.record.capabilities, *can))
        return replace(each, record=replace(each.record, capabilities=tuple(words)))
