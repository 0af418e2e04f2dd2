"""Everything a report shows, as plain data: collected once, then rendered as HTML, Markdown, CSV or JSON.

    with Store(workspace).read() as connection:
        data = collect_experiment(connection, workspace, "quickstart")
        data = collect_comparison(connection, workspace, ["gsm/*"])      # runs without a spec: nothing was declared

Nothing is computed here that another module of reports/ computes: this only asks them and puts names in order.

Limits: training curves and provenance are those of the stages that the index holds; completions come from the
artifacts, and a run imported as counts has none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from nsd.plugins.errors import InputError
from nsd.reports.judge.answer import Answer, answer
from nsd.reports.judge.anytime import ANY_LOOK
from nsd.reports.judge.arms import ArmSummary, by_measurement, summarise_arms
from nsd.reports.judge.compare import compare_runs
from nsd.reports.judge.comparison import Comparison
from nsd.reports.judge.cost import StageCost, TotalCost, by_kind, costs, total
from nsd.reports.judge.hypotheses import ClaimVerdict
from nsd.reports.judge.label_quality import Agreement, LabelQuality, label_quality, labeler_agreement
from nsd.reports.judge.metrics import UNITS
from nsd.reports.judge.noise import Noise, noise_floor, noise_sentence
from nsd.reports.judge.pairs import RESAMPLING_SEED
from nsd.reports.judge.readings import not_supported, others_of, readings_of
from nsd.reports.judge.runs import Arm, resolve, run_names
from nsd.reports.judge.searched import Searches, collect_searches
from nsd.reports.judge.subgroups import ByField, by_field_notes
from nsd.reports.judge.verdict import Verdict
from nsd.reports.judge.versions import Version, as_version, current_version, versions_of
from nsd.reports.judge.watched import WatchedTraining
from nsd.reports.page.samples import Samples, collect_samples
from nsd.reports.page.training import (
    Curve,
    Origin,
    StageWarning,
    collect_curves,
    collect_origin,
    collect_trainings,
    collect_warnings,
)
from nsd.reports.text.answer import others_of as others_of_claims
from nsd.reports.text.render import outcome

if TYPE_CHECKING:
    import duckdb

    from nsd.runner.store.shapes import Hypotheses
    from nsd.runner.store.workspace import Workspace

NONE_LISTED = 12  # names listed in a headline before "and N more"


@dataclass(frozen=True)
class Against:
    """A comparison read as "name minus reference": one line of a forest plot."""

    name: str
    reference: str
    difference: float | None
    low: float | None
    high: float | None
    verdict: Verdict
    comparison: Comparison


@dataclass(frozen=True)
class TestUsed:
    """A test, why it was chosen, the interval beside it, and how many comparisons it decided."""

    test: str
    because: str
    interval: str | None
    level: float
    comparisons: int


@dataclass(frozen=True)
class PageLook:
    """A recorded judgement of a pair, with its time to the minute (UTC)."""

    at: str
    a: str
    b: str
    n: int
    p: float | None
    verdict: str
    command: str


@dataclass(frozen=True)
class PageNote:
    """A note about a run or the experiment, with its time to the minute (UTC)."""

    at: str
    run: str
    text: str


@dataclass(frozen=True)
class Family:
    """Tests corrected together."""

    name: str
    size: int
    correction: str
    alpha: float


@dataclass(frozen=True)
class PageData:
    """A report. `answer` is None for a comparison without a spec; then `pairs` holds every pair of the runs.

    `reference` is the arm that a forest plot of many runs is drawn against, and `why_reference` says why that one.
    `arms` are measured by the spec's first evaluation, `beside` by each of the others, by its name.
    `passed_over` are runs without a result; `warnings` are those of stages, by run; `notes` people attached to runs.
    """

    title: str
    question: str | None
    headline: str
    answer: Answer | None
    pairs: list[Comparison]
    reference: str | None
    why_reference: str
    arms: list[ArmSummary]
    curves: list[Curve]
    trainings: list[WatchedTraining]
    warnings: list[StageWarning]
    labels: list[LabelQuality]
    agreements: list[Agreement]
    noise: list[Noise]
    noise_says: str
    stages: list[StageCost]
    cost: TotalCost
    cost_by_kind: dict[str, TotalCost]
    samples: Samples
    families: list[Family]
    tests: list[TestUsed]
    origin: Origin
    spec_yaml: str | None
    spec_digest: str | None
    recorded_at: str | None
    looks: list[PageLook]
    journal: list[PageNote]
    remarks: list[str] = field(default_factory=list)
    resampling_seed: int = RESAMPLING_SEED
    searches: Searches = field(default_factory=lambda: Searches([], []))
    beside: dict[str, list[ArmSummary]] = field(default_factory=dict)
    by_field: list[ByField] = field(default_factory=list)

    @property
    def verdicts(self) -> list[ClaimVerdict]:
        """Claims declared before their results."""
        return self.answer.verdicts if self.answer else []

    @property
    def late(self) -> list[ClaimVerdict]:
        """Claims written after results existed."""
        return self.answer.late if self.answer else []

    @property
    def other_readings(self) -> list[tuple[str, list[ClaimVerdict]]]:
        """The claims in their other reading, under a title each."""
        return others_of_claims(self.answer) if self.answer else []

    @property
    def comparisons(self) -> list[Comparison]:
        """Every comparison shown, declared ones first."""
        return self.answer.comparisons() if self.answer else self.pairs

    @property
    def by_field_note(self) -> str:
        """What must be known of differences by a field."""
        return ". ".join(by_field_notes(self.by_field))

    @property
    def level(self) -> float:
        """The level of the intervals that say no other: 1 - alpha."""
        return 1 - self.families[0].alpha if self.families else 0.95

    @property
    def unit(self) -> str:
        """The unit of differences: points, or that of the metric that all arms are measured by."""
        metrics = {arm.metric for arm in self.arms if arm.metric}
        return UNITS.get(metrics.pop(), "points") if len(metrics) == 1 else "points"

    @property
    def scale(self) -> float:
        """The factor that brings values into `unit`."""
        return 100.0 if self.unit == "points" else 1.0

    @property
    def bounded(self) -> list[Comparison]:
        """Comparisons that missing, truncated or failed answers could move."""
        return [one for one in self.comparisons if one.bounds is not None]

    def label_name(self, label: LabelQuality) -> str:
        """Its conditions, with the runs' seeds where several label sets have the same conditions."""
        name = ", ".join(label.conditions)
        if sum(one.conditions == label.conditions for one in self.labels) < 2:
            return name
        seeds = sorted({run.rpartition("/seed")[2] for run in label.runs})
        return f"{name} (seed {', '.join(seeds)})"

    @property
    def label_names(self) -> dict[str, str]:
        """Names of label sets by digest."""
        return {label.label_digest: self.label_name(label) for label in self.labels}

    def short(self, name: str) -> str:
        """A name without what all names begin with: the experiment's, or a prefix such as that of an import."""
        return name.removeprefix(self.prefix)

    @property
    def prefix(self) -> str:
        """What `short` takes off, "" where names share nothing up to a slash."""
        if self.answer:
            return f"{self.answer.experiment}/"
        first = {arm.condition.rpartition("/")[0] for arm in self.arms}
        return f"{first.pop()}/" if len(first) == 1 and first != {""} else ""

    def against_reference(self) -> list[Against]:
        """Every other arm against the reference, highest difference first; [] without a reference."""
        found = [against(one, self.reference) for one in self.pairs if self.reference in (one.a, one.b)]
        return sorted(found, key=lambda one: (-(one.difference or 0), one.name))


def against(comparison: Comparison, reference: str | None) -> Against:
    """A comparison turned so that the reference is what is subtracted (by default its `a`)."""
    low, high = comparison.ci or (None, None)
    difference, verdict = comparison.difference, comparison.verdict
    if reference != comparison.b:
        return Against(comparison.b, comparison.a, difference, low, high, verdict, comparison)
    low, high = (None if limit is None else -limit for limit in (high, low))
    difference = None if difference is None else -difference
    return Against(comparison.a, comparison.b, difference, low, high, verdict.turned, comparison)


def collect_experiment(
    connection: duckdb.DuckDBPyConnection,
    workspace: Workspace,
    experiment: str,
    spec_digest: str | None = None,
    hypotheses: Hypotheses | None = None,
    metric: str | None = None,
) -> PageData:
    """The report of one experiment. `spec_digest`, `hypotheses` and `metric` as in `answer`, and what it raises.

    Everything on it comes from the runs of one version of the spec, those of its answer.
    """
    current = current_version(versions_of(connection, experiment), spec_digest)
    with as_version(connection, experiment, current.spec_digest if current else None):
        return _of_version(connection, workspace, experiment, current, spec_digest, hypotheses, metric)


def _of_version(
    connection: duckdb.DuckDBPyConnection,
    workspace: Workspace,
    experiment: str,
    current: Version | None,
    spec_digest: str | None,
    hypotheses: Hypotheses | None,
    metric: str | None,
) -> PageData:
    found = answer(connection, experiment, spec_digest, hypotheses=hypotheses, metric=metric, workspace=workspace)
    rows = connection.execute(
        "SELECT spec_yaml FROM experiments WHERE experiment = ? AND spec_digest = ?",
        [experiment, found.spec_digest],
    ).fetchall()
    spec_yaml = rows[0][0] if rows else None
    runs = run_names(connection, experiment, current.conditions if current else ())
    summaries = summarise_arms(connection, runs, metric=metric)
    arms, beside = by_measurement(summaries)
    stages = costs(connection, experiment)
    used = found.comparisons()
    families = []
    if found.verdicts:
        name = "declared claims, valid at any look" if found.looks == ANY_LOOK else "declared claims"
        families.append(Family(name, found.primary_family, found.correction, found.alpha))
    if found.exploratory_family:
        families.append(Family("exploratory comparisons", found.exploratory_family, "bh", found.alpha))
    return PageData(
        title=experiment,
        question=found.question,
        headline=found.headline(),
        answer=found,
        pairs=used,
        reference=None,
        why_reference="",
        arms=arms,
        beside=beside,
        **_gathered(connection, workspace, {arm.condition: arm.runs for arm in summaries}, runs, stages),
        families=families,
        tests=_tests(used),
        spec_yaml=spec_yaml,
        spec_digest=found.spec_digest,
        recorded_at=None if found.recorded_at is None else f"{found.recorded_at:%Y-%m-%d %H:%M:%S}",
        looks=_looks(connection, [experiment]),
        journal=_journal(connection, [experiment, *runs]),
        remarks=[
            found.runs_line().rstrip("."),
            *([found.not_supported] if found.not_supported else []),
            *found.notes,
        ],
        by_field=found.interactions(),
    )


def collect_comparison(
    connection: duckdb.DuckDBPyConnection,
    workspace: Workspace,
    patterns: Sequence[str],
    baseline: str | None = None,
    alpha: float = 0.05,
    correction: str = "bh",
    force: bool = False,
    metric: str | None = None,
) -> PageData:
    """The report of runs that no one spec declares: every pair, and each against the baseline (default: the highest).

    Raises InputError as `compare_runs` does.
    """
    found, skipped = resolve(connection, patterns)
    if baseline is not None:
        first, _ = resolve(connection, [baseline], at_least=1)
        if len(first) != 1:
            raise InputError(f"baseline {baseline!r} names {len(first)} runs: name one")
        found = list({arm.name: arm for arm in (*first, *found)}.values())
        baseline = first[0].name
    names = [arm.name for arm in found]
    pairs = compare_runs(connection, names, alpha=alpha, correction=correction, force=force, metric=metric)
    arms = _summaries(connection, found, metric)
    if len({one.metric for one in arms}) == 1:
        arms = sorted(arms, key=lambda arm: -(arm.mean or 0))
    best = _best(arms)
    reference = baseline or (best.condition if best else None)
    runs = [run.name for arm in found for run in arm.runs]
    experiments = sorted({run.experiment for arm in found for run in arm.runs if run.experiment is not None})
    return PageData(
        title=f"{len(arms)} runs compared" if len(arms) > 2 else " and ".join(arm.condition for arm in arms),
        question=None,
        headline=_headline(arms, pairs, best, reference, named=baseline is not None),
        answer=None,
        pairs=pairs,
        reference=reference,
        why_reference="named as the baseline" if baseline is not None else "the highest measured",
        arms=arms,
        **_gathered(
            connection, workspace, {arm.condition: arm.runs for arm in arms}, runs, costs(connection, None, runs)
        ),
        families=[Family("pairs of runs, none declared beforehand", pairs[0].family, correction, alpha)],
        tests=_tests(pairs),
        spec_yaml=None,
        spec_digest=None,
        recorded_at=None,
        looks=_looks(connection, experiments),
        journal=_journal(connection, runs),
        remarks=[
            *(f"passed over: {line}" for line in skipped),
            *dict.fromkeys(remark for one in pairs for remark in one.remarks),
            *_other_readings(pairs),
        ],
    )


def _other_readings(pairs: Sequence[Comparison]) -> list[str]:
    """What pairs of runs come to in their other reading, and what is lacking for one."""
    others, lacking = others_of(pairs), not_supported(pairs)
    said = [f"In the other reading, {readings_of(others)}: {outcome(others).rstrip('.')}"] if others else []
    return [*said, lacking] if lacking else said


def _gathered(
    connection: duckdb.DuckDBPyConnection,
    workspace: Workspace,
    arms: Mapping[str, Sequence[str]],
    runs: Sequence[str],
    stages: list[StageCost],
) -> dict[str, Any]:
    """The parts of a report that do not depend on how the runs were named."""
    noise = noise_floor(connection, runs)
    return {
        "curves": collect_curves(connection, stages, runs),
        "trainings": collect_trainings(connection, stages, runs),
        "warnings": collect_warnings(connection, stages),
        "labels": label_quality(connection, runs),
        "agreements": labeler_agreement(connection, runs),
        "noise": noise,
        "noise_says": noise_sentence(noise),
        "stages": stages,
        "cost": total(stages),
        "cost_by_kind": by_kind(stages),
        "searches": collect_searches(connection, runs),
        "samples": collect_samples(connection, workspace, arms),
        "origin": collect_origin(connection, [stage.digest for stage in stages]),
    }


def _summaries(
    connection: duckdb.DuckDBPyConnection, arms: Sequence[Arm], metric: str | None = None
) -> list[ArmSummary]:
    """Summaries under the arms' own names; in batches, because `summarise_arms` tells conditions apart, not runs."""
    found: dict[str, ArmSummary] = {}
    waiting = list(arms)
    while waiting:
        batch: dict[str, Arm] = {}
        for arm in waiting:
            batch.setdefault(arm.runs[0].condition or arm.runs[0].name, arm)
        summaries = summarise_arms(connection, [run.name for arm in batch.values() for run in arm.runs], metric=metric)
        for arm, summary in zip(batch.values(), summaries, strict=True):
            found[arm.name] = replace(summary, condition=arm.name)
        waiting = [arm for arm in waiting if arm.name not in found]
    return [found[arm.name] for arm in arms]


def _best(arms: Sequence[ArmSummary]) -> ArmSummary | None:
    """The highest mean among the arms that were asked the most questions."""
    most = max((arm.n for arm in arms), default=0)
    whole = [arm for arm in arms if arm.n == most and arm.mean is not None]
    return max(whole, key=lambda arm: arm.mean or 0, default=None)


def _headline(
    arms: Sequence[ArmSummary], pairs: Sequence[Comparison], best: ArmSummary | None, reference: str | None, named: bool
) -> str:
    """What was compared and what came out, in one sentence or two."""
    apart = sum(one.verdict.apart for one in pairs)
    if len(pairs) == 1:
        first, sentence = pairs[0], pairs[0].sentence()
        names_first = first.difference is None or first.verdict.resolved  # then it begins with a name, left as it is
        return sentence if names_first else f"{sentence[:1].upper()}{sentence[1:]}"
    questions = sorted({one.n for one in pairs})
    span = f"{questions[0]:,}" if len(questions) == 1 else f"{questions[0]:,} to {questions[-1]:,}"
    said = [
        f"{len(arms)} runs were compared, {len(pairs):,} pairs on {span} questions each: {apart:,} pairs differ, "
        f"{len(pairs) - apart:,} are not told apart."
    ]
    if best is not None and best.mean is not None:
        level = [
            against(one, best.condition).name
            for one in pairs
            if best.condition in (one.a, one.b) and not one.verdict.apart
        ]
        more = f" and {len(level) - NONE_LISTED} more" if len(level) > NONE_LISTED else ""
        others = f"not told apart from it: {', '.join(level[:NONE_LISTED])}{more}" if level else "all others differ"
        unit = UNITS.get(best.metric or "")
        mean = f"{best.mean:.1f} {unit}" if unit else f"{best.mean:.1%}"
        said.append(f"Highest: {best.condition} ({mean}); {others}.")
    if named and reference is not None:
        mine = [against(one, reference) for one in pairs if reference in (one.a, one.b)]
        tally = Counter(one.verdict for one in mine)
        neutral = any(verdict.neutral for verdict in tally)
        kinds = (Verdict.HIGHER, Verdict.LOWER) if neutral else (Verdict.BETTER, Verdict.WORSE)
        counted = ", ".join(f"{tally[kind]} {kind.lower()}" for kind in kinds)
        said.append(f"Against the baseline {reference}: {counted}.")
    return " ".join(said)


def _tests(comparisons: Sequence[Comparison]) -> list[TestUsed]:
    counted = Counter((one.test, one.because, one.interval, one.level) for one in comparisons)
    return [TestUsed(*key, number) for key, number in counted.most_common()]


def _looks(connection: duckdb.DuckDBPyConnection, experiments: Sequence[str]) -> list[PageLook]:
    """How often each pair was judged before, and on how many questions."""
    rows = connection.execute(
        "SELECT strftime(looked_at, '%Y-%m-%d %H:%M'), a, b, n, p, verdict, command FROM looks "
        "WHERE experiment IN (SELECT unnest(?::TEXT[])) ORDER BY looked_at, a, b",
        [list(experiments)],
    ).fetchall()
    return [PageLook(*row) for row in rows]


def _journal(connection: duckdb.DuckDBPyConnection, names: Sequence[str]) -> list[PageNote]:
    rows = connection.execute(
        "SELECT strftime(written_at, '%Y-%m-%d %H:%M'), run, text FROM notes "
        "WHERE run IN (SELECT unnest(?::TEXT[])) ORDER BY written_at",
        [list(names)],
    ).fetchall()
    return [PageNote(*row) for row in rows]
