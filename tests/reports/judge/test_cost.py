"""Costs of an experiment: shared stages once, prices where they are known."""

from __future__ import annotations

import pytest

from nsd.reports.judge.cost import _short, by_kind, costs, total
from toy_costs import run, stage
from toy_results import Results


@pytest.fixture
def study() -> Results:
    """A teacher whose samples two students share, each student with labels, training and evaluation."""
    results = Results()
    h200 = {"machine": {"gpus": ["H200", "H200"]}}
    stage(results, "teacher", "train", 100, 200, **h200)
    stage(results, "samples", "sample", 50, 50, inputs={"model": "teacher"}, generation={"tokens": 9, "completions": 3})
    for name in ("one", "two"):
        stage(results, f"label-{name}", "label", 1, inputs={"samples": "samples"})
        stage(results, f"train-{name}", "train", 10, 10, inputs={"labels": f"label-{name}"})
        drawn = {"tokens": 5, "completions": 2}
        stage(results, f"eval-{name}", "eval", 2, inputs={"model": f"train-{name}"}, generation=drawn)
        run(results, f"study/{name}/seed1", f"train-{name}", f"label-{name}", f"eval-{name}")
    stage(results, "stranger", "train", 9999)
    return results


def test_shared_stages_count_once(study: Results) -> None:
    sums = total(costs(study.connection, "study"))
    assert (sums.stages, sums.seconds, sums.gpu_seconds) == (8, 100 + 50 + 2 * 13, 270)
    assert (sums.tokens, sums.completions) == (19, 7)
    assert sums.gpus == ["H200"] and sums.gpu_hours == pytest.approx(270 / 3600)


def test_causes_come_first_and_know_their_users(study: Results) -> None:
    found = costs(study.connection, "study")
    assert [one.digest for one in found[:2]] == ["teacher", "samples"]
    assert found[1].used_by == ["study/one/seed1", "study/two/seed1"]


def test_single_runs_can_be_asked_for(study: Results) -> None:
    assert {one.digest for one in costs(study.connection, None, ["study/two/seed1"])} == {
        *("teacher", "samples", "label-two", "train-two", "eval-two")
    }


def test_repeated_evaluations_belong_to_it_and_are_marked(study: Results) -> None:
    stage(study, "again", "eval", 3, inputs={"model": "train-one"})
    study.connection.execute("INSERT INTO repeats VALUES ('study/one/seed1', 'spec', 1, 'again')")
    kinds = by_kind(costs(study.connection, "study"))
    assert kinds["repeat"].seconds == 3 and kinds["eval"].seconds == 4


def test_no_known_price_is_none_not_zero(study: Results) -> None:
    assert total(costs(study.connection, "study")).dollars is None


def test_prices_come_from_the_manifest(study: Results) -> None:
    stage(study, "eval-three", "eval", 1800, cost={"usd_per_hour": 3.0})
    stage(study, "eval-four", "eval", 10, cost={"usd_per_hour": 3.0, "usd": 0.25})
    run(study, "study/three/seed1", None, None, "eval-three")
    run(study, "study/four/seed1", None, None, "eval-four")
    sums = total(costs(study.connection, "study"))
    assert sums.dollars == pytest.approx(1.75) and sums.priced == 2
    assert "$1.75 and 8 stages of unknown price" in sums.describe()


@pytest.fixture
def priced() -> Results:
    """A training on two kinds of GPU without a price, and samples with one, none of which names a GPU."""
    results = Results()
    machine = {"gpus": ["H200", "A100"]}
    stage(results, "t", "train", 3600, 7200, machine=machine, generation=None, cost={"currency": "USD"})
    drawn = {"tokens": 2500, "completions": 4}
    stage(results, "e", "eval", 60, inputs={"model": "t"}, machine={"gpus": None}, generation=drawn, cost={"usd": 0.5})
    run(results, "toy/a/seed1", "t", None, "e")
    return results


def test_a_sum_is_told_in_words(priced: Results) -> None:
    said = "1 h 01 min, 2.00 GPU hours (A100, H200), 2.5 k tokens generated, $0.50 and 1 stage of unknown price"
    assert total(costs(priced.connection, "toy")).describe() == said
    assert total(costs(priced.connection, "toy")[1:]).describe() == "1 min 00 s, 2.5 k tokens generated, $0.50"


def test_a_sum_is_plain_data(priced: Results) -> None:
    assert total(costs(priced.connection, "toy")).to_json() == {
        "stages": 2,
        "seconds": 3660.0,
        "gpu_seconds": 7200.0,
        "gpus": ["A100", "H200"],
        "tokens": 2500,
        "completions": 4,
        "dollars": 0.5,
        "priced": 1,
        "gpu_hours": 2.0,
    }


def test_a_stage_knows_only_what_its_manifest_says(priced: Results) -> None:
    training, evaluation = costs(priced.connection, "toy")
    assert (training.tokens, training.completions, training.dollars) == (None, None, None)
    assert (evaluation.kind, evaluation.gpus, evaluation.gpu_seconds, evaluation.repeat) == ("eval", [], 0.0, False)


def test_kinds_come_in_the_order_of_the_work_and_others_after_them(study: Results) -> None:
    stage(study, "odd", "another", 3)
    stage(study, "again", "eval", 3, inputs={"model": "train-one", "odd": "odd"})
    study.connection.execute("INSERT INTO repeats VALUES ('study/one/seed1', 'spec', 1, 'again')")
    kinds = by_kind(costs(study.connection, "study"))
    assert list(kinds) == ["train", "sample", "label", "eval", "another", "repeat"]
    assert [one.stages for one in kinds.values()] == [3, 1, 2, 2, 1, 1]


def test_unfinished_stages_cost_nothing_yet(study: Results) -> None:
    run(study, "study/later/seed1", "train-later", None, "eval-later")
    assert total(costs(study.connection, "study")).stages == 8


def test_an_unknown_experiment_has_no_stages(study: Results) -> None:
    assert costs(study.connection, "nothing") == []
    assert total([]).describe() == "0 s"


@pytest.mark.parametrize(
    ("count", "text"), [(999, "999"), (1000, "1.0 k"), (1500, "1.5 k"), (2_500_000, "2.5 M"), (3_000_000_000, "3.0 G")]
)
def test_large_counts_are_short(count: int, text: str) -> None:
    assert _short(count) == text


def test_time_on_a_gpu_that_nobody_named_is_told_without_a_name() -> None:
    results = Results()
    stage(results, "e", "eval", 60, 1800)
    run(results, "toy/a/seed1", None, None, "e")
    assert total(costs(results.connection, "toy")).describe() == "1 min 00 s, 0.50 GPU hours"
