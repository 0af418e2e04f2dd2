"""Both readings of runs that are named, and of claims that were added late."""

from __future__ import annotations

import csv
from typing import Any

import pytest

from nsd.reports.judge.answer import answer
from nsd.reports.judge.compare import compare_runs
from nsd.reports.judge.readings import RECIPE, WEIGHTS, not_supported, others_of, reading_of
from nsd.reports.text.answer import answer_markdown
from nsd.reports.text.render import as_csv, as_markdown
from toy_answers import AFTER, BEFORE, RESULTS, claim, record
from toy_results import Results

SEEDS = {"base": (110, 114), "tuned": (140, 150), "third": (120, 123)}


@pytest.fixture
def results() -> Results:
    """Three conditions of two seeds each, right on the first so many of 200 questions."""
    results = Results()
    for condition, counts in SEEDS.items():
        for seed, right in enumerate(counts, 1):
            results.add(f"s/{condition}/seed{seed}", [1.0] * right + [0.0] * (200 - right))
    results.connection.execute(
        "INSERT INTO stages(digest, kind, ended_at, manifest) SELECT eval_digest, 'eval', ?, '{}' FROM runs", [RESULTS]
    )
    return results


def test_runs_have_the_reading_that_was_not_asked_for_beside_the_one_that_was(results: Results) -> None:
    pairs = compare_runs(results.connection, ["s/base", "s/tuned", "s/third"])
    assert {reading_of(one) for one in pairs} == {RECIPE}
    others = others_of(pairs)
    assert {reading_of(one) for one in others} == {WEIGHTS} and len(others) == 3
    assert [(one.a, one.b) for one in others] == [(one.a, one.b) for one in pairs]
    assert not_supported(pairs) == ""


def test_a_table_for_machines_has_both_readings(results: Results) -> None:
    pairs = compare_runs(results.connection, ["s/base", "s/tuned", "s/third"])
    rows = list(csv.DictReader(as_csv(pairs).splitlines()))
    assert [(row["claim"], row["other_reading"]) for row in rows] == [("recipe", "False")] * 3 + [
        ("checkpoint", "True")
    ] * 3
    assert [float(row["p"]) for row in rows[3:]] == [pytest.approx(one.p) for one in others_of(pairs)]


def test_the_other_readings_are_a_family_of_their_own(results: Results) -> None:
    from nsd.reports import stats

    others = others_of(compare_runs(results.connection, ["s/base", "s/tuned", "s/third"], correction="holm"))
    assert [one.p_adjusted for one in others] == stats.adjust([one.p for one in others], "holm")
    assert {one.family for one in others} == {3}


def test_one_trained_model_an_arm_says_what_the_recipe_would_take(results: Results) -> None:
    (one,) = compare_runs(results.connection, ["s/base/seed1", "s/tuned/seed1"])
    assert one.other is None and reading_of(one) == WEIGHTS
    assert not_supported([one]).startswith(f"{RECIPE}: one trained model of base, tuned says nothing of it.")


def test_imported_models_have_one_reading() -> None:
    results = Results()
    for name in ("a", "b"):
        results.add(name, [1.0] * 20 + [0.0] * 20)
    (one,) = compare_runs(results.connection, ["a", "b"])
    assert one.other is None and not_supported([one]) == ""


def test_a_pasted_table_and_json_have_both(results: Results) -> None:
    pairs = compare_runs(results.connection, ["s/base", "s/tuned"])
    said = as_markdown(pairs)
    assert f"The other reading, a family of its own: {WEIGHTS}" in said and said.count("| s/base | s/tuned |") == 2
    facts = pairs[0].to_json()
    assert (facts["claim"], facts["other"]["claim"]) == ("recipe", "checkpoint")
    assert facts["other"]["other"] is None


def test_a_late_claim_has_both_readings_and_its_mark_in_each(results: Results) -> None:
    record(results, BEFORE, [claim("tuned", "base")], "old")
    record(results, AFTER, [claim("tuned", "base"), claim("third", "base")], "new")
    found = answer(results.connection, "s")
    (other,) = found.late_other
    assert other.comparison is not None and reading_of(other.comparison) == WEIGHTS
    assert other.mark == found.late[0].mark != "" and other.family == found.exploratory_family
    assert "Late claims in the other reading, EXPLORATORY" in answer_markdown(found)


@pytest.mark.parametrize("asked", [{"alone": True}, {"metric": "truncated"}])
def test_claims_alone_and_a_metric_without_a_better_side_have_no_other_reading(
    results: Results, asked: dict[str, Any]
) -> None:
    record(results, BEFORE, [claim("tuned", "base")], "old")
    record(results, AFTER, [claim("tuned", "base"), claim("third", "base")], "new")
    found = answer(results.connection, "s", **asked)
    facts = found.to_json()
    assert (facts["other"], facts["late_other"], facts["not_supported"]) == ([], [], "")


def test_claims_that_are_all_late_say_what_the_recipe_would_take() -> None:
    results = Results()
    results.add("s/base/seed1", [1.0] * 110 + [0.0] * 90)
    results.add("s/tuned/seed1", [1.0] * 150 + [0.0] * 50)
    results.connection.execute(
        "INSERT INTO stages(digest, kind, ended_at, manifest) SELECT eval_digest, 'eval', ?, '{}' FROM runs", [RESULTS]
    )
    record(results, AFTER, [claim("tuned", "base")])
    found = answer(results.connection, "s")
    assert not found.verdicts and found.not_supported.startswith(f"{RECIPE}: one trained model of base, tuned")
    assert f"For {RECIPE}: nothing, with one trained model an arm." in found.headline()
