"""What a report collects, from artifacts on disk through the index, against what was put there."""

from __future__ import annotations

from pathlib import Path

import pytest

from nsd.plugins.errors import InputError
from nsd.reports.page.data import PageData, collect_comparison, collect_experiment
from nsd.reports.page.samples import PER_QUESTION, TEXT_LIMIT, collect_samples, shorten
from nsd.reports.page.text import how_computed
from nsd.runner.store.index import Store
from report_workspace import Written, better_and_worse


def collected(written: Written) -> PageData:
    with Store(written.workspace).read() as connection:
        return collect_experiment(connection, written.workspace, written.name)


def test_an_experiment_has_everything_that_was_put_there(tmp_path: Path) -> None:
    arms = better_and_worse()
    data = collected(Written(tmp_path, arms, claims=[("better", "base")], trained=["better", "worse"]))
    assert [arm.condition for arm in data.arms] == list(arms)
    assert [(one.claim, one.verdict) for one in data.verdicts] == [("better > base", "BETTER")]
    assert [family.size for family in data.families] == [1, 5]
    assert {curve.name for curve in data.curves} == {"better", "worse"}
    assert data.curves[0].events[0].step == 20
    assert [label.questions for label in data.labels] == [40]
    assert (data.samples.questions, data.samples.completions) == (120, 480)
    assert data.cost.stages == 7 and data.cost.seconds == 420
    assert data.origin.data_hashes == ["d" * 64] and data.origin.packages == {"nsd": ["0.1.0"]}
    assert data.spec_yaml == "name: toy\n"


def test_runs_without_a_spec_are_compared_with_the_best_by_default(tmp_path: Path) -> None:
    written = Written(tmp_path, better_and_worse())
    with Store(written.workspace).read() as connection:
        data = collect_comparison(connection, written.workspace, ["toy/*"])
        named = collect_comparison(connection, written.workspace, ["toy/*"], baseline="toy/base/seed1")
    assert data.answer is None and len(data.pairs) == 6 and data.reference == "toy/better/seed1"
    assert [one.name for one in data.against_reference()][-1] == "toy/worse/seed1"
    assert all((one.difference or 0) < 0 for one in data.against_reference())
    assert named.reference == "toy/base/seed1"
    assert "Against the baseline toy/base/seed1: 1 better, 1 worse." in named.headline


def test_a_pair_turned_around_has_its_interval_and_verdict_turned(tmp_path: Path) -> None:
    written = Written(tmp_path, better_and_worse())
    with Store(written.workspace).read() as connection:
        data = collect_comparison(connection, written.workspace, ["toy/*"])
    turned = next(one for one in data.against_reference() if one.name == "toy/base/seed1")
    assert turned.comparison.b == "toy/better/seed1" and turned.comparison.verdict == "BETTER"
    assert turned.verdict == "WORSE" and turned.difference == -0.25
    assert turned.comparison.ci is not None
    assert (turned.low, turned.high) == (-turned.comparison.ci[1], -turned.comparison.ci[0])


def test_verdicts_at_any_look_are_called_so(tmp_path: Path) -> None:
    data = collected(Written(tmp_path, better_and_worse(), claims=[("better", "base")], looks="any"))
    assert data.families[0].name == "declared claims, valid at any look"
    assert "McNemar mid-p, any look" in {one.test for one in data.tests}
    assert "valid at any look" in data.headline and "any look" in how_computed(data)


def test_an_unknown_experiment_is_refused(tmp_path: Path) -> None:
    written = Written(tmp_path, {"base": [True, False]})
    with Store(written.workspace).read() as connection, pytest.raises(InputError, match="no experiment 'toyy'"):
        collect_experiment(connection, written.workspace, "toyy")


def test_one_arm_and_one_question_make_a_report(tmp_path: Path) -> None:
    data = collected(Written(tmp_path, {"base": [True]}))
    assert data.arms[0].mean == 1.0 and data.comparisons == [] and data.families == []


def test_samples_beyond_the_budget_are_left_out_disagreements_last(tmp_path: Path) -> None:
    arms = {"a": [True] * 40, "b": [i != 7 for i in range(40)]}
    written = Written(tmp_path, arms)
    runs = {name: [f"toy/{name}/seed1"] for name in arms}
    with Store(written.workspace).read() as connection:
        few = collect_samples(connection, written.workspace, runs, budget=1000)
        again = collect_samples(connection, written.workspace, runs, budget=1000)
        everything = collect_samples(connection, written.workspace, runs)
    assert few.shown[0].id == "q7" and 1 < len(few.shown) < 40
    assert few.questions == 40 and few.completions == 80 and few.shown_completions == 2 * len(few.shown)
    assert [one.id for one in few.shown] == [one.id for one in again.shown]
    assert len(everything.shown) == 40


def test_of_many_samples_the_first_are_shown_and_all_are_counted(tmp_path: Path) -> None:
    written = Written(tmp_path, {"a": [True, False]}, samples=7)
    with Store(written.workspace).read() as connection:
        found = collect_samples(connection, written.workspace, {"a": ["toy/a/seed1"]})
    assert (found.completions, found.shown_completions, found.most_samples) == (14, 2 * PER_QUESTION, 7)


def test_a_long_text_is_cut_in_the_middle_and_says_so() -> None:
    text = "a" * 500_000 + "b" * 500_000
    cut = shorten(text)
    assert len(cut) < TEXT_LIMIT + 100 and cut.startswith("aaa") and cut.endswith("bbb")
    assert "994,000 of 1,000,000 characters left out" in cut
