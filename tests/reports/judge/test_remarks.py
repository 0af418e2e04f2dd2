"""What is said beside a comparison: why there is no figure, what it finds, and what a stated difference takes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from nsd.reports.judge.compare import compare_runs
from nsd.reports.judge.comparison import Comparison, amount, say_p, show_level, show_p
from nsd.reports.judge.verdict import Verdict
from toy_results import Results, table_runs


@pytest.fixture
def results() -> Results:
    return Results()


def compared(results: Results, *runs: str, **asked: Any) -> Comparison:
    (found,) = compare_runs(results.connection, runs, **asked)
    return found


@pytest.fixture
def open_one(results: Results) -> Comparison:
    table_runs(results, "a", "b", 50, 10, 12, 28)
    found = compared(results, "a", "b")
    return replace(found, detectable=0.1234, needed_for="a true difference of 2.0 points")


# --------------------------------------------------------------------------- why there is no figure


def test_values_that_all_differ_alike_have_no_interval(results: Results) -> None:
    for name in ("a", "b"):
        results.add(name, [1.0] * 30)
    results.connection.execute("UPDATE eval_samples SET tokens = 11 WHERE eval_digest = 'eval-b'")
    found = compared(results, "a", "b", metric="tokens")
    assert (found.ci, found.difference, found.note) == (None, 2.0, "differences without spread: no interval")


def test_one_question_of_tokens_has_no_interval(results: Results) -> None:
    for name in ("a", "b"):
        results.add(name, [1.0])
    results.connection.execute("UPDATE eval_samples SET tokens = 12 WHERE eval_digest = 'eval-b'")
    found = compared(results, "a", "b", metric="tokens")
    assert found.ci is None and "one shared question: no interval" in found.note


def test_few_questions_of_means_have_no_figure(results: Results) -> None:
    results.add("a", [0.5, 0.0, 1.0, 0.5] * 3, samples=2, metric="avg@2")
    results.add("b", [1.0, 0.0, 0.5, 1.0] * 3, samples=2, metric="avg@2")
    found = compared(results, "a", "b")
    assert found.detectable is None
    assert found.note == "12 shared questions: too few to say which difference they find"


def test_an_arm_of_too_few_samples_has_no_figure(results: Results) -> None:
    results.add("a", [0.0] * 58 + [1.0] * 2)
    results.add("b", [0.25, 0.0, 0.0] * 20, samples=4, metric="avg@4")
    found = compared(results, "a", "b", force=True)
    assert found.detectable is None
    assert "one arm has so few samples that nothing can be said of the difference this finds" in found.note


def test_two_names_of_one_evaluation_say_that_nothing_was_compared(results: Results) -> None:
    results.add("a", [1.0, 0.0] * 10)
    results.connection.execute("INSERT INTO runs SELECT * REPLACE ('b' AS run) FROM runs WHERE run = 'a'")
    found = compared(results, "a", "b", margin=0.1)
    assert (found.test, found.p, found.ci, found.difference) == ("the same evaluation twice", None, None, 0.0)
    assert found.note == "both are one evaluation: nothing was compared"


# --------------------------------------------------------------------------- what a difference takes


@pytest.mark.parametrize(
    ("known", "said", "short"),
    [
        ({}, "This comparison finds a true difference of 12.3 points in 4 of 5 cases.", "finds 12.3 points"),
        (
            {"finds_margin": True},
            "This comparison shows a margin of 12.3 points in 4 of 5 cases.",
            "shows margin 12.3 points",
        ),
        (
            {"detectable": None, "needed_n": 7},
            "A true difference of 2.0 points needs 7 questions.",
            "a true difference of 2.0 points needs 7 questions",
        ),
        (
            {"detectable": None, "needed_n": 7, "needed_range": (7, 7)},
            "A true difference of 2.0 points needs 7 questions.",
            "a true difference of 2.0 points needs 7 questions",
        ),
        (
            {"detectable": None, "needed_seeds": 4, "needed_seeds_range": (3, None), "needed_n": 7},
            "A true difference of 2.0 points needs 4 seeds per arm (3 to no number), or 7 questions.",
            "a true difference of 2.0 points needs 4 seeds per arm (3 to no number), or 7 questions",
        ),
        (
            {"detectable": None, "needed_n": 7, "needed_range": (None, 9)},
            "A true difference of 2.0 points needs 7 questions (any to 9).",
            "a true difference of 2.0 points needs 7 questions (any to 9)",
        ),
        (
            {"needed_n": 7, "needed_paired": 5},
            "This comparison finds a true difference of 12.3 points in 4 of 5 cases; a true difference of 2.0 points "
            "needs 7 questions; paired on the same questions about 5 would do, at 20% discordance.",
            "finds 12.3 points; a true difference of 2.0 points needs 7 questions, or 5 if paired",
        ),
        ({"detectable": None}, "", ""),
    ],
)
def test_what_is_found_and_needed_is_said_at_length_and_in_short(
    open_one: Comparison, known: dict[str, Any], said: str, short: str
) -> None:
    found = replace(open_one, **known)
    assert (found.still_needed(), found.needed_in_short()) == (said, short)


def test_an_open_comparison_ends_with_what_it_could_have_found(open_one: Comparison) -> None:
    found = replace(open_one, ci=(-0.05, 0.0871), level=0.975, p=0.00001, p_adjusted=None)
    assert found.sentence() == (
        "no difference shown between a and b (+2.0 points, 97.5% interval -5.0 to +8.7; McNemar mid-p, p < .0001, "
        "adjusted no p; n = 100). This comparison finds a true difference of 12.3 points in 4 of 5 cases."
    )
    assert replace(found, detectable=None, ci=None).sentence() == (
        "no difference shown between a and b (+2.0 points; McNemar mid-p, p < .0001, adjusted no p; n = 100)."
    )


@pytest.mark.parametrize(
    ("verdict", "said"),
    [
        (Verdict.BETTER, "b is better than a ("),
        (Verdict.WORSE, "b is worse than a ("),
        (Verdict.EQUIVALENT, "b is equivalent to a ("),
        (Verdict.NOT_WORSE, "b is not worse than a ("),
    ],
)
def test_a_verdict_is_a_short_sentence_without_what_it_takes(open_one: Comparison, verdict: Verdict, said: str) -> None:
    sentence = replace(open_one, verdict=verdict).sentence()
    assert sentence.startswith(said) and sentence.endswith("; n = 100).")


def test_without_a_difference_the_note_is_the_sentence(open_one: Comparison) -> None:
    assert replace(open_one, difference=None, note="no question").sentence() == "b against a: no question."


def test_plain_data_have_all_fields_but_what_the_note_says(open_one: Comparison) -> None:
    facts = replace(open_one, other=open_one).to_json()
    assert set(vars(open_one)) - set(facts) == {"depends_on_missing"}
    assert facts["ci"] == list(open_one.ci or ()) and facts["unmatched"] == [0, 0]
    assert open_one.chance is not None and facts["chance"] == vars(open_one.chance)
    assert facts["other"] == open_one.to_json() and facts["other"]["other"] is None


def test_numbers_for_people() -> None:
    assert [show_p(p) for p in (None, 0.0, 0.00009, 0.0001, 0.00999, 0.01, 1.0)] == [
        "-",
        "< .0001",
        "< .0001",
        "0.0001",
        "0.0100",
        "0.010",
        "1.000",
    ]
    assert [say_p(p) for p in (None, 0.00009, 0.0001, 0.5)] == ["no p", "p < .0001", "p = 0.0001", "p = 0.500"]
    assert [show_level(level) for level in (0.95, 0.9916666, 0.9)] == ["95%", "99.17%", "90%"]
    assert [amount(0.125, "accuracy"), amount(-0.125, "accuracy", signed=True)] == ["12.5 points", "-12.5 points"]
    assert [amount(0.125, "tokens"), amount(12.5, "tokens", signed=True)] == ["0.1 tokens", "+12.5 tokens"]
