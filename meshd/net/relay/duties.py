"""What a node does for others over the relay: answer their jobs, compare trust, tell its load."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from meshd.core.ports import EventStream
from protocol.frozen import frozen
from protocol.jobs import Job
from protocol.load import ModelLoad
from protocol.trust import TrustRecord

Answer = Callable[[str, Job], EventStream]
"""Answers a job of the node with this id on this machine, and never forwards it again."""

OnTrust = Callable[[str, TrustRecord], Awaitable[TrustRecord | None]]
"""What to say to a node that told what it trusts; None to say nothing. Never raises."""

LoadOf = Callable[[str], ModelLoad | None]
"""How the model of this id does at this moment; None when it is not offered. Cheap."""


async def says_nothing(_sender: str, _state: TrustRecord) -> TrustRecord | None:
    """The OnTrust of a node that keeps its trust to itself."""
    return None


def offers_nothing(_model_id: str) -> ModelLoad | None:
    """The LoadOf of a node without models."""
    return None


@frozen
class Duties:
    """All of it."""

    answer: Answer
    on_trust: OnTrust = says_nothing
    load_of: LoadOf = offers_nothing
