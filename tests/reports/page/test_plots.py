"""Plots as SVG: well-formed, deterministic, themed by variables, labelled, without ids that clash."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from nsd.reports.judge.label_quality import label_quality
from nsd.reports.judge.verdict import Verdict
from nsd.reports.page import plots
from nsd.reports.page.training import Curve, Event
from nsd.runner.store.index import Store
from report_workspace import HOSTILE, Written, better_and_worse

LINES = [
    plots.Line("a > b", 0.05, 0.01, 0.09, Verdict.BETTER),
    plots.Line("c > d", -0.02, -0.06, 0.02, Verdict.UNRESOLVED),
    plots.Line("e > f", None, None, None, Verdict.UNRESOLVED),
]
AXIS = "difference (percentage points)"


def drawn() -> str:
    return plots.forest(LINES, "claims", "Claims", AXIS, None)


def curve(events: list[Event], points: list[tuple[float, float]]) -> Curve:
    steps = int(points[-1][0])
    return Curve("d", "arm", 1, "loss", "training loss", "nats", points, 1, steps, 1.0, 0.5, 0.5, 1.0, events)


def test_the_same_figure_gives_the_same_bytes() -> None:
    assert drawn() == drawn()


def test_no_colour_but_variables_and_no_style_survives() -> None:
    svg = drawn()
    assert "style=" not in svg and "<style" not in svg and "http" not in svg
    assert set(re.findall(r'(?:fill|stroke)="([^"]+)"', svg)) <= {
        "none",
        *(
            f"var(--{name})"
            for name in ("ink", "muted", "grid", "better", "worse", "same", "unsure", "accent", "paper")
        ),
    }


def test_a_plot_has_role_title_description_and_axis_label() -> None:
    root = ElementTree.fromstring(drawn())
    assert root.get("role") == "img"
    labelled = (root.get("aria-labelledby") or "").split()
    texts = {element.get("id"): element.text or "" for element in root.iter()}
    assert texts[labelled[0]] == "Claims"
    assert "a > b: +5.0 [+1.0, +9.0], better" in texts[labelled[1]] and "no data" in texts[labelled[1]]
    assert AXIS in [element.text for element in root.iter("text")]


def test_two_plots_share_no_id_and_every_reference_has_its_target() -> None:
    first, second = drawn(), plots.forest(LINES, "pairs", "Pairs", AXIS, None)
    ids = [set(re.findall(r'id="([^"]+)"', svg)) for svg in (first, second)]
    assert ids[0] and not ids[0] & ids[1]
    for svg, known in zip((first, second), ids, strict=True):
        assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', svg)) <= known


def test_verdicts_differ_in_shape_not_only_in_colour() -> None:
    shapes = set()
    for verdict in Verdict:
        svg = plots.forest([plots.Line("x", 0.01, None, None, verdict)], "i", "t", AXIS, (-2.0, 2.0))
        shapes.add(re.sub(r"var\(--\w+\)", "", "".join(re.findall(r"<path[^>]*>", svg))))
    assert len(shapes) == 6  # HIGHER and LOWER have those of BETTER and WORSE


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_names_stay_text_and_are_no_mathematics(text: str) -> None:
    for width in (plots.WIDE, plots.NARROW):
        svg = plots.forest([plots.Line(text, 0.1, 0.0, 0.2, Verdict.BETTER)], "i", text, text, None, width)
        root = ElementTree.fromstring(svg)
        assert not {"script", "iframe", "img", "a"} & {element.tag for element in root.iter()}
        shown = "".join(element.text or "" for element in root.iter("text"))
        assert plots.fit(text, 34)[:20] in shown


def test_nothing_to_draw_still_draws() -> None:
    empty = plots.dots([plots.Dot("a", None, None, None)], "i", "t", "accuracy (%)")
    assert "no result" in empty
    one = plots.curve([curve([], [(1.0, 0.5)])], "i", "t", None)
    assert ElementTree.fromstring(one).tag == "svg"
    flat = plots.curve([curve([], [(float(i), 0.0) for i in range(30)])], "i", "t", (0.0, 0.1))
    assert "nan" not in flat
    assert plots.span([plots.Line("x", None, None, None, Verdict.UNRESOLVED)]) == (-0.5, 0.5)


def test_a_health_warning_is_marked_at_its_step() -> None:
    points = [(float(i), 1 / i) for i in range(1, 41)]
    svg = plots.curve([curve([Event(20, "collapse", None)], points)], "i", "t", (0.0, 1.0))
    assert "Warnings at step 20" in svg and svg.count('stroke="var(--worse)"') >= 2
    assert 'stroke="var(--worse)"' not in plots.curve([curve([], points)], "i", "t", (0.0, 1.0))


def test_label_plots_of_a_real_label_set(tmp_path: Path) -> None:
    written = Written(tmp_path, better_and_worse(12), trained=["better"])
    with Store(written.workspace).read() as connection:
        (label,) = label_quality(connection, ["toy/better/seed1"])
    for number, draw in enumerate((plots.confidence_histogram, plots.risk_coverage, plots.calibration)):
        root = ElementTree.fromstring(draw(label, f"p{number}"))
        assert len(list(root.iter("text"))) > 5 and len(list(root.iter("path"))) > 3


def test_a_matrix_has_a_triangle_for_each_resolved_pair() -> None:
    cells = [[None, (0.1, Verdict.BETTER)], [(-0.1, Verdict.WORSE), None]]
    root = ElementTree.fromstring(plots.heat_map(["a", "b"], cells, "m", "Matrix"))
    assert len([one for one in root.iter("use") if one.get("fill") == "var(--ink)"]) == 2
    assert {"a", "b"} <= {element.text for element in root.iter("text")}
