"""The matrix of many runs: ordered, antisymmetric, readable in every format."""

from __future__ import annotations

import csv
import io
import json

import pytest
from rich.console import Console

from nsd.reports.judge.compare import compare_runs
from nsd.reports.text.matrix import WIDE, _in_blocks, matrix_of, render_matrix
from toy_results import Results


@pytest.fixture
def results() -> Results:
    """low .2, high .8, middle .5 of the same 100 questions, nested."""
    results = Results()
    for name, right in (("low", 20), ("high", 80), ("middle", 50)):
        results.add(name, [1.0] * right + [0.0] * (100 - right))
    return results


def shown(results: Results, output: str, names: list[str]) -> str:
    console = Console(file=io.StringIO(), width=200, color_system=None)
    render_matrix(compare_runs(results.connection, names), output, console)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_runs_are_ordered_by_their_means_and_cells_are_antisymmetric(results: Results) -> None:
    made = matrix_of(compare_runs(results.connection, ["low", "high", "middle"]))
    assert made.runs == ["high", "middle", "low"] and made.means == pytest.approx([0.8, 0.5, 0.2])
    assert made.cells[0][2] == (pytest.approx(0.6), "BETTER") and made.cells[2][0] == (pytest.approx(-0.6), "WORSE")
    assert made.cells[1][1] is None


@pytest.mark.parametrize("output", ["table", "md", "csv", "json"])
def test_every_format_has_the_differences(results: Results, output: str) -> None:
    text = shown(results, output, ["low", "high", "middle"])
    if output == "json":
        facts = json.loads(text)
        assert facts["cells"][0][1] == {"difference": pytest.approx(0.3), "verdict": "BETTER"}
    elif output == "csv":
        rows = list(csv.reader(io.StringIO(text)))
        assert rows[0] == ["run", "rank", "mean", "high", "middle", "low"]
        assert rows[1] == ["high", "1", "80.0", "", "+30.0*", "+60.0*"]
    else:
        assert "+60.0*" in text and "-30.0*" in text


@pytest.mark.parametrize("width", [40, 60])
def test_a_matrix_wider_than_the_terminal_comes_in_blocks_of_whole_numbers(results: Results, width: int) -> None:
    names = ["low", "high", "middle"]
    for number in range(7):
        names.append(results.add(f"one-more-run-{number}", [1.0] * (number + 21) + [0.0] * (79 - number)))
    console = Console(file=io.StringIO(), width=width, color_system=None)
    found = compare_runs(results.connection, names)
    render_matrix(found, "table", console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, text.splitlines())) <= width
    made = matrix_of(found)
    numbers = [f"{cell[0] * 100:+.1f}" for row in made.cells for cell in row if cell is not None]
    words = [word.rstrip("*") for word in text.partition("row less column")[0].split()]
    assert all(words.count(number) >= numbers.count(number) for number in numbers)
    assert words.count("one-more-run-3") == words.count("high") > 1


@pytest.mark.parametrize("output", ["table", "md"])
def test_the_runs_that_share_the_first_place_are_named(results: Results, output: str) -> None:
    results.add("nearly", [1.0] * 79 + [0.0] * 21)
    text = shown(results, output, ["low", "high", "middle", "nearly"])
    assert "high, nearly share the first place; ranks hold at once with 95% (Holm over all 6 pairs)" in text
    assert "1-2" in text


def test_where_a_pair_is_missing_there_is_no_rank(results: Results) -> None:
    made = matrix_of(compare_runs(results.connection, ["low", "high", "middle"], baseline="low"))
    assert made.bands == [] and "first place" not in shown(results, "json", ["low", "high"])


def test_many_runs_are_shown_by_signs(results: Results) -> None:
    names = ["low", "high"]
    for number in range(WIDE):
        results.add(f"more{number}", [1.0] * 50 + [0.0] * 50)
        names.append(f"more{number}")
    lines = shown(results, "table", names).splitlines()
    high = next(line for line in lines if " high" in line)
    assert high.count("+") == WIDE + 1 and "." in lines[4]


def test_in_blocks_numbers_stand_under_the_end_of_their_heading() -> None:
    rows = [("high", "A", "1", "80.0"), ("low", "B", "2", "9.0")]
    lines = _in_blocks(rows, [["", "+71.0*"], ["-71.0*", ""]], 24)
    assert [line.plain for line in lines[:6]] == [
        " run",
        "   #  rank  mean       A",
        " ───────────────────────",
        " high",
        "   A     1  80.0",
        " low",
    ]
    assert lines[6].plain == "   B     2   9.0  -71.0*"
