"""Numbers of a report for people: points, percent, counts, times, and what an undecided comparison still needs.

points(0.0182)     # '+1.8'
limits((-0.001, 0.04))     # '−0.1 to +4.0'
"""

from __future__ import annotations

from collections.abc import Sequence

from nsd.reports.judge.comparison import Comparison


def points(value: float | None, scale: float = 100.0) -> str:
    """A difference in percentage points, or with `scale` 1 in the metric's own unit."""
    if value is None:
        return "–"
    said = f"{value * scale:+.1f}"
    return "0.0" if said in ("+0.0", "-0.0") else said.replace("-", "\N{MINUS SIGN}")


def limits(ends: Sequence[float] | None, scale: float = 100.0) -> str:
    """An interval of a difference in percentage points, or with `scale` 1 in the metric's own unit."""
    return "–" if ends is None else f"{points(ends[0], scale)} to {points(ends[1], scale)}"


def mean(value: float | None, scale: float = 100.0) -> str:
    """A mean: a share as percent, or with `scale` 1 a number in the metric's own unit."""
    return share(value) if value is None or scale == 100 else f"{value * scale:.1f}"


def share(value: float | None, digits: int = 1) -> str:
    """A share as percent."""
    return "–" if value is None else f"{value * 100:.{digits}f} %"


def share_limits(ends: Sequence[float] | None, scale: float = 100.0) -> str:
    """An interval of a share in percent, or with `scale` 1 of a mean in the metric's own unit."""
    return "–" if ends is None else f"{ends[0] * scale:.1f} to {ends[1] * scale:.1f}"


def number(value: float | int | None) -> str:
    """A count with separators, another number with four digits that matter."""
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}".replace("-", "\N{MINUS SIGN}")


def needed(comparison: Comparison) -> str:
    """What an undecided comparison could have found, and what a stated difference would take; never empty."""
    said = comparison.still_needed().rstrip(".")
    return said or "Which difference these data find cannot be told"
