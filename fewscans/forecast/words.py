"""Numbers as a reader wants them: with a unit, rounded, unknown ones said so."""

from __future__ import annotations

from collections.abc import Sequence

UNKNOWN = "unknown"


def duration(seconds: float | None) -> str:
    """``12 s``, ``3.2 min``, ``41 min``, ``1 h 45 min``, ``2 days 3 h``."""
    if seconds is None:
        return UNKNOWN
    if seconds < 99.5:
        return f"{seconds:.0f} s" if seconds >= 9.5 or seconds == 0 else f"{seconds:.1f} s"
    if seconds < 597:
        return f"{seconds / 60:.2g} min"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    if minutes < 48 * 60:
        hours, left = divmod(minutes, 60)
        return f"{hours} h {left} min" if left and hours < 10 else f"{round(minutes / 60)} h"
    days, left = divmod(round(minutes / 60), 24)
    return f"{days} days {left} h" if left else f"{days} days"


def brief(seconds: float | None) -> str:
    """The same in one unit, for tables: ``90 s``, ``75 min``, ``2.4 h``, ``3.1 days``."""
    if seconds is None or seconds < 5970:
        return duration(seconds)
    return f"{seconds / 3600:.3g} h" if seconds < 172_800 else f"{seconds / 86400:.3g} days"


def size(mb: float | None) -> str:
    """``850 MB``, ``4.2 GB``, ``1.3 TB``."""
    if mb is None:
        return UNKNOWN
    if mb < 1000:
        return f"{mb:.0f} MB" if mb >= 1 or mb == 0 else "under 1 MB"
    return f"{mb / 1000:.3g} GB" if mb < 1e6 else f"{mb / 1e6:.3g} TB"


def amount(value: float | None) -> str:
    """A number to three digits, thousands apart: ``12,400``, ``0.42``."""
    if value is None:
        return UNKNOWN
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def between(values: Sequence[float] | None, say=amount) -> str:  # type: ignore[no-untyped-def]
    """``4`` or ``1 to 4``, said by `say`."""
    if values is None:
        return UNKNOWN
    low, high = say(values[0]), say(values[-1])
    return high if low == high else f"{low} to {high}"


def count(number: int, one: str, many: str | None = None) -> str:
    """``1 job``, ``3 jobs``."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
