"""Quality of pseudo-labels: curve, calibration, agreement, each against a toy counted by hand."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from nsd.reports import stats
from nsd.reports.judge.label_quality import (
    EQUAL_COUNT_BINS,
    Agreement,
    CalibrationBin,
    ConfidenceTally,
    LabelQuality,
    calibration,
    cohens_kappa,
    expected_calibration_error,
    label_quality,
    labeler_agreement,
    risk_coverage,
)
from toy_results import Results

Row = tuple[str | None, float, bool, bool | None]  # label, confidence, kept, right
FIVE: list[Row] = [
    ("1", 1.0, True, True),
    ("2", 0.75, True, True),
    ("3", 0.75, True, False),
    ("4", 0.5, False, True),
    ("5", 0.25, False, False),
]


def quality(rows: list[Row]) -> LabelQuality:
    results = Results()
    results.add_labels("L", rows)
    results.add("s/noisy/seed1", None, label="L", status="running")
    (found,) = label_quality(results.connection, ["s/noisy/seed1"])
    assert "NaN" not in json.dumps(asdict(found))
    return found


def agreement(a: list[Row], b: list[Row]) -> Agreement:
    results = Results()
    for condition, digest, rows in (("one", "A", a), ("two", "B", b)):
        results.add_labels(digest, rows)
        results.add(f"s/{condition}/seed1", None, label=digest)
    (found,) = labeler_agreement(results.connection, ["s/one/seed1", "s/two/seed1"])
    return found


# --------------------------------------------------------------------------- the set and its histogram


def test_pseudo_labels_are_held_against_the_truth() -> None:
    rows: list[Row] = [("1", 1.0, True, True)] * 6 + [("2", 0.5, False, True)] * 2 + [("3", 0.5, False, False)] * 2
    found = quality([*rows, (None, 0.0, False, False)])
    assert (found.questions, found.voted, found.kept) == (11, 10, 6)
    assert (found.accuracy_voted, found.accuracy_kept, found.coverage) == pytest.approx((0.8, 1.0, 6 / 11))
    assert found.histogram == [(0.0, 1, None), (0.5, 4, 0.5), (1.0, 6, 1.0)]


def test_sixteenths_share_no_bar_and_are_rounded_as_printed() -> None:
    assert [bar.confidence for bar in quality([("1", n / 16, True, True) for n in (1, 2, 3)]).histogram] == [
        0.063,
        0.125,
        0.188,
    ]


def test_runs_that_share_a_label_stage_share_one_entry() -> None:
    results = Results()
    results.add_labels("L", FIVE)
    results.add_labels("other", FIVE)
    runs = [results.add(f"s/{name}/seed1", None, label="L") for name in ("b", "a")]
    (found,) = label_quality(results.connection, runs)
    assert (found.conditions, found.runs) == (["a", "b"], ["s/a/seed1", "s/b/seed1"])


def test_runs_without_labels_have_no_entry() -> None:
    results = Results()
    results.add("s/base/seed1", [1.0])
    results.add("s/waiting/seed1", None, label="not there yet")
    assert label_quality(results.connection, ["s/base/seed1", "s/waiting/seed1"]) == []
    assert labeler_agreement(results.connection, ["s/base/seed1", "s/waiting/seed1"]) == []


# --------------------------------------------------------------------------- risk and coverage


def test_the_curve_of_five_labels_keeps_ties_together() -> None:
    assert quality(FIVE).risk_coverage == [
        (1.0, 0.2, 1.0, 1),
        (0.75, 0.6, 2 / 3, 3),
        (0.5, 0.8, 0.75, 4),
        (0.25, 1.0, 0.6, 5),
    ]


def test_a_question_without_a_label_is_never_covered() -> None:
    curve = quality([*FIVE, *[(None, 0.0, False, False)] * 5]).risk_coverage  # type: ignore[list-item]
    assert [point.coverage for point in curve] == [0.1, 0.3, 0.4, 0.5]
    assert curve[-1].accuracy == 0.6


def test_labels_of_unknown_truth_count_for_coverage_alone() -> None:
    found = quality([*FIVE[:2], ("9", 0.75, True, None), ("9", 0.5, False, None)])
    assert found.risk_coverage == [(1.0, 0.25, 1.0, 1), (0.75, 0.75, 1.0, 3), (0.5, 1.0, 1.0, 4)]
    assert (found.known, found.accuracy_voted, found.known_kept) == (2, 1.0, 2)


def test_the_end_of_the_curve_is_the_accuracy_of_all_labels() -> None:
    tallies = [ConfidenceTally(i / 7, 10 + i, 9, i) for i in range(8)]
    last = risk_coverage(tallies, 200)[-1]
    assert (last.n, last.coverage, last.accuracy) == (108, 108 / 200, 28 / 72)


# --------------------------------------------------------------------------- calibration


def test_up_to_twenty_confidences_each_have_a_bin_with_wilsons_interval() -> None:
    wilson = stats.wilson(1, 2)
    assert wilson is not None
    assert quality(FIVE).calibration[2] == (0.75, 0.5, 2, wilson.low, wilson.high)
    assert [one.n for one in quality(FIVE).calibration] == [1, 1, 2, 1]


def test_the_calibration_error_is_the_weighted_gap() -> None:
    """.25: one label, none right, gap .25. .5: one, right, .5. .75: two, half right, .25. 1: one, right, 0."""
    assert quality(FIVE).expected_calibration_error == pytest.approx((0.25 + 0.5 + 2 * 0.25 + 0) / 5)


def test_no_label_is_no_miscalibrated_label() -> None:
    bare = quality([("1", 1.0, True, True), (None, 0.0, False, False)])
    assert bare.expected_calibration_error == 0.0 and len(bare.calibration) == 1


def test_many_confidences_come_in_bins_of_about_equal_count() -> None:
    bins = calibration([ConfidenceTally(i / 3000, 1, 1, i % 2) for i in range(3000)])
    assert [one.n for one in bins] == [200] * EQUAL_COUNT_BINS
    assert bins[0].confidence == pytest.approx(199 / 2 / 3000) and bins[0].accuracy == 0.5


def test_equal_count_bins_never_part_a_tie() -> None:
    tallies = [ConfidenceTally(i / 100, 1, 1, 1) for i in range(90)] + [ConfidenceTally(1.0, 910, 910, 900)]
    bins = calibration(tallies)
    assert bins[-1].n == 910 and bins[-1].confidence == 1.0
    assert sum(one.n for one in bins) == 1000


def test_a_confidence_goes_into_the_bin_where_the_middle_of_its_labels_falls() -> None:
    # 150 labels of known truth, ten a bin. The large ones span 5 to 17 and 60 to 90: middles 11 and 75.
    counts = [1] * 5 + [12] + [1] * 43 + [30] + [1] * 60
    bins = calibration([ConfidenceTally(i / 1000, 2 * n, n, 0) for i, n in enumerate(counts)])
    assert sum(counts) == 150
    assert [one.n for one in bins] == [5, 15, *[10] * 4, 30, *[10] * 6]
    assert bins[1].confidence == pytest.approx((12 * 5 + 6 + 7 + 8) / 15 / 1000)


def test_the_error_weights_bins_by_their_labels() -> None:
    bins = [CalibrationBin(0.9, 0.8, 30, 0, 1), CalibrationBin(0.2, 0.5, 10, 0, 1)]
    assert expected_calibration_error(bins) == pytest.approx((30 * 0.1 + 10 * 0.3) / 40)
    assert expected_calibration_error([]) is None


# --------------------------------------------------------------------------- degenerate sets


def test_labels_without_known_truth_have_coverage_and_no_accuracy() -> None:
    found = quality([("1", 1.0, True, None), ("1", 1.0, True, None), ("1", 0.5, False, None)])
    assert (found.accuracy_voted, found.accuracy_kept, found.expected_calibration_error) == (None, None, None)
    assert found.histogram == [(0.5, 1, None), (1.0, 2, None)] and found.calibration == []
    assert found.risk_coverage == [(1.0, 2 / 3, None, 2), (0.5, 1.0, None, 3)]


def test_all_right_at_full_confidence_is_perfect() -> None:
    found = quality([("1", 1.0, True, True)] * 4)
    assert found.risk_coverage == [(1.0, 1.0, 1.0, 4)] and found.expected_calibration_error == 0.0
    assert found.calibration[0].high == 1.0


def test_nothing_voted_has_no_curve() -> None:
    found = quality([(None, 0.0, False, False)] * 3)
    assert (found.voted, found.kept, found.coverage, found.accuracy_voted) == (0, 0, 0.0, None)
    assert (found.risk_coverage, found.calibration, found.expected_calibration_error) == ([], [], None)


def test_one_label_is_a_curve_of_one_point() -> None:
    found = quality([("1", 0.5, True, False)])
    assert found.risk_coverage == [(0.5, 1.0, 0.0, 1)] and found.expected_calibration_error == 0.5


@pytest.mark.parametrize("confidence", [float("nan"), float("inf")])
def test_a_label_without_a_finite_confidence_counts_but_stands_on_no_curve(confidence: float) -> None:
    results = Results()
    results.add_labels("L", FIVE)
    row = ["L", "u9", "7", confidence, 0, 8, True, True]
    results.connection.execute("INSERT INTO labels VALUES (?,?,?,?,?,?,?,?)", row)
    results.add("s/x/seed1", None, label="L")
    (found,) = label_quality(results.connection, ["s/x/seed1"])
    assert (found.questions, found.right_voted, found.right_kept) == (6, 4, 3)
    assert found.risk_coverage[-1].n == 5 and sum(bar.questions for bar in found.histogram) == 5


# --------------------------------------------------------------------------- agreement


def test_agreement_is_counted_over_shared_questions() -> None:
    a: list[Row] = [("1", 1, True, True), ("2", 1, True, True), ("9", 1, True, False), ("8", 1, False, False)]
    b: list[Row] = [("1", 1, True, True), ("7", 1, False, False), ("9", 1, True, False), (None, 0, False, False)]
    found = agreement([*a, ("only a has this", 1, True, True)], b)
    assert (found.shared, found.both_voted, found.agree) == (4, 3, 2 / 3)
    assert (found.both_right, found.only_a_right, found.only_b_right, found.neither_right) == (1, 1, 0, 2)
    assert (found.both_kept, found.only_a_kept, found.only_b_kept) == (2, 1, 0)
    assert (found.a, found.b) == (["one"], ["two"])
    # Right: A 2 of 4, B 1 of 4. Observed agreement 3/4, by chance 1/2 * 1/4 + 1/2 * 3/4 = 1/2.
    assert found.kappa == pytest.approx((3 / 4 - 1 / 2) / (1 - 1 / 2))


def test_two_right_labels_agree_however_they_are_written() -> None:
    assert agreement([("1/2", 1, True, True)], [("0.5", 1, True, True)]).agree == 1.0


def test_agreement_without_known_truth_has_no_kappa() -> None:
    found = agreement([("1", 1, True, None), ("2", 1, True, None)], [("1", 1, True, None), ("3", 1, True, None)])
    assert (found.agree, found.kappa, found.neither_right) == (0.5, None, 0)
    assert found.note == "the truth is known for no shared question"


def test_errors_of_labelers_that_make_none_have_no_consistency() -> None:
    found = agreement([("1", 1, True, True)] * 3, [("1", 1, True, True)] * 3)
    assert found.kappa is None and found.both_right == 3
    assert found.note == "both have every label right, or every one wrong: consistency of errors is not defined"


def test_label_sets_of_other_questions_share_nothing() -> None:
    results = Results()
    for condition, digest, question in (("one", "A", "x"), ("two", "B", "y")):
        results.connection.execute("INSERT INTO labels VALUES (?,?,'1',1,8,8,true,true)", [digest, question])
        results.add(f"s/{condition}/seed1", None, label=digest)
    (found,) = labeler_agreement(results.connection, ["s/one/seed1", "s/two/seed1"])
    assert (found.shared, found.agree, found.kappa, found.note) == (0, None, None, "no question in common")


def test_votes_over_the_same_samples_say_so() -> None:
    results = Results()
    for condition, digest in (("all", "A"), ("filtered", "B")):
        results.add_labels(digest, FIVE)
        results.add(f"s/{condition}/seed1", None, label=digest)
        manifest = '{"inputs": {"samples": "S"}}'
        results.connection.execute(
            "INSERT INTO stages(digest, kind, manifest) VALUES (?, 'label', ?)", [digest, manifest]
        )
    (found,) = labeler_agreement(results.connection, ["s/all/seed1", "s/filtered/seed1"])
    assert found.note == "labels from the same samples: agreement says nothing here, what is kept may differ"


def test_pairs_are_of_one_seed_or_one_condition_and_of_one_experiment() -> None:
    results = Results()
    runs = ["s/one/seed1", "s/two/seed1", "s/one/seed2", "s/two/seed2", "t/one/seed1"]
    for run in runs:
        results.add_labels(run, FIVE)
        results.add(run, None, label=run)
    pairs = {(pair.a_runs[0], pair.b_runs[0]) for pair in labeler_agreement(results.connection, runs)}
    assert pairs == {
        ("s/one/seed1", "s/two/seed1"),
        ("s/one/seed2", "s/two/seed2"),
        ("s/one/seed1", "s/one/seed2"),
        ("s/two/seed1", "s/two/seed2"),
    }


def test_kappa_of_a_worked_example() -> None:
    """Two readers of 50 proposals: 20 both yes, 5 and 10 split, 15 both no: observed .7, by chance .5, kappa .4."""
    assert cohens_kappa(20, 5, 10, 15) == pytest.approx(0.4)
    assert cohens_kappa(5, 0, 0, 5) == 1.0
    assert cohens_kappa(0, 5, 5, 0) == -1.0
    assert cohens_kappa(0, 0, 0, 0) is None
    assert cohens_kappa(0, 1, 0, 0) == 0.0 and cohens_kappa(1, 0, 0, 0) is None


def test_a_label_set_is_told_whole() -> None:
    assert asdict(quality([(None, 0.9, False, False), *FIVE])) == {
        "label_digest": "L",
        "conditions": ["noisy"],
        "questions": 6,
        "voted": 5,
        "kept": 3,
        "coverage": 0.5,
        "accuracy_voted": 0.6,
        "accuracy_kept": 2 / 3,
        "histogram": [(0.25, 1, 0.0), (0.5, 1, 1.0), (0.75, 2, 0.5), (0.9, 1, None), (1.0, 1, 1.0)],
        "risk_coverage": [(1.0, 1 / 6, 1.0, 1), (0.75, 0.5, 2 / 3, 3), (0.5, 4 / 6, 0.75, 4), (0.25, 5 / 6, 0.6, 5)],
        "calibration": [
            (confidence, right / n, n, *limits(right, n))
            for confidence, right, n in ((0.25, 0, 1), (0.5, 1, 1), (0.75, 1, 2), (1.0, 1, 1))
        ],
        "expected_calibration_error": 0.25,
        "known": 5,
        "known_kept": 3,
        "right_voted": 3,
        "right_kept": 2,
        "runs": ["s/noisy/seed1"],
        "stopped": None,
    }


def limits(right: int, n: int) -> tuple[float, float]:
    found = stats.wilson(right, n)
    assert found is not None
    return found.low, found.high


def test_bars_of_one_rounded_confidence_are_one_bar() -> None:
    found = quality([("1", 0.10001, True, True), ("2", 0.10002, True, False), ("3", 0.10003, True, None)])
    assert found.histogram == [(0.1, 3, 0.5)] and len(found.risk_coverage) == 3


@pytest.mark.parametrize("seen", [24, None])
def test_votes_that_stopped_early_have_their_counts_and_nothing_by_confidence(seen: int | None) -> None:
    results = Results()
    results.add_labels("L", FIVE)
    results.add("s/noisy/seed1", None, label="L")
    counts = {"stopped_early": 4, "samples_seen": seen, "samples_at_most": 40}
    results.connection.execute(
        "INSERT INTO stages(digest, kind, manifest) VALUES ('L', 'label', ?)", [json.dumps({"labels": counts})]
    )
    (found,) = label_quality(results.connection, ["s/noisy/seed1"])
    assert (found.questions, found.voted, found.kept, found.right_voted) == (5, 5, 3, 3)
    if seen is None:
        assert found.stopped is None and len(found.risk_coverage) == 4
        return
    assert (found.histogram, found.risk_coverage, found.calibration) == ([], [], [])
    assert found.expected_calibration_error is None and found.stopped is not None
    assert found.stopped.sentence() == (
        "4 votes stopped early, after 24 of 40 samples in all: a confidence is a range there, and no curve is drawn; "
        "an arm without stop_vote draws the rest and has one"
    )


def test_label_sets_come_by_condition_and_an_agreement_knows_both() -> None:
    results = Results()
    for condition, digest in (("two", "A"), ("one", "B")):
        results.add_labels(digest, FIVE)
        results.add(f"s/{condition}/seed1", None, label=digest)
    runs = ["s/two/seed1", "s/one/seed1"]
    assert [one.label_digest for one in label_quality(results.connection, runs)] == ["B", "A"]
    (found,) = labeler_agreement(results.connection, runs)
    assert asdict(found) == {
        **{"a": ["one"], "b": ["two"], "a_digest": "B", "b_digest": "A"},
        **{"a_runs": ["s/one/seed1"], "b_runs": ["s/two/seed1"], "shared": 5, "both_voted": 5, "agree": 1.0},
        **{"both_right": 3, "only_a_right": 0, "only_b_right": 0, "neither_right": 2, "kappa": 1.0, "note": ""},
        **{"both_kept": 3, "only_a_kept": 0, "only_b_kept": 0},
    }


def test_what_the_second_labeler_alone_has_right_and_kept_is_counted() -> None:
    a: list[Row] = [("1", 1, True, True), ("2", 1, False, False), ("3", 1, False, False)]
    b: list[Row] = [("1", 1, True, True), ("7", 1, True, True), ("9", 1, True, False)]
    found = agreement(a, b)
    assert (found.both_right, found.only_a_right, found.only_b_right, found.neither_right) == (1, 0, 1, 1)
    assert (found.both_kept, found.only_a_kept, found.only_b_kept, found.agree) == (1, 0, 2, 1 / 3)
