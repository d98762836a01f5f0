"""What a client is told when the mesh, and not one node, has to say no."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from meshd.core.membership.member import Member
from meshd.core.routing.router import Decision
from protocol import limits
from protocol.jobs import Failure

RETRY_AFTER_S = 2.0
"""What a client is told to wait when no node can take its request: a few short answers' time."""

OFFERED_MAX = 10
"""Models named to somebody who asked for one that nobody has."""


NOBODY = {
    "unsupported": "No node can take this: {reason}.",
    "context_length_exceeded": (
        "The prompt is too long: {reason}. Shorten it or use another model."
    ),
    "insufficient_memory": (
        "No node has the memory for this model now: {reason}. Unload another model, or use a "
        "smaller one."
    ),
    "overloaded": "No node can take this request now: {reason}.",
}
"""What is said when no candidate is eligible, by what stands in the way of all of them."""


def nobody(decision: Decision) -> Failure:
    """Why no candidate was eligible, as the failure a client can act on."""
    code = decision.failure_code
    message = NOBODY[code].format(reason=decision.reason or "none offers the model")
    again_s = RETRY_AFTER_S if code in {"overloaded", "insufficient_memory"} else 0.0
    return Failure(code, clipped(message), elsewhere=False, retry_after_s=again_s)


def unknown_model(name: str, offered: Sequence[str]) -> Failure:
    """Nobody offers it, under this name or another."""
    listed = ", ".join(offered[:OFFERED_MAX]) or "none yet"
    more = f" and {len(offered) - OFFERED_MAX} more" if len(offered) > OFFERED_MAX else ""
    message = f"The model '{name}' is not offered by any node. Offered: {listed}{more}."
    return Failure("model_not_found", clipped(message), elsewhere=False, param="model")


def set_aside(name: str, why: str) -> Failure:
    """It lies here and cannot be run now, and nobody else has it."""
    message = f"The model '{name}' is set aside for a while, and no other node offers it: {why}"
    return Failure("engine_failed", clipped(message), elsewhere=False)


def away(name: str, holders: Sequence[Member]) -> Failure:
    """Only nodes that are away offer it: they may be back in a moment, so it is no wrong name."""
    told = ", ".join(
        f"{each.name} ({'not heard yet' if each.state == 'alive' else each.state})"
        for each in holders[:OFFERED_MAX]
    )
    message = (
        f"The model '{name}' is offered only by nodes that do not answer now: {told}. Ask again in "
        "a moment, start one of them, or use another model."
    )
    return Failure("unreachable", clipped(message), elsewhere=False, retry_after_s=RETRY_AFTER_S)


def silent() -> Failure:
    """A stream without an end."""
    return Failure("engine_failed", "the answer ended before it was finished", elsewhere=True)


def endless() -> Failure:
    """An answer that does not stop."""
    return Failure("engine_failed", "the answer has no end", elsewhere=False)


def late(name: str, waited_s: float) -> Failure:
    """No first event in time."""
    return Failure("timeout", f"{name} said nothing for {waited_s:.0f} s", elsewhere=True)


def lost(name: str) -> Failure:
    """No sign of life."""
    return Failure("unreachable", f"{name} does not answer any more", elsewhere=True)


def gone(name: str, failure: Failure) -> Failure:
    """What a node said that leaves, in words for a client that may have asked another one."""
    if failure.code == "unauthorized":
        return replace(failure, message=clipped(f"At {name}: {failure.message}"))
    if failure.code != "draining":
        return failure
    message = f"{name} is being drained or stopped, and no other node can answer this now"
    return replace(failure, message=message)


def stalled(name: str, silent_s: float) -> Failure:
    """A stream that stopped coming."""
    message = f"{name} stopped in the middle of the answer for {silent_s:.1f} s"
    return Failure("timeout", message, elsewhere=True)


def broken_off(failure: Failure, why: str) -> Failure:
    """A stream that ends here, and why nobody goes on with it."""
    message = f"{failure.message}. No other node can go on with this answer: {why}. Ask again."
    return replace(failure, message=clipped(message))


def clipped(message: str) -> str:
    """Not longer than a failure may be."""
    return message[: limits.DETAIL_MAX_CHARS]
