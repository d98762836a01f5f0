"""What this router has sent out and not yet seen reflected in anybody's load record.

Each attempt takes a *lease*: an entry with an id and an expiry, never a bare counter. Releasing
twice is harmless, forgetting to release costs at most LEASE_S, and the count can not go below zero
because nothing is ever subtracted.

A lease counts against a node while it is younger than the node's last record; once a record made
after it has arrived, the node itself accounts for the work.
"""

from __future__ import annotations

from collections import OrderedDict

from protocol.frozen import frozen

LEASE_S = 3_600.0
"""Longest any attempt may run: an hour of decoding; a leaked entry is gone after that."""

LEASES_MAX = 8_192
"""Attempts in flight from one node: eight times what its sockets allow. The oldest gives way."""


@frozen
class Lease:
    """One attempt in flight."""

    lease_id: int
    node_id: str
    model_id: str
    service_s: float
    at: float
    job_class: str = ""
    """`Demand.job_class`."""
    batch: float = 1.0
    """The crowding that `service_s` assumes (`Price.batch`)."""
    prefill_s: float = 0.0
    """The part of `service_s` in which the prompt would be read alone."""


@frozen
class Outstanding:
    """Own dispatches that a node's record does not show yet."""

    jobs: int
    service_s: float
    prefill_s: float = 0.0


NOTHING = Outstanding(0, 0.0)


class Ledger:
    """The leases of one router."""

    def __init__(self) -> None:
        self._leases: OrderedDict[int, Lease] = OrderedDict()
        self._by_node: dict[str, dict[int, Lease]] = {}
        self._next_id = 1

    def __len__(self) -> int:
        return len(self._leases)

    def take(
        self,
        node_id: str,
        model_id: str,
        service_s: float,
        now: float,
        *,
        job_class: str = "",
        batch: float = 1.0,
        prefill_s: float = 0.0,
    ) -> Lease:
        """Note an attempt that starts now and will keep the node busy for `service_s`."""
        self._expire(now)
        lease = Lease(self._next_id, node_id, model_id, service_s, now, job_class, batch, prefill_s)
        self._next_id += 1
        self._leases[lease.lease_id] = lease
        self._by_node.setdefault(node_id, {})[lease.lease_id] = lease
        return lease

    def release(self, lease: Lease) -> None:
        """The attempt is over, however it ended. Idempotent."""
        if self._leases.pop(lease.lease_id, None) is not None:
            self._drop(lease)

    def outstanding(self, node_id: str, model_id: str, since: float) -> Outstanding:
        """Attempts at (node, model) that started after `since` (monotonic s) and still run."""
        leases = self._by_node.get(node_id)
        if not leases:
            return NOTHING
        jobs, service_s, prefill_s = 0, 0.0, 0.0
        for lease in reversed(leases.values()):  # newest first
            if lease.at <= since:
                break
            if lease.model_id == model_id:
                jobs += 1
                service_s += lease.service_s
                prefill_s += lease.prefill_s
        return Outstanding(jobs, service_s, prefill_s) if jobs else NOTHING

    def in_flight(self, node_id: str) -> int:
        """Attempts at a node that have not ended."""
        return len(self._by_node.get(node_id, ()))

    def _expire(self, now: float) -> None:
        while self._leases:
            lease = next(iter(self._leases.values()))
            if len(self._leases) < LEASES_MAX and now - lease.at < LEASE_S:
                return
            self.release(lease)

    def _drop(self, lease: Lease) -> None:
        leases = self._by_node[lease.node_id]
        del leases[lease.lease_id]
        if not leases:
            del self._by_node[lease.node_id]
