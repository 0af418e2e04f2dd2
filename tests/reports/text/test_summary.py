"""The end-of-run tables: arms, intervals, pseudo-labels, warnings."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from nsd.reports import stats
from nsd.reports.judge.arms import by_measurement, summarise_arms
from nsd.reports.text.summary import print_summary, summary_json
from nsd.runner.store.shapes import Claim, Hypotheses
from toy_results import Results, table_runs


def printed(results: Results, hypotheses: Hypotheses | None = None) -> str:
    screen = Console(file=io.StringIO(), width=200, markup=False)
    print_summary(results.connection, screen, "s", None, hypotheses, "Does it help?")
    output = screen.file
    assert isinstance(output, io.StringIO)
    return output.getvalue()


@pytest.fixture
def results() -> Results:
    results = Results()
    table_runs(results, "s/base/seed1", "s/oracle/seed1", 110, 10, 50, 30)
    return results


def test_an_arm_of_binary_answers_has_an_exact_interval(results: Results) -> None:
    base, oracle = summarise_arms(results.connection, ["s/base/seed1", "s/oracle/seed1"])
    exact = stats.exact_binomial(160, 200, 0.95)
    assert exact is not None and oracle.ci == (exact.low, exact.high)
    assert (base.mean, base.n, base.truncated) == (0.6, 200, 0.0)


def test_an_arm_of_several_seeds_has_an_interval_over_seeds_and_questions(results: Results) -> None:
    results.add("s/base/seed2", [1.0] * 130 + [0.0] * 70)
    (base,) = summarise_arms(results.connection, ["s/base/seed1", "s/base/seed2"])
    interval = stats.seeds_interval([[1.0] * 120 + [0.0] * 80, [1.0] * 130 + [0.0] * 70])
    assert interval is not None and base.ci == pytest.approx((interval.low, interval.high))
    assert base.mean == pytest.approx(0.625) and base.seeds == [1, 2]


def test_an_arm_of_sampled_values_has_a_bounded_interval(results: Results) -> None:
    results.add("s/avg/seed1", [0.25, 0.5, 1.0] * 20, samples=4)
    (arm,) = summarise_arms(results.connection, ["s/avg/seed1"])
    assert arm.interval == "bounded mean" and arm.samples == 4


def test_an_arm_known_by_its_counts_has_their_exact_interval(results: Results) -> None:
    results.add_counts("paper", 30, 40)
    (arm,) = summarise_arms(results.connection, ["paper"])
    exact = stats.exact_binomial(30, 40, 0.95)
    assert exact is not None and arm.ci == (exact.low, exact.high)
    assert (arm.mean, arm.n, arm.seed_means, arm.interval) == (0.75, 40, [0.75], exact.name)
    (plain,) = summarise_arms(results.connection, ["paper"], level=None)
    assert (plain.ci, plain.mean, plain.n) == (None, 0.75, 40)


def test_arms_are_summarised_by_another_metric_where_one_is_named(results: Results) -> None:
    base, oracle = summarise_arms(results.connection, ["s/base/seed1", "s/oracle/seed1"], metric="tokens")
    assert [(arm.condition, arm.metric, arm.mean) for arm in (base, oracle)] == [
        ("base", "tokens", 9.0),
        ("oracle", "tokens", 9.0),
    ]


def test_what_was_measured_beside_stands_by_the_name_of_its_evaluation(results: Results) -> None:
    results.add("s/hard/seed1", [1.0, 0.0])
    results.connection.execute("UPDATE runs SET measurement = 'main'")
    results.connection.execute("UPDATE runs SET measurement = 'hard', beside = true WHERE condition <> 'base'")
    base, oracle, hard = summarise_arms(results.connection, ["s/base/seed1", "s/oracle/seed1", "s/hard/seed1"])
    assert by_measurement([oracle, base, hard]) == ([base], {"hard": [oracle, hard]})


def test_a_run_without_a_result_is_listed_with_its_status(results: Results) -> None:
    results.add("s/grpo/seed1", None, status="failed")
    arms = summarise_arms(results.connection, ["s/base/seed1", "s/grpo/seed1"])
    assert arms[1].mean is None and "failed" in arms[1].status
    assert "failed" in printed(results)


def test_the_screen_has_arms_labels_warnings_and_verdicts(results: Results) -> None:
    results.add_labels("L", [("1", 1.0, True, True), ("2", 0.5, False, False)])
    results.add("s/noisy/seed1", [1.0, 0.0], label="L", order="x")
    results.connection.execute("INSERT INTO events VALUES ('train-s/noisy/seed1', 7, 'reward_std is 0', 'trainer.n')")
    claim = Claim(text="oracle > base", kind="better", better="oracle", worse="base", margin=None)
    text = printed(results, Hypotheses(claims=[claim]))
    for part in ("Does it help?", "0.8000", "[0.7378, 0.8531]", "confidence", "reward_std is 0", "▲ BETTER"):
        assert part in text
    data = summary_json(results.connection, "s", None, Hypotheses(claims=[claim]))
    assert json.loads(json.dumps(data, allow_nan=False))["verdicts"][0]["holds"] is True


def test_without_hypotheses_the_screen_says_how_to_compare(results: Results) -> None:
    assert "nsd compare" in printed(results)


def test_names_are_text_and_never_markup(results: Results) -> None:
    results.add("s/[red]x[bold]/seed1", [1.0, 0.0])
    assert "[red]x[bold]" in printed(results)
