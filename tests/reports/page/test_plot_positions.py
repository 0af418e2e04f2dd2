"""What a plot draws stands where its number is: the SVG is read back through the axis' own ticks."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from xml.etree import ElementTree

import pytest

from nsd.reports.judge.label_quality import CalibrationBin, ConfidenceBar, CoveragePoint, LabelQuality
from nsd.reports.judge.ranks import RankBand
from nsd.reports.judge.verdict import Verdict
from nsd.reports.page import plots
from nsd.reports.page.ranks_plot import rank_plot
from nsd.reports.page.training import Curve, Event

NEAR = 0.35  # pixels: coordinates are written with two digits
AXIS = "difference (percentage points)"


class Drawing:
    """An SVG with its ticks: `x(pixel)` and `y(pixel)` give the value that the axis says stands there."""

    def __init__(self, svg: str) -> None:
        self.root = ElementTree.fromstring(svg)
        self.texts = [(one.text or "", *self._spot(one)) for one in self.root.iter("text") if (one.text or "").strip()]

    @staticmethod
    def _spot(one: ElementTree.Element) -> tuple[float, float]:
        if (moved := re.search(r"translate\(([-\d.]+)[ ,]+([-\d.]+)\)", one.get("transform", ""))) is not None:
            return float(moved[1]), float(moved[2])
        return float(one.get("x", "nan")), float(one.get("y", "nan"))

    def uses(self, colour: str | None = None) -> list[tuple[float, float]]:
        """Spots of markers, by the colour of their edge or inside."""
        return [
            (float(one.get("x", "nan")), float(one.get("y", "nan")))
            for one in self.root.iter("use")
            if colour is None or f"var(--{colour})" in (one.get("stroke"), one.get("fill"))
        ]

    def paths(self, colour: str, attribute: str = "stroke") -> list[list[tuple[float, float]]]:
        """Points of lines and areas of a colour, markers' own shapes left out."""
        shapes = {id(path) for holder in self.root.iter("defs") for path in holder.iter("path")}
        return [
            [(float(x), float(y)) for x, y in re.findall(r"[ML] ?([-\d.]+) ([-\d.]+)", one.get("d", ""))]
            for one in self.root.iter("path")
            if one.get(attribute) == f"var(--{colour})" and id(one) not in shapes
        ]

    def scale(self, across: bool) -> Callable[[float], float]:
        """From pixels to values along an axis, by its outermost tick labels and the places of its tick marks."""
        numbers = []
        for text, x, y in self.texts:
            plain = text.replace("\N{MINUS SIGN}", "-")
            if re.fullmatch(r"-?\d+(\.\d+)?", plain):
                numbers.append((float(plain), x if across else y, y if across else x))
        rows: dict[float, list[tuple[float, float]]] = {}
        for value, along, other in numbers:
            rows.setdefault(round(other), []).append((value, along))
        ticks = max(rows.values(), key=len)
        (low, at_low), (high, at_high) = min(ticks), max(ticks)
        shift = 0.0 if across else self._label_shift(ticks)
        return lambda pixel: low + (pixel + shift - at_low) / (at_high - at_low) * (high - low)

    def _label_shift(self, ticks: Sequence[tuple[float, float]]) -> float:
        """How far below its grid line a label of the upright axis has its foot."""
        lines = sorted({points[0][1] for points in self.paths("grid") if points[0][1] == points[-1][1]})
        feet = sorted(along for _, along in ticks)
        assert len(lines) == len(feet), (lines, feet)
        return feet[0] - lines[0]


def spots(values: Sequence[float], pixels: Sequence[float], scale: Callable[[float], float]) -> None:
    """Every value stands at its pixel, within what two written digits allow."""
    one_pixel = abs(scale(1.0) - scale(0.0))
    found = [scale(pixel) for pixel in pixels]
    assert found == pytest.approx(list(values), abs=NEAR * one_pixel)


LINES = [
    plots.Line("a > b", 0.05, 0.01, 0.12, Verdict.BETTER),
    plots.Line("c > d", -0.02, -0.07, 0.02, Verdict.UNRESOLVED, (-0.03,)),
    plots.Line("e > f", -0.09, -0.11, -0.03, Verdict.WORSE),
]


@pytest.mark.parametrize("width", [plots.WIDE, plots.NARROW])
@pytest.mark.parametrize("unit", [100.0, 1.0])
def test_a_forest_has_each_difference_interval_margin_and_zero_in_its_place(width: int, unit: float) -> None:
    lines = [
        plots.Line(
            one.name,
            *(None if value is None else value * 100 / unit for value in (one.difference, one.low, one.high)),
            one.verdict,
            tuple(margin * 100 / unit for margin in one.margins),
        )
        for one in LINES
    ]
    drawn = Drawing(plots.forest(lines, "i", "t", AXIS, None, width, unit))
    x = drawn.scale(across=True)
    heights = []
    for line, colour in zip(lines, ("better", "unsure", "worse"), strict=True):
        assert line.difference is not None and line.low is not None and line.high is not None
        (marker,), (ends,) = drawn.uses(colour), drawn.paths(colour)
        spots([line.difference * unit], [marker[0]], x)
        spots([line.low * unit, line.high * unit], [ends[0][0], ends[-1][0]], x)
        assert ends[0][1] == ends[-1][1] == pytest.approx(marker[1], abs=NEAR)
        heights.append(marker[1])
    assert heights == sorted(heights)  # top to bottom, as given
    (zero,) = [points for points in drawn.paths("ink") if points[0][0] == points[-1][0]]
    spots([0.0], [zero[0][0]], x)
    margins = [spot for spot in drawn.uses("muted") if abs(spot[1] - heights[1]) < 1]
    spots([-0.03 * 100], [margins[0][0]], x)
    for (_, _, y), height in zip([one for one in drawn.texts if " > " in one[0]], heights, strict=True):
        assert -30 < y - height < 30  # a name beside, or above, its own line


def test_a_triangle_points_the_way_of_the_difference() -> None:
    def tip(verdict: Verdict) -> float:
        root = ElementTree.fromstring(
            plots.forest([plots.Line("x", 0.01, None, None, verdict)], "i", "t", AXIS, (-2, 2))
        )
        (use,) = [one for one in root.iter("use") if one.get("stroke") == f"var(--{verdict.colour})"]
        (path,) = [one for one in root.iter("path") if f"#{one.get('id')}" == use.get("href")]
        ys = [float(y) for _, y in re.findall(r"([-\d.]+) ([-\d.]+)", path.get("d", ""))]
        return max(ys.count(y) * (1 if y < 0 else -1) for y in (min(ys), max(ys)) if ys.count(y) == 1)

    assert tip(Verdict.BETTER) == 1 and tip(Verdict.WORSE) == -1  # in SVG up is negative


def test_an_interval_beyond_the_axis_ends_at_the_axis() -> None:
    drawn = Drawing(plots.forest([plots.Line("x", 0.0, -0.5, 0.5, Verdict.UNRESOLVED)], "i", "t", AXIS, (-10.0, 10.0)))
    (ends,) = drawn.paths("unsure")
    spots([-10, 10], [ends[0][0], ends[-1][0]], drawn.scale(across=True))


@pytest.mark.parametrize("width", [plots.WIDE, plots.NARROW])
def test_arms_have_mean_interval_and_seeds_in_their_places(width: int) -> None:
    arms = [plots.Dot("base", 0.38, 0.35, 0.41, [0.37, 0.39]), plots.Dot("tuned", 0.62, 0.55, 0.66, [])]
    drawn = Drawing(plots.dots(arms, "i", "t", "accuracy (%)", width))
    x = drawn.scale(across=True)
    markers, ends = drawn.uses("accent"), drawn.paths("accent")
    spots([38, 62], [one[0] for one in markers], x)
    assert markers[0][1] < markers[1][1]
    spots([35, 41, 55, 66], [end for points in ends for end in (points[0][0], points[-1][0])], x)
    seeds = [spot for spot in drawn.uses("ink") if abs(spot[1] - markers[0][1]) < 1]
    spots([37, 39], [one[0] for one in seeds], x)


def test_a_curve_goes_through_its_points_and_warns_at_its_step() -> None:
    points = [(1.0, 0.9), (5.0, 0.2), (10.0, 0.6)]
    line = Curve(
        "d", "arm", 1, "loss", "training loss", "nats", points, 1, 10, 0.9, 0.6, 0.2, 0.9, [Event(5, "!", None)]
    )
    drawn = Drawing(plots.curve([line], "i", "t", (0.0, 1.0)))
    x, y = drawn.scale(across=True), drawn.scale(across=False)
    (found,) = drawn.paths("accent")
    spots([step for step, _ in points], [one[0] for one in found], x)
    spots([value for _, value in points], [one[1] for one in found], y)
    (warning,) = drawn.paths("worse")
    spots([5, 5], [warning[0][0], warning[-1][0]], x)


def test_common_limits_hold_every_value_and_a_margin() -> None:
    lines = [
        Curve("d", "a", 1, "loss", "l", "nats", [(1.0, low), (2.0, high)], 1, 2, low, high, low, high, [])
        for low, high in ((0.5, 1.0), (2.0, 3.0))
    ]
    assert plots.curve_limits(lines) == pytest.approx((0.35, 3.15))
    assert plots.curve_limits([]) is None
    assert plots.span([plots.Line("x", 0.1, -0.1, 0.3, Verdict.BETTER, (-0.2,))]) == pytest.approx((-23.0, 33.0))


def labels() -> LabelQuality:
    bars = [ConfidenceBar(0.25, 40, 0.1), ConfidenceBar(0.5, 20, 0.5), ConfidenceBar(1.0, 80, 0.9)]
    risk = [CoveragePoint(1.0, 0.3, 0.9, 80), CoveragePoint(0.5, 0.6, 0.7, 100), CoveragePoint(0.25, 1.0, 0.5, 140)]
    bins = [CalibrationBin(0.25, 0.1, 40, 0.05, 0.2), CalibrationBin(0.9, 0.8, 80, 0.7, 0.95)]
    counts = dict.fromkeys(("questions", "voted", "kept", "known", "known_kept", "right_voted", "right_kept"), 140)
    shares = dict.fromkeys(("coverage", "accuracy_voted", "accuracy_kept", "expected_calibration_error"), 0.5)
    return LabelQuality(
        label_digest="L",
        conditions=["a"],
        histogram=bars,
        risk_coverage=risk,
        calibration=bins,
        runs=[],
        **counts,  # type: ignore[arg-type]
        **shares,  # type: ignore[arg-type]
    )


def test_a_histogram_stacks_wrong_answers_on_right_ones() -> None:
    label = labels()
    drawn = Drawing(plots.confidence_histogram(label, "i"))
    x, y = drawn.scale(across=True), drawn.scale(across=False)
    right, wrong = drawn.paths("better", "fill"), drawn.paths("worse")
    for bar, low, high in zip(label.histogram, right, wrong, strict=True):
        assert bar.right is not None
        spots([bar.confidence] * 2, [sum(one[0] for one in points[:4]) / 4 for points in (low, high)], x)
        ends = [edge(one[1] for one in points) for points in (low, high) for edge in (max, min)]
        spots([0, bar.questions * bar.right, bar.questions * bar.right, bar.questions], ends, y)


def test_risk_and_calibration_stand_at_their_shares() -> None:
    label = labels()
    drawn = Drawing(plots.risk_coverage(label, "i"))
    x, y = drawn.scale(across=True), drawn.scale(across=False)
    spots([100 * point.coverage for point in label.risk_coverage], [one[0] for one in drawn.uses("accent")], x)
    spots([100 * float(point.accuracy or 0) for point in label.risk_coverage], [p[1] for p in drawn.uses("accent")], y)
    drawn = Drawing(plots.calibration(label, "i"))
    x, y = drawn.scale(across=True), drawn.scale(across=False)
    spots([100 * point.confidence for point in label.calibration], [one[0] for one in drawn.uses("accent")], x)
    spots([100 * point.accuracy for point in label.calibration], [one[1] for one in drawn.uses("accent")], y)
    for point, line in zip(label.calibration, drawn.paths("accent"), strict=True):
        spots([100 * point.low, 100 * point.high], [line[0][1], line[-1][1]], y)
    (diagonal,) = [
        line
        for line in drawn.paths("muted")
        if len(line) == 2 and line[0][0] != line[-1][0] and line[0][1] != line[-1][1]
    ]
    spots([0, 100], [diagonal[0][0], diagonal[-1][0]], x)
    spots([0, 100], [diagonal[0][1], diagonal[-1][1]], y)


def test_repeats_stand_at_their_values() -> None:
    drawn = Drawing(plots.noise_strip([("a", [0.40, 0.44, 0.47])], "i"))
    spots([40, 44, 47], [one[0] for one in drawn.uses("accent")], drawn.scale(across=True))


def test_a_bar_reaches_from_mean_to_mean_of_the_runs_it_joins() -> None:
    means = {"a": 0.62, "b": 0.58, "c": 0.50}
    bands = [
        RankBand("a", means["a"], 1, 2, frozenset("c")),
        RankBand("b", means["b"], 1, 2, frozenset("c")),
        RankBand("c", means["c"], 3, 3, frozenset("ab")),
    ]
    drawn = Drawing(rank_plot(bands, list(means), "i", "t", "accuracy (%)"))
    at = drawn.scale(across=True)
    spots([62, 58, 50], [x for x, _ in drawn.uses("accent")], at)
    (bar,) = [points for points in drawn.paths("ink", "stroke") if len(points) == 2 and points[0][1] == points[1][1]]
    spots([58, 62], sorted(x for x, _ in bar), at)


def test_a_matrix_puts_row_minus_column_in_its_cell() -> None:
    cells = [
        [None, (0.1, Verdict.BETTER), (0.4, Verdict.HIGHER)],
        [(-0.1, Verdict.WORSE), None, (0.0, Verdict.UNRESOLVED)],
        [(-0.4, Verdict.LOWER), (0.0, Verdict.UNRESOLVED), None],
    ]
    drawn = Drawing(plots.heat_map(["a", "b", "c"], cells, "m", "t"))
    marks = sorted(drawn.uses("ink"), key=lambda spot: (round(spot[1]), spot[0]))
    size = marks[1][0] - marks[0][0]
    first = (marks[0][0] - size, marks[0][1])
    where = [(round((y - first[1]) / size), round((x - first[0]) / size)) for x, y in marks]
    assert where == [(0, 1), (0, 2), (1, 0), (2, 0)]
    better, worse = (drawn.paths(name, "fill") for name in ("better", "worse"))
    assert {round(points[0][1] - first[1]) // round(size) for points in better} <= {-1, 0}
    assert len(better) == len(worse) == 2 and all(points[0][0] < first[0] + size / 2 + 1 for points in worse)
