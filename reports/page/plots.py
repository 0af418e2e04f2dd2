"""The plots of a report, each an inline SVG that carries its own title and description.

    forest([Line("a > b", 0.02, -0.01, 0.05, Verdict.UNRESOLVED)], "claims", "Declared claims")

All are drawn by matplotlib in sentinel colours (see svg.py). A verdict is told by the marker's shape as well as
by its colour; names and other texts are never read as mathematics. Differences and shares are drawn in percentage
points and percent. Numbers stand in the tables beside the plots; a plot shows their shape.

Limits: text is measured in matplotlib's own font, which is wider than most; names longer than their column are cut in
the middle and stand whole in the table.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from nsd.plugins.untrusted import visible
from nsd.reports.judge.verdict import Verdict
from nsd.reports.page.axes import finish, new_figure, place_marker, write
from nsd.reports.page.svg import COLOURS, svg

if TYPE_CHECKING:
    from nsd.reports.judge.label_quality import LabelQuality
    from nsd.reports.judge.searched import SearchedArm
    from nsd.reports.page.training import Curve

WIDE, NARROW = 800, 340  # pixels; the page shows the one that fits
SMALL = 340  # a small multiple
NAME_LENGTH = 34  # characters of a name beside a wide plot
CELLS_WITH_NAMES = 60  # a larger matrix would have names too small to read


@dataclass(frozen=True)
class Line:
    """One line of a forest plot: a difference as a share, its interval, the verdict, and margins a claim allows."""

    name: str
    difference: float | None
    low: float | None
    high: float | None
    verdict: Verdict
    margins: tuple[float, ...] = ()


@dataclass(frozen=True)
class Dot:
    """One arm: its mean as a share and its interval; `seeds` are the means of its training seeds."""

    name: str
    mean: float | None
    low: float | None
    high: float | None
    seeds: Sequence[float] = ()


def fit(text: str, characters: int) -> str:
    """Text of at most so many characters on one line, cut in the middle, hidden characters written out."""
    flat = visible(" ".join(text.split()))
    if len(flat) <= characters:
        return flat
    head = (characters - 1) * 2 // 3
    return f"{flat[:head]}…{flat[-(characters - 1 - head) :]}"


def forest(
    lines: Sequence[Line],
    identity: str,
    title: str,
    axis: str,
    limits: tuple[float, float] | None,
    width: int = WIDE,
    scale: float = 100.0,
) -> str:
    """Differences with intervals around a zero line, top to bottom as given. `limits` (as drawn) shares an axis.

    Values are drawn times `scale`: 100 for shares in points, 1 for a metric with a unit of its own.
    """
    wide = width > 500
    low, high = limits or span(lines, scale)
    row = 26 if wide else 42
    figure, axes = new_figure(
        width, row * len(lines) + 68, left=_room(lines) if wide else 0.04, right=0.77 if wide else 0.96
    )
    axes.axvline(0, color=COLOURS["ink"], linewidth=1)
    for place, line in enumerate(lines):
        y = -place - (0 if wide else 0.2)
        label = fit(line.name, NAME_LENGTH if wide else 40)
        if wide:
            write(axes, -0.02, y, label, ha="right", of_axes=True)
            write(axes, 1.03, y, _numbers(line, scale), of_axes=True, size=11.5, colour="muted")
        else:
            write(
                axes, 0.0, y + 0.42, f"{label} · {_numbers(line, scale).partition(' [')[0]}", of_axes=True, backed=True
            )
        if line.difference is None:
            write(axes, 0.5, y, "no data", of_axes=True, ha="center", colour="muted")
            continue
        spots = [scale * margin for margin in line.margins]
        axes.plot(spots, [y] * len(spots), "|", color=COLOURS["muted"], markersize=13, markeredgewidth=1.5)
        if line.low is not None and line.high is not None:
            ends = (max(line.low * scale, low), min(line.high * scale, high))
            axes.plot(ends, (y, y), color=COLOURS[line.verdict.colour], linewidth=2, solid_capstyle="butt")
        place_marker(axes, line.difference * scale, y, line.verdict.marker, line.verdict.colour, 8)
    axes.set_ylim(-len(lines) + 0.4 - (0.1 if not wide else 0), 0.6 if wide else 0.75)
    axes.set_xlim(low, high)
    finish(axes, axis, grid="x")
    described = "; ".join(f"{line.name}: {_numbers(line, scale)}, {line.verdict.lower()}" for line in lines[:12])
    more = f"; and {len(lines) - 12} more, all in the table" if len(lines) > 12 else ""
    return svg(figure, identity, title, f"{axis}. {described}{more}.")


def _room(lines: Sequence[Line | Dot]) -> float:
    """The share of a wide plot that the names need, at about 7.3 pixels a character."""
    longest = max((len(fit(line.name, NAME_LENGTH)) for line in lines), default=0)
    return min(0.36, (7.3 * longest + 24) / WIDE)


def span(lines: Sequence[Line], scale: float = 100.0) -> tuple[float, float]:
    """The range (points at the default scale) that holds every interval and zero, with a margin."""
    ends = [
        end * scale
        for line in lines
        for end in (line.low, line.high, line.difference, *line.margins)
        if end is not None
    ]
    low, high = min([0.0, *ends]), max([0.0, *ends])
    margin = max(0.5, (high - low) * 0.06)
    return low - margin, high + margin


def dots(arms: Sequence[Dot], identity: str, title: str, axis: str, width: int = WIDE, scale: float = 100.0) -> str:
    """Arms with their intervals, top to bottom as given; small dots are training seeds. `scale` as in `forest`."""
    wide = width > 500
    row = 22 if wide else 40
    figure, axes = new_figure(
        width, row * len(arms) + 68, left=_room(arms) if wide else 0.04, right=0.87 if wide else 0.96
    )
    known = [scale * end for arm in arms for end in (arm.mean, arm.low, arm.high, *arm.seeds) if end is not None]
    low, high = min(known, default=0.0), max(known, default=scale)
    margin = max(1.0, (high - low) * 0.06)
    for place, arm in enumerate(arms):
        y = -place - (0 if wide else 0.2)
        if wide:
            write(axes, -0.02, y, fit(arm.name, NAME_LENGTH), ha="right", of_axes=True)
        else:
            mean = "" if arm.mean is None else f" · {_mean(arm.mean, scale)}"
            write(axes, 0.0, y + 0.42, fit(arm.name, 38) + mean, of_axes=True, backed=True)
        if arm.mean is None:
            write(axes, 0.5, y, "no result", of_axes=True, ha="center", colour="muted")
            continue
        if wide:
            write(axes, 1.03, y, _mean(arm.mean, scale), of_axes=True, size=11.5, colour="muted")
        if arm.low is not None and arm.high is not None:
            ends = (arm.low * scale, arm.high * scale)
            axes.plot(ends, (y, y), color=COLOURS["accent"], linewidth=2, solid_capstyle="butt")
        if len(arm.seeds) > 1:
            spots = [scale * mean for mean in arm.seeds]
            axes.plot(spots, [y] * len(spots), "|", color=COLOURS["ink"], markersize=9, markeredgewidth=1.2)
        place_marker(axes, arm.mean * scale, y, "o", "accent", 7, filled=True)
    axes.set_ylim(-len(arms) + 0.4 - (0.1 if not wide else 0), 0.6 if wide else 0.75)
    axes.set_xlim(max(0.0, low - margin), min(100.0, high + margin) if scale == 100 else high + margin)
    finish(axes, axis, grid="x")
    said = "; ".join(f"{arm.name}: {'no result' if arm.mean is None else _mean(arm.mean, scale)}" for arm in arms[:12])
    return svg(figure, identity, title, f"{axis}. {said}{'; more in the table' if len(arms) > 12 else ''}.")


def curve(lines: Sequence[Curve], identity: str, title: str, y_limits: tuple[float, float] | None) -> str:
    """One metric of one arm by step, a line for each training seed; triangles on the axis mark health warnings."""
    figure, axes = new_figure(SMALL, 230, left=0.13, right=0.97, top=28)
    styles = ("-", "--", ":", "-.")
    for number, one in enumerate(lines):
        steps, values = zip(*one.points, strict=True)
        if len(values) >= 20:
            axes.plot(steps, values, color=COLOURS["accent"], linewidth=0.8, alpha=0.35)
            values = tuple(_smooth(values, max(3, len(values) // 15)))
        marker = "o" if len(values) == 1 else ""
        axes.plot(
            steps,
            values,
            styles[number % len(styles)],
            color=COLOURS["accent"],
            linewidth=2,
            marker=marker,
            markersize=5,
        )
    if y_limits is not None:
        axes.set_ylim(*y_limits)
    bottom, top = axes.get_ylim()
    marked = sorted({event.step for one in lines for event in one.events if event.step is not None})
    for step in marked:
        axes.plot((step, step), (bottom, top), color=COLOURS["worse"], linewidth=1, linestyle=(0, (3, 3)))
        place_marker(axes, step, bottom + 0.96 * (top - bottom), "v", "worse", 8)
    axes.set_ylim(bottom, top)
    axes.set_xlim(0, max(one.steps for one in lines) * 1.02 or 1)
    finish(axes, "training step", y_label=lines[0].unit, grid="y")
    last = "; ".join(f"from {one.first:.3g} to {one.last:.3g} in {one.steps} steps" for one in lines)
    warned = f" Warnings at step {', '.join(map(str, marked))}." if marked else ""
    return svg(figure, identity, title, f"{lines[0].label} by training step: {last}.{warned}")


def discovery(arm: SearchedArm, identity: str, name: str) -> str:
    """The share of questions solved within n samples, as steps, with the band of its intervals."""
    figure, axes = new_figure(SMALL, 230, left=0.13, right=0.97, top=28)
    steps = [0, *(point.samples for point in arm.curve)]
    shares = [0.0, *(100 * point.share for point in arm.curve)]
    known = [(point.samples, point.interval) for point in arm.curve if point.interval is not None]
    if known:
        low, high = (
            [100 * end for end in ends] for ends in zip(*((one.low, one.high) for _, one in known), strict=True)
        )
        at = [samples for samples, _ in known]
        axes.fill_between(at, low, high, step="post", color=COLOURS["accent"], alpha=0.2, linewidth=0)
    axes.step(steps, shares, where="post", color=COLOURS["accent"], linewidth=2)
    axes.set_xlim(0, arm.budget)
    axes.set_ylim(0, 104)
    finish(axes, "samples of a question", y_label="questions solved (%)", grid="both")
    last = arm.curve[-1]
    ends = "" if last.interval is None else f", 95 % interval {last.interval.low:.1%} to {last.interval.high:.1%}"
    said = f"{arm.solved} of {len(arm.cells)} questions solved within {arm.budget} samples{ends}"
    return svg(figure, identity, f"Discovery curve: {name}", f"{said}. See the table.")


def curve_limits(curves: Sequence[Curve]) -> tuple[float, float] | None:
    """A common vertical range for small multiples of one metric: that of what is drawn, with a margin."""
    values = [value for one in curves for _, value in one.points]
    if not values:
        return None
    low, high = min(values), max(values)
    margin = (high - low) * 0.06 or abs(high) * 0.1 or 0.1
    return (max(low - margin, 0.0) if low >= 0 else low - margin), high + margin


def _smooth(values: Sequence[float], window: int) -> list[float]:
    """Centred running mean; the window shrinks at the ends, so that no value is invented."""
    half = window // 2
    found = []
    for place in range(len(values)):
        near = values[max(0, place - half) : place + half + 1]
        found.append(sum(near) / len(near))
    return found


def confidence_histogram(label: LabelQuality, identity: str) -> str:
    """Questions by confidence, split into right and wrong where the truth is known."""
    figure, axes = new_figure(SMALL, 250, left=0.13, right=0.97, top=28)
    spots = [bar.confidence for bar in label.histogram]
    width = 0.8 * min((b - a for a, b in pairwise(spots)), default=0.1)
    most = max((bar.questions for bar in label.histogram), default=1)
    for bar in label.histogram:
        right = 0.0 if bar.right is None else bar.questions * bar.right
        if bar.right is None:
            axes.bar(bar.confidence, bar.questions, width, color=COLOURS["unsure"])
            continue
        axes.bar(bar.confidence, right, width, color=COLOURS["better"])
        axes.bar(
            *(bar.confidence, bar.questions - right, width),
            bottom=right,
            facecolor=COLOURS["paper"],
            edgecolor=COLOURS["worse"],
            linewidth=1.5,
        )
    axes.set_ylim(0, most * 1.08)
    axes.set_xlim(min([0.0, *spots]) - width / 2, max([1.0, *spots]) + width)
    finish(axes, "confidence (share of the votes)", y_label="questions", grid="y")
    known = any(bar.right is not None for bar in label.histogram)
    said = "filled: right, hollow: wrong" if known else "truth unknown"
    return svg(figure, identity, "Confidence of the pseudo-labels", f"Questions by confidence; {said}. See the table.")


def risk_coverage(label: LabelQuality, identity: str) -> str:
    """Share right among the labels of at least a confidence, against the share of questions that they cover."""
    figure, axes = new_figure(SMALL, 250, left=0.13, right=0.97, top=28)
    known = [point for point in label.risk_coverage if point.accuracy is not None]
    across = [100 * point.coverage for point in known]
    up = [100 * (point.accuracy or 0.0) for point in known]
    axes.plot(across, up, color=COLOURS["accent"], linewidth=2, marker="o", markersize=5)
    for place in sorted({0, len(known) - 1}) if known else ():
        side = "right" if across[place] > 80 else "center"
        write(axes, across[place], up[place] - 7, f"≥ {known[place].confidence:.3g}", ha=side, size=10.5)
    axes.set_xlim(0, 104)
    axes.set_ylim(0, 104)
    finish(axes, "questions covered (%)", y_label="labels right (%)", grid="both")
    said = "; ".join(
        f"confidence at least {p.confidence:.3g}: {p.accuracy:.0%} right of {p.coverage:.0%}" for p in known
    )
    return svg(figure, identity, "Risk and coverage", f"Labels right against questions covered. {said}.")


def calibration(label: LabelQuality, identity: str) -> str:
    """Share right against mean confidence with Wilson intervals; on the diagonal confidence is honest."""
    figure, axes = new_figure(SMALL, 250, left=0.13, right=0.97, top=28)
    axes.plot((0, 100), (0, 100), color=COLOURS["muted"], linewidth=1, linestyle=(0, (4, 3)))
    for point in label.calibration:
        spot = 100 * point.confidence
        axes.plot((spot, spot), (100 * point.low, 100 * point.high), color=COLOURS["accent"], linewidth=2)
        place_marker(axes, spot, 100 * point.accuracy, "o", "accent", 6, filled=True)
    axes.set_xlim(0, 104)
    axes.set_ylim(0, 104)
    finish(axes, "mean confidence (%)", y_label="labels right (%)", grid="both")
    said = "; ".join(f"{p.confidence:.0%} confident: {p.accuracy:.0%} right" for p in label.calibration)
    return svg(figure, identity, "Calibration", f"Share right by confidence, with 95 % intervals. {said}.")


def heat_map(
    names: Sequence[str], cells: Sequence[Sequence[tuple[float, Verdict] | None]], identity: str, title: str
) -> str:
    """Row minus column: colour by sign and size, a triangle where it is resolved. `cells[i][j]`: share, verdict."""
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    n = len(names)
    cell = max(7, min(30, 640 // max(1, n)))
    room = 22 + 6.4 * max((len(fit(name, 30)) for name in names), default=0) if n <= CELLS_WITH_NAMES else 8
    size = cell * n
    figure, axes = new_figure(
        size + room + 12, size + room + 12, left=room / (size + room + 12), right=1 - 4 / (size + room)
    )
    axes.set_position(
        (room / (size + room + 12), 8 / (size + room + 12), size / (size + room + 12), size / (size + room + 12))
    )
    most = max((abs(cell[0]) for row in cells for cell in row if cell is not None), default=1.0) or 1.0
    groups: dict[tuple[str, float], list[Any]] = {}
    spots: dict[int, tuple[list[float], list[float]]] = {1: ([], []), -1: ([], [])}
    for i, row in enumerate(cells):
        for j, pair in enumerate(row):
            if pair is None:
                continue
            difference, verdict = pair
            # Square root, in eighths: small differences stay visible, and eight shades keep the file small.
            shade = math.ceil(8 * math.sqrt(abs(difference) / most)) / 8
            if shade:
                key = ("better" if difference > 0 else "worse", shade)
                groups.setdefault(key, []).append(Rectangle((j - 0.5, -i - 0.5), 1, 1))
            if verdict.apart:
                spots[verdict.direction][0].append(j)
                spots[verdict.direction][1].append(-i)
    for (colour, shade), squares in sorted(groups.items()):
        axes.add_collection(PatchCollection(squares, facecolor=COLOURS[colour], edgecolor="none", alpha=0.75 * shade))
    for direction, marker in ((1, Verdict.BETTER.marker), (-1, Verdict.WORSE.marker)):
        axes.plot(*spots[direction], marker, color=COLOURS["ink"], markersize=max(2.5, cell * 0.3), markeredgewidth=0)
    if n <= CELLS_WITH_NAMES:
        text = min(12.0, max(7.5, cell * 0.72))
        for place, name in enumerate(names):
            write(axes, -0.9, -place, fit(name, 30), ha="right", size=text)
            write(axes, place, 0.9, fit(name, 30), ha="center", va="bottom", size=text, rotation=90)
    axes.set_xlim(-0.5, n - 0.5)
    axes.set_ylim(-n + 0.5, 0.5)
    axes.set_axis_off()
    said = (
        "Row minus column; up triangles: the row is better, down: worse, none: not told apart. The table has them all."
    )
    return svg(figure, identity, title, said)


def noise_strip(runs: Sequence[tuple[str, Sequence[float]]], identity: str) -> str:
    """Repeated evaluations of the same weights: one line a run, one mark an evaluation."""
    figure, axes = new_figure(WIDE, 24 * len(runs) + 68, left=0.36, right=0.96)
    for place, (name, means) in enumerate(runs):
        write(axes, -0.02, -place, fit(name, NAME_LENGTH), ha="right", of_axes=True)
        spots = [100 * mean for mean in means]
        axes.plot((min(spots), max(spots)), (-place, -place), color=COLOURS["grid"], linewidth=2)
        axes.plot(spots, [-place] * len(spots), "|", color=COLOURS["accent"], markersize=12, markeredgewidth=2)
    axes.set_ylim(-len(runs) + 0.4, 0.6)
    finish(axes, "value of each evaluation (%)", grid="x")
    said = "; ".join(f"{name}: {min(means):.2%} to {max(means):.2%}" for name, means in runs)
    return svg(figure, identity, "Repeated evaluations of the same weights", f"{said}.")


def _mean(value: float, scale: float) -> str:
    return f"{value * scale:.1f}{' %' if scale == 100 else ''}"


def _numbers(line: Line, scale: float) -> str:
    if line.difference is None:
        return "no data"
    low, high = line.low, line.high
    ends = f" [{low * scale:+.1f}, {high * scale:+.1f}]" if low is not None and high is not None else ""
    return f"{line.difference * scale:+.1f}{ends}".replace("-", "\N{MINUS SIGN}")
