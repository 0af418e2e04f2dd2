"""Which of two runs is better: every pair of the runs named, tested, corrected for many looks, with a verdict.

    with Store(workspace).read() as connection:
        for comparison in compare_runs(connection, ["study/baseline/seed42", "study/oracle/seed42"]):
            print(comparison.sentence())

The difference is always mean_b - mean_a, and BETTER or WORSE speaks of b. Runs are paired by question id; a
different data or verifier hash is refused unless forced; questions that one run lacks are counted and bounded.
The test is chosen by `reports/stats/choose.py`, and every result says which and why.

Limits: the correction covers the comparisons of one call, not those of earlier calls.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING, TypedDict

from nsd.plugins.errors import InputError
from nsd.plugins.metrics import comparable, takes_votes
from nsd.plugins.words import CORRECTIONS
from nsd.reports import stats
from nsd.reports.judge.anytime import at_any_look, check_looks
from nsd.reports.judge.arms import arm_interval
from nsd.reports.judge.chance import chance_of
from nsd.reports.judge.comparison import Comparison, amount, say_p, show_level
from nsd.reports.judge.metrics import NEUTRAL, UNITS
from nsd.reports.judge.needed import reach
from nsd.reports.judge.pairing import load_pairing
from nsd.reports.judge.pairs import Evidence, about_recipe, gather
from nsd.reports.judge.runs import Arm, measured_by, resolve
from nsd.reports.judge.seeds import choose_seeds
from nsd.reports.judge.settle import INTERVALS, levels_left, settle, settle_margin
from nsd.reports.judge.trainings import training_notes
from nsd.reports.judge.values import Values, load_values
from nsd.reports.judge.verdict import Verdict

if TYPE_CHECKING:
    from typing import Unpack

    import duckdb


class Options(TypedDict, total=False):
    """What can be asked of a comparison, here, by `nsd.compare` and by `nsd compare`."""

    alpha: float  # level of the tests; 0.05 unless given
    correction: str  # bh unless given (these pairs were not declared beforehand), holm, bonferroni or none
    test: str | None  # this test instead of the one that reports/stats/choose.py takes
    force: bool  # compare also what has different data, verifiers or metrics
    claim: str | None  # "checkpoint" or "recipe", instead of what the seeds allow
    margin: float | None  # ask also whether a pair is equivalent within it (TOST, corrected like the tests)
    baseline: str | None  # only pairs with this run
    metric: str | None  # measure the stored samples by another metric than the evaluation's (reports/judge/metrics.py)
    groups: Mapping[str, str] | None  # question id -> group, where questions come in groups
    detect: float | None  # a difference of which it is to be said how many questions or seeds it takes
    intervals: str  # corrected unless given, bonferroni or unadjusted (reports/judge/settle.py)
    looks: str | None  # "any": verdicts that hold however often growing data are looked at (reports/judge/anytime.py)


def compare_runs(
    connection: duckdb.DuckDBPyConnection, runs: Sequence[str], **options: Unpack[Options]
) -> list[Comparison]:
    """Compare every pair of the runs named, in order.

    `runs` are names, globs, `experiment/condition` or experiments (see `runs.resolve`). Raises InputError for unknown
    names, for a test that the data cannot carry, and for different data, verifiers or metrics unless `force`.
    """
    alpha, correction, force = options.get("alpha", 0.05), options.get("correction", "bh"), options.get("force", False)
    test, claim, margin = options.get("test"), options.get("claim"), options.get("margin")
    baseline, metric, looks = options.get("baseline"), options.get("metric"), options.get("looks")
    intervals = check_intervals(options.get("intervals", "corrected"))
    check_options(alpha, correction, margin, metric)
    detect = check_detect(options.get("detect"), metric)
    check_looks(looks)
    arms, skipped = resolve(connection, runs)
    if baseline is not None:
        first, _ = resolve(connection, [baseline], at_least=1)
        if len(first) != 1:
            raise InputError(f"baseline {baseline!r} names {len(first)} runs: name one")
        pairs = [(first[0], arm) for arm in arms if arm.name != first[0].name]
        arms = list(dict.fromkeys([*first, *arms]))
    else:
        pairs = list(combinations(arms, 2))
    if metric is not None:
        renamed = {arm.name: measured_by(arm, metric) for arm in arms}
        pairs = [(renamed[a.name], renamed[b.name]) for a, b in pairs]
        arms = list(renamed.values())
    pairing = load_pairing(connection, arms)
    faults = [" and ".join(filter(None, (measured_with(a, b), pairing.apart(a, b)))) for a, b in pairs]
    if not force:
        for (a, b), fault in zip(pairs, faults, strict=True):
            if fault:
                raise InputError(f"{not_comparable(a, b, fault)}, or compare anyway with --force")
    values = load_values(connection, arms, options.get("groups"), metric)
    weighed, others, short = [], [], []
    for (a, b), fault in zip(pairs, faults, strict=True):
        mark = _joined([f"FORCED in spite of {fault}" if fault else "", pairing.note(a, b)])
        if claim is None and test is None and not (a.counts_only or b.counts_only):
            # The same runs as the answer of a spec rests on: an arm asked more often has other values by that alone.
            mine, theirs, _, note, reading = choose_seeds(a, b)
            asked = (margin, bool(fault), looks)
            weighed.append(weigh(mine, theirs, values, alpha, _joined([mark, note]), None, reading, *asked))
            others.append(_other_way(a, b, weighed[-1], values, alpha, mark, *asked))
            short.append(short_of_seeds(a, b) if metric not in NEUTRAL else ())
        else:
            weighed.append(weigh(a, b, values, alpha, mark, test, claim, margin, bool(fault), looks))
            others.append(None)
            short.append(())
    if pairs and all(one.evidence.difference is None and not one.evidence.shape.counts_only for one in weighed):
        named = " or ".join(f"{a.name} and {b.name}" for a, b in pairs[:2]) + (", ..." if len(pairs) > 2 else "")
        marks = _joined(list(dict.fromkeys(one.mark for one in weighed)))
        raise InputError(
            f"no question in common between {named}, so there is nothing to compare: name runs of one test set, or "
            f"import them with the same ids (--id FIELD){f'; {marks}' if marks else ''}"
        )
    shown = (values, alpha, correction, intervals, detect)
    found = [
        replace(one, other=other, short_of_seeds=few)
        for one, other, few in zip(_together(weighed, *shown), _together(others, *shown), short, strict=True)
        if one is not None
    ]
    if trained := training_notes(connection, {arm.name: arm for arm in arms}):
        remarks = [tuple(f"{n}: {said}" for n in (one.a, one.b) for said in trained.get(n, ())) for one in found]
        found = [replace(one, remarks=mine) for one, mine in zip(found, remarks, strict=True)]
    if skipped:
        passed = f"passed over: {'; '.join(skipped)}"
        found = [replace(comparison, note=_joined([comparison.note, passed])) for comparison in found]
    return found


def _together(
    weighed: Sequence[Weighed | None],
    values: Values,
    alpha: float,
    correction: str,
    intervals: str,
    detect: float | None,
) -> list[Comparison | None]:
    """The verdicts of pairs that are one family, None for None."""
    there = [one for one in weighed if one is not None]
    adjusted = stats.adjust([one.result.p for one in there], correction)
    same = stats.adjust([one.same_p for one in there], correction)
    found = iter(conclude(there, adjusted, same, values, alpha, correction, intervals=intervals, detect=detect))
    return [None if one is None else next(found) for one in weighed]


def _other_way(
    a: Arm,
    b: Arm,
    read: Weighed,
    values: Values,
    alpha: float,
    mark: str,
    margin: float | None,
    forced: bool,
    looks: str | None,
) -> Weighed | None:
    """A pair in the reading that it was not weighed in: these weights, or the recipe; None where there is no other."""
    if not (a.trained or b.trained):
        return None
    about = "checkpoint" if read.evidence.claim == "recipe" else "recipe"
    if about == "recipe" and not about_recipe(a, b):  # `gather` would say so too, after a search of half a second
        return None
    try:
        first, second, _, note, reading = choose_seeds(a, b, about)
        return weigh(first, second, values, alpha, _joined([mark, note]), None, reading, margin, forced, looks)
    except InputError:  # what nobody asked for stops nothing
        return None


def short_of_seeds(a: Arm, b: Arm) -> tuple[str, ...]:
    """The trained arms that one model alone speaks for, by `experiment/condition`, without evaluation and seed.

    Of an imported run nobody knows whether it was trained here, or could be again.
    """
    few = [arm for arm in (a, b) if arm.trained and len(arm.observations) < 2 and arm.runs[0].experiment is not None]
    return tuple("/".join(arm.name.split("/")[:2]).partition("@")[0] for arm in few)


def check_options(alpha: float, correction: str, margin: float | None = None, metric: str | None = None) -> None:
    """Raises InputError for a level, correction or margin that is none."""
    if not 0 < alpha < 1:
        raise InputError(f"alpha {alpha}: a level between 0 and 1, such as 0.05")
    if correction not in CORRECTIONS:
        raise InputError(f"no correction {correction!r}: one of {', '.join(CORRECTIONS)}")
    if margin is not None and metric in UNITS:
        if not 0 < margin < math.inf:
            raise InputError(f"margin {margin}: {UNITS[metric]} above 0, in the unit of the metric")
    elif margin is not None and not 0 < margin < 1:
        raise InputError(f"margin {margin}: a share between 0 and 1, such as 0.02 for two points")


def check_detect(detect: float | None, metric: str | None = None) -> float | None:
    """The difference asked about. Raises InputError for one that is none."""
    if detect is not None and not 0 < detect < (math.inf if metric in UNITS else 1):
        raise InputError(f"detect {detect}: a share between 0 and 1, such as 0.02 for two points")
    return detect


def check_intervals(intervals: str) -> str:
    """The kind of intervals asked for, `holm` meaning those that the correction leaves. Raises InputError for none."""
    wanted = "corrected" if intervals == "holm" else intervals
    if wanted not in INTERVALS:
        raise InputError(f"no intervals {intervals!r}: holm, bonferroni or unadjusted")
    return wanted


@dataclass(frozen=True)
class Weighed:
    """A pair with its test, not yet corrected for the others. `same` is the test of equivalence within `margin`."""

    evidence: Evidence
    result: stats.Result
    same: stats.Result | None
    mark: str
    margin: float | None = None
    forced: bool = False

    @property
    def same_p(self) -> float | None:
        """One-sided p of equivalence, None where no margin was given or nothing could be tested."""
        return None if self.same is None else self.same.p

    def within(self, alpha: float) -> stats.Interval | None:
        """The interval of the test of equivalence at this level, None where there is none."""
        if self.margin is None or self.same is None:
            return None
        return self.evidence.margin_test(self.margin, both_sides=True, alpha=alpha).interval


def weigh(
    a: Arm,
    b: Arm,
    values: Values,
    alpha: float,
    mark: str = "",
    test: str | None = None,
    claim: str | None = None,
    margin: float | None = None,
    forced: bool = False,
    looks: str | None = None,
) -> Weighed:
    """Gather and test one pair; `forced` where they were not measured alike, `looks` "any" as in `Options`.

    Raises InputError for a test, claim or looks that the data cannot carry.
    """
    evidence = gather(a, b, values, claim, test)
    if looks is not None:
        evidence = at_any_look(evidence)
    same = None if margin is None else evidence.margin_test(margin, both_sides=True, alpha=alpha)
    return Weighed(evidence, evidence.test(1 - alpha), same, mark, margin, forced)


def conclude(
    weighed: Sequence[Weighed],
    adjusted: Sequence[float | None],
    same: Sequence[float | None],
    values: Values,
    alpha: float,
    correction: str,
    family: int | None = None,
    levels: Sequence[float] | None = None,
    intervals: str = "corrected",
    detect: float | None = None,
) -> list[Comparison]:
    """Verdicts from adjusted p. `family` is the number of tests adjusted together, by default those given here.

    `levels` are those that the correction leaves them (`settle.levels_left`), where others share their family.
    """
    size = sum(p is not None for p in adjusted) if family is None else family
    if levels is None:
        levels = levels_left_of_tested([one.result.p for one in weighed], adjusted, correction, alpha)
    same_levels = levels_left_of_tested([one.same_p for one in weighed], same, correction, alpha)
    found = []
    for one, p, same_p, left, same_left in zip(weighed, adjusted, same, levels, same_levels, strict=True):
        verdict, interval, note = settle(one.result.estimate, p, alpha, one.evidence.interval(1 - left))
        if one.evidence.a.runs[0].metric in NEUTRAL:
            verdict = verdict.as_neutral
        same_as = None
        if not verdict.resolved and one.margin is not None and same_p is not None:
            within = settle_margin("equivalent_within", one.margin, same_p, alpha, one.within(same_left))
            if within[0] is Verdict.EQUIVALENT:
                verdict, interval, note = within
                same_as = None if interval is None else (one.margin, interval)
        notes = [note, _within_note(one, same_p, same_left), one.mark]
        about = (one.evidence, one.result, p, verdict, values, alpha, correction, size, notes)
        shown = describe(
            *about,
            same=same_as,
            forced=one.forced,
            interval=interval,
            level=left,
            intervals=intervals,
            detect=detect,
            margin=one.margin or 0.0,
        )
        found.append(shown)
    return found


def levels_left_of_tested(
    p_values: Sequence[float | None], adjusted: Sequence[float | None], correction: str, alpha: float
) -> list[float]:
    """`levels_left` of a family in which what could not be tested does not count."""
    tested = [i for i, p in enumerate(p_values) if p is not None]
    found = [alpha] * len(p_values)
    mine = levels_left([p_values[i] for i in tested], [adjusted[i] for i in tested], correction, alpha)
    for i, level in zip(tested, mine, strict=True):
        found[i] = level
    return found


def _within_note(one: Weighed, adjusted: float | None, level: float) -> str:
    """The outcome of a test of equivalence within a margin in words; "" where nobody asked for one."""
    if one.same is None or one.margin is None or one.same.p is None:
        return ""
    metric = one.evidence.a.runs[0].metric
    said = f"equivalence within {amount(one.margin, metric)}: {one.same.name}, {say_p(one.same.p)}, "
    said += f"adjusted {say_p(adjusted)}"
    if (interval := one.within(level)) is None:
        return said
    low, high = (amount(limit, metric, signed=True) for limit in (interval.low, interval.high))
    return f"{said}, {show_level(interval.level)} interval {low.split()[0]} to {high.split()[0]}"


def measured_with(a: Arm, b: Arm) -> str:
    """What differs in how two arms were measured ("different data (...)"), "" where they were measured alike."""
    faults = []
    for attribute, what in (("data_hash", "data"), ("verifier_hash", "verifiers"), ("metric", "metrics")):
        found = {getattr(run, attribute) for run in (*a.runs, *b.runs) if getattr(run, attribute) is not None}
        if len(found) > 1 and not (attribute == "metric" and comparable(found)):
            faults.append(f"different {what} ({', '.join(sorted(map(str, found)))})")
    return " and ".join(faults)


def _measured_apart(a: Arm, b: Arm) -> str | None:
    """How each arm was measured, where they were measured by two metrics that compare; else None."""
    first, second = a.runs[0], b.runs[0]
    if first.metric == second.metric or not comparable({first.metric, second.metric}):
        return None
    said = []
    for arm, run in ((b, second), (a, first)):
        rounds = sorted({one.samples for one in arm.runs})
        votes = f", the majority of {' or '.join(map(str, rounds))} completions" if takes_votes(run.metric) else ""
        said.append(f"{arm.name} is measured by {run.metric}{votes}")
    return " and ".join(said)


def not_comparable(a: Arm, b: Arm, fault: str) -> str:
    """Why two arms that were measured with different things are no comparison."""
    return (
        f"{a.name} and {b.name} were measured with {fault}: a difference between them would not be "
        "one between the models. Evaluate both alike"
    )


def describe(
    evidence: Evidence,
    result: stats.Result,
    p_adjusted: float | None,
    verdict: Verdict,
    values: Values,
    alpha: float,
    correction: str,
    family: int,
    notes: Sequence[str],
    *,
    level: float,
    claim: tuple[str, float] | None = None,
    same: tuple[float, stats.Interval] | None = None,
    forced: bool = False,
    interval: stats.Interval | None = None,
    intervals: str = "corrected",
    detect: float | None = None,
    margin: float = 0.0,
    looks: int = 1,
) -> Comparison:
    """Put evidence, result and verdict together with what a reader needs to judge them.

    `interval` is the one that decided, `level` the alpha that the correction left the test; with other `intervals` the
    one asked for is shown instead. `claim` is the kind and margin of a claim of no harm or equivalence, whose test is
    one-sided; `same` the margin and interval of a test of equivalence that decided beside the two-sided one. `detect`:
    the true difference of which it is said what it takes. `margin`: by how much b is to beat a, for its chance.
    `looks`: into how many planned ones alpha is split.
    """
    a, b = evidence.a, evidence.b
    counts_only = evidence.shape.counts_only
    reached = reach(evidence, result, level, claim, detect, verdict.resolved)
    needed_for = "" if detect is None else f"a true difference of {amount(detect, a.runs[0].metric)}"
    if claim is not None:
        needed_for = f"showing a true difference of zero to be {claim[0].replace('_', ' ')} {claim[1]:g}"
    ci_a, ci_b = _arm_intervals(evidence, 1 - alpha)
    shares = [[_share(part, arm) for arm in (a, b)] for part in (values.truncated, values.failed)]
    decided_by = (interval, claim) if same is None else (same[1], ("equivalent_within", same[0]))
    depends = _depends(evidence, verdict, *decided_by)
    if intervals != "corrected" and interval is not None:
        alone = alpha if intervals == "unadjusted" else alpha / max(family, 1) / looks
        within = claim if same is None else ("equivalent_within", same[0])
        asked = evidence.interval(1 - alone)
        if within is not None and not verdict.apart:  # one alpha on each side
            asked = evidence.margin_test(within[1], within[0] == "equivalent_within", alone).interval
        if asked is not None and (asked.low, asked.high) != (interval.low, interval.high):
            low, high = (amount(limit, a.runs[0].metric, signed=True) for limit in (interval.low, interval.high))
            notes = [*notes, f"decided by the {show_level(interval.level)} interval {low.split()[0]} to {high}"]
        interval = asked
    said = [result.note, reached.remark, *_missing_notes(evidence, depends), *notes]
    said += [a.copies_note, b.copies_note]
    if (mixed := _measured_apart(a, b)) is not None:
        said.append(mixed)
    paired = not counts_only and evidence.choice.test.paired
    return Comparison(
        a=a.name,
        b=b.name,
        metric=a.runs[0].metric if mixed is None else f"{b.runs[0].metric} against {a.runs[0].metric}",
        n=min(evidence.n_a, evidence.n_b),
        mean_a=evidence.mean_a,
        mean_b=evidence.mean_b,
        difference=evidence.difference,
        ci=None if interval is None else (interval.low, interval.high),
        test=result.name,
        p=result.p,
        p_adjusted=p_adjusted,
        discordant=None if evidence.table is None else (evidence.table[1], evidence.table[2]),
        verdict=verdict,
        because=evidence.choice.because,
        claim=evidence.claim,
        paired=paired,
        seeds=evidence.shape.seeds,
        statistic=result.statistic if result.statistic is None or math.isfinite(result.statistic) else None,
        interval=None if interval is None else interval.name,
        level=1 - alpha if interval is None else interval.level,
        alpha=alpha,
        correction=correction,
        family=family,
        ci_a=ci_a,
        ci_b=ci_b,
        n_a=evidence.n_a,
        n_b=evidence.n_b,
        unmatched=evidence.unmatched,
        bounds=evidence.bounds,
        truncated=(shares[0][0], shares[0][1]),
        failed=(shares[1][0], shares[1][1]),
        detectable=reached.detectable,
        detectable_range=reached.detectable_range,
        finds_margin=claim is not None,
        needed_n=reached.needed_n,
        needed_range=reached.needed_range,
        needed_seeds=reached.needed_seeds,
        needed_seeds_range=reached.needed_seeds_range,
        needed_for=needed_for,
        needed_paired=reached.needed_paired,
        forced=forced,
        intervals=intervals,
        note=_joined(said),
        evals_a=evaluations_of(a),
        evals_b=evaluations_of(b),
        trained_a=trainings_of(a),
        trained_b=trainings_of(b),
        depends_on_missing=depends,
        chance=chance_of(evidence, result, margin),
    )


def evaluations_of(arm: Arm) -> tuple[str, ...]:
    """Digests of the evaluations that are observations: a copy adds nothing to look at."""
    return tuple(run.eval_digest for draws in arm.observations for run in draws if run.eval_digest)


def trainings_of(arm: Arm) -> tuple[str, ...]:
    """Digests of the trainings behind an arm's observations."""
    return tuple(draws[0].train_digest or "untrained" for draws in arm.observations)


def _arm_intervals(evidence: Evidence, level: float) -> tuple[tuple[float, float] | None, tuple[float, float] | None]:
    """Each arm's own interval, on the shared questions: see `arms.arm_interval`."""
    if evidence.difference is None:
        return None, None
    grouped = evidence.clusters is not None
    if evidence.shape.counts_only or (evidence.table is not None and not grouped):
        right_a, n_a, right_b, n_b = evidence.counts
        intervals = [stats.exact_binomial(right_a, n_a, level), stats.exact_binomial(right_b, n_b, level)]
    elif evidence.seed_values is not None:
        blocks = evidence.seed_values
        if evidence.claim != "recipe":  # these weights, of which there may be several
            blocks = (blocks[0].mean(axis=0, keepdims=True), blocks[1].mean(axis=0, keepdims=True))
        intervals = [
            arm_interval(block, level, arm.runs[0].metric, evidence.clusters)
            for block, arm in zip(blocks, (evidence.a, evidence.b), strict=True)
        ]
    else:
        return None, None
    found = [None if interval is None else (interval.low, interval.high) for interval in intervals]
    return found[0], found[1]


def _missing_notes(evidence: Evidence, depends: bool) -> list[str]:
    notes = []
    only_a, only_b = evidence.unmatched
    if only_a or only_b:
        notes.append(f"{only_a} questions only in {evidence.a.name}, {only_b} only in {evidence.b.name}: left out")
    if evidence.bounds is not None and depends:
        low, high = evidence.bounds
        what = "missing, truncated or failed answers could make the difference anything from "
        notes.append(f"{what}{low * 100:+.1f} to {high * 100:+.1f} points; the verdict depends on them")
    return notes


def _depends(
    evidence: Evidence, verdict: Verdict, interval: stats.Interval | None, claim: tuple[str, float] | None
) -> bool:
    """Whether the verdict would be another if all missing answers had gone one way.

    The interval moves along to either bound. Where it holds zero there and not here, or the other way round, the
    verdict depends on the missing answers. The margin of a claim that has one stands for zero.
    """
    difference, bounds = evidence.difference, evidence.bounds
    if difference is None or bounds is None:
        return False
    below, above = (0.0, 0.0) if interval is None else (difference - interval.low, interval.high - difference)
    if claim is None:
        return any((1 if bound > below else -1 if bound < -above else 0) != verdict.direction for bound in bounds)
    kind, margin = claim
    both_sides = kind == "equivalent_within"

    def state(at: float) -> int:
        low, high = at - below, at + above
        if low > -margin and not (both_sides and high >= margin):
            return 1
        return -1 if high < -margin or (both_sides and low > margin) else 0

    shown = -1 if verdict.apart else int(verdict.resolved)
    return any(state(bound) != shown for bound in bounds)


def _share(shares: dict[str, float], arm: Arm) -> float | None:
    known = [shares[str(run.eval_digest)] for run in arm.runs if run.eval_digest in shares]
    return sum(known) / len(known) if known else None


def _joined(notes: Sequence[str]) -> str:
    return "; ".join(note for note in notes if note)
