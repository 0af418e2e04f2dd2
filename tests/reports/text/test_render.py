"""Formats of a comparison: each holds the same numbers, and no name breaks it."""

from __future__ import annotations

import csv
import io
import json

import pytest
from rich.console import Console

from nsd.plugins.errors import InputError
from nsd.reports.judge.compare import compare_runs
from nsd.reports.text.render import FORMATS, render
from toy_results import Results, table_runs


def rendered(results: Results, runs: list[str], output: str, width: int = 200) -> str:
    screen = Console(file=io.StringIO(), width=width, markup=False)
    render(compare_runs(results.connection, runs, force=True), output, screen)
    assert isinstance(screen.file, io.StringIO)
    return screen.file.getvalue()


@pytest.fixture
def results() -> Results:
    results = Results()
    table_runs(results, "a", "b", 50, 10, 25, 15)
    results.add("evil|`<b>[x](y)", {f"q{i}": 1.0 for i in range(90)})
    return results


def test_json_is_whole_on_a_narrow_screen(results: Results) -> None:
    (found,) = json.loads(rendered(results, ["a", "b"], "json", width=20))["comparisons"]
    assert found["difference"] == pytest.approx(0.15) and found["discordant"] == [10, 25]
    assert found["ci"][0] < 0.15 < found["ci"][1]


def test_csv_has_a_line_per_pair(results: Results) -> None:
    rows = list(csv.DictReader(io.StringIO(rendered(results, ["a", "b", "evil|`<b>[x](y)"], "csv"))))
    assert [row["b"] for row in rows] == ["b", "evil|`<b>[x](y)", "evil|`<b>[x](y)"]
    assert (rows[0]["a_only_correct"], rows[0]["b_only_correct"]) == ("10", "25")
    assert rows[1]["unmatched_a"] == "10"


def test_markdown_keeps_its_columns_whatever_the_names(results: Results) -> None:
    lines = rendered(results, ["a", "evil|`<b>[x](y)"], "md").splitlines()
    bars = [line.replace("\\|", "").count("|") for line in lines[:3]]
    assert len(set(bars)) == 1
    assert "<b>" not in lines[2].replace("\\<b>", "")


def test_the_table_shows_arms_pairs_the_family_and_the_notes(results: Results) -> None:
    text = rendered(results, ["a", "b", "evil|`<b>[x](y)"], "table")
    for part in (
        "0.6000",
        "McNemar mid-p",
        "Benjamini-Hochberg over 3 comparisons",
        "10 questions only in",
        "evil|`<b>[x](y)",
    ):
        assert part in text


def test_every_format_renders_a_pair_with_nothing_in_common_among_others(results: Results) -> None:
    results.add("stranger", {"elsewhere": 1.0})
    for output in FORMATS:
        assert "UNRESOLVED" in rendered(results, ["a", "b", "stranger"], output)


def test_an_unknown_format_is_an_input_error(results: Results) -> None:
    with pytest.raises(InputError, match="one of table, json, md, csv"):
        rendered(results, ["a", "b"], "xml")
