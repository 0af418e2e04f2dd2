"""Which of two runs is better: every pair of the runs named, tested, corrected for many looks, with a verdict.

    with Store(workspace).read() as connection:
        for comparison in compare_runs(connection, ["study/baseline/seed42", "study/oracle/seed42"]):
            print(comparison.sentence())

The difference is always mean_b - mean_a, and BETTER or WORSE speaks of b. Runs are paired by question id; a
different data or verifier hash is refused unless forced; questions that one run lacks are counted and bounded.
The test is chosen by `reports/choose.py`, and every result says which and why.

Limits: the correction covers the comparisons of one call, not those of earlier calls.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING, Any

from plugins.errors import InputError
from reports import stats
from reports.pairs import Evidence, gather
from reports.render import FORMATS, render
from reports.runs import Arm, Values, load_values, resolve

if TYPE_CHECKING:
    import duckdb

__all__ = ["FORMATS", "Comparison", "compare_runs", "render"]

CORRECTIONS = ("holm", "bonferroni", "bh", "none")
ASSUMED_DISCORDANCE = 0.2  # where no paired data say better; about that of two similar models on GSM8K


@dataclass(frozen=True)
class Comparison:
    """b against a. Means are over the shared questions; None stands for "cannot be known from these data".

    `n`: shared questions (the smaller arm's where only counts are known). `ci`: interval of the difference.
    `discordant`: questions that only a, only b, has right, for one right-or-wrong value per question.
    `unmatched`: questions that only a, only b, has. `bounds`: the difference if every missing, truncated or
    failed answer had gone the worst or best way. `detectable`: smallest true difference this comparison finds
    with 80 % power; `needed_n`, `needed_seeds`: what would show `needed_for`, itself only as sure as the data.
    """

    a: str
    b: str
    metric: str
    n: int
    mean_a: float | None
    mean_b: float | None
    difference: float | None
    ci: tuple[float, float] | None
    test: str
    p: float | None
    p_adjusted: float | None
    discordant: tuple[int, int] | None
    verdict: str
    because: str
    claim: str
    paired: bool
    seeds: tuple[int, int]
    statistic: float | None
    interval: str | None
    level: float
    alpha: float
    correction: str
    family: int
    ci_a: tuple[float, float] | None
    ci_b: tuple[float, float] | None
    n_a: int
    n_b: int
    unmatched: tuple[int, int]
    bounds: tuple[float, float] | None
    truncated: tuple[float | None, float | None]
    failed: tuple[float | None, float | None]
    detectable: float | None
    needed_n: int | None
    needed_seeds: int | None
    needed_for: str
    forced: bool
    note: str

    def to_json(self) -> dict[str, Any]:
        """Plain data; the first thirteen keys are a promise to readers, the others may grow."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items()}

    def sentence(self) -> str:
        """The outcome in words."""
        if self.difference is None:
            return f"{self.b} against {self.a}: {self.note}."
        size = f"{abs(self.difference) * 100:.1f} points"
        range_ = f", interval {self.ci[0] * 100:+.1f} to {self.ci[1] * 100:+.1f}" if self.ci else ""
        facts = f"({size}{range_}; {self.test}, {say_p(self.p)}, adjusted {say_p(self.p_adjusted)}; n = {self.n})"
        if self.verdict in ("BETTER", "WORSE"):
            return f"{self.b} is {self.verdict.lower()} than {self.a} {facts}."
        if self.verdict in ("EQUIVALENT", "NOT WORSE"):
            return f"{self.b} is {self.verdict.lower()} to {self.a} {facts}.".replace("not worse to", "not worse than")
        more = f" {self._still_needed()}" if self._still_needed() else ""
        return f"no difference shown between {self.a} and {self.b} {facts}.{more}"

    def _still_needed(self) -> str:
        parts = []
        if self.detectable is not None:
            parts.append(
                f"this comparison finds a true difference of {self.detectable * 100:.1f} points in 4 of 5 cases"
            )
        if self.needed_seeds is not None:
            parts.append(f"{self.needed_for} needs {self.needed_seeds} seeds per arm")
        if self.needed_n is not None:
            parts.append(f"{self.needed_for} needs {self.needed_n} questions")
        return ("; ".join(parts) + ".").capitalize() if parts else ""


def compare_runs(
    connection: duckdb.DuckDBPyConnection,
    runs: Sequence[str],
    alpha: float = 0.05,
    correction: str = "holm",
    test: str | None = None,
    force: bool = False,
    *,
    claim: str | None = None,
    margin: float | None = None,
    baseline: str | None = None,
) -> list[Comparison]:
    """Compare every pair of the runs named, in order; with `baseline`, only the pairs with that run.

    `runs` are names, globs, `experiment/condition` or experiments (see `runs.resolve`). `margin` asks also
    whether a pair is equivalent within it (TOST, corrected like the tests). Raises InputError for unknown
    names, for a test that the data cannot carry, and for different data, verifiers or metrics unless `force`.
    """
    if not 0 < alpha < 1:
        raise InputError(f"alpha {alpha}: a level between 0 and 1, such as 0.05")
    if correction not in CORRECTIONS:
        raise InputError(f"no correction {correction!r}: one of {', '.join(CORRECTIONS)}")
    if margin is not None and not 0 < margin < 1:
        raise InputError(f"margin {margin}: a share between 0 and 1, such as 0.02 for two points")
    arms, skipped = resolve(connection, runs)
    if baseline is not None:
        first, _ = resolve(connection, [baseline], at_least=1)
        if len(first) != 1:
            raise InputError(f"baseline {baseline!r} names {len(first)} runs: name one")
        pairs = [(first[0], arm) for arm in arms if arm.name != first[0].name]
        arms = list(dict.fromkeys([*first, *arms]))
    else:
        pairs = list(combinations(arms, 2))
    marks = [check_comparable(a, b, force) for a, b in pairs]
    values = load_values(connection, arms)
    evidence = [gather(a, b, values, claim, test) for a, b in pairs]
    results = [one.test(1 - alpha) for one in evidence]
    adjusted = stats.adjust([result.p for result in results], correction)
    same: list[float | None] = [None] * len(pairs)
    if margin is not None:
        tested = [one.margin_test(margin, both_sides=True, alpha=alpha).p for one in evidence]
        same = stats.adjust(tested, correction)
    family = sum(p is not None for p in adjusted)
    found = []
    for one, result, p, same_p, mark in zip(evidence, results, adjusted, same, marks, strict=True):
        verdict = verdict_of(result.estimate, p, alpha)
        if verdict == "UNRESOLVED" and same_p is not None and same_p < alpha:
            verdict = "EQUIVALENT"
        comparison = describe(one, result, p, verdict, values, alpha, correction, family, notes=[mark])
        if skipped:
            comparison = replace(comparison, note=_joined([comparison.note, f"passed over: {'; '.join(skipped)}"]))
        found.append(comparison)
    return found


def verdict_of(difference: float | None, p: float | None, alpha: float) -> str:
    """BETTER or WORSE where the (adjusted, two-sided) p is below alpha, else UNRESOLVED."""
    if p is None or p >= alpha or not difference:
        return "UNRESOLVED"
    return "BETTER" if difference > 0 else "WORSE"


def check_comparable(a: Arm, b: Arm, force: bool) -> str:
    """Refuse what cannot be compared, or return the mark that a forced comparison carries ("" where all is well)."""
    faults = []
    for attribute, what in (("data_hash", "data"), ("verifier_hash", "verifiers"), ("metric", "metrics")):
        found = {getattr(run, attribute) for run in (*a.runs, *b.runs) if getattr(run, attribute) is not None}
        if len(found) > 1:
            faults.append(f"different {what} ({', '.join(sorted(map(str, found)))})")
    if not faults:
        return ""
    if not force:
        raise InputError(
            f"{a.name} and {b.name} were measured with {' and '.join(faults)}: a difference between them would not be "
            "one between the models. Evaluate both alike, or compare anyway with --force"
        )
    return f"FORCED in spite of {' and '.join(faults)}"


def describe(
    evidence: Evidence,
    result: stats.Result,
    p_adjusted: float | None,
    verdict: str,
    values: Values,
    alpha: float,
    correction: str,
    family: int,
    notes: Sequence[str] = (),
    claim: tuple[str, float] | None = None,
) -> Comparison:
    """Put evidence, result and verdict together with what a reader needs to judge them.

    `claim` is the kind and margin of a claim of no harm or equivalence, whose test is one-sided.
    """
    a, b = evidence.a, evidence.b
    counts_only = evidence.shape.counts_only
    detectable, needed_n, needed_seeds, remark = power(evidence, verdict, alpha)
    needed_for = "a true difference as large as the observed one"
    if claim is not None:
        kind, margin = claim
        needed_n, needed_seeds, remark = needed_within(evidence, verdict, alpha, kind, margin), None, ""
        needed_for = f"showing a true difference of zero to be {kind.replace('_', ' ')} {margin:g}"
    interval = result.interval
    ci_a, ci_b = _arm_intervals(evidence, 1 - alpha)
    shares = [[_share(part, arm) for arm in (a, b)] for part in (values.truncated, values.failed)]
    said = [result.note, remark, *_missing_notes(evidence, verdict), *notes]
    if claim is None and interval is not None and result.p is not None:
        excludes_zero = interval.low > 0 or interval.high < 0
        if excludes_zero != (result.p < alpha):
            said.append("p and interval come from different approximations and disagree at the edge")
    paired = not counts_only and evidence.choice.test not in ("two-proportion", "seeds")
    return Comparison(
        a=a.name,
        b=b.name,
        metric=a.runs[0].metric,
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
        detectable=detectable,
        needed_n=needed_n,
        needed_seeds=needed_seeds,
        needed_for=needed_for,
        forced=any(note.startswith("FORCED") for note in notes),
        note=_joined(said),
    )


def power(evidence: Evidence, verdict: str, alpha: float) -> tuple[float | None, int | None, int | None, str]:
    """Detectable difference, questions needed, seeds needed (the latter two where unresolved), and a remark.

    "Needed" is for a true difference as large as the observed one, at 80 % power; the observed one is itself
    uncertain, so it is an order of magnitude.
    """
    difference = evidence.difference
    if difference is None:
        return None, None, None, ""
    unresolved = verdict == "UNRESOLVED"
    remark = "no difference at all was observed, so no n can be named" if unresolved and difference == 0 else ""
    if evidence.shape.counts_only or evidence.choice.test == "two-proportion":
        right_a, n_a, right_b, n_b = evidence.counts
        spread = [right / n * (1 - right / n) for right, n in ((right_a, n_a), (right_b, n_b))]
        detectable = stats.minimum_detectable_effect(spread[0] / n_a + spread[1] / n_b, 1, alpha)
        needed = stats.sample_size(difference, sum(spread), alpha=alpha) if unresolved else None
        again = stats.sample_size(difference, ASSUMED_DISCORDANCE, alpha=alpha)
        if again is not None and unresolved:
            remark = f"paired on the same questions about {again} would do, at {ASSUMED_DISCORDANCE:.0%} discordance"
        return detectable, needed, None, remark
    if evidence.claim == "recipe":
        seeds = _seeds_needed(evidence, difference, alpha) if unresolved else None
        return None, None, seeds, remark
    variance = evidence.variance()
    if not variance:
        return None, None, None, remark
    detectable = stats.minimum_detectable_effect(variance, evidence.n_a, alpha)
    return detectable, stats.sample_size(difference, variance, alpha=alpha) if unresolved else None, None, remark


def needed_within(evidence: Evidence, verdict: str, alpha: float, kind: str, margin: float) -> int | None:
    """Questions that show non-inferiority or equivalence within the margin, if the true difference is zero.

    The one-sided z at alpha, and 80 % power (for equivalence shared between the two sides, hence 90 % each).
    """
    if verdict != "UNRESOLVED" or evidence.difference is None or evidence.claim == "recipe":
        return None
    variance = evidence.variance()
    if evidence.shape.counts_only:
        right_a, n_a, right_b, n_b = evidence.counts
        variance = right_a / n_a * (1 - right_a / n_a) + right_b / n_b * (1 - right_b / n_b)
    if not variance:
        return None
    return stats.sample_size(margin, variance, alpha=2 * alpha, power=0.9 if kind == "equivalent_within" else 0.8)


def _seeds_needed(evidence: Evidence, difference: float, alpha: float) -> int | None:
    a, b = evidence.seed_means_a, evidence.seed_means_b
    if a is None or b is None or min(len(a), len(b)) < 2:
        return None
    paired = evidence.choice.test == "seeds-paired"
    spread = float((b - a).std(ddof=1)) if paired else math.sqrt(float(a.var(ddof=1) + b.var(ddof=1)) / 2)
    return stats.seeds_needed(difference, spread, alpha, paired=paired)


def _arm_intervals(evidence: Evidence, level: float) -> tuple[tuple[float, float] | None, tuple[float, float] | None]:
    """Each arm's own interval: Wilson for right-or-wrong answers, t over seeds for a recipe, else None."""
    found: list[tuple[float, float] | None] = []
    if evidence.difference is not None and (evidence.table is not None or evidence.shape.counts_only):
        right_a, n_a, right_b, n_b = evidence.counts
        intervals = [stats.wilson(right_a, n_a, level), stats.wilson(right_b, n_b, level)]
    elif evidence.claim == "recipe" and evidence.seed_means_a is not None and evidence.seed_means_b is not None:
        intervals = [stats.paired_t(means, level).interval for means in (evidence.seed_means_a, evidence.seed_means_b)]
    else:
        intervals = [None, None]
    found = [None if interval is None else (interval.low, interval.high) for interval in intervals]
    return found[0], found[1]


def _missing_notes(evidence: Evidence, verdict: str) -> list[str]:
    notes = []
    only_a, only_b = evidence.unmatched
    if only_a or only_b:
        notes.append(f"{only_a} questions only in {evidence.a.name}, {only_b} only in {evidence.b.name}: left out")
    if evidence.bounds is not None:
        low, high = evidence.bounds
        decided = verdict in ("BETTER", "WORSE") and low <= 0 <= high
        what = "missing, truncated or failed answers could make the difference anything from "
        hint = "; the verdict depends on them" if decided else ""
        notes.append(f"{what}{low * 100:+.1f} to {high * 100:+.1f} points{hint}")
    return notes


def _share(shares: dict[str, float], arm: Arm) -> float | None:
    known = [shares[str(run.eval_digest)] for run in arm.runs if run.eval_digest in shares]
    return sum(known) / len(known) if known else None


def _joined(notes: Sequence[str]) -> str:
    return "; ".join(note for note in notes if note)


def say_p(p: float | None) -> str:
    """A p-value inside a sentence."""
    return "no p" if p is None else f"p {show_p(p)}" if p < 1e-4 else f"p = {show_p(p)}"


def show_p(p: float | None) -> str:
    """A p-value for people: no leading zero dropped, three digits, never "0"."""
    return "-" if p is None else "< .0001" if p < 1e-4 else f"{p:.4f}" if p < 0.01 else f"{p:.3f}"
