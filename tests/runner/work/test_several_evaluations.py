"""A spec with two evaluations really run: rows in the index, a claim on each, tables, page, and a name changed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from e2e.command_line import asked, asked_json, nsd_json
from nsd.runner.store.index import Store
from nsd.runner.store.workspace import Workspace

SPEC = """\
name: two
model: builtin:wordmath-1m
data: {use: wordmath, train: 60, test: 40, split: {labeled: 8, unlabeled: 0, test: 12}}
trainer: {use: sft, epochs: 1, batch_size: 8, learning_rate: 5e-4}
evals:
  main: {use: accuracy, temperature: 0, max_tokens: 24}
  retention: {use: avg_at_k, k: 2, max_tokens: 24, data: {seed: 9, split: {labeled: 0, test: 10}}}
seeds: [7]
conditions:
  base: {train_on: []}
  student: {train_on: [labeled]}
hypotheses:
  - student > base
  - {compare: [student, base], not_worse_by: 0.5, on: retention}
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    (folder / "two.yaml").write_text(SPEC)
    assert nsd_json(folder, "run", "two.yaml", "--json")["stages_run"] == 9
    return folder


def rows(folder: Path, query: str) -> list[tuple[Any, ...]]:
    with Store(Workspace(folder / "nsd-workspace")).read() as connection:
        return connection.execute(query).fetchall()


RUNS = (
    "SELECT run, condition, measurement, beside, i.metric, i.questions, (SELECT count(*) FROM eval_samples s "
    "WHERE s.eval_digest = r.eval_digest) FROM current_runs r JOIN eval_info i USING (eval_digest) ORDER BY run"
)
EXPECTED = [
    ("two/base/seed7", "base", "main", False, "accuracy", 12, 12),
    ("two/base@retention/seed7", "base@retention", "retention", True, "avg@2", 10, 20),
    ("two/student/seed7", "student", "main", False, "accuracy", 12, 12),
    ("two/student@retention/seed7", "student@retention", "retention", True, "avg@2", 10, 20),
]


@pytest.mark.slow
def test_the_index_says_which_evaluation_a_row_is_of(finished: Path) -> None:
    assert rows(finished, RUNS) == EXPECTED


@pytest.mark.slow
def test_a_rebuilt_index_says_the_same(finished: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(finished, tmp_path / "copy")
    (copy / "nsd-workspace" / "nsd.duckdb").unlink(missing_ok=True)
    asked(copy, "db", "rebuild")
    assert rows(copy, RUNS) == EXPECTED


@pytest.mark.slow
def test_both_evaluations_are_of_the_same_weights(finished: Path) -> None:
    found = rows(finished, "SELECT DISTINCT train_digest FROM current_runs WHERE condition LIKE 'student%'")
    assert len(found) == 1 and found[0][0] is not None


@pytest.mark.slow
def test_claims_on_all_evaluations_are_one_family(finished: Path) -> None:
    found = asked_json(finished, "compare", "two.yaml", "--format", "json")
    assert found["primary_family"] == 2 and found["exploratory"] == []
    first, second = found["verdicts"]
    assert (first["claim"], first["comparison"]["b"], first["comparison"]["n"]) == ("student > base", "two/student", 12)
    assert second["claim"] == "student not worse than base by 0.5 on retention"
    assert (second["comparison"]["b"], second["comparison"]["metric"]) == ("two/student@retention", "avg@2")
    assert second["comparison"]["n"] == 10
    values = dict(
        rows(finished, "SELECT condition, avg(value) FROM current_runs JOIN eval_values USING (eval_digest) GROUP BY 1")
    )
    assert second["comparison"]["difference"] == pytest.approx(values["student@retention"] - values["base@retention"])


@pytest.mark.slow
def test_no_arm_is_compared_with_another_evaluation(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "two.yaml").write_text(SPEC[: SPEC.index("hypotheses:")])
    shutil.copytree(finished / "nsd-workspace", tmp_path / "nsd-workspace")
    pairs = asked_json(tmp_path, "compare", "two.yaml", "--format", "json")["exploratory"]
    assert {(one["a"], one["b"]) for one in pairs} <= {
        ("two/base", "two/student"),
        ("two/base@retention", "two/student@retention"),
    }


@pytest.mark.slow
def test_an_experiments_name_means_the_first_evaluation(finished: Path) -> None:
    (pair,) = asked_json(finished, "compare", "two", "--format", "json")["comparisons"]
    assert (pair["a"], pair["b"]) == ("two/base", "two/student")
    (pair,) = asked_json(finished, "compare", "two/*", "--format", "json")["comparisons"]
    assert (pair["a"], pair["b"]) == ("two/base/seed7", "two/student/seed7")
    (pair,) = asked_json(finished, "compare", "two/base@retention", "two/student@retention", "--format", "json")[
        "comparisons"
    ]
    assert pair["metric"] == "avg@2"


@pytest.mark.slow
def test_tables_show_the_first_and_each_other_by_itself(finished: Path) -> None:
    said = asked(finished, "report", "two.yaml")
    first, other = said.split("Arms on retention:")
    assert "| base | accuracy |" in first and "@retention |" not in first
    assert "| base@retention | avg@2 |" in other and "| base | accuracy" not in other


@pytest.mark.slow
def test_the_end_of_a_run_shows_each_in_a_table_of_its_own(finished: Path) -> None:
    said = asked(finished, "run", "two.yaml")
    first, other = said.split("\n on retention ", 1)
    assert "student@retention" not in first and "\n student " in first.rsplit("\n arm ", 1)[1]
    assert "base@retention" in other and "student@retention" in other


@pytest.mark.slow
def test_a_plan_says_what_each_can_detect_and_takes(finished: Path) -> None:
    said = asked(finished, "plan", "two.yaml")
    assert "on retention can detect " in said and "10 questions x 2 samples" in said
    found = asked_json(finished, "plan", "two.yaml", "--gpus", "L4:1", "--json")
    assert list(found["power"]["beside"]) == ["retention"]
    assert list(found["estimates"][0]["evals"]) == ["main", "retention"]


@pytest.mark.slow
def test_labels_warnings_and_costs_are_those_of_the_arm_once(finished: Path) -> None:
    found = asked_json(finished, "report", "two.yaml", "--format", "json")
    assert len(found["stages"]) == 9 == len({stage["digest"] for stage in found["stages"]})
    assert {curve["name"] for curve in found["curves"]} == {"student"}
    assert [(arm["condition"], arm["measurement"], arm["beside"]) for arm in found["arms"]] == [
        ("base", "main", False),
        ("student", "main", False),
        ("base@retention", "retention", True),
        ("student@retention", "retention", True),
    ]


@pytest.mark.slow
def test_the_page_shows_each(finished: Path, tmp_path: Path) -> None:
    asked(finished, "report", "two.yaml", "--html", str(tmp_path / "page.html"))
    page = (tmp_path / "page.html").read_text()
    assert "<h3>On retention</h3>" in page and "Arms with intervals on retention" in page
    assert "student not worse than base by 0.5 on retention" in page


@pytest.mark.slow
def test_a_run_of_any_evaluation_can_be_shown(finished: Path) -> None:
    shown = asked_json(finished, "show", "two/student@retention/seed7", "--json")
    assert shown["run"]["measurement"] == "retention"
    assert [stage["kind"] for stage in shown["stages"]] == ["train", "sample", "score"]


@pytest.mark.slow
def test_another_name_and_order_compute_nothing(finished: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(finished, tmp_path / "copy")
    text = SPEC.replace("retention", "old").replace("main", "headline")
    (copy / "two.yaml").write_text(text)
    assert asked_json(copy, "run", "two.yaml", "--json")["stages_run"] == 0
    assert [row[2] for row in rows(copy, RUNS) if row[0].endswith("base@old/seed7")] == ["old"]


@pytest.mark.slow
def test_what_was_claimed_of_the_only_evaluation_stays_claimed_of_the_first(finished: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(finished, tmp_path / "copy")
    single = SPEC[: SPEC.index("evals:")] + "eval: {use: accuracy, temperature: 0, max_tokens: 24}\n"
    (copy / "two.yaml").write_text(single + SPEC[SPEC.index("seeds:") : SPEC.rindex("  - ")])
    assert asked_json(copy, "run", "two.yaml", "--json")["stages_run"] == 0
    (verdict,) = asked_json(copy, "compare", "two.yaml", "--format", "json")["verdicts"]
    assert (verdict["claim"], verdict["mark"], verdict["family"]) == ("student > base", "", 2)


@pytest.mark.slow
def test_a_claim_is_late_where_the_first_evaluation_is_another_one_now(finished: Path, tmp_path: Path) -> None:
    """Its words were on record before the results of what now stands first, and meant something else."""
    copy = shutil.copytree(finished, tmp_path / "copy")
    lines = SPEC.splitlines()
    lines[5], lines[6] = lines[6], lines[5]
    (copy / "two.yaml").write_text("\n".join(lines[: lines.index("hypotheses:")]) + "\nhypotheses: [student > base]\n")
    assert json.loads(asked(copy, "run", "two.yaml", "--json"))["stages_run"] == 0
    found = asked_json(copy, "compare", "two.yaml", "--format", "json")
    assert found["verdicts"] == [] and len(found["late"]) == 1
    assert found["late"][0]["mark"].startswith("EXPLORATORY: recorded")
