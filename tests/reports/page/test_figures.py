"""What single faults planted by hand in the numbers behind an answer got past."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest

import closed_forms
from nsd.plugins.errors import InputError
from nsd.reports import stats
from nsd.reports.judge.arms import summarise_arms
from nsd.reports.judge.compare import compare_runs
from nsd.reports.judge.label_quality import label_quality
from nsd.reports.judge.metrics import values_sql
from nsd.reports.judge.noise import noise_floor, noise_sentence
from nsd.reports.judge.power import Claimed, Design
from nsd.reports.judge.runs import condition_arms
from nsd.reports.judge.spread import MOST_OTHERS
from toy_designs import one
from toy_repeats import RUN, with_repeats
from toy_results import Results, table_runs, verdicts


@pytest.fixture
def results() -> Results:
    return Results()


# --------------------------------------------------------------------------- tests and intervals


def test_a_two_level_variance_is_never_less_than_its_larger_part() -> None:
    # The residual outweighs what it is taken from: the sum of the parts would be below either of them.
    a, b = np.array([[1, 0, 1, 0], [0, 1, 0, 1.0]]), np.array([[1, 1, 0, 0], [0, 0, 1, 0.0]])
    questions = float((b.mean(axis=0) - a.mean(axis=0)).var(ddof=1)) / 4
    seeds = sum(float(arm.mean(axis=1).var(ddof=1)) / 2 for arm in (a, b))
    found = stats.two_level(a, b)
    assert found.standard_error is not None
    assert found.standard_error**2 == pytest.approx(max(questions, seeds))


@pytest.mark.parametrize("alpha", [0.05, 0.01])
def test_the_interval_of_a_margin_test_has_the_level_of_two_alphas(alpha: float) -> None:
    paired = stats.margin_test_paired(12, 8, 200, 0.05, both_sides=True, alpha=alpha).interval
    assert paired == stats.tango_interval(12, 8, 200, 1 - 2 * alpha)
    unpaired = stats.margin_test_unpaired(60, 100, 62, 100, 0.05, both_sides=True, alpha=alpha).interval
    assert unpaired == stats.newcombe_unpaired(60, 100, 62, 100, 1 - 2 * alpha)


# --------------------------------------------------------------------------- pairs


def test_an_arms_own_lost_answers_move_the_difference_its_own_way(results: Results) -> None:
    # Four wrong answers of a were cut: a could be .1 better, b not.
    results.add("a", [1.0] * 20 + [0.0] * 20, truncated=[f"q{i}" for i in range(36, 40)])
    results.add("b", [1.0] * 24 + [0.0] * 16)
    (found,) = compare_runs(results.connection, ["a", "b"])
    assert found.bounds == pytest.approx((0.0, 0.1))


def test_a_cut_answer_that_is_right_has_nothing_to_gain(results: Results) -> None:
    results.add("a", [1.0] * 20 + [0.0] * 20, truncated=["q0", "q1"])
    results.add("b", [1.0] * 24 + [0.0] * 16)
    (found,) = compare_runs(results.connection, ["a", "b"])
    assert found.bounds is None and found.truncated == (0.05, 0.0)


def test_a_vote_can_gain_its_whole_question_from_one_cut_sample(results: Results) -> None:
    for run in ("a", "b"):
        results.add(run, [1.0] * 5 + [0.0] * 5, metric="maj@4", samples=4)
        rows = [(f"eval-{run}", f"q{i}", j, 0.0, False, "1", "stop", 9) for i in range(10) for j in range(1, 4)]
        results.connection.executemany("INSERT INTO eval_samples VALUES (?,?,?,?,?,?,?,?)", rows)
    results.connection.execute(
        "UPDATE eval_samples SET stop_reason = 'length' WHERE eval_digest = 'eval-b' AND question_id = 'q9' "
        "AND sample = 2"
    )
    (found,) = compare_runs(results.connection, ["a", "b"])
    assert found.bounds == pytest.approx((0.0, 0.1))


def test_what_a_pair_could_find_counts_its_discordant_questions(results: Results) -> None:
    table_runs(results, "a", "b", 50, 10, 30, 10)
    (found,) = compare_runs(results.connection, ["a", "b"])
    # Discordance .4: (1.95996 sqrt(.4) + .84162 sqrt(.4 - .173^2)) / 10 for many questions; these are a hundred
    assert found.detectable == pytest.approx(0.1752, rel=0.03)


def test_an_arms_own_interval_has_the_level_asked_for(results: Results) -> None:
    table_runs(results, "a", "b", 50, 10, 30, 10)
    (found,) = compare_runs(results.connection, ["a", "b"], alpha=0.2)
    exact = stats.exact_binomial(60, 100, 0.8)
    assert exact is not None and found.ci_a == (exact.low, exact.high)


@pytest.mark.parametrize("differs", ["data", "verifier", "metric"])
def test_what_was_measured_otherwise_is_not_compared_unforced(results: Results, differs: str) -> None:
    changed: dict[str, Any] = {differs: "another"}
    results.add("a", [1.0, 0.0] * 10)
    results.add("b", [1.0, 1.0] * 10, **changed)
    with pytest.raises(InputError, match=rf"measured with different {differs}"):
        compare_runs(results.connection, ["a", "b"])
    (forced,) = compare_runs(results.connection, ["a", "b"], force=True)
    assert forced.forced and "FORCED in spite of" in forced.note


def test_a_named_pairing_of_seeds_needs_as_many_in_both_arms(results: Results) -> None:
    for seed in (1, 2, 3):
        results.add(f"s/a/seed{seed}", [1.0] * (20 + seed) + [0.0] * (20 - seed))
        if seed < 3:
            results.add(f"s/b/seed{seed}", [1.0] * (25 + seed) + [0.0] * (15 - seed))
    with pytest.raises(InputError, match="the same training seeds in both arms"):
        compare_runs(results.connection, ["s"], test="seeds-paired")


def test_very_many_sampled_questions_are_tested_by_t(results: Results) -> None:
    draw = np.random.default_rng(0)
    for run in ("a", "b"):
        results.add(run, (draw.integers(0, 5, 5001) / 4).tolist(), samples=4, metric="avg@4")
    (found,) = compare_runs(results.connection, ["a", "b"])
    assert found.test == "paired t on question means" and "more than 5000 questions" in found.because


def test_a_glob_says_which_runs_it_passed_over(results: Results) -> None:
    results.add("s/a/seed1", [1.0, 0.0] * 10)
    results.add("s/b/seed1", [1.0, 1.0] * 10)
    results.add("s/c/seed1", None, status="failed")
    (found,) = compare_runs(results.connection, ["s/*"])
    assert "passed over: s/c/seed1 has no result yet (failed)" in found.note


# --------------------------------------------------------------------------- votes, spreads, arms


def test_a_vote_is_as_right_as_the_first_sample_that_gave_the_winner(results: Results) -> None:
    results.add("a", [0.0], samples=3, metric="maj@3")
    results.connection.execute("DELETE FROM eval_samples")
    rows = [("eval-a", "q0", sample, 0.0, right, "7", "stop", 9) for sample, right in enumerate((False, True, True))]
    results.connection.executemany("INSERT INTO eval_samples VALUES (?,?,?,?,?,?,?,?)", rows)
    sql = values_sql(results.connection, "maj@3", ["eval-a"])
    assert results.connection.execute(f"SELECT value FROM ({sql})").fetchall() == [(0,)]


def test_a_tied_vote_goes_to_the_answer_seen_first_whatever_its_text(results: Results) -> None:
    results.add("a", [0.0] * 40, samples=2, metric="maj@2")
    results.connection.execute("DELETE FROM eval_samples")
    rows = [
        ("eval-a", f"q{i}", sample, 0.0, sample == 0, str(97 * i % 40 if sample else 53 * i % 41 + 50), "stop", 9)
        for i in range(40)
        for sample in (1, 0)
    ]
    results.connection.executemany("INSERT INTO eval_samples VALUES (?,?,?,?,?,?,?,?)", rows)
    sql = values_sql(results.connection, "maj@2", ["eval-a"])
    assert results.connection.execute(f"SELECT sum(value) FROM ({sql})").fetchall() == [(40,)]


@pytest.mark.parametrize(("kind", "power"), [("not_worse_by", 0.8), ("equivalent_within", 0.9)])
def test_an_undecided_margin_claim_on_questions_names_how_many(results: Results, kind: str, power: float) -> None:
    table_runs(results, "s/a/seed1", "s/b/seed1", 50, 12, 8, 30)
    claim = {"text": "b as a", "kind": kind, "better": "b", "worse": "a", "margin": 0.02}
    (found,) = verdicts(results, {"alpha": 0.05, "correction": "none", "claims": [claim]})
    assert found.verdict == "UNRESOLVED" and found.comparison is not None
    # Discordance .2, difference -.04; one-sided at .05 is two-sided at .1.
    assert found.comparison.needed_n == pytest.approx(
        closed_forms.sample_size(0.02, 0.2, alpha=0.1, power=power), rel=0.01
    )


def test_recordings_say_nothing_of_the_spread_over_training_seeds(results: Results) -> None:
    for seed in (1, 2, 3):
        results.add(f"toy/a/seed{seed}", [1.0] * (20 * seed) + [0.0] * 40, temperature=0.7, engine="replay")
        results.connection.execute(  # each seed reads a file of its own
            "UPDATE stages SET manifest = replace(manifest::TEXT, '\"replay\"', ?) WHERE digest = ?",
            [f'"replay", "content": "{seed}"', f"eval-toy/a/seed{seed}"],
        )
    claim = Claimed("b > a", "better", "b", "a", design=Design(100, seeds=3))
    found = one(claim.design, claim, connection=results.connection, experiment="toy")
    assert found.spread.seed_source.startswith("assumed")


def test_the_interval_of_an_arm_over_seeds_has_the_level_asked_for(results: Results) -> None:
    for seed in (1, 2, 3):
        results.add(f"s/a/seed{seed}", [1.0] * (20 + seed * seed) + [0.0] * (20 - seed * seed))
    names = [f"s/a/seed{seed}" for seed in (1, 2, 3)]
    (narrow,), (wide,) = (summarise_arms(results.connection, names, level) for level in (0.8, 0.99))
    assert narrow.ci is not None and wide.ci is not None
    assert wide.ci[0] < narrow.ci[0] < narrow.ci[1] < wide.ci[1]


def test_a_replayed_arm_is_not_trained_whatever_trained_beside_it(results: Results) -> None:
    results.add("s/a/seed1", [1.0, 0.0], temperature=0.7, engine="replay")
    results.add("s/b/seed1", [1.0, 0.0], temperature=0.7)
    arms = condition_arms(results.connection, "s")
    assert (arms["a"].trained, arms["b"].trained) == (False, True)
    manifest = results.connection.execute("SELECT manifest FROM stages WHERE digest = 'eval-s/a/seed1'").fetchall()
    assert json.loads(manifest[0][0])["key"]["engine"] == {"use": "replay"}


# --------------------------------------------------------------------------- what failed, and what is not known


def test_cut_and_failed_answers_of_an_arm_are_told_apart(results: Results) -> None:
    results.add("s/a/seed1", [1.0] * 10 + [0.0] * 10, truncated=["q19"])
    results.connection.execute("UPDATE eval_samples SET stop_reason = 'error' WHERE question_id IN ('q17', 'q18')")
    (arm,) = summarise_arms(results.connection, ["s/a/seed1"])
    assert (arm.truncated, arm.failed) == (0.05, 0.1)


@pytest.mark.parametrize("metric", ["accuracy", "avg@1", "pass@1", "maj@1", "score"])
def test_a_failed_sample_that_is_stored_as_right_is_right_by_no_metric(results: Results, metric: str) -> None:
    results.add("a", [1.0] * 4)
    results.connection.execute("UPDATE eval_samples SET stop_reason = 'error' WHERE question_id = 'q0'")
    sql = values_sql(results.connection, metric, ["eval-a"])
    found = dict(results.connection.execute(f"SELECT question_id, value FROM ({sql})").fetchall())
    assert [found[f"q{i}"] for i in range(4)] == [0, 1, 1, 1]


def test_lengths_that_were_not_recorded_are_no_lengths(results: Results) -> None:
    for run in ("a", "b"):
        results.add(run, [1.0, 0.0])
    results.connection.execute("UPDATE eval_samples SET tokens = NULL WHERE eval_digest = 'eval-b' AND sample = 0")
    with pytest.raises(InputError, match="tokens were not recorded for every sample"):
        compare_runs(results.connection, ["a", "b"], metric="tokens")


def test_counts_are_compared_with_right_or_wrong_answers_alone(results: Results) -> None:
    results.add_counts("paper", 12, 20)
    results.add("shares", [0.25, 0.75] * 10, samples=4, metric="accuracy")
    with pytest.raises(InputError, match="counts compare with right-or-wrong answers alone"):
        compare_runs(results.connection, ["paper", "shares"])


def test_a_question_without_a_group_is_named(results: Results) -> None:
    for run in ("a", "b"):
        results.add(run, [1.0, 0.0, 1.0])
    with pytest.raises(InputError, match="1 of 3 questions have no group, among them 'q2'"):
        compare_runs(results.connection, ["a", "b"], groups={"q0": "x", "q1": "y"})


def test_labels_of_no_text_are_not_right(results: Results) -> None:
    results.add_labels("L", [("1", 1.0, True, True), (None, 0.0, False, True), ("2", 0.5, True, None)])
    results.add("s/a/seed1", None, label="L", status="running")
    (found,) = label_quality(results.connection, ["s/a/seed1"])
    assert (found.known, found.right_voted, found.accuracy_voted) == (1, 1, 1.0)
    assert (found.known_kept, found.right_kept, found.accuracy_kept, found.kept) == (1, 1, 1.0, 2)


def test_seeds_left_out_of_a_claim_are_said(results: Results) -> None:
    results.add("s/a/seed1", [1.0] * 20 + [0.0] * 20)
    for seed in (1, 2):
        results.add(f"s/b/seed{seed}", [1.0] * (24 + seed) + [0.0] * (16 - seed))
    claim = {"text": "b > a", "kind": "better", "better": "b", "worse": "a", "margin": None}
    (found,) = verdicts(results, {"alpha": 0.05, "correction": "none", "claims": [claim]})
    assert found.about == "this checkpoint (seed 1)"
    assert "a has one seed only, so the other seeds are left out" in found.note


@pytest.mark.parametrize(("trained", "p"), [((True, True), 2 / 252), ((True, False), 2 / 2**5)])
def test_the_smallest_p_is_of_signs_where_one_arm_is_not_trained(trained: tuple[bool, bool], p: float) -> None:
    claim = Claimed("b > a", "better", "b", "a", design=Design(100, seeds=5, trained=trained))
    assert one(claim.design, claim).smallest_p == pytest.approx(p)


def test_of_other_runs_the_newest_are_learned_from(results: Results) -> None:
    for i in range(MOST_OTHERS + 2):  # the two oldest differ from all, the newest never differ
        results.add(f"e{i:02d}/a/seed1", [1.0] * 50 + [0.0] * 50 if i > 1 else [0.0, 1.0] * 50)
    claim = Claimed("b > a", "better", "b", "a", design=Design(100, data_hash="data"))
    found = one(claim.design, claim, connection=results.connection, experiment="mine")
    assert found.spread.source.startswith("assumed")


def test_equivalence_of_many_pairs_is_corrected_for_their_number(results: Results) -> None:
    for name, shift in (("a", 0), ("b", 4), ("c", 8)):
        right = [1.0] * 60 + [0.0] * 40
        results.add(name, right[shift:] + right[:shift])
    for one_pair in compare_runs(results.connection, ["a", "b", "c"], margin=0.1, correction="bonferroni"):
        found = re.search(r"TOST equivalence \(Tango score\), p = ([\d.]+), adjusted p = ([\d.]+)", one_pair.note)
        assert found is not None, one_pair.note
        assert float(found[2]) == pytest.approx(min(1.0, 3 * float(found[1])), abs=0.002)
        assert (one_pair.verdict == "EQUIVALENT") == (float(found[2]) < 0.05)


def test_runs_of_the_same_seed_are_what_a_spread_is_learned_from(results: Results) -> None:
    for seed, base in ((1, [1.0] * 50 + [0.0] * 50), (2, [0.0] * 50 + [1.0] * 50)):
        results.add(f"toy/a/seed{seed}", base)
        results.add(f"toy/b/seed{seed}", [1 - one for one in base[:10]] + base[10:])
    claim = Claimed("b > a", "better", "b", "a", design=Design(100))
    found = one(claim.design, claim, connection=results.connection, experiment="toy").spread
    assert found.variance == 0.1 and "discordance 10.0%, median of 2 pairs" in found.source


def test_copies_do_not_speak_for_the_noise_of_what_is_sampled() -> None:
    sampled, greedy = RUN, "toy/greedy/seed1"
    results = with_repeats([1, 0, 0, 0], [0, 0, 0, 0], temperature=0.7)
    with_repeats([1, 1, 1, 0], [0, 0, 0, 0], results=results, run=greedy, temperature=0.0)
    found = noise_floor(results.connection, [sampled, greedy])
    # 1.96 * sqrt(1 discordant question) / 4 questions
    assert noise_sentence(found).startswith("Differences below 49.0 points are within the noise of sampling")


@pytest.mark.parametrize("reason", ["length", "error"])
def test_more_cut_or_failed_answers_are_neither_better_nor_worse(results: Results, reason: str) -> None:
    for run in ("a", "b"):
        results.add(run, [0.0] * 40)
    results.connection.execute("UPDATE eval_samples SET stop_reason = ? WHERE eval_digest = 'eval-b'", [reason])
    metric = {"length": "truncated", "error": "failed"}[reason]
    (found,) = compare_runs(results.connection, ["a", "b"], metric=metric)
    assert (found.difference, found.verdict) == (1.0, "HIGHER")


def test_of_an_untrained_arm_that_was_drawn_more_often_as_many_draws_count(results: Results) -> None:
    for seed, right in enumerate((10, 12, 30, 30), 1):
        results.add(f"s/a/seed{seed}", [1.0] * right + [0.0] * (40 - right), trained=False, temperature=0.7)
    for seed in (1, 2):
        results.add(f"s/b/seed{seed}", [1.0] * 20 + [0.0] * 20, trained=False, temperature=0.7)
    claim = {"text": "b > a", "kind": "better", "better": "b", "worse": "a", "margin": None}
    (found,) = verdicts(results, {"alpha": 0.05, "correction": "none", "claims": [claim]})
    assert found.comparison is not None and found.comparison.mean_a == pytest.approx(11 / 40)
    assert "a was sampled more often: only 2 of its evaluations count" in found.note
