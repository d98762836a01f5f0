"""What an Ollama server says of its models besides, where its owner named it as any server of
OpenAI's format.

Its OpenAI list tells names only. But a model is asked to think in Ollama's own words, and one that
cannot refuses them; some make vectors and nothing else; and some run on the internet, on their
owner's account. So each is looked up once, as that of a server which was found (`adoption`), and
gets the same name: without the tag that Ollama adds. One that runs on the internet is left out,
unless its owner named it.

What is loaded, and with which context, is asked for every time: a longer prompt would be cut
without a word. One that is not loaded counts with the context it was last seen with or, where it
never was, with the longest it can have: this server may well be a larger machine than most, and
what is refused here would never be loaded there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from meshd.engine import habits
from meshd.engine.listing import Listed
from protocol import limits

LOOKED_UP_MAX = 16
"""Models in one listing, which has its time; those that are left are looked up in the next one."""


class Details:
    """Of one server's models."""

    def __init__(self, only: str = "") -> None:
        """`only` is the model that the owner named; empty where he named none."""
        self._only = only
        self._known: dict[str, habits.Shown] = {}
        self._contexts: dict[str, int] = {}
        """Context length that each was last seen with."""

    async def added(
        self, listed: Sequence[Listed], get: Callable[[str, Any], Awaitable[Any]]
    ) -> list[Listed]:
        """The models that have been looked up, with what they can do. Raises ConnectionFailed."""
        names = [each.record.model_id for each in listed]
        for name in [name for name in names if name not in self._known][:LOOKED_UP_MAX]:
            try:
                self._known[name] = habits.ollama_show(await get("/api/show", {"model": name}))
            except ValueError:
                self._known[name] = habits.Shown()  # a proxy before it may let nothing else pass
        self._known = {name: self._known[name] for name in names if name in self._known}
        found = [_with(each, self._known.get(each.record.model_id)) for each in listed]
        loaded = await _loaded(get)
        seen = self._contexts | (loaded or {})
        self._contexts = {name: seen[name] for name in names if seen.get(name)}
        return [
            self._placed(each, loaded)
            for each in found
            if each is not None and self._may_serve(each)
        ]

    def _placed(self, each: Listed, loaded: Mapping[str, int] | None) -> Listed:
        """The model with its context; warm where it is loaded, or where that cannot be told."""
        shown = self._known[each.served_name]
        last = self._contexts.get(each.served_name, 0)
        context = last or shown.running_context or shown.context_length
        is_warm = loaded is None or shown.is_remote or each.served_name in loaded
        return replace(each, record=replace(each.record, context_length=context), is_warm=is_warm)

    def _may_serve(self, each: Listed) -> bool:
        return not self._known[each.served_name].is_remote or is_called(each, self._only)


async def _loaded(get: Callable[[str, Any], Awaitable[Any]]) -> dict[str, int] | None:
    """Context length by name of what is loaded; None where that is not told."""
    try:
        return habits.ollama_running(await get("/api/ps", None))
    except ValueError:
        return None


def is_called(each: Listed, name: str) -> bool:
    """Whether this is one of the model's names."""
    return name in (each.record.model_id, *each.record.aliases)


def _with(each: Listed, shown: habits.Shown | None) -> Listed | None:
    """None for a model of which nothing is known yet, and for one that can do nothing."""
    if shown is None or not shown.capabilities:
        return None
    name = each.record.model_id
    short = name.removesuffix(":latest")
    names = dict.fromkeys((name, *each.record.aliases))
    record = replace(
        each.record,
        model_id=short,
        aliases=tuple(other for other in names if other != short)[: limits.ALIASES_MAX],
        capabilities=shown.capabilities,
    )
    return replace(each, record=record, served_name=name)
