"""Run inside a namespace: a member that speaks nonsense. Prints what it sent, as JSON.

It holds the mesh key, so every frame passes encryption and reaches the decoder: random bytes, real
messages under its own name cut short at a random place, and frames over the size limit.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import zmq

from meshd.net import gatekeeper
from meshd.net.transport import shape_control
from meshd.net.trust import Identity, MeshKey, identity_of, read_mesh_key_file
from protocol.codec import decode_control, encode
from protocol.envelope import Envelope
from protocol.limits import CONTROL_FRAME_MAX_BYTES

RANDOM_MAX_BYTES = 600
VECTORS = Path("protocol/vectors/accept.json")
SEND_WAIT_MS = 2_000
"""The other side takes frames as fast as it likes; longer than this, it has hung up."""


def real_frames(identity: Identity, mesh_key: MeshKey) -> list[bytes]:
    """Every control message of the golden bytes, as this node of this mesh would send it."""
    envelope = Envelope(mesh_key.label, identity.node_id, 1, 1)
    vectors = [v for v in json.loads(VECTORS.read_text()) if v["form"] == "control"]
    return [encode(envelope, decode_control(bytes.fromhex(v["bytes"]))[1]) for v in vectors]


def nonsense(frames: list[bytes], count: int) -> Iterator[bytes]:
    """Half random bytes, half real frames that end too early."""
    rng = Random(2)
    for _ in range(count // 2):
        yield rng.randbytes(rng.randrange(RANDOM_MAX_BYTES))
        frame = rng.choice(frames)
        yield frame[: rng.randrange(len(frame))]


def main() -> None:
    """KEY_FILE HOST:PORT FRAMES OVERSIZE"""
    key_file, peer, count, oversize = sys.argv[1:]
    mesh_key, identity = read_mesh_key_file(Path(key_file)), identity_of(bytes(range(32)))
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    dealer = context.socket(zmq.DEALER)
    shape_control(dealer)
    gatekeeper.introduce(dealer, identity, mesh_key.server_public)
    dealer.set(zmq.SNDTIMEO, SEND_WAIT_MS)
    dealer.connect(f"tcp://{peer}")
    began, sent = time.monotonic(), 0
    for frame in nonsense(real_frames(identity, mesh_key), int(count)):
        dealer.send(frame)
        sent += 1
    too_long = bytes(CONTROL_FRAME_MAX_BYTES * 4)
    for _ in range(int(oversize)):
        dealer.send(too_long)
    took_s = round(time.monotonic() - began, 1)
    context.destroy(linger=1_000)
    print(json.dumps({"sent": sent, "oversize": int(oversize), "took_s": took_s}))


main()
