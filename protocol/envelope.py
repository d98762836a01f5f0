"""Who says this, in which mesh, in which run, and in what order: the head of every frame.

`boot_id` tells two runs of one node apart; `sequence` grows by one with each frame a node sends to
one peer, so that a receiver can drop what is older than what it has (a replayed frame has no
effect). The sender's id is a claim here; the transport holds it against the CURVE key that the
connection proved, and drops the frame when the two differ.
"""

from __future__ import annotations

from protocol import limits
from protocol.fields import Hex, Int, Text, record, wire


@record
class Envelope:
    """The head of a frame."""

    mesh: str = wire(Text(limits.MESH_LABEL_MAX_CHARS, shortest=1, ascii_only=True))
    sender: str = wire(Hex(limits.NODE_ID_BYTES))
    boot_id: int = wire(Int())
    sequence: int = wire(Int())
