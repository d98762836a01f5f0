"""Forwarded requests: how a job crosses to the node that will answer it, and its answer back.

The relay has sockets of its own, apart from the control plane's, so that a flood of tokens never
delays a heartbeat. It runs on the gateway's loop. `flow` holds the rules (no socket, no clock),
`client` asks, `server` answers, `sockets` puts ZeroMQ on the loop, `relay` is the whole.

Trust: the listening socket's CURVE key is the node's own, which askers know from the member table,
so they cannot be led to anybody else; the asker's key is its own too, and only members' keys are
admitted. Every frame's sender is therefore proven, in both directions.
"""

from meshd.net.relay.relay import Relay, RelayStats
from meshd.net.relay.sockets import Counters

__all__ = ["Counters", "Relay", "RelayStats"]
