"""What is known of one outgoing connection, and of the ways to one member.

The rules that move these records are in `links`.
"""

from __future__ import annotations

from dataclasses import dataclass

from protocol.frozen import frozen
from protocol.messages import Endpoint

NEVER = float("-inf")


def link_of(endpoint: Endpoint) -> str:
    """How a link to this address is named."""
    host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
    return f"{host}:{endpoint.control_port}"


@dataclass(slots=True)
class Link:
    """One outgoing connection, or the wish for one."""

    name: str
    origin: str
    state: str = "waiting"
    """waiting, dialling, up, or parked (a typed link whose node is reached another way)."""
    node_id: str | None = None
    """Who is expected at the other end, or proven to be there."""
    host: str = ""
    """The address that a name led to, once the link was up. Whoever else connects to the node takes
    this: libzmq looks a name up in the thread that moves all frames of this node."""
    proven: bool = False
    failures: int = 0
    failing_since: float = NEVER
    up_at: float = NEVER
    eof_at: float = NEVER
    hellos: int = 0
    complained: bool = False
    """Whether a person was told of a wrong key there."""


@dataclass(slots=True)
class Way:
    """How to reach one member."""

    endpoints: tuple[Endpoint, ...]
    answered: str | None = None
    turn: int = 0
    path: str | None = None
    """The link that is up."""
    trying: str | None = None
    """The link that is being dialled, or waits for it."""
    failing_since: float = NEVER

    def names(self) -> list[str]:
        """Links to its addresses, the one that answered last first."""
        names = list(dict.fromkeys(link_of(endpoint) for endpoint in self.endpoints))
        if self.answered in names:
            names.remove(self.answered)
        return names if self.answered is None else [self.answered, *names]


@frozen
class Down:
    """What the end of a link means. `gone` is proof that the node's process has ended."""

    node_id: str | None = None
    gone: bool = False
    eof_at: float = NEVER
    wrong_key: bool = False
