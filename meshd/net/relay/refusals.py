"""What people read when a forwarded request is not answered: what happened, and what to do."""

from __future__ import annotations

from protocol.jobs import Failure

RETRY_AFTER_S = 1.0
"""When to come back to a node that is full: a few answers have ended by then."""


def overloaded(what: str) -> Failure:
    """There is no room now."""
    return Failure(
        "overloaded",
        f"{what}; try another node, or again in a moment",
        elsewhere=True,
        retry_after_s=RETRY_AFTER_S,
    )


def unreachable(name: str, cause: str) -> Failure:
    """The peer is gone, or its answer cannot be trusted to be whole."""
    return Failure(
        "unreachable",
        f"{name} cannot finish this request: {cause}; ask again",
        elsewhere=True,
    )


def damaged(what: str) -> Failure:
    """What arrived is not a request; the same would happen anywhere."""
    return Failure("bad_request", f"the forwarded request is damaged: {what}", elsewhere=False)


def hopped_before() -> Failure:
    """One hop only, so that no request can go round in circles."""
    return Failure("bad_request", "a forwarded request is never forwarded again", elsewhere=False)


def gave_up(what: str) -> Failure:
    """The engine broke its contract."""
    return Failure(
        "engine_failed",
        f"the node that answered gave up: {what}; ask again",
        elsewhere=True,
    )


def not_heard(lease_s: float) -> Failure:
    """The node took the asker for gone. Its engine is well, and it may be asked again."""
    return Failure(
        "unreachable",
        f"the node that answered heard nothing of this one for {lease_s:g} s and freed the slot; "
        "ask again",
        elsewhere=True,
    )


def too_slow(limit_s: float) -> Failure:
    """The body stayed away."""
    return Failure(
        "timeout",
        f"the request did not arrive whole within {limit_s:g} s: "
        "the link between the two nodes is too slow or broken; ask again",
        elsewhere=True,
    )
