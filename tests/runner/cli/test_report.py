"""`nsd report` as a person calls it: what it prints, writes, refuses and records."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from nsd.plugins.errors import InputError
from nsd.runner.cli.app import app
from nsd.runner.cli.report import print_report
from nsd.runner.store.looks import read_looks
from report_workspace import Written, better_and_worse


@pytest.fixture
def written(tmp_path: Path) -> Written:
    return Written(tmp_path, better_and_worse(), claims=[("better", "base"), ("same", "base")])


def test_markdown_is_what_it_prints_by_default(written: Written, capsys: Any) -> None:
    print_report(written.workspace, ["toy"])
    out = capsys.readouterr().out
    assert out.startswith("**Does it help?** Of 2 declared claims (family of 2), for these models as they are,")
    assert "| better > base | BETTER |" in out and "How computed:" in out


def test_machine_forms_are_whole(written: Written, capsys: Any) -> None:
    print_report(written.workspace, ["toy"], output="json")
    assert json.loads(capsys.readouterr().out)["answer"]["primary_family"] == 2
    print_report(written.workspace, ["toy"], output="csv")
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["role"] for row in rows] == ["declared"] * 2 + ["exploratory"] * 4


@pytest.mark.slow
def test_a_page_is_written_and_said(written: Written, tmp_path: Path, capsys: Any) -> None:
    target = tmp_path / "out.html"
    print_report(written.workspace, ["toy"], html=target)
    assert target.read_text().startswith("<!doctype html>")
    assert capsys.readouterr().out.startswith(f"wrote {target} (0.")
    print_report(written.workspace, ["toy/base/seed1", "toy/better/seed1"], html=target, output="csv")
    assert capsys.readouterr().out.startswith("role,") and "toy/better/seed1 is better than" in target.read_text()


@pytest.mark.slow
def test_another_metric_is_reported_in_its_own_unit(written: Written, tmp_path: Path, capsys: Any) -> None:
    target = tmp_path / "out.html"
    print_report(written.workspace, ["toy"], html=target, output="md", metric="tokens")
    text, page = capsys.readouterr().out, target.read_text()
    assert "no claim of the spec is judged by it" in text and "| base | tokens | " in text
    assert "difference (tokens)" in page and "percentage points" not in page
    assert "Judged by tokens instead of the metric of the spec" in page
    print_report(written.workspace, ["toy/base/seed1", "toy/better/seed1"], output="json", metric="truncated")
    (found,) = json.loads(capsys.readouterr().out)["comparisons"]
    assert found["metric"] == "truncated" and found["verdict"] in ("LOWER", "HIGHER", "UNRESOLVED")


def test_a_claim_written_after_the_results_is_marked(written: Written, tmp_path: Path, capsys: Any) -> None:
    spec = tmp_path / "toy.yaml"
    spec.write_text(
        "name: toy\nquestion: Does it help?\nmodel: builtin:wordmath-1m\n"
        "data: {use: wordmath, split: {labeled: 8, test: 8}}\nconditions:\n  base: {train_on: []}\n"
        "  worse: {train_on: [labeled], trainer: {use: sft}}\n  better: {train_on: [labeled], trainer: {use: sft}}\n"
        "hypotheses: {claims: [better > worse]}\n"
    )
    print_report(written.workspace, [str(spec)])
    out = capsys.readouterr().out
    assert "Claims written after their results (exploratory):" in out and "better > worse: EXPLORATORY: " in out


@pytest.mark.parametrize(
    ("names", "options", "says"),
    [
        (["toy"], {"output": "pdf"}, "no format 'pdf': one of md, csv, json"),
        (["toy"], {"html": Path("/nonexistent/x.html")}, "name a file in a folder that exists"),
        (["toy"], {"baseline": "base"}, "an experiment's claims name their own pairs"),
        (["tyo"], {}, "did you mean 'toy'"),
        (["toy/base/seed1"], {}, "name two or more"),
    ],
)
def test_what_cannot_be_reported_is_refused_with_the_way_out(
    written: Written, names: list[str], options: dict[str, Any], says: str
) -> None:
    with pytest.raises(InputError, match=says):
        print_report(written.workspace, names, **options)


@pytest.mark.slow
def test_a_report_is_recorded_as_a_look(written: Written) -> None:
    print_report(written.workspace, ["toy"])
    looks = read_looks(written.workspace)
    assert {look.command for look in looks} == {"report"} and len(looks) == 6
    print_report(written.workspace, ["toy"])
    assert len(read_looks(written.workspace)) == 6


@pytest.mark.slow
def test_the_command_line_makes_a_page(written: Written, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    target = tmp_path / "cli.html"
    done = CliRunner().invoke(app, ["report", "toy/*", "--html", str(target), "-w", str(written.workspace.root)])
    assert done.exit_code == 0 and target.stat().st_size > 50_000
