"""How much of its machine a node offers while somebody or something else needs it.

A laptop on its battery, a hot one, a desktop with its owner at the keyboard: each still answers,
with fewer requests at a time. What is lowered is the number of slots that the node tells the others
and itself fills; jobs that run already run on. Fewer slots make the node's queue longer, so the
cost that routing counts in sends work elsewhere as far as there is an elsewhere, without a rule of
its own.

The owner chooses a share for each cause, `full`, `half` or `one`; of several causes at once the
smallest share holds. One slot is always left: a node that nobody may use is a node that should be
drained, which its owner can say in so many words.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from protocol.frozen import frozen

if TYPE_CHECKING:  # the settings name the shares, and start without the ports
    from meshd.core.ports import HostReading

SHARES = ("full", "half", "one")
"""From most to least."""

USUAL_SHARE = "half"
"""What a machine offers that is needed for something else, unless its owner says otherwise."""

QUEUE_WAIT_S = 120.0
"""Longest expected wait for a slot that is begun, unless its owner says otherwise: people give up,
and clients time out after 60 to 600 s."""


@frozen
class Courtesy:
    """The share that is offered in each situation."""

    on_battery: str = USUAL_SHARE
    when_hot: str = USUAL_SHARE
    when_used: str = USUAL_SHARE
    under_pressure: str = USUAL_SHARE


def share_of(reading: HostReading, courtesy: Courtesy) -> str:
    """The smallest share that any of the machine's troubles asks for."""
    asked = [
        share
        for share, applies in (
            (courtesy.on_battery, reading.on_battery),
            (courtesy.when_hot, reading.hot),
            (courtesy.when_used, reading.owner_active),
            (courtesy.under_pressure, reading.pressure != "normal"),
        )
        if applies
    ]
    return max(asked, key=SHARES.index, default="full")


def offered_slots(slots: int, share: str) -> int:
    """Slots to offer of those that there are; at least one."""
    offered = {"full": slots, "half": slots // 2, "one": 1}[share]
    return max(1, offered)
