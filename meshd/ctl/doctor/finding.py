"""What a rule of the doctor says: a cause by name, and what mends it."""

from __future__ import annotations

from protocol.frozen import frozen


@frozen
class Finding:
    """One thing to know. `level` is `warn` or `bad`; `fix` is what to do."""

    check: str
    level: str
    what: str
    fix: str


def bad(check: str, what: str, fix: str) -> Finding:
    """A finding without whose cure the mesh does not work here."""
    return Finding(check, "bad", what, fix)
