"""Why a pairing did not happen, in words for the person who typed the code."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType


class PairingError(Exception):
    """This machine did not join; the text says why and what to do, in one line."""


WORDS: Mapping[str, str] = MappingProxyType(
    {
        "wrong": (
            "the member does not know this code: it was mistyped, or is an older one; "
            "look at `meshctl pair` there and try again"
        ),
        "closed": (
            "the member's pairing window is closed: it was used, its time ran out, or five wrong "
            "codes came; run `meshctl pair` there again for a fresh one"
        ),
        "busy": (
            "the member is pairing with too many machines at once, or is itself joining another "
            "mesh; try again in ten seconds"
        ),
        "revoked": (
            "this machine was revoked and stays out; to come back as a new member, stop its "
            "daemon, remove node.key from its state directory, and pair again"
        ),
        "malformed": (
            "the member could not read what this machine said; compare `meshd version` on both"
        ),
    }
)
"""What each reason of `protocol.pairing.REFUSALS` means."""


def refused(reason: str) -> PairingError:
    """The error for a refusal of the other side."""
    return PairingError(WORDS[reason])
