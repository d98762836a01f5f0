"""What a person carries from one machine to the other: eight digits, or one line.

The digits are for two people at two screens. They are few, so SPAKE2 makes each guess a
conversation with the member, and the member counts: five wrong ones in two minutes close the
window, which leaves a guesser one chance in twenty million.

The line is for a machine without a keyboard. It holds a secret of 128 bits, so guessing is out of
the question, and the places to knock at, so that nothing else needs to be typed. It goes through
clipboards and cloud-init files; therefore it works once and for ten minutes. A check at its end
tells a line that was cut in half from one that is too old.

Not in the line: a time (the member's clock decides, and clocks differ), and a key of the door (who
answers proves to know the secret, which is more than a key would prove).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import field
from typing import Any

from meshd.address import format_host_port, parse_host_port
from meshd.net.pairing.refusal import PairingError
from protocol.codec import pack, unpack
from protocol.errors import ProtocolError
from protocol.frozen import frozen
from protocol.pairing import INVITATION_BYTES

Entropy = Callable[[int], bytes]
"""So many random bytes, as `secrets.token_bytes` gives them."""

CODE_DIGITS = 8
CODE_LASTS_S = 120.0
"""Long enough to walk to another room and type eight digits."""

TRIES_MAX = 5
"""Wrong tries that end an invitation: a person mistypes once or twice."""

TOKEN_LASTS_S = 600.0
"""Long enough for a machine to be flashed, booted and reached."""

TOKEN_SECRET_BYTES = 16
TOKEN_CHECK_BYTES = 4
TOKEN_PREFIX = "meshd-join-"  # noqa: S105 - how a token begins
TOKEN_FORMAT = 1
TOKEN_PLACES_MAX = 8
"""Places to knock at: as many addresses as a node advertises."""
TOKEN_MAX_CHARS = 2_000
"""Eight places of the longest host name; a usual token has about 110 characters."""

SEPARATORS = re.compile(r"[\s-]")
CODE_SHAPE = re.compile(rf"[0-9]{{{CODE_DIGITS}}}")


@frozen
class Invitation:
    """One chance to become a member. `name` tells a token's from others; a code's is empty."""

    name: bytes
    password: bytes = field(repr=False)
    lasts_s: float

    @property
    def code(self) -> bool:
        """Whether it was made of digits for a person to type."""
        return not self.name


def draw_code(entropy: Entropy) -> str:
    """Eight random digits. 64 bits are drawn, so no digits are likelier by more than 1e-11."""
    number = int.from_bytes(entropy(8), "big") % 10**CODE_DIGITS
    return f"{number:0{CODE_DIGITS}d}"


def shown(code: str) -> str:
    """The digits as people read them aloud: 1234 5678."""
    return f"{code[: CODE_DIGITS // 2]} {code[CODE_DIGITS // 2 :]}"


def code_invitation(text: str) -> Invitation:
    """The invitation of a typed code; blanks and dashes do not matter. Raises PairingError."""
    digits = SEPARATORS.sub("", text)
    if not CODE_SHAPE.fullmatch(digits):
        raise PairingError(
            f"{text[:40]!r} is not a pairing code; type the {CODE_DIGITS} digits (or the whole "
            f"{TOKEN_PREFIX}... line) that `meshctl pair` shows on a member"
        )
    return Invitation(b"", b"code " + digits.encode(), CODE_LASTS_S)


def draw_token(entropy: Entropy, places: Sequence[str]) -> tuple[str, Invitation]:
    """A fresh token's text and its invitation; `places` are the door's `host:port`, best first."""
    name, secret = entropy(INVITATION_BYTES), entropy(TOKEN_SECRET_BYTES)
    body = pack([TOKEN_FORMAT, name, secret, list(places[:TOKEN_PLACES_MAX])])
    return TOKEN_PREFIX + _letters(body + _check(body)), _token_invitation(name, secret)


def is_token(text: str) -> bool:
    """Whether it begins as a token does."""
    return text.strip().lower().startswith(TOKEN_PREFIX)


def read_token(text: str) -> tuple[Invitation, tuple[str, ...]]:
    """The invitation in a token, and where to knock. Raises PairingError."""
    words = SEPARATORS.sub("", text.strip().lower().removeprefix(TOKEN_PREFIX))
    padded = words.upper() + "=" * (-len(words) % 8)
    try:
        if len(text) > TOKEN_MAX_CHARS:
            raise _damaged()
        raw = base64.b32decode(padded)
        body, check = raw[:-TOKEN_CHECK_BYTES], raw[-TOKEN_CHECK_BYTES:]
        if check != _check(body) or _letters(raw) != words:
            raise _damaged()
        name, secret, places = _parts(unpack(body, TOKEN_MAX_CHARS))
    except (binascii.Error, ProtocolError, ValueError):
        raise _damaged() from None
    return _token_invitation(name, secret), places


def _parts(values: Any) -> tuple[bytes, bytes, tuple[str, ...]]:
    """Name, secret and places of a token. Raises ValueError for anything else."""
    match values:
        case [int(form), bytes(name), bytes(secret), [*places], *_] if (
            form == TOKEN_FORMAT
            and len(name) == INVITATION_BYTES
            and len(secret) == TOKEN_SECRET_BYTES
            and len(places) <= TOKEN_PLACES_MAX
            and all(isinstance(place, str) for place in places)
        ):
            return name, secret, tuple(format_host_port(*parse_host_port(p)) for p in places)
    raise ValueError("not a token of this version")


def _token_invitation(name: bytes, secret: bytes) -> Invitation:
    return Invitation(name, b"token " + secret, TOKEN_LASTS_S)


def _letters(raw: bytes) -> str:
    return base64.b32encode(raw).decode().rstrip("=").lower()


def _check(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=TOKEN_CHECK_BYTES, person=b"meshd token").digest()


def _damaged() -> PairingError:
    return PairingError(
        f"this is not a whole {TOKEN_PREFIX}... line of this version of meshd; copy it again from "
        "`meshctl pair --token`, from its first character to its last"
    )
