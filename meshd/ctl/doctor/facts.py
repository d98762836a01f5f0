"""What the doctor has found out, before any judgement: values that rules can be tested on.

None means "could not be told", and no rule may take it for good news or bad. `gather` fills these
in from this machine and from the daemon's own status.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any

from protocol.frozen import frozen


@frozen
class Daemon:
    """Whether the daemon answers, and what stands in its way where it does not."""

    url: str
    answers: bool
    trouble: str = ""
    """Why it does not, in the client's words."""
    spoke: bool = False
    """Whether something answered there, if not with what was asked for: no key, or no node."""
    holder: str = ""
    """Another program that holds its port, as `name (pid)`."""
    settings_error: str = ""
    service: str = ""
    """The service manager's word for it; empty when it is no service."""


@frozen
class Multicast:
    """What a query to the mDNS group brought, on this machine's own sockets."""

    bind_error: str = ""
    """Why UDP 5353 cannot be shared; empty when it can."""
    holder: str = ""
    heard_self: bool | None = None
    """Whether our own query came back: it does unless something here swallows it."""
    heard_others: int | None = None
    """Machines that spoke in the meantime."""


@frozen
class Reach:
    """One try to connect to a member's mesh port."""

    name: str
    address: str
    outcome: str
    """`open`, `choked` (large packets are lost), `refused`, `unreachable` (EHOSTUNREACH), `silent`
    or `error`."""


@frozen
class Facts:
    """Everything known. `status` is the daemon's `/mesh/v1/status`, empty without an answer."""

    system: str
    now_unix_s: float
    daemon: Daemon
    status: Mapping[str, Any] = field(default_factory=dict)
    multicast: Multicast | None = None
    reaches: tuple[Reach, ...] = ()
    gpus_present: tuple[str, ...] = ()
    """Accelerators that the operating system lists."""
    strangers: int = 0
    """Connections with another mesh key: while the doctor looked, or ever where no peer is."""
    disk_free_bytes: int | None = None
    state_dir: str = ""
    mdns_wanted: bool = True
    python_gain: float | None = None
    """How many times as fast the system's own Python runs such code as meshd's."""

    @property
    def members(self) -> tuple[Mapping[str, Any], ...]:
        """Every member, this node too; empty when the daemon does not answer."""
        return tuple(self.status.get("members", ()))

    @property
    def myself(self) -> Mapping[str, Any]:
        """This node's own row."""
        own = self.status.get("self")
        return next((row for row in self.members if row["id"] == own), {})

    @property
    def hosts(self) -> tuple[str, ...]:
        """The addresses that this node tells the others."""
        told = self.myself.get("endpoints", ())
        return tuple(endpoint.rpartition(":")[0].strip("[]") for endpoint in told)

    @property
    def peers(self) -> tuple[Mapping[str, Any], ...]:
        """The other members."""
        return tuple(row for row in self.members if row["id"] != self.status.get("self"))

    @property
    def company(self) -> bool:
        """Whether another member is there."""
        return any(peer["state"] == "alive" for peer in self.peers)

    def counter(self, name: str) -> int:
        """One of the daemon's counters, 0 when it has none of that name."""
        return int(self.status.get("counters", {}).get(name, 0))
