"""What the membership machine asks of the world. The shell carries these out, in order.

A *link* is one outgoing connection, named `host:port` (IPv6 hosts in brackets). The machine owns
the decision which links exist; the shell owns the sockets.
"""

from __future__ import annotations

from protocol.frozen import frozen
from protocol.messages import ControlMessage


@frozen
class Dial:
    """Open an outgoing connection. Idempotent."""

    link: str


@frozen
class Hangup:
    """Close an outgoing connection. Idempotent."""

    link: str


@frozen
class Send:
    """Send a message to a member: over `link`, or, when it is None or down, over the connection
    that the member itself opened to us, if there is one. Dropped when neither can take it now."""

    node_id: str | None
    link: str | None
    message: ControlMessage


@frozen
class ViewChanged:
    """The machine's `view()` differs from the last one read."""


@frozen
class Notice:
    """Something a person may want to read: `level` is info or warning."""

    level: str
    text: str


Effect = Dial | Hangup | Send | ViewChanged | Notice
