"""Runs attempts until a request is answered. The router decides where; this carries it out.

An attempt is *committed* by its first body event. Before that nothing has reached the client, so a
node that refuses, dies or stalls is replaced without a word (`beginning`); a job that is not
streamed commits only when its whole answer is here. After the commit the client's stream outlives
the machines that give it: the next attempt goes on from what the client has (`stream`,
`continuation`).

Every attempt (`attempt`) holds a lease from the moment it is sent until its stream is closed,
whichever way that happens: the client reads to the end, leaves, or is never answered. What becomes
of a request is written down as it goes (`meshd.history`).
"""

from meshd.gateway.mesh import MeshGateway
from meshd.gateway.request import ATTEMPTS_MAX

__all__ = ["ATTEMPTS_MAX", "MeshGateway"]
