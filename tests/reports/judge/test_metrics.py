"""Other metrics from stored samples, against values worked out by hand."""

from __future__ import annotations

import pytest

from nsd.plugins.errors import InputError
from nsd.reports.judge.compare import compare_runs
from nsd.reports.judge.metrics import values_sql
from toy_results import Results

# One question, four samples: answer, right, tokens.
SAMPLES = [("7", True, 10), ("8", False, 20), ("8", False, 30), (None, False, 60)]


@pytest.fixture
def results() -> Results:
    """Runs a and b: in a every question has SAMPLES, in b every sample is right and 12 tokens long."""
    results = Results()
    for run in ("a", "b"):
        results.add(run, [0.25 if run == "a" else 1.0] * 12, samples=4)
        results.connection.execute("DELETE FROM eval_samples WHERE eval_digest = ?", [f"eval-{run}"])
        for question in range(12):
            for number, (text, right, tokens) in enumerate(SAMPLES):
                row = [text, right, tokens] if run == "a" else ["7", True, 12]
                results.connection.execute(
                    "INSERT INTO eval_samples VALUES (?, ?, ?, 0.5, ?, ?, 'stop', ?)",
                    [f"eval-{run}", f"q{question}", number, row[1], row[0], row[2]],
                )
    return results


@pytest.mark.parametrize(
    ("metric", "value"),
    [
        ("accuracy", 1 / 4),
        ("avg@2", 1 / 2),
        ("pass@1", 1 / 4),
        ("pass@2", 1 - (3 * 2) / (4 * 3)),  # 1 - C(3,2)/C(4,2) = 1/2
        ("pass@4", 1.0),
        ("maj@1", 1.0),
        ("maj@2", 1.0),  # one vote each: the first seen wins
        ("maj@3", 0.0),  # 8 has two votes
        ("maj@4", 0.0),
        ("score", 0.5),
        ("tokens", 30.0),
        ("truncated", 0.0),
    ],
)
def test_a_metric_per_question(results: Results, metric: str, value: float) -> None:
    sql = values_sql(results.connection, metric, ["eval-a"])
    found = results.connection.execute(f"SELECT DISTINCT value FROM ({sql}) WHERE eval_digest = 'eval-a'").fetchall()
    assert [row[0] for row in found] == [pytest.approx(value)]


def test_unanswered_samples_never_win_a_vote(results: Results) -> None:
    results.connection.execute("UPDATE eval_samples SET answer = NULL, correct = false WHERE sample < 3")
    results.connection.execute("UPDATE eval_samples SET answer = '7', correct = true WHERE sample = 3")
    sql = values_sql(results.connection, "maj@4", ["eval-a"])
    assert results.connection.execute(f"SELECT DISTINCT value FROM ({sql})").fetchall() == [(1,)]


def test_votes_of_answers_that_were_not_recorded_are_refused(results: Results) -> None:
    results.connection.execute("UPDATE eval_samples SET answer = NULL WHERE eval_digest = 'eval-b'")
    with pytest.raises(InputError, match="answers were not recorded, so that maj@4 has no votes to count in b: import"):
        compare_runs(results.connection, ["a", "b"], metric="maj@4")
    results.connection.execute("UPDATE eval_samples SET correct = false, score = 0 WHERE eval_digest = 'eval-b'")
    (found,) = compare_runs(results.connection, ["a", "b"], metric="maj@4")
    assert found.mean_b == 0  # a verifier has looked and found no answer
    results.connection.execute("UPDATE eval_info SET verifier_hash = NULL WHERE eval_digest = 'eval-b'")
    with pytest.raises(InputError, match="answers were not recorded"):
        compare_runs(results.connection, ["a", "b"], metric="maj@4")


@pytest.mark.parametrize("metric", ["truncated", "failed"])
def test_shares_of_ends_that_were_not_recorded_are_refused(results: Results, metric: str) -> None:
    results.connection.execute("UPDATE eval_samples SET stop_reason = NULL WHERE eval_digest = 'eval-b'")
    with pytest.raises(InputError, match="why a completion ended was not recorded in b: import them with --finish"):
        compare_runs(results.connection, ["a", "b"], metric=metric)


def test_lengths_are_compared_in_tokens_and_neither_is_better(results: Results) -> None:
    (found,) = compare_runs(results.connection, ["a", "b"], metric="tokens")
    assert (found.metric, found.mean_a, found.mean_b) == ("tokens", 30.0, 12.0)
    assert found.verdict == "LOWER" and "(-18.0 tokens" in found.sentence() and found.bounds is None


def test_more_samples_than_stored_is_an_error_that_says_how_many(results: Results) -> None:
    with pytest.raises(InputError, match=r"pass@8 needs 8 samples per question and 4 are stored.*pass@4"):
        compare_runs(results.connection, ["a", "b"], metric="pass@8")


def test_an_unknown_metric_names_those_there_are(results: Results) -> None:
    with pytest.raises(InputError, match="no metric 'f1': one of accuracy, score, tokens"):
        compare_runs(results.connection, ["a", "b"], metric="f1")


def test_values_without_samples_have_no_other_metric(results: Results) -> None:
    results.connection.execute("DELETE FROM eval_samples WHERE eval_digest = 'eval-b'")
    with pytest.raises(InputError, match="imported without any"):
        compare_runs(results.connection, ["a", "b"], metric="accuracy")
