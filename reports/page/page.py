"""A report as one self-contained HTML file: opens offline, runs its own small script only, asks the network nothing.

    Path("report.html").write_text(render_page(collect_experiment(connection, workspace, "quickstart")))

The templates (reports/page/templates/) escape everything they are given; hidden characters are written out; samples
travel as JSON and reach the page as text nodes only. The content security policy allows exactly the style and the
script that stand in the file, by their hashes, and nothing else.

Limits: made for screens from 380 pixels and for print; without JavaScript everything but the browser of samples and
the filter of pairs is there.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsd.plugins.untrusted import script_json, visible
from nsd.plugins.words import CORRECTIONS, duration
from nsd.reports.judge.arms import ArmSummary
from nsd.reports.judge.comparison import Comparison, show_p
from nsd.reports.judge.hypotheses import ClaimVerdict
from nsd.reports.judge.ranks import rank_bands, says_ranks
from nsd.reports.judge.subgroups import ByField
from nsd.reports.judge.verdict import Verdict
from nsd.reports.page import plots
from nsd.reports.page.data import Against, PageData, against
from nsd.reports.page.format import limits, mean, needed, number, points, share, share_limits
from nsd.reports.page.ranks_plot import rank_plot
from nsd.reports.page.training import Curve
from nsd.reports.text.render import needs

if TYPE_CHECKING:
    from jinja2 import Environment

    from nsd.reports.judge.label_quality import LabelQuality

TEMPLATES = Path(__file__).with_name("templates")
FOREST_LINES = 60  # exploratory pairs drawn at most; the table beneath has them all


@dataclass(frozen=True)
class Panel:
    """Small multiples of one metric: an arm's name, its seeds where there are several, and its SVG each."""

    metric: str
    label: str
    plots: list[tuple[str, str, str]]


def render_page(data: PageData) -> str:
    """The whole page. Deterministic: the same data give the same bytes."""
    environment = _environment(data.scale)
    style = (TEMPLATES / "style.css").read_text(encoding="utf-8")
    script = (TEMPLATES / "script.js").read_text(encoding="utf-8")
    drawn = draw(data)
    return environment.get_template("page.html").render(
        data=data,
        plots=drawn,
        matrix=_matrix(data),
        forest_rows=_exploratory(data),
        drawn_rows=FOREST_LINES,
        votes=_distinct_votes(data),
        style=_trusted(style),
        script=_trusted(script),
        samples_json=_trusted(script_json(data.samples.to_json(data.short))),
        policy=(
            f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; img-src data:; "
            "base-uri 'none'; form-action 'none'"
        ),
    )


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _trusted(text: str) -> Any:
    """Markup of our own: files of this package, cleaned SVG, and JSON without markup characters."""
    from markupsafe import Markup

    return Markup(text)


def _environment(scale: float) -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    def finalize(value: Any) -> Any:
        return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=finalize,
    )
    environment.filters |= {
        "points": lambda value: points(value, scale),
        "limits": lambda ends: limits(ends, scale),
        "share": share,
        "share_limits": share_limits,
        "mean": lambda value: mean(value, scale),
        "mean_limits": lambda ends: share_limits(ends, scale),
        "p": show_p,
        "number": number,
        "duration": duration,
        "mark": lambda verdict: verdict.mark,
        "correction": lambda name: CORRECTIONS.get(name, name),
        "slug": lambda text: str(text).lower().replace(" ", "-"),
        "needed": needed,
        "plural": lambda count, noun: f"{count:,} {noun}{'' if count == 1 else 's'}",
        "needs": needs,
        "sentence": lambda text: text[:1].upper() + text[1:],
    }
    return environment


# --------------------------------------------------------------------------- plots and matrix


def draw(data: PageData) -> dict[str, Any]:
    """Every plot that there are data for, as markup under stable names."""
    found: dict[str, Any] = {}
    scaled = data.scale
    axis = "difference (percentage points)" if data.unit == "points" else f"difference ({data.unit})"
    declared = [_line(one, one.claim) for one in data.verdicts if one.by is None]
    others = [_line(one, f"{one.claim} (late claim)") for one in data.late if one.by is None] + [
        plots.Line(_pair(data, one), one.difference, one.low, one.high, one.verdict)
        for one in _exploratory(data)[:FOREST_LINES]
    ]
    scale = plots.span([*declared, *others], scaled) if declared or others else None
    for name, lines, title in (
        ("claims", declared, "Declared claims: differences with intervals"),
        ("pairs", others, "Other comparisons: differences with intervals"),
    ):
        if lines:
            found[name] = _both(
                lambda i, w, lines=lines, title=title: plots.forest(lines, i, title, axis, scale, w, scaled), name
            )
    shown_kinds = {one.verdict for one in (*declared, *others)}
    found["kinds"] = [kind for kind in Verdict if kind in shown_kinds]
    if data.arms:
        spots = [_dot(data, arm) for arm in data.arms]
        metric = _metric(data.arms)
        shown = f"{metric} (%)" if data.unit == "points" else f"{metric} (mean per answer)"
        found["arms"] = _both(lambda i, w: plots.dots(spots, i, "Arms with intervals", shown, w, scaled), "arms")
    found["beside"] = {
        name: _beside(data, name, arms, f"beside{place}") for place, (name, arms) in enumerate(data.beside.items())
    }
    found["by_field"] = [_by_field(data, one, f"by{place}", axis) for place, one in enumerate(data.by_field)]
    found["curves"] = _panels(data.curves)
    found["searches"] = [
        (data.searches.name(arm), _trusted(plots.discovery(arm, f"search{place}", data.searches.name(arm))))
        for place, arm in enumerate(data.searches.arms)
    ]
    found["labels"] = [
        [
            _trusted(plots.confidence_histogram(label, f"label{place}-histogram")),
            _trusted(plots.risk_coverage(label, f"label{place}-risk")),
            _trusted(plots.calibration(label, f"label{place}-calibration")),
        ]
        if label.known
        else [_trusted(plots.confidence_histogram(label, f"label{place}-histogram"))]
        for place, label in enumerate(_distinct_votes(data))
    ]
    if data.noise:
        strips = [(data.short(one.run), one.means) for one in data.noise]
        found["noise"] = _trusted(plots.noise_strip(strips, "noise"))
    matrix = _matrix(data)
    if matrix is not None:
        cells = [[_cell(one) for one in row] for _, row in matrix]
        names = [data.short(name) for name, _ in matrix]
        found["matrix"] = _trusted(plots.heat_map(names, cells, "matrix", "Every pair of runs: row minus column"))
        bands = rank_bands(data.pairs)
        if bands:
            short, shown = [data.short(band.name) for band in bands], f"{_metric(data.arms)} ({data.unit})"
            title = "Runs by their means; a bar joins those that are not told apart"
            found["ranks"] = _both(lambda i, w: rank_plot(bands, short, i, title, shown, w, scaled), "ranks")
            found["places"] = says_ranks(
                [replace(b, name=n) for b, n in zip(bands, short, strict=True)], data.pairs[0].alpha
            )
    return found


def _distinct_votes(data: PageData) -> list[LabelQuality]:
    """One label set of those that differ in nothing but what they keep, under the names of all of them.

    None of votes that may stop early, which have nothing by confidence.
    """
    found: dict[Any, LabelQuality] = {}
    for label in data.labels:
        if label.stopped is not None:
            continue
        votes = (label.questions, tuple(label.histogram), tuple(label.risk_coverage), tuple(label.calibration))
        named = [*(found[votes].conditions if votes in found else ()), data.label_name(label)]
        found[votes] = replace(label, conditions=named)
    return list(found.values())


def _both(drawing: Any, identity: str) -> dict[str, Any]:
    return {
        "wide": _trusted(drawing(f"{identity}-wide", plots.WIDE)),
        "narrow": _trusted(drawing(f"{identity}-narrow", plots.NARROW)),
    }


def _line(verdict: ClaimVerdict, name: str) -> plots.Line:
    comparison, margin = verdict.comparison, verdict.margin
    if comparison is None:
        return plots.Line(name, None, None, None, verdict.verdict)
    low, high = comparison.ci or (None, None)
    margins = () if margin is None else (-margin, margin) if verdict.kind == "equivalent_within" else (-margin,)
    return plots.Line(name, comparison.difference, low, high, verdict.verdict, margins)


def _pair(data: PageData, one: Against) -> str:
    if one.reference == data.reference:
        return data.short(one.name)
    return f"{data.short(one.name)} − {data.short(one.reference)}"


def _dot(data: PageData, arm: ArmSummary) -> plots.Dot:
    low, high = arm.ci or (None, None)
    return plots.Dot(data.short(arm.condition), arm.mean, low, high, arm.seed_means)


def _beside(data: PageData, name: str, arms: Sequence[ArmSummary], identity: str) -> dict[str, Any]:
    """The arms as another evaluation than the first measures them."""
    spots = [_dot(data, arm) for arm in arms]
    shown, title = f"{_metric(arms)} (%)", f"Arms with intervals on {name}"
    return _both(lambda i, w: plots.dots(spots, i, title, shown, w, data.scale), identity)


def _by_field(data: PageData, one: ByField, identity: str, axis: str) -> dict[str, Any]:
    """The differences of a pair in each group of questions; no verdict is passed on any of them."""
    lines = []
    for group in one.groups:
        low, high = group.ci or (None, None)
        name = f"{one.field} {group.name}"
        lines.append(plots.Line(name, group.difference, low, high, Verdict.UNRESOLVED))
    limits = plots.span(lines, data.scale)
    title = f"{data.short(one.b)} against {data.short(one.a)} by {one.field}"
    return _both(lambda i, w: plots.forest(lines, i, title, axis, limits, w, data.scale), identity)


def _metric(arms: Sequence[ArmSummary]) -> str:
    metrics = list(dict.fromkeys(arm.metric for arm in arms if arm.metric))
    return " / ".join(metrics) or "value"


def _exploratory(data: PageData) -> list[Against]:
    """What the second forest shows: pairs nobody declared, or every run against the reference."""
    if data.answer is None:
        return data.against_reference()
    found = [against(one, None if (one.difference or 0) >= 0 else one.b) for one in data.answer.exploratory]
    return sorted(found, key=lambda one: -(one.difference or 0))


def _panels(curves: Sequence[Curve]) -> list[Panel]:
    by_metric: dict[str, list[Curve]] = {}
    for one in curves:
        by_metric.setdefault(one.metric, []).append(one)
    found = []
    for place, (metric, mine) in enumerate(by_metric.items()):
        arms: dict[str, list[Curve]] = {}
        for one in mine:
            arms.setdefault(one.name, []).append(one)
        scale = plots.curve_limits(mine)
        drawn = [
            (
                name,
                _seeds(lines),
                _trusted(plots.curve(lines, f"curve{place}-{number}", f"{lines[0].label}: {name}", scale)),
            )
            for number, (name, lines) in enumerate(arms.items())
        ]
        found.append(Panel(metric, mine[0].label, drawn))
    return found


def _seeds(lines: Sequence[Curve]) -> str:
    """Which line is which seed, "" for a single one."""
    styles = ("solid", "dashed", "dotted", "dash-dotted")  # in the order of plots.curve
    named = [f"{one.seed} {styles[place % len(styles)]}" for place, one in enumerate(lines)]
    return f"seeds {', '.join(named)}" if len(named) > 1 else ""


def _matrix(data: PageData) -> list[tuple[str, list[Against | None]]] | None:
    """Each arm's row of row-minus-column differences; None for an experiment or fewer than three arms."""
    if data.answer is not None or len(data.arms) < 3:
        return None
    held: Mapping[frozenset[str], Comparison] = {frozenset((one.a, one.b)): one for one in data.pairs}
    names = [arm.condition for arm in data.arms]
    rows = []
    for row in names:
        pairs = [held.get(frozenset((row, column))) if row != column else None for column in names]
        rows.append((row, [None if pair is None else _of(pair, row) for pair in pairs]))
    return rows


def _cell(one: Against | None) -> tuple[float, Verdict] | None:
    return None if one is None or one.difference is None else (one.difference, one.verdict)


def _of(comparison: Comparison, name: str) -> Against:
    return against(comparison, comparison.a if name == comparison.b else comparison.b)
