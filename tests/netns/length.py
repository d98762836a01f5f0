"""How long the scenarios are: short by default, so that all of them fit in minutes on two cores;
at the full length of their claims with `SCENARIOS=full` in the environment."""

from __future__ import annotations

import os
from typing import TypeVar

Value = TypeVar("Value")

FULL = os.environ.get("SCENARIOS") == "full"


def length(short: Value, full: Value) -> Value:
    """The one that this run asked for."""
    return full if FULL else short
