"""A conversation as the strictest chat templates take it.

Some templates take a system message in front only, or one turn of each side in turn, and agents
send reminders of the system in the middle. What such a template refuses is put to it once more,
with the reminder said by the user, where it stood: moved to the front it would change the beginning
of the prompt, and with it all that is in the cache.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from meshd.core.ports import EventStream, Note
from protocol.jobs import Event, Failure, Job

MERGED = frozenset({"system", "user"})
"""Roles whose turns are joined where they stand together."""

REFUSED = re.compile(r"jinja|chat template|roles must alternate|system message", re.IGNORECASE)
"""What servers say where a template refused a conversation: its own words, or the renderer's."""


def is_orderly(turns: Sequence[Any]) -> bool:
    """Whether no template could ask for another order."""
    before = None
    for turn in turns:
        if not isinstance(turn, Mapping):
            return True  # a peer sent it; the server may say what is wrong with it
        role = turn.get("role")
        if before is not None and (role == "system" or role == before == "user"):
            return False
        before = role
    return True


async def in_either_order(generate: Callable[[Job], EventStream], job: Job) -> EventStream:
    """A job's answer as it stands, for most templates know a system turn in the middle; where its
    template refuses it, the answer to the same in the strictest order."""
    for asked in (job, replace(job, messages=tuple(orderly(job.messages)))):
        may_ask_again = asked is job  # not once something was said
        async with aclosing(generate(asked)) as events:
            async for batch in events:
                if may_ask_again and _is_refusal(batch[0]):
                    break
                may_ask_again = False
                yield batch
            else:
                return


def orderly(turns: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The same with one system turn, in front; later ones are the user's, who says all that stands
    together in one turn."""
    said: list[Mapping[str, Any]] = []
    for turn in turns:
        role, before = turn.get("role"), said[-1].get("role") if said else "system"
        if role == "system" and before != "system":
            role = "user"
        if said and role == before and role in MERGED:
            joined = _joined(said[-1].get("content"), turn.get("content"))
            said[-1] = {**said[-1], "content": joined}
        else:
            said.append({**turn, "role": role})
    return said


def _is_refusal(event: Event | Note) -> bool:
    return isinstance(event, Failure) and REFUSED.search(event.message) is not None


def _joined(first: Any, second: Any) -> Any:
    """Two contents as one: texts by a line break, parts in a row."""
    if isinstance(first, str) and isinstance(second, str):
        return f"{first}\n{second}"
    return [*_parts(first), *_parts(second)]


def _parts(content: Any) -> Sequence[Any]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return content if isinstance(content, Sequence) else []
