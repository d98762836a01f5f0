"""Quantities as people read them: three digits and a unit, "-" where nothing is known."""

from __future__ import annotations

UNKNOWN = "-"
BYTE_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def bytes_words(count: float | None) -> str:
    """Decimal units, as memory sizes are sold and drives are labelled: 16.8 GB."""
    if count is None:
        return UNKNOWN
    size, unit = float(count), 0
    while size >= 999.5 and unit < len(BYTE_UNITS) - 1:
        size, unit = size / 1000, unit + 1
    return f"{_three(size) if unit else round(size)} {BYTE_UNITS[unit]}"


def seconds_words(seconds: float | None) -> str:
    """A duration by its largest sensible unit: 0.4 ms, 12 ms, 3.1 s, 5 min, 3.2 h, 12 d."""
    if seconds is None:
        return UNKNOWN
    if seconds < 0.9995:
        return f"{_three(seconds * 1e3)} ms"
    for limit, size, unit in ((99.5, 1, "s"), (5_970, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{_three(seconds / size)} {unit}"
    return f"{_three(seconds / 86_400)} d"


def rate_words(per_second: float | None) -> str:
    """A rate, "-" where it has not been measured (0)."""
    return _three(per_second) if per_second else UNKNOWN


def counted(count: int, noun: str) -> str:
    """`1 node`, `2 nodes`."""
    return f"{count} {noun}" + ("" if count == 1 else "s")


def _three(value: float) -> str:
    if 0 < value < 0.05:
        return f"{value:.2f}"
    return (f"{value:.1f}" if value < 99.95 else f"{value:.0f}").removesuffix(".0")
