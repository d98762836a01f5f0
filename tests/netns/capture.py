"""Everything that crosses a switch, as raw Ethernet frames: what a stranger on the LAN can read."""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import suppress

from tests.netns.networks import Lan
from tests.netns.within import inside

ALL_PROTOCOLS = 0x0003
"""ETH_P_ALL of <linux/if_ether.h>."""

SOL_PACKET = 263
ADD_MEMBERSHIP = 1
PROMISCUOUS = 1
"""Of <linux/if_packet.h>: the port also hands up what is only passing."""

BUFFER_BYTES = 32 * 1024 * 1024
"""Kernel buffer: seconds of a busy mesh, should this process not get to run."""

FRAME_MAX_BYTES = 65_535


class Capture:
    """Reads one switch until closed. Use as a context manager; then look into `frames`."""

    def __init__(self, lan: Lan) -> None:
        self.frames: list[bytes] = []
        with inside(lan.switch):
            self._socket = socket.socket(
                socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ALL_PROTOCOLS)
            )
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
            for host in lan.hosts:
                index = socket.if_nametoindex(host.port)
                membership = struct.pack("iHH8s", index, PROMISCUOUS, 0, b"")
                self._socket.setsockopt(SOL_PACKET, ADD_MEMBERSHIP, membership)
        self._socket.settimeout(0.1)
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="capture", daemon=True)

    def __enter__(self) -> Capture:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping = True
        self._thread.join(5)
        self._socket.close()

    def __contains__(self, text: bytes) -> bool:
        """Whether the bytes crossed within one frame, or over the seam of two that followed."""
        return any(text in frame for frame in self.frames) or text in b"".join(self.frames)

    def _run(self) -> None:
        while not self._stopping:
            with suppress(TimeoutError):
                self.frames.append(self._socket.recv(FRAME_MAX_BYTES))
