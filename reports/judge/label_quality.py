"""The quality of pseudo-labels: right or wrong against the hidden truth, by confidence, and between labelers.

    for quality in label_quality(connection, ["quickstart/noisy_student/seed42"]): ...
    for pair in labeler_agreement(connection, run_names): ...

A label set is the outcome of one label stage, however many runs were trained on it. `voted` questions have a label,
`kept` ones go into training. Accuracies, curve and calibration count labels whose truth is known (None where there
are none); coverage counts all questions, labelled or not. Ties in confidence stay together everywhere.

Limits: two labels count as agreeing where their normal forms are the same text or both are right, so two wrong labels
that a lenient verifier would call equal (1/2 and 0.5 under `math`) count as disagreeing. Known truth is taken to
be a fair sample of all: where only easy questions have an answer, accuracy is that of easy questions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from nsd.reports import stats

if TYPE_CHECKING:
    import duckdb

MOST_DISTINCT = 20  # up to here each confidence is a calibration bin of its own: k votes have at most k values
EQUAL_COUNT_BINS = 15  # as many as Guo et al. 2017 use


class ConfidenceBar(NamedTuple):
    """A bar of the histogram: confidence to three places, questions, share of known labels right."""

    confidence: float
    questions: int
    right: float | None


class CoveragePoint(NamedTuple):
    """The `n` labels of at least this confidence: their share of all questions, and the share of them right."""

    confidence: float
    coverage: float
    accuracy: float | None
    n: int


class CalibrationBin(NamedTuple):
    """`n` labels of known truth: mean confidence, share right, and the Wilson 95 % interval of that share."""

    confidence: float
    accuracy: float
    n: int
    low: float
    high: float


class ConfidenceTally(NamedTuple):
    """The labels of one confidence: how many, of how many the truth is known, how many of those are right."""

    confidence: float
    labels: int
    known: int
    right: int


class StoppedVotes(NamedTuple):
    """How many votes stopped early, and how many samples all of them saw, of how many at most."""

    questions: int
    seen: int
    at_most: int

    def sentence(self) -> str:
        """What of confidence can be said of them."""
        return (
            f"{self.questions} votes stopped early, after {self.seen} of {self.at_most} samples in all: a confidence "
            "is a range there, and no curve is drawn; an arm without stop_vote draws the rest and has one"
        )


@dataclass(frozen=True)
class LabelQuality:
    """One set of pseudo-labels. Shares are in [0, 1]; `known` counts the voted labels whose truth is known.

    `risk_coverage` goes from the highest confidence down, so coverage rises (El-Yaniv and Wiener 2010);
    `calibration` goes from the lowest up. Of votes that may stop early (`stopped`) there is nothing by confidence.
    """

    label_digest: str
    conditions: list[str]
    questions: int
    voted: int
    kept: int
    coverage: float
    accuracy_voted: float | None
    accuracy_kept: float | None
    histogram: list[ConfidenceBar]
    risk_coverage: list[CoveragePoint]
    calibration: list[CalibrationBin]
    expected_calibration_error: float | None
    known: int
    known_kept: int
    right_voted: int
    right_kept: int
    runs: list[str]
    stopped: StoppedVotes | None = None


@dataclass(frozen=True)
class Agreement:
    """Two label sets over the questions that both were given.

    `agree` is the share of the `both_voted` questions on which their labels agree. The four counts of right and
    wrong are over shared questions of known truth, where no label is not right. `kappa` is Cohen's kappa of right and
    wrong, the error consistency of Geirhos et al. 2020 (arXiv 2006.16736, eq. 1-3): 0 where the two err on the
    same questions as often as chance has it at their accuracies, 1 where on exactly the same; None where undefined.
    There is no kappa of the label texts: with free answers chance agreement is nearly zero, so it would repeat
    `agree`, and its model of chance, one distribution of answers for all questions, fits no set of problems.
    """

    a: list[str]
    b: list[str]
    shared: int
    both_voted: int
    agree: float | None
    both_right: int
    only_a_right: int
    only_b_right: int
    neither_right: int
    kappa: float | None
    both_kept: int
    only_a_kept: int
    only_b_kept: int
    a_digest: str
    b_digest: str
    a_runs: list[str]
    b_runs: list[str]
    note: str


# --------------------------------------------------------------------------- pure parts


def risk_coverage(tallies: Iterable[ConfidenceTally], questions: int) -> list[CoveragePoint]:
    """For every confidence that occurs: coverage and accuracy of the labels with at least that much.

    `questions` is the number of all questions, those without a label included. [] where there is no label.
    """
    points: list[CoveragePoint] = []
    labels = known = right = 0
    for tally in sorted(tallies, reverse=True):
        if tally.labels == 0:
            continue
        labels, known, right = labels + tally.labels, known + tally.known, right + tally.right
        points.append(CoveragePoint(tally.confidence, labels / questions, right / known if known else None, labels))
    return points


def calibration(tallies: Iterable[ConfidenceTally]) -> list[CalibrationBin]:
    """Confidence against accuracy: a bin for each confidence up to 20 of them, else 15 bins of about equal count.

    Equal-count bins follow Naeini et al. 2015; labels of one confidence are never parted, so counts differ where
    ties are many. [] where no truth is known.
    """
    known = sorted(tally for tally in tallies if tally.known)
    groups: list[list[ConfidenceTally]] = [[tally] for tally in known]
    if len(known) > MOST_DISTINCT:
        total, before = sum(tally.known for tally in known), 0
        binned: dict[int, list[ConfidenceTally]] = {}
        for tally in known:
            # A confidence goes where the middle of its labels falls.
            middle = before + tally.known / 2
            binned.setdefault(int(middle * EQUAL_COUNT_BINS / total), []).append(tally)
            before += tally.known
        groups = list(binned.values())
    return [_bin(group) for group in groups]


def _bin(group: Sequence[ConfidenceTally]) -> CalibrationBin:
    n, right = sum(tally.known for tally in group), sum(tally.right for tally in group)
    interval = stats.wilson(right, n)
    assert interval is not None  # no bin is empty
    # One value's mean is that value: dividing a product would leave it by a rounding error.
    mean = group[0].confidence if len(group) == 1 else sum(t.confidence * t.known for t in group) / n
    return CalibrationBin(mean, right / n, n, interval.low, interval.high)


def expected_calibration_error(bins: Sequence[CalibrationBin]) -> float | None:
    """Mean distance of accuracy from confidence, weighted by count (Naeini et al. 2015; Guo et al. 2017, eq. 3).

    None without bins. It cannot be negative, so noise in small bins pushes it up: a perfectly calibrated labeler
    has an error above zero too.
    """
    n = sum(one.n for one in bins)
    return sum(one.n * abs(one.accuracy - one.confidence) for one in bins) / n if n else None


def cohens_kappa(both: int, only_a: int, only_b: int, neither: int) -> float | None:
    """Cohen 1960: agreement of two yes/no judgements beyond chance; None where chance alone would agree always."""
    n = both + only_a + only_b + neither
    yes_a, yes_b = both + only_a, both + only_b
    by_chance = yes_a * yes_b + (n - yes_a) * (n - yes_b)  # times n squared, in whole numbers: no rounding
    return None if by_chance == n * n else (n * (both + neither) - by_chance) / (n * n - by_chance)


# --------------------------------------------------------------------------- from the index

LABEL_SETS_SQL = """
SELECT r.label_digest, list(DISTINCT r.condition ORDER BY r.condition), list(r.run ORDER BY r.run),
       list(DISTINCT r.experiment), list(DISTINCT r.seed)
FROM current_runs r WHERE r.run IN (SELECT unnest(?::TEXT[])) AND r.label_digest IN (SELECT label_digest FROM labels)
  AND NOT coalesce(r.beside, false)  -- the same labels again
GROUP BY 1 ORDER BY 2, 3
"""
# A third party's labeler may give no finite confidence: such labels count, but stand on no curve.
TALLIES_SQL = """
SELECT label_digest, sure, round(sure, 3), count(*), count(label), count(*) FILTER (WHERE kept),
       count(correct) FILTER (WHERE label IS NOT NULL), count(*) FILTER (WHERE correct AND label IS NOT NULL),
       count(correct) FILTER (WHERE kept), count(*) FILTER (WHERE correct AND kept)
FROM (SELECT *, CASE WHEN isfinite(confidence) THEN confidence END AS sure FROM labels
      WHERE label_digest IN (SELECT unnest(?::TEXT[]))) GROUP BY 1, 2, 3 ORDER BY 1, 2
"""
AGREEMENT_SQL = """
SELECT p.a, p.b, count(*), count(*) FILTER (WHERE la.label IS NOT NULL AND lb.label IS NOT NULL),
       count(*) FILTER (WHERE la.label = lb.label OR (la.label IS NOT NULL AND la.correct AND lb.correct)),
       count(*) FILTER (WHERE la.correct AND lb.correct), count(*) FILTER (WHERE la.correct AND NOT lb.correct),
       count(*) FILTER (WHERE NOT la.correct AND lb.correct), count(*) FILTER (WHERE NOT la.correct AND NOT lb.correct),
       count(*) FILTER (WHERE la.kept AND lb.kept), count(*) FILTER (WHERE la.kept AND NOT lb.kept),
       count(*) FILTER (WHERE NOT la.kept AND lb.kept)
FROM (SELECT unnest(?::TEXT[]) AS a, unnest(?::TEXT[]) AS b) p
JOIN labels la ON la.label_digest = p.a
JOIN labels lb ON lb.label_digest = p.b AND lb.question_id = la.question_id
GROUP BY 1, 2
"""
STOPPED_SQL = """
SELECT digest, json_extract(manifest, '$.labels.stopped_early')::BIGINT,
       json_extract(manifest, '$.labels.samples_seen')::BIGINT,
       json_extract(manifest, '$.labels.samples_at_most')::BIGINT
FROM stages WHERE kind = 'label' AND digest IN (SELECT unnest(?::TEXT[]))
"""
SAMPLES_SQL = """
SELECT digest, json_extract_string(manifest, '$.inputs.samples')
FROM stages WHERE kind = 'label' AND digest IN (SELECT unnest(?::TEXT[]))
"""


@dataclass(frozen=True)
class _LabelSet:
    digest: str
    conditions: list[str]
    runs: list[str]
    experiments: set[str]
    seeds: set[int]


def _label_sets(connection: duckdb.DuckDBPyConnection, runs: Sequence[str]) -> list[_LabelSet]:
    rows = connection.execute(LABEL_SETS_SQL, [list(runs)]).fetchall()
    return [
        _LabelSet(digest, [str(name) for name in conditions], names, set(experiments), set(seeds))
        for digest, conditions, names, experiments, seeds in rows
    ]


def label_quality(connection: duckdb.DuckDBPyConnection, runs: Sequence[str]) -> list[LabelQuality]:
    """One for each set of pseudo-labels that these runs were trained on, by condition then run."""
    sets = _label_sets(connection, runs)
    rows: dict[str, list[tuple[float | None, float | None, list[int]]]] = {one.digest: [] for one in sets}
    for digest, confidence, rounded, *counts in connection.execute(TALLIES_SQL, [list(rows)]).fetchall():
        rows[digest].append((confidence, rounded, counts))
    early = {
        digest: StoppedVotes(*counts)
        for digest, *counts in connection.execute(STOPPED_SQL, [list(rows)]).fetchall()
        if None not in counts
    }
    return [_quality(one, rows[one.digest], early.get(one.digest)) for one in sets]


def _quality(
    labels: _LabelSet, rows: Sequence[tuple[float | None, float | None, list[int]]], stopped: StoppedVotes | None
) -> LabelQuality:
    questions, voted, kept, known, right, known_kept, right_kept = (
        sum(column) for column in zip(*(counts for _, _, counts in rows), strict=True)
    )
    if stopped is not None:
        rows = []
    bars: dict[float, tuple[int, int, int]] = {}
    for _, rounded, counts in rows:
        if rounded is not None:
            so_far = bars.get(rounded, (0, 0, 0))
            bars[rounded] = (so_far[0] + counts[0], so_far[1] + counts[3], so_far[2] + counts[4])
    tallies = [
        ConfidenceTally(confidence, counts[1], counts[3], counts[4])
        for confidence, _, counts in rows
        if confidence is not None
    ]
    bins = calibration(tallies)
    return LabelQuality(
        label_digest=labels.digest,
        conditions=labels.conditions,
        questions=questions,
        voted=voted,
        kept=kept,
        coverage=kept / questions,
        accuracy_voted=right / known if known else None,
        accuracy_kept=right_kept / known_kept if known_kept else None,
        histogram=[ConfidenceBar(c, n, hits / seen if seen else None) for c, (n, seen, hits) in sorted(bars.items())],
        risk_coverage=risk_coverage(tallies, questions),
        calibration=bins,
        expected_calibration_error=expected_calibration_error(bins),
        known=known,
        known_kept=known_kept,
        right_voted=right,
        right_kept=right_kept,
        runs=labels.runs,
        stopped=stopped,
    )


def labeler_agreement(connection: duckdb.DuckDBPyConnection, runs: Sequence[str]) -> list[Agreement]:
    """How label sets of the same experiment agree: those of one seed pair by pair, and one condition's over its seeds.

    Sets without a question in common have `shared` 0 and a note.
    """
    sets = _label_sets(connection, runs)
    pairs = [
        (a, b)
        for i, a in enumerate(sets)
        for b in sets[i + 1 :]
        if a.experiments & b.experiments and (a.seeds & b.seeds or a.conditions == b.conditions)
    ]
    digests = [one.digest for one in sets]
    samples = dict(connection.execute(SAMPLES_SQL, [digests]).fetchall())
    wanted = [[a.digest for a, _ in pairs], [b.digest for _, b in pairs]]
    counts = {(a, b): found for a, b, *found in connection.execute(AGREEMENT_SQL, wanted).fetchall()}
    return [_agreement(a, b, counts.get((a.digest, b.digest), [0] * 10), samples) for a, b in pairs]


def _agreement(a: _LabelSet, b: _LabelSet, counts: Sequence[int], samples: Mapping[str, str | None]) -> Agreement:
    shared, both_voted, agreeing, both, only_a, only_b, neither, both_kept, kept_a, kept_b = counts
    kappa = cohens_kappa(both, only_a, only_b, neither)
    note = ""
    if shared == 0:
        note = "no question in common"
    elif samples.get(a.digest) is not None and samples.get(a.digest) == samples.get(b.digest):
        note = "labels from the same samples: agreement says nothing here, what is kept may differ"
    elif both + only_a + only_b + neither == 0:
        note = "the truth is known for no shared question"
    elif kappa is None:
        note = "both have every label right, or every one wrong: consistency of errors is not defined"
    return Agreement(
        a=a.conditions,
        b=b.conditions,
        shared=shared,
        both_voted=both_voted,
        agree=agreeing / both_voted if both_voted else None,
        both_right=both,
        only_a_right=only_a,
        only_b_right=only_b,
        neither_right=neither,
        kappa=kappa,
        both_kept=both_kept,
        only_a_kept=kept_a,
        only_b_kept=kept_b,
        a_digest=a.digest,
        b_digest=b.digest,
        a_runs=a.runs,
        b_runs=b.runs,
        note=note,
    )
