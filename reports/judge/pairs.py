"""Two arms, weighed against each other: gathers what their data allow, chooses the test, and runs it.

    evidence = gather(arm_a, arm_b, values, claim="checkpoint")
    evidence.test()                                  # stats.Result of b against a
    evidence.margin_test(0.02, both_sides=False)     # is b at most .02 worse than a?

A claim about a checkpoint rests on questions: would these same weights differ on other questions like these?
A claim about a recipe rests on training seeds: would training again differ? Limits: values lie in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypedDict

from nsd.plugins.errors import InputError
from nsd.plugins.metrics import averages
from nsd.reports import stats
from nsd.reports.judge.metrics import UNITS, is_search
from nsd.reports.judge.runs import Arm
from nsd.reports.judge.values import Values
from nsd.reports.stats.choose import Choice, IntervalKind, PairTest, Shape, choose, shows_training

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

RESAMPLING_SEED = 20240229  # of every permutation, so that a comparison repeats to the digit
TWICE = "the same evaluation twice"
FEW_SEEN = 15  # of its rarer outcome in one arm's samples: under unequal numbers t rejects too often below
TYPICAL_SEED_SD = 0.014  # of a benchmark score between training seeds, the middle of the range simulated in the tests


@dataclass(frozen=True)
class Evidence:
    """What is known about two arms on the questions they share.

    `n_a`, `n_b`: questions behind each mean (the shared ones, but all of an arm's where only counts are known).
    `table`: both right, only a, only b, neither. `differences` [n] are per question, b - a, over shared
    questions. `seed_means_a` [S_a] and `seed_means_b` [S_b]. `unmatched`: questions that only a, only b, has.
    """

    a: Arm
    b: Arm
    claim: str
    shape: Shape
    choice: Choice
    n_a: int
    n_b: int
    mean_a: float | None
    mean_b: float | None
    table: tuple[int, int, int, int] | None = None
    differences: Floats | None = None
    seed_means_a: Floats | None = None
    seed_means_b: Floats | None = None
    seed_values: tuple[Floats, Floats] | None = None
    clusters: NDArray[np.int64] | None = None
    unmatched: tuple[int, int] = (0, 0)
    bounds: tuple[float, float] | None = None

    @property
    def twice(self) -> bool:
        """Whether both arms are one evaluation under two names, so that there is nothing to compare."""
        mine, theirs = ({run.answers for run in arm.runs} for arm in (self.a, self.b))
        return None not in mine and mine == theirs

    @property
    def difference(self) -> float | None:
        """mean_b - mean_a, None where an arm has no question."""
        return None if self.mean_a is None or self.mean_b is None else self.mean_b - self.mean_a

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """right_a, n_a, right_b, n_b, for the unpaired tests."""
        assert self.mean_a is not None and self.mean_b is not None
        return round(self.mean_a * self.n_a), self.n_a, round(self.mean_b * self.n_b), self.n_b

    def test(self, level: float = stats.LEVEL) -> stats.Result:
        """The two-sided test of "no difference" with its interval. `p` None where no test is possible."""
        return self._tested(level, self.interval)

    def p_value(self) -> float | None:
        """That of `test`, without the interval, which may take far longer."""
        return self._tested(stats.LEVEL, lambda level: None).p

    def _tested(self, level: float, interval_at: Callable[[float], stats.Interval | None]) -> stats.Result:
        if self.difference is None:
            return stats.Result("none", None, None, None, note=self._nothing())
        if self.twice:
            imported = any(run.same_as for arm in (self.a, self.b) for run in arm.runs)
            how = ", with the same answer to every question" if imported else ""
            return stats.Result(TWICE, None, None, 0.0, note=f"both are one evaluation{how}: nothing was compared")
        chosen = self.choice.test
        if chosen is PairTest.TWO_PROPORTION:
            return stats.two_proportion(*self.counts, level=level)
        if chosen.of_table:
            assert self.table is not None
            way = "exact" if chosen is PairTest.MCNEMAR_EXACT else "mid-p"
            found = stats.mcnemar(self.table[1], self.table[2], way)
        elif chosen is PairTest.SIGN:
            assert self.differences is not None
            found = stats.sign_test(self.differences)
            note, mean = self._counted(), float(self.differences.mean())
            if (int((self.differences > 0).sum()) - int((self.differences < 0).sum())) * mean < 0:
                against = "more questions speak for one, and the mean number of samples for the other: no verdict"
                return replace(found, p=None, interval=interval_at(level), note=f"{note}; {against}")
            return replace(found, interval=interval_at(level), note=note)
        elif chosen is PairTest.PERMUTATION:
            assert self.differences is not None
            found = stats.sign_flip(self.differences, seed=RESAMPLING_SEED)
        elif chosen is PairTest.T:
            assert self.differences is not None
            found = stats.paired_t(self.differences, level, "paired t on question means")
        elif chosen is PairTest.BOUNDED:
            found = self._by_limits()
        else:
            return self._t(level)
        interval = interval_at(level)
        note = found.note
        if interval is None and not note:
            note = "one shared question: no interval" if self.n_a == 1 else "differences without spread: no interval"
        return stats.Result(
            found.name, found.statistic, found.p, self.difference, interval, found.df, found.standard_error, note
        )

    def _nothing(self) -> str:
        """Why there is nothing to compare."""
        if self.shape.counts_only:
            empty = " and ".join(
                arm.name for arm, mean in ((self.a, self.mean_a), (self.b, self.mean_b)) if mean is None
            )
            return f"{empty}: counts of no question, nothing to compare"
        return "no question in common: nothing to compare"

    def _counted(self) -> str:
        """What a sign test has counted."""
        assert self.differences is not None
        a, b = (str(arm.runs[0].condition or arm.name) for arm in (self.a, self.b))
        ahead, behind = (int((self.differences * sign > 0).sum()) for sign in (1, -1))
        ties = self.n_a - ahead - behind
        return (
            f"of {self.n_a} questions {b} solved {ahead} with fewer samples, or alone, and {a} {behind}; {ties} "
            f"{'says' if ties == 1 else 'say'} nothing (unsolved by both, or by as many samples)"
        )

    def _t(self, level: float) -> stats.Result:
        """The tests whose statistic is a t."""
        chosen = self.choice.test
        if chosen is PairTest.SEEDS:
            assert self.seed_means_a is not None and self.seed_means_b is not None
            return stats.welch_t(self.seed_means_a, self.seed_means_b, level)
        if chosen is PairTest.SEEDS_PAIRED:
            assert self.seed_means_a is not None and self.seed_means_b is not None
            return stats.paired_t(self.seed_means_b - self.seed_means_a, level, "paired t on seed means")
        if chosen is PairTest.TWO_LEVEL:
            assert self.seed_values is not None
            a, b = self.seed_values
            return stats.two_level(a, b, level, self.shape.trained, self._bounds, self.shape.lopsided, self.clusters)
        assert self.differences is not None and self.clusters is not None
        return stats.cluster_t(self.differences, self.clusters, level, self._bounds, self.shape.lopsided)

    def _by_limits(self) -> stats.Result:
        """The test that is the interval read the other way round."""
        limits = self.limits()
        return stats.Result("bounded-mean test", None, None if limits is None else stats.two_sided_p(limits), None)

    @property
    def _bounds(self) -> tuple[float, float] | None:
        """What a difference can be, None where the metric has no largest value."""
        return (-1.0, 1.0) if self.shape.bounded else None

    def limits(self) -> stats.Limits | None:
        """What interval and margin test of values per question or seed rest on; None where nothing can be said."""
        chosen = self.choice.test
        if chosen is PairTest.TWO_LEVEL:
            assert self.seed_values is not None
            a, b = self.seed_values
            asked = (self.shape.trained, self._bounds, self.shape.lopsided, self.clusters)
            found = stats.two_level_limits(a, b, *asked)
            return None if isinstance(found, stats.Result) else found
        if chosen is PairTest.CLUSTER:
            assert self.differences is not None and self.clusters is not None
            found = stats.cluster_limits(self.differences, self.clusters, self._bounds, self.shape.lopsided)
            return None if isinstance(found, stats.Result) else found
        if self.choice.interval is IntervalKind.MEAN:
            assert self.differences is not None
            return stats.mean_limits(self.differences, self._bounds, self.shape.lopsided)
        test = self._t(stats.LEVEL)
        if test.standard_error is None or test.df is None or test.estimate is None:
            return None
        return stats.Student(test.estimate, test.standard_error, test.df)

    def interval(self, level: float) -> stats.Interval | None:
        """The interval of the difference, inside what a difference can be."""
        if self.difference is None or self.twice:
            return None
        method = self.choice.interval
        if method is IntervalKind.NEWCOMBE_UNPAIRED:
            return stats.newcombe_unpaired(*self.counts, level=level)
        if method is IntervalKind.NEWCOMBE_PAIRED:
            assert self.table is not None
            if not self.table[1] + self.table[2]:  # as margins are judged where no answer differs
                return stats.rule_of_three(self.n_a, level)
            return stats.newcombe_paired(*self.table, level=level)
        limits = self.limits()
        return None if limits is None else stats.interval_of(limits, level, self._bounds)

    def margin_test(self, margin: float, both_sides: bool, alpha: float = 0.05) -> stats.Result:
        """Non-inferiority of b (or, with `both_sides`, equivalence) within `margin`, one-sided at alpha.

        The interval has level 1 - 2 alpha, so that it lies inside the margin exactly where p < alpha.
        """
        name = "equivalence" if both_sides else "non-inferiority"
        if self.difference is None:
            return stats.Result(name, None, None, None, note=self._nothing())
        if self.twice:
            return self.test()
        if self.choice.test is PairTest.TWO_PROPORTION:
            return stats.margin_test_unpaired(*self.counts, margin=margin, both_sides=both_sides, alpha=alpha)
        if self.table is not None and self.choice.test.of_table:
            _, a_only, b_only, _ = self.table
            return stats.margin_test_paired(a_only, b_only, self.n_a, margin, both_sides, alpha)
        limits = self.limits()
        if limits is None:
            note = self.test().note or "no spread to test against"
            return stats.Result(name, None, None, self.difference, note=note)
        interval = stats.interval_of(limits, 1 - 2 * alpha, self._bounds)
        said = f"{'TOST equivalence' if both_sides else name} ({limits.name})"
        return stats.Result(said, None, stats.margin_p(limits, margin, both_sides), self.difference, interval)

    def variance(self) -> float | None:
        """Variance of the per-question difference, None where it is not known (counts, seeds, one question)."""
        if self.table is not None:
            both, a_only, b_only, neither = self.table
            n = both + a_only + b_only + neither
            return (a_only + b_only) / n - ((b_only - a_only) / n) ** 2 if n else None
        if self.differences is None or len(self.differences) < 2:
            return None
        return float(self.differences.var(ddof=1))


def gather(a: Arm, b: Arm, values: Values, claim: str | None = None, test: str | None = None) -> Evidence:
    """Collect what is known about two arms and choose the test.

    `claim` None: what the named `test` is about, else a recipe where each trained arm has two or more seeds (and one
    is trained), else a checkpoint. Raises InputError for a test or claim that the data cannot carry.
    """
    scatters = about_recipe(a, b)
    of_recipe = None if test is None else test in [one for one in PairTest if one.of_recipe]
    if values.clusters is not None and test in (PairTest.SEEDS, PairTest.SEEDS_PAIRED):
        raise InputError(
            f"--test {test} speaks of these very questions, whatever groups they come in: leave them out, or take "
            "two-level"
        )
    if claim == "recipe" and of_recipe is False:
        raise InputError(
            f"--test {test} knows questions alone and says nothing of a recipe trained again: leave it out (two-level "
            "is taken), or ask about these weights (--claim checkpoint)"
        )
    if claim == "checkpoint" and of_recipe:
        raise InputError(
            f"--test {test} takes training seeds for samples and speaks of a recipe: ask for that (--claim recipe), or "
            "leave the test out"
        )
    if test == PairTest.SEEDS_PAIRED:
        first, second = ([draws[0].seed for draws in arm.observations] for arm in (a, b))
        if sorted(map(str, first)) != sorted(map(str, second)):
            raise InputError(
                f"--test {test} needs the same training seeds in both arms: {a.name} has {', '.join(map(str, first))}, "
                f"{b.name} {', '.join(map(str, second))}. Take --test seeds, or two-level"
            )
    if claim == "recipe" and not (a.trained or b.trained):
        raise InputError(
            f"nothing was trained in {a.name} or {b.name}, so there is no recipe to speak of: ask about these models "
            "as they are (--claim checkpoint)"
        )
    if claim == "recipe" and not scatters:
        short = next(arm for arm in (a, b) if arm.trained and len(arm.observations) < 2)
        wanted = stats.seeds_needed(0.02, TYPICAL_SEED_SD)
        reach = ", ".join(f"{stats.smallest_permutation_p(s, s):.2g} with {s}" for s in (3, 4, 5))
        raise InputError(
            "a claim about a recipe needs training seeds in each trained arm, at least two; "
            f"{short.name} has {len(short.observations)}. Where seeds scatter by {TYPICAL_SEED_SD * 100:.1f} points, "
            f"{wanted} seeds per arm find a difference of 2 points in 4 of 5 cases; the smallest p that a permutation "
            f"of seeds can reach is {reach}. Add them to the spec (seeds: [1, 2, 3, 4, 5]), or ask about these "
            "checkpoints (--claim checkpoint)"
        )
    if claim is None and test is not None:
        claim = "recipe" if scatters and of_recipe else "checkpoint"
    recipe = claim == "recipe" or (claim is None and scatters)
    if a.counts_only or b.counts_only:
        return _from_counts(a, b, values, test)
    return _from_values(a, b, values, recipe, test)


def about_recipe(a: Arm, b: Arm) -> bool:
    """Whether two arms can carry a claim about a recipe: see `choose.shows_training`."""
    return shows_training((len(a.observations), len(b.observations)), (a.trained, b.trained))


def _from_counts(a: Arm, b: Arm, values: Values, test: str | None) -> Evidence:
    """At least one arm is known by its counts alone."""
    (right_a, n_a), (right_b, n_b) = _counts_of(a, values), _counts_of(b, values)
    shape = Shape(counts_only=True, n=min(n_a, n_b))
    mean_a, mean_b = right_a / n_a if n_a else None, right_b / n_b if n_b else None
    return Evidence(a, b, "checkpoint", shape, _choice(shape, test), n_a, n_b, mean_a, mean_b)


def _counts_of(arm: Arm, values: Values) -> tuple[int, int]:
    if len(arm.runs) != 1:
        raise InputError(f"{arm.name} has {len(arm.runs)} runs: compare counts with one run at a time")
    run = arm.runs[0]
    if run.counts is not None:
        return run.counts
    row = values.row[str(run.eval_digest)]
    if not values.binary[row]:
        raise InputError(
            f"{arm.name} has values between 0 and 1 ({run.metric}) and the other arm only counts: "
            "counts compare with right-or-wrong answers alone"
        )
    return round(float(values.matrix[row].sum())), int(values.present[row].sum())


def _from_values(a: Arm, b: Arm, values: Values, recipe: bool, test: str | None) -> Evidence:
    """Both arms are known question by question."""
    import numpy as np

    rows_a, rows_b = (
        [[values.row[str(run.eval_digest)] for run in draws] for draws in arm.observations] for arm in (a, b)
    )
    has_a, has_b = (values.present[[row for draws in rows for row in draws]].all(axis=0) for rows in (rows_a, rows_b))
    shared: NDArray[np.bool_] = np.logical_and(has_a, has_b)
    n = int(shared.sum())
    unmatched = (int(has_a.sum()) - n, int(has_b.sum()) - n)
    single = len(rows_a) == len(rows_b) == len(rows_a[0]) == len(rows_b[0]) == 1
    binary = single and bool(values.binary[rows_a[0][0]] and values.binary[rows_b[0][0]])
    shape = Shape(
        binary=binary,
        sampled=max(run.samples for run in (*a.runs, *b.runs)) > 1 or not single,
        clustered=values.clusters is not None,
        recipe=recipe,
        **_asymmetry(a, b, values, (rows_a, rows_b), shared, binary),
        seeds=(len(rows_a), len(rows_b)),
        n=n,
        trained=(a.trained, b.trained),
        searched=single and all(is_search(run.metric) for run in (*a.runs, *b.runs)),
        bounded=a.runs[0].metric not in UNITS,
    )
    choice = _choice(shape, test)
    mean_a = mean_b = table = differences = seed_means_a = seed_means_b = seed_values = None
    if binary:
        table = values.table(rows_a[0][0], rows_b[0][0])
        both, a_only, b_only, _ = table
        mean_a, mean_b = ((both + a_only) / n, (both + b_only) / n) if n else (None, None)
        summed = float(b_only - a_only)
    if not binary or choice.test.of_differences or values.clusters is not None:
        block_a, block_b = (_by_weights(values, rows) for rows in (rows_a, rows_b))
        if not shared.all():
            block_a, block_b = block_a[:, shared], block_b[:, shared]
        differences = block_b.mean(axis=0) - block_a.mean(axis=0)
        summed = float(differences.sum())
        if n:
            seed_values, seed_means_a, seed_means_b = (block_a, block_b), block_a.mean(axis=1), block_b.mean(axis=1)
            mean_a, mean_b = float(seed_means_a.mean()), float(seed_means_b.mean())
    return Evidence(
        a=a,
        b=b,
        claim="recipe" if recipe else "checkpoint",
        shape=shape,
        choice=choice,
        n_a=n,
        n_b=n,
        mean_a=mean_a,
        mean_b=mean_b,
        table=table,
        differences=differences,
        seed_means_a=seed_means_a,
        seed_means_b=seed_means_b,
        seed_values=seed_values,
        clusters=None if values.clusters is None else values.clusters[shared],
        unmatched=unmatched,
        bounds=_bounds(a, b, values, (rows_a, rows_b), shared, unmatched, summed),
    )


class _Asymmetry(TypedDict):
    unequal: bool
    lopsided: bool


def _asymmetry(
    a: Arm,
    b: Arm,
    values: Values,
    rows: tuple[list[list[int]], list[list[int]]],
    shared: NDArray[np.bool_],
    binary: bool,
) -> _Asymmetry:
    """Whether a question's values rest on different numbers of samples, and whether of one arm on too few."""
    drawn = [sum(run.samples for draws in arm.observations for run in draws) for arm in (a, b)]
    metrics = [arm.runs[0].metric for arm in (a, b)]
    if binary or (drawn[0] == drawn[1] and metrics[0] == metrics[1]) or not shared.any():
        return {"unequal": False, "lopsided": False}
    seen = []
    for count, metric, mine in zip(drawn, metrics, rows, strict=True):
        mean = float(_by_weights(values, mine)[:, shared].mean())
        seen.append((count if averages(metric) else 1) * int(shared.sum()) * min(mean, 1 - mean))
    return {"unequal": True, "lopsided": metrics[0] not in UNITS and min(seen) < FEW_SEEN}


def _by_weights(values: Values, rows: list[list[int]]) -> Floats:
    """[weights, questions]: the mean over the draws of each."""
    import numpy as np

    if all(len(draws) == 1 for draws in rows):
        return values.matrix[[draws[0] for draws in rows]]
    return np.stack([values.matrix[draws].mean(axis=0) for draws in rows])


def _bounds(
    a: Arm,
    b: Arm,
    values: Values,
    rows: tuple[list[list[int]], list[list[int]]],
    shared: NDArray[np.bool_],
    unmatched: tuple[int, int],
    summed: float,
) -> tuple[float, float] | None:
    """How far missing, truncated and failed answers could move the difference; None where nothing is missing."""
    lost = [_over_weights(arm, values.lost) for arm in (a, b)]
    if a.runs[0].metric in UNITS or not any((*unmatched, *lost)) or not shared.any():
        return None  # what has no largest value has no worst case
    only_a, only_b = (
        _by_weights(values, mine).mean(axis=0)[
            values.present[[row for draws in mine for row in draws]].all(axis=0) & ~shared
        ]
        for mine in rows
    )
    found = stats.missing_bounds(summed, int(shared.sum()), only_a, only_b)
    return None if found is None else (max(-1.0, found[0] - lost[0]), min(1.0, found[1] + lost[1]))


def _over_weights(arm: Arm, shares: Mapping[str, float]) -> float:
    """The mean share over an arm's distinct weights; what is not known counts as 0."""
    means = [sum(shares.get(str(run.eval_digest), 0.0) for run in draws) / len(draws) for draws in arm.observations]
    return sum(means) / len(means)


def _choice(shape: Shape, asked: str | None) -> Choice:
    try:
        return choose(shape, asked)
    except ValueError as error:
        raise InputError(str(error)) from error
