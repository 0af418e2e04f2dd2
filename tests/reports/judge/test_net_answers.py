"""What single faults planted by hand in the judgement and in what a report shows got past."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from nsd.plugins.untrusted import one_line, visible
from nsd.reports.judge.answer import answer
from nsd.reports.judge.compare import compare_runs
from nsd.reports.judge.cost import costs, total
from nsd.reports.judge.looks import look_entries, look_number
from nsd.reports.page.data import collect_comparison, collect_experiment
from nsd.reports.page.samples import collect_samples
from nsd.reports.page.training import collect_curves
from nsd.reports.text.render import attrition_lines
from nsd.reports.text.summary import summary_json
from nsd.runner.store.index import Store
from nsd.runner.store.shapes import Claim, Hypotheses, Look
from report_workspace import Written, better_and_worse
from toy_answers import AFTER, BEFORE, RESULTS, claim, record, texts
from toy_costs import run, stage
from toy_results import Results, table_runs


@pytest.fixture
def results() -> Results:
    """base .60, tuned .75, third .65 on the same 200 questions, without a time of their evaluations."""
    results = Results()
    table_runs(results, "s/base/seed1", "s/tuned/seed1", 110, 10, 40, 40)
    results.add("s/third/seed1", [1.0] * 115 + [0.0] * 5 + [1.0] * 15 + [0.0] * 65)
    return results


def evaluated(results: Results, condition: str, at: str, seed: int = 1) -> None:
    results.connection.execute(
        "INSERT INTO stages(digest, kind, ended_at, manifest) VALUES (?, 'eval', ?, '{}')",
        [f"eval-s/{condition}/seed{seed}", at],
    )


# --------------------------------------------------------------------------- when a claim was declared


def test_a_claim_declared_after_one_arm_and_before_the_other_is_on_time(results: Results) -> None:
    evaluated(results, "base", "2025-12-30 10:00")
    evaluated(results, "tuned", RESULTS)
    record(results, BEFORE, [claim("tuned", "base")])
    assert texts(answer(results.connection, "s")) == (["tuned > base"], [])


def test_results_under_other_settings_are_not_those_of_the_claim(results: Results) -> None:
    evaluated(results, "base", "2026-01-03 10:00")
    evaluated(results, "tuned", "2026-01-03 10:00")
    record(results, BEFORE, [], "old", settings="first try")
    record(results, AFTER, [claim("tuned", "base")], "new", settings="second try")
    for condition in ("base", "tuned"):  # the first try has evaluations of its own, seen before the claim
        digest = f"eval-old-{condition}"
        results.connection.execute(
            "INSERT INTO stages(digest, kind, ended_at, manifest) VALUES (?, 'eval', ?, '{}')", [digest, RESULTS]
        )
        results.connection.execute(
            "INSERT INTO runs(experiment, spec_digest, run, condition, seed, eval_digest) "
            "VALUES ('s', 'old', ?, ?, 9, ?)",
            [f"s/{condition}/seed9", condition, digest],
        )
    assert texts(answer(results.connection, "s", "new")) == (["tuned > base"], [])


def test_rules_written_out_as_they_are_by_default_change_nothing(results: Results) -> None:
    evaluated(results, "base", RESULTS)
    evaluated(results, "tuned", RESULTS)
    record(results, BEFORE, [claim("tuned", "base")])
    found = answer(results.connection, "s", hypotheses=Hypotheses(claims=[Claim(**claim("tuned", "base"))]))
    assert texts(found) == (["tuned > base"], [])


def test_another_way_of_matching_is_another_experiment_under_the_name(results: Results) -> None:
    record(results, BEFORE, [claim("tuned", "base")], "old")
    record(results, BEFORE, [claim("tuned", "base")], "new")
    assert answer(results.connection, "s").notes == []
    results.connection.execute(
        'UPDATE experiments SET resolved = json_merge_patch(resolved, \'{"match": "tokens"}\') '
        "WHERE spec_digest = 'new'"
    )
    (note,) = answer(results.connection, "s").notes
    assert note.startswith("2 versions of this experiment")


def test_an_arm_on_other_data_is_no_exploratory_pair(results: Results) -> None:
    results.add("s/other/seed1", [1.0, 0.0] * 100, data="another")
    record(results, BEFORE, [claim("tuned", "base")])
    pairs = {(one.a, one.b) for one in answer(results.connection, "s").exploratory}
    assert pairs == {("s/base", "s/third"), ("s/tuned", "s/third")}


def test_the_specs_own_level_judges_its_claims_and_its_pairs(results: Results) -> None:
    record(results, BEFORE, [claim("tuned", "base")], alpha=1e-6)
    found = answer(results.connection, "s")
    assert found.alpha == 1e-6 and [one.verdict for one in found.verdicts] == ["UNRESOLVED"]


# --------------------------------------------------------------------------- looks


def looked(results: Results) -> tuple[Look, Any]:
    (found,) = compare_runs(results.connection, ["s/base", "s/tuned"])
    (entry,) = look_entries([found])
    return entry, found


def test_the_same_models_on_as_many_questions_are_no_part_of_each_other(results: Results) -> None:
    entry, found = looked(results)
    again = replace(found, evals_a=("again-a",), evals_b=("again-b",))
    assert look_number([entry], again) == 1
    assert look_number([entry.changed(n=found.n - 1)], again) == 2


def test_a_look_at_another_metric_or_pair_is_another_question(results: Results) -> None:
    entry, found = looked(results)
    grown = replace(found, evals_a=(*found.evals_a, "more"))
    assert look_number([entry], grown) == 2
    assert look_number([entry.changed(metric="avg@4")], grown) == 1
    assert look_number([entry.changed(b="s/third")], grown) == 1


# --------------------------------------------------------------------------- what it cost, what was warned of


def test_labels_cost_also_where_no_training_on_them_is_finished() -> None:
    results = Results()
    stage(results, "labels", "label", 7, cost={"usd_per_hour": 3.0})
    run(results, "study/one/seed1", None, "labels", "eval-not-there")
    sums = total(costs(results.connection, "study"))
    assert (sums.stages, sums.seconds) == (1, 7) and sums.dollars == pytest.approx(7 / 3600 * 3)


def test_a_warning_has_the_step_of_its_first_sight(results: Results) -> None:
    for step in (40, 20, 30):
        results.connection.execute(
            "INSERT INTO events(digest, step, text, field) VALUES ('train-s/tuned/seed1', ?, 'flat', 'trainer.beta')",
            [step],
        )
    found = summary_json(results.connection, "s", None, None)["warnings"]
    assert found == [{"run": "s/tuned/seed1", "step": 20, "text": "flat", "field": "trainer.beta"}]


@pytest.mark.parametrize(("metrics", "shown"), [(("loss",), ["loss"]), (("loss", "reward"), ["reward"])])
def test_a_loss_is_drawn_only_where_there_is_no_reward(metrics: tuple[str, ...], shown: list[str]) -> None:
    results = Results()
    stage(results, "train", "train", 1)
    stage(results, "eval", "eval", 1, inputs={"model": "train"})
    run(results, "s/one/seed1", "train", None, "eval")
    for metric in metrics:
        rows = [("train", step, metric, float(step)) for step in range(1, 41)]
        results.connection.executemany("INSERT INTO curves VALUES (?,?,?,?)", rows)
    found = collect_curves(results.connection, costs(results.connection, "s"), ["s/one/seed1"])
    assert [one.metric for one in found] == shown
    # Means of the first and the last tenth of forty steps.
    assert (found[0].first, found[0].last, found[0].low, found[0].high) == (2.5, 38.5, 1.0, 40.0)


# --------------------------------------------------------------------------- pages


def test_a_comparison_of_runs_has_its_level_and_its_best_among_the_whole_ones(tmp_path: Path) -> None:
    written = Written(tmp_path, {"short": [True] * 12, "whole": [True, False] * 30, "low": [False, False, True] * 20})
    with Store(written.workspace).read() as connection:
        data = collect_comparison(connection, written.workspace, ["toy/*"], alpha=0.1)
    assert data.reference == "toy/whole/seed1" and data.level == pytest.approx(0.9)
    assert {one.level for one in data.tests} == {0.9}


def test_a_failed_completion_is_shown_by_its_reason(tmp_path: Path) -> None:
    written = Written(tmp_path, {"base": [True, False], "other": [True, True]})
    for path in written.workspace.artifacts.rglob("samples.parquet"):
        rows = pyarrow.parquet.read_table(path)
        lost = ["the context is full" if not right else None for right in rows["correct"].to_pylist()]
        rows = rows.set_column(rows.schema.get_field_index("error"), "error", pyarrow.array(lost, pyarrow.string()))
        path.chmod(0o644)
        pyarrow.parquet.write_table(rows, path)
    arms = {"base": ["toy/base/seed1"], "other": ["toy/other/seed1"]}
    with Store(written.workspace).read() as connection:
        found = collect_samples(connection, written.workspace, arms)
    assert found.shown[0].id == "q1", "where the arms differ comes first"
    assert found.shown[0].samples[0][0][-1] == "the context is full"


def test_the_largest_move_of_lost_answers_is_the_one_told(results: Results) -> None:
    results.add("a", [1.0] * 20 + [0.0] * 20, truncated=["q39"])
    results.add("b", [1.0] * 24 + [0.0] * 16)
    results.add("c", [1.0] * 22 + [0.0] * 18, truncated=["q37", "q38", "q39", "q36"])
    lines = attrition_lines(compare_runs(results.connection, ["a", "b", "c"]))
    assert "by up to 10.0 points" in lines[0]


def test_a_report_shows_the_curves_ends_as_means(tmp_path: Path) -> None:
    written = Written(tmp_path, better_and_worse(24), claims=[("better", "base")], trained=["better"])
    with Store(written.workspace).read() as connection:
        (found,) = collect_experiment(connection, written.workspace, "toy").curves
    assert found.last == pytest.approx(sum(1 / i for i in range(37, 41)) / 4)


def test_a_delete_character_is_written_out_like_every_other_control() -> None:
    assert visible("a\x7fb\x9f") == "a\\x7fb\\x9f" and one_line("a\tb\nc") == "a\\tb\\nc"
