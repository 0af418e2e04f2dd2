"""The tests, intervals, corrections and power formulas behind every verdict: pure functions over counts and arrays.

    from reports import stats
    stats.mcnemar(a_only=40, b_only=62).p                     # two arms, the same questions, right or wrong
    stats.sign_flip(per_question_means_b - per_question_means_a, seed=0)

Every difference is b - a. A function takes numbers and returns numbers: which one fits the data is decided in
`reports/stats/choose.py`. Degenerate input (nothing to compare, one row, identical arms, a constant difference) gives a
defined result with a `note`: `p` None means that no test is possible, `interval` None that no interval exists; no
function returns nan or emits a warning. Only `scipy.special` is imported on the usual path (scipy.stats and
statsmodels each cost about a second); the tests check every function against R, scipy.stats or statsmodels.

Limits: questions (or clusters) are taken as independent draws, and values as bounded or at least of finite
variance. Bootstrap intervals are Monte Carlo with an explicit seed; their limits move a little with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

LEVEL = 0.95
EXACT_SIGNS = 14  # sign-flips of up to this many off-lattice differences are enumerated
FINEST_LATTICE = 64
FEW_CLUSTERS = 30


@dataclass(frozen=True, slots=True)
class Interval:
    """A confidence interval: limits in the units of the estimate, nominal level, method."""

    low: float
    high: float
    level: float
    name: str

    def as_share(self) -> Interval:
        """The part of it that a share can be in: 0 to 1."""
        return Interval(min(max(self.low, 0.0), 1.0), min(max(self.high, 0.0), 1.0), self.level, self.name)


@dataclass(frozen=True, slots=True)
class Result:
    """What a test found. `p` is two-sided unless the name says otherwise; None where no test is possible."""

    name: str
    statistic: float | None
    p: float | None
    estimate: float | None
    interval: Interval | None = None
    df: float | None = None
    standard_error: float | None = None
    note: str = ""


# --------------------------------------------------------------------------- one binary value per question, paired


def mcnemar(a_only: int, b_only: int, method: str = "mid-p") -> Result:
    """McNemar's test on the discordant counts: questions that only a, only b, has right.

    With X ~ Binomial(a_only + b_only, 1/2) and m the smaller count, exact is min(1, 2 P(X <= m)) and mid-p is
    2 P(X <= m) - P(X = m), or 1 - P(X = m)/2 where the counts are equal (Fagerland, Lydersen, Laake 2013,
    BMC Med Res Methodol 13:91). `statistic` is m; no discordant question gives p = 1.
    """
    from scipy.special import bdtr

    if method not in ("mid-p", "exact"):
        raise ValueError(f"method {method!r}: 'mid-p' or 'exact'")
    name = f"McNemar {method}"
    n, m = a_only + b_only, min(a_only, b_only)
    if n == 0:
        return Result(name, 0.0, 1.0, None, note="no question on which the two differ")
    below = float(bdtr(m, n, 0.5))
    if method == "exact":
        return Result(name, float(m), min(1.0, 2 * below), None)
    here = math.exp(math.lgamma(n + 1) - math.lgamma(m + 1) - math.lgamma(n - m + 1) - n * math.log(2))
    p = 1 - here / 2 if a_only == b_only else 2 * below - here
    return Result(name, float(m), min(1.0, max(0.0, p)), None)


def newcombe_paired(both: int, a_only: int, b_only: int, neither: int, level: float = LEVEL) -> Interval | None:
    """Interval of a difference of paired proportions: Newcombe 1998 (Stat Med 17:2635), method 10.

    Wilson limits of both margins, joined through the correlation phi, whose numerator is continuity corrected:
    max(D - n/2, 0) where D = both*neither - a_only*b_only is positive. None where n = 0.
    """
    n = both + a_only + b_only + neither
    if n == 0:
        return None
    right_a, right_b = both + a_only, both + b_only
    interval_a, interval_b = wilson(right_a, n, level), wilson(right_b, n, level)
    assert interval_a is not None and interval_b is not None
    product = math.sqrt(right_a * (n - right_a)) * math.sqrt(right_b * (n - right_b))
    numerator = float(both * neither - a_only * b_only)
    if numerator > 0:
        numerator = max(numerator - n / 2, 0.0)
    phi = numerator / product if product else 0.0
    low, high = _square_and_add(right_a / n, interval_a, right_b / n, interval_b, phi)
    return Interval(low, high, level, "Newcombe paired")


def tango_score(a_only: int, b_only: int, n: int, difference: float) -> float:
    """Tango's score statistic of H0: p_b - p_a = difference, asymptotically standard normal.

    Tango 1998 (Stat Med 17:891), the restricted maximum likelihood under H0 in closed form; 0 where the
    observed difference equals the hypothesis and has no variance.
    """
    quadratic = 2.0 * n
    linear = -b_only - a_only + (2 * n - b_only + a_only) * difference
    constant = -a_only * difference * (1 - difference)
    root = math.sqrt(max(linear * linear - 4 * quadratic * constant, 0.0))
    share_a_only = (root - linear) / (2 * quadratic)
    variance = n * (2 * share_a_only + difference * (1 - difference))
    numerator = b_only - a_only - n * difference
    if variance <= 1e-12 * max(n, 1):
        return 0.0 if abs(numerator) < 1e-9 * max(n, 1) else math.copysign(math.inf, numerator)
    return numerator / math.sqrt(variance)


def tango_interval(a_only: int, b_only: int, n: int, level: float = LEVEL) -> Interval | None:
    """Interval of a difference of paired proportions by inverting `tango_score`; None where n = 0."""
    if n == 0:
        return None
    z, estimate = _normal_quantile(level), (b_only - a_only) / n
    low = _crossing(lambda d: tango_score(a_only, b_only, n, d) - z, -1.0, estimate)
    high = _crossing(lambda d: tango_score(a_only, b_only, n, d) + z, estimate, 1.0)
    return Interval(low, high, level, "Tango score")


# --------------------------------------------------------------------------- proportions, unpaired


def wilson(successes: int, n: int, level: float = LEVEL) -> Interval | None:
    """Wilson score interval of a proportion (Wilson 1927), without continuity correction; None where n = 0."""
    if n == 0:
        return None
    z = _normal_quantile(level)
    share, squared = successes / n, z * z
    centre = (share + squared / (2 * n)) / (1 + squared / n)
    half = z / (1 + squared / n) * math.sqrt(share * (1 - share) / n + squared / (4 * n * n))
    # At 0 and n successes the limit is 0 or 1 exactly; the formula misses it by a rounding error.
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return Interval(low, high, level, "Wilson")


def newcombe_unpaired(right_a: int, n_a: int, right_b: int, n_b: int, level: float = LEVEL) -> Interval | None:
    """Interval of p_b - p_a from two independent samples: Newcombe 1998 (Stat Med 17:873), method 10.

    None where either sample is empty.
    """
    interval_a, interval_b = wilson(right_a, n_a, level), wilson(right_b, n_b, level)
    if interval_a is None or interval_b is None:
        return None
    low, high = _square_and_add(right_a / n_a, interval_a, right_b / n_b, interval_b, 0.0)
    return Interval(low, high, level, "Newcombe unpaired")


def two_proportion(right_a: int, n_a: int, right_b: int, n_b: int, level: float = LEVEL) -> Result:
    """Two-proportion score test (z with the pooled variance, no continuity correction), Newcombe's interval.

    The same p as R's prop.test(correct = FALSE). All right or all wrong in both gives p = 1.
    """
    name = "two-proportion z, unpaired"
    if n_a == 0 or n_b == 0:
        return Result(name, None, None, None, note="an arm without any question: nothing to test")
    estimate = right_b / n_b - right_a / n_a
    interval = newcombe_unpaired(right_a, n_a, right_b, n_b, level)
    pooled = (right_a + right_b) / (n_a + n_b)
    error = math.sqrt(pooled * (1 - pooled) * (1 / n_a + 1 / n_b))
    if error == 0:
        which = "right" if pooled == 1 else "wrong"
        return Result(name, 0.0, 1.0, 0.0, interval, note=f"every answer of both arms is {which}")
    z = estimate / error
    return Result(name, z, _two_sided_normal(z), estimate, interval, standard_error=error)


# --------------------------------------------------------------------------- values per question, paired


def paired_t(differences: ArrayLike, level: float = LEVEL, name: str = "paired t") -> Result:
    """Student's t on differences of shape [n] (per question, or per seed), n - 1 degrees of freedom.

    Fewer than two differences: p None. All zero: p = 1. All the same and not zero: there is no spread to hold the
    difference against, so p None. None of these three has an interval.
    """
    import numpy as np

    d = np.asarray(differences, dtype=np.float64)
    if (degenerate := _degenerate(d, name)) is not None:
        return degenerate
    n, mean = len(d), float(d.mean())
    error = float(d.std(ddof=1)) / math.sqrt(n)
    return _t_result(name, mean, error, n - 1, level, "t")


def sign_flip(differences: ArrayLike, seed: int, resamples: int = 20_000) -> Result:
    """Sign-flip permutation test of H0: each difference is as likely to be -d as d. `differences` is [n].

    Exact wherever all differences are multiples of one 1/k with k <= 64 (means of k samples are): the null
    distribution of the sum is the inverse Fourier transform of prod cos(theta d_i), and p is good to 1e-13.
    Exact by enumeration up to 14 non-zero differences; else Monte Carlo with p = (1 + hits)/(1 + resamples).
    """
    import numpy as np

    name = "sign-flip permutation"
    d = np.asarray(differences, dtype=np.float64)
    if len(d) == 0:
        return Result(name, None, None, None, note="no shared question: nothing to test")
    mean, moved = float(d.mean()), d[d != 0]
    if len(moved) == 0:
        return Result(name, 0.0, 1.0, 0.0, note="every difference is zero")
    unit = _lattice_unit(moved)
    if unit is not None:
        steps = np.rint(moved * unit).astype(np.int64)
        p = _exact_sign_flip(np.abs(steps), abs(int(steps.sum())))
        return Result(name + " (exact)", mean, p, mean)
    size, total = np.abs(moved), abs(float(moved.sum()))
    tolerance = 1e-9 * float(size.sum())
    if len(moved) <= EXACT_SIGNS:
        patterns = np.arange(2 ** len(moved))[:, None] >> np.arange(len(moved)) & 1
        hits = int((np.abs((2 * patterns - 1) @ size) >= total - tolerance).sum())
        return Result(name + " (exact)", mean, hits / len(patterns), mean)
    generator, hits = np.random.default_rng(seed), 0
    for rows in _chunks(resamples, len(moved)):
        signs = generator.integers(0, 2, size=(rows, len(moved)), dtype=np.int8) * 2 - 1
        hits += int((np.abs(signs @ size) >= total - tolerance).sum())
    return Result(f"{name} ({resamples} draws)", mean, (1 + hits) / (1 + resamples), mean)


def cluster_t(differences: ArrayLike, clusters: ArrayLike, level: float = LEVEL) -> Result:
    """t on the mean of differences [n] whose questions come in `clusters` [n], robust to any within-cluster tie.

    Standard error sqrt(G/(G-1) * sum_g (sum of residuals in g)^2) / n with G clusters, df = G - 1 (Liang and
    Zeger 1986, the CR1 form of statsmodels and Stata). Fewer than two clusters: p None.
    """
    import numpy as np

    name, d = "cluster-robust t", np.asarray(differences, dtype=np.float64)
    sums, sizes = _cluster_sums(d, clusters)
    groups = len(sums)
    if groups < 2:
        estimate = float(d.mean()) if len(d) else None
        return Result(name, None, None, estimate, note=f"{groups} cluster(s): at least two are needed")
    if (degenerate := _degenerate(d, name)) is not None:
        return degenerate
    mean = float(d.mean())
    residuals = sums - sizes * mean
    error = math.sqrt(groups / (groups - 1) * float((residuals**2).sum())) / len(d)
    note = "" if groups >= FEW_CLUSTERS else f"only {groups} clusters (under {FEW_CLUSTERS}): p comes out too small"
    if error <= 1e-12:
        return Result(name, None, None, mean, note="the clusters have equal means: no spread to test against")
    return _t_result(name, mean, error, groups - 1, level, "cluster-robust t", note)


def cluster_bootstrap(
    differences: ArrayLike,
    seed: int,
    clusters: ArrayLike | None = None,
    resamples: int = 10_000,
    level: float = LEVEL,
) -> Interval | None:
    """Percentile interval of the mean of differences [n], drawing whole clusters (a question each by default).

    With one row a question that is the bootstrap of the question means: the k samples inside stay together.
    None with fewer than two clusters or without any spread.
    """
    import numpy as np

    d = np.asarray(differences, dtype=np.float64)
    if clusters is None:
        means = None if len(d) < 2 or _constant(d) else _bootstrap_means(d, seed, resamples)
    else:
        sums, sizes = _cluster_sums(d, clusters)
        if len(sums) < 2 or _constant(sums / sizes):
            return None
        generator, parts = np.random.default_rng(seed), []
        for rows in _chunks(resamples, len(sums)):
            drawn = generator.integers(0, len(sums), size=(rows, len(sums)))
            parts.append(sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1))
        means = np.concatenate(parts)
    if means is None:
        return None
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), level, "cluster bootstrap")


def bca_bootstrap(values: ArrayLike, seed: int, resamples: int = 10_000, level: float = LEVEL) -> Interval | None:
    """Bias-corrected accelerated bootstrap interval of the mean of `values` [n] (Efron 1987, JASA 82:171).

    The acceleration of a mean is sum (x - m)^3 / (6 (sum (x - m)^2)^1.5). Percentile limits where the bias
    correction is undefined (all resampled means on one side); None with fewer than two or constant values.
    """
    import numpy as np
    from scipy.special import ndtr, ndtri

    x = np.asarray(values, dtype=np.float64)
    if len(x) < 2 or _constant(x):
        return None
    means, centre = _bootstrap_means(x, seed, resamples), float(x.mean())
    below = float((means < centre).mean() + (means == centre).mean() / 2)
    tails = np.array([(1 - level) / 2, (1 + level) / 2])
    name = "bootstrap percentile"
    if 0 < below < 1:
        centred = x - centre
        acceleration = float((centred**3).sum() / (6 * (centred**2).sum() ** 1.5))
        shifted = ndtri(below) + ndtri(tails)
        if np.all(1 - acceleration * shifted > 0):
            tails, name = ndtr(ndtri(below) + shifted / (1 - acceleration * shifted)), "bootstrap BCa"
    low, high = np.quantile(means, tails)
    return Interval(float(low), float(high), level, name)


# --------------------------------------------------------------------------- training seeds


def welch_t(seed_means_a: ArrayLike, seed_means_b: ArrayLike, level: float = LEVEL) -> Result:
    """Welch's t on one mean per training seed, shapes [S_a] and [S_b]; df by Welch and Satterthwaite.

    Needs two seeds in each arm (else p None). No spread in either arm: p = 1 where the means agree, else p None,
    since nothing says how far training again would move them; without an interval.
    """
    import numpy as np

    name = "Welch t on seed means"
    a, b = np.asarray(seed_means_a, dtype=np.float64), np.asarray(seed_means_b, dtype=np.float64)
    estimate = float(b.mean() - a.mean()) if len(a) and len(b) else None
    if len(a) < 2 or len(b) < 2 or estimate is None:
        return Result(name, None, None, estimate, note="a claim about a recipe needs at least two seeds in each arm")
    if _constant(a) and _constant(b):
        if abs(estimate) < 1e-12:
            return Result(name, 0.0, 1.0, 0.0, note="every seed of both arms has the same mean")
        return Result(
            name, None, None, estimate, note="no spread between the seeds of either arm: nothing to test with"
        )
    part_a, part_b = float(a.var(ddof=1)) / len(a), float(b.var(ddof=1)) / len(b)
    df = (part_a + part_b) ** 2 / (part_a**2 / (len(a) - 1) + part_b**2 / (len(b) - 1))
    return _t_result(name, estimate, math.sqrt(part_a + part_b), df, level, "t on seed means")


def two_level(
    values_a: ArrayLike, values_b: ArrayLike, level: float = LEVEL, trained: tuple[bool, bool] = (True, True)
) -> Result:
    """t on the difference of means over questions AND seeds: a claim about this recipe on questions like these.

    `values_a` [S_a, n] and `values_b` [S_b, n] hold one value per seed and shared question. The variance is that
    of the seed means plus that of the seed-averaged question differences, minus the residual both contain
    (two-way cluster-robust variance, Cameron, Gelbach, Miller 2011), never less than the larger part. df is
    that of the seeds by Satterthwaite, the questions counting as n - 1. Needs two questions and two seeds in each
    arm that is `trained`; an untrained arm is one row, which has no variance between seeds.
    """
    name = "two-level t (questions x seeds)"
    parts = _level_parts(values_a, values_b, trained)
    if isinstance(parts, Result):
        return parts
    variance = parts.variance()
    if variance <= 1e-24:
        p = 1.0 if abs(parts.estimate) < 1e-12 else None
        return Result(name, None, p, parts.estimate, note="no spread between questions or seeds")
    return _t_result(name, parts.estimate, math.sqrt(variance), parts.df(), level, "two-level t")


def two_level_seeds_needed(
    values_a: ArrayLike,
    values_b: ArrayLike,
    effect: float,
    alpha: float = 0.05,
    power: float = 0.8,
    trained: tuple[bool, bool] = (True, True),
    limit: int = 10_000,
) -> int | None:
    """Seeds in each trained arm for `two_level` to find `effect` on these questions, if the spreads stay as they are.

    More seeds take nothing from the part of the variance that questions carry. None where no number up to `limit` is
    enough (more questions would be), where the effect is 0, and where `two_level` has no test.
    """
    parts = _level_parts(values_a, values_b, trained)
    if isinstance(parts, Result) or effect == 0:
        return None

    def finds(seeds: int) -> bool:
        variance = parts.variance(seeds)
        if variance <= 1e-24:
            return True
        return _t_power(min(abs(effect) / math.sqrt(variance), 37.0), parts.df(seeds), alpha) >= power

    if not finds(limit):
        return None
    low, high = 1, limit  # power grows with the seeds: search for the first that is enough
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if finds(middle) else (middle, high)
    return high


@dataclass(frozen=True, slots=True)
class _LevelParts:
    """Variances of a difference over questions and seeds: `questions` of the mean of n questions, with the seeds' part
    in it; `seeds` and `residual` of one seed's mean, for each trained arm, which have `counts` seeds.
    """

    estimate: float
    n: int
    questions: float
    seeds: list[float]
    residual: list[float]
    counts: list[int]

    def _each(self, seeds: int | None) -> tuple[float, list[float], float]:
        """The three parts at so many seeds an arm (None: as many as there are)."""
        counts = self.counts if seeds is None else [seeds] * len(self.counts)
        now = sum(one / count for one, count in zip(self.residual, self.counts, strict=True))
        then = sum(one / count for one, count in zip(self.residual, counts, strict=True))
        questions = self.questions if seeds is None else max(0.0, self.questions - now) + then
        return questions, [one / count for one, count in zip(self.seeds, counts, strict=True)], then

    def variance(self, seeds: int | None = None) -> float:
        """Of the difference of means, never less than its larger part."""
        questions, means, residual = self._each(seeds)
        return max(questions + sum(means) - residual, questions, sum(means))

    def df(self, seeds: int | None = None) -> float:
        """By Satterthwaite, the questions counting as n - 1."""
        questions, means, _ = self._each(seeds)
        counts = self.counts if seeds is None else [seeds] * len(self.counts)
        pieces = [(part, count - 1) for part, count in zip(means, counts, strict=True)] + [(questions, self.n - 1)]
        return float(sum(part for part, _ in pieces) ** 2 / sum(part**2 / freedom for part, freedom in pieces))


def _level_parts(values_a: ArrayLike, values_b: ArrayLike, trained: tuple[bool, bool]) -> _LevelParts | Result:
    """The parts of the variance, or the result that says why there are none."""
    import numpy as np

    name = "two-level t (questions x seeds)"
    a, b = np.atleast_2d(np.asarray(values_a, dtype=np.float64)), np.atleast_2d(np.asarray(values_b, dtype=np.float64))
    n = a.shape[1]
    if n == 0:
        return Result(name, None, None, None, note="no shared question: nothing to test")
    difference = b.mean(axis=0) - a.mean(axis=0)
    estimate = float(difference.mean())
    scattering = [arm for arm, learned in zip((a, b), trained, strict=True) if learned]
    if not scattering or min(len(arm) for arm in scattering) < 2 or n < 2:
        return Result(name, None, None, estimate, note="needs two seeds in each trained arm and two shared questions")
    residuals = []
    for arm in scattering:
        residual = arm - arm.mean(axis=0) - arm.mean(axis=1, keepdims=True) + arm.mean()
        residuals.append(float((residual**2).sum()) / ((len(arm) - 1) * (n - 1)) / n)
    return _LevelParts(
        estimate=estimate,
        n=n,
        questions=float(difference.var(ddof=1)) / n,
        seeds=[float(arm.mean(axis=1).var(ddof=1)) for arm in scattering],
        residual=residuals,
        counts=[len(arm) for arm in scattering],
    )


def smallest_permutation_p(seeds_a: int, seeds_b: int | None = None) -> float:
    """Smallest two-sided p that permuting S_a against S_b seeds can reach: 2 / C(S_a + S_b, S_a).

    Without `seeds_b`: sign-flips of S paired seeds, 2 / 2**S.
    """
    arrangements = 2**seeds_a if seeds_b is None else math.comb(seeds_a + seeds_b, seeds_a)
    return min(1.0, 2 / arrangements)


# --------------------------------------------------------------------------- no harm, and equivalence


def margin_test_t(
    estimate: float, standard_error: float, df: float, margin: float, both_sides: bool, alpha: float = 0.05
) -> Result:
    """Non-inferiority (H0: difference <= -margin) or, with `both_sides`, TOST equivalence by t; one-sided p.

    TOST is the larger of the two one-sided p (Schuirmann 1987); the interval has level 1 - 2 alpha, so that it
    lies inside the margin exactly where p < alpha. `standard_error` must be positive.
    """
    from scipy.special import stdtr

    upper = float(stdtr(df, -(estimate + margin) / standard_error))
    lower = float(stdtr(df, (estimate - margin) / standard_error))
    interval = _t_result("", estimate, standard_error, df, 1 - 2 * alpha, "t").interval
    name, p = ("TOST equivalence (t)", max(upper, lower)) if both_sides else ("non-inferiority (t)", upper)
    return Result(name, estimate / standard_error, p, estimate, interval, df, standard_error)


def margin_test_paired(
    a_only: int, b_only: int, n: int, margin: float, both_sides: bool, alpha: float = 0.05
) -> Result:
    """The same for paired right/wrong answers, by Tango's score test and its interval; n = 0 gives p None."""
    name = "TOST equivalence (Tango score)" if both_sides else "non-inferiority (Tango score)"
    if n == 0:
        return Result(name, None, None, None, note="no shared question: nothing to test")
    z_low, z_high = tango_score(a_only, b_only, n, -margin), tango_score(a_only, b_only, n, margin)
    p = max(_upper_normal(z_low), _upper_normal(-z_high)) if both_sides else _upper_normal(z_low)
    interval = tango_interval(a_only, b_only, n, 1 - 2 * alpha)
    return Result(name, z_low, p, (b_only - a_only) / n, interval)


def margin_test_unpaired(
    right_a: int, n_a: int, right_b: int, n_b: int, margin: float, both_sides: bool, alpha: float = 0.05
) -> Result:
    """The same for two independent samples, by the score test with restricted variance (Farrington, Manning 1990).

    The interval is Newcombe's of level 1 - 2 alpha. An empty sample gives p None.
    """
    name = "TOST equivalence (score, unpaired)" if both_sides else "non-inferiority (score, unpaired)"
    if n_a == 0 or n_b == 0:
        return Result(name, None, None, None, note="an arm without any question: nothing to test")
    estimate = right_b / n_b - right_a / n_a
    z_low = _farrington_manning(right_a, n_a, right_b, n_b, -margin)
    z_high = _farrington_manning(right_a, n_a, right_b, n_b, margin)
    p = max(_upper_normal(z_low), _upper_normal(-z_high)) if both_sides else _upper_normal(z_low)
    return Result(name, z_low, p, estimate, newcombe_unpaired(right_a, n_a, right_b, n_b, 1 - 2 * alpha))


# --------------------------------------------------------------------------- families of tests


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p (Holm 1979): controls the chance of any false claim in the family."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, running = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = running
    return adjusted


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Benjamini and Hochberg's step-up adjusted p (1995): controls the expected share of false discoveries."""
    count = len(p_values)
    order = sorted(range(count), key=lambda i: p_values[i], reverse=True)
    adjusted, running = [0.0] * count, 1.0
    for rank, i in enumerate(order):
        running = min(running, p_values[i] * count / (count - rank))
        adjusted[i] = running
    return adjusted


def bonferroni(p_values: Sequence[float]) -> list[float]:
    """Each p times the size of the family, at most 1; Holm's is never larger and controls the same error."""
    return [min(1.0, p * len(p_values)) for p in p_values]


def adjust(p_values: Sequence[float | None], method: str) -> list[float | None]:
    """Adjust a family by "holm", "bonferroni", "bh" or "none". A None (no test was possible) stays None, uncounted."""
    methods: dict[str, Callable[[Sequence[float]], list[float]]] = {
        "holm": holm,
        "bonferroni": bonferroni,
        "bh": benjamini_hochberg,
        "none": list,
    }
    if method not in methods:
        raise ValueError(f"correction {method!r}: one of {', '.join(methods)}")
    adjusted = iter(methods[method]([p for p in p_values if p is not None]))
    return [None if p is None else next(adjusted) for p in p_values]


# --------------------------------------------------------------------------- power


def minimum_detectable_effect(variance: float, n: float, alpha: float = 0.05, power: float = 0.8) -> float | None:
    """Smallest true difference found with chance `power`: (z_{alpha/2} + z_power) sqrt(variance / n).

    `variance` is that of the per-question difference, for right/wrong answers the discordant fraction (at most
    that, by difference squared), which gives 2.80 sqrt(d / n) at the defaults. None where n = 0.
    """
    return _z_sum(alpha, power) * math.sqrt(variance / n) if n > 0 else None


def sample_size(
    effect: float,
    variance: float,
    sample_variance_a: float = 0.0,
    samples_a: int = 1,
    sample_variance_b: float = 0.0,
    samples_b: int = 1,
    alpha: float = 0.05,
    power: float = 0.8,
) -> int | None:
    """Questions needed to find `effect`: (z_{a/2} + z_b)^2 (w^2 + s_A^2/K_A + s_B^2/K_B) / effect^2, rounded up.

    Miller 2024 (arXiv 2411.00640), equation 9: w^2 is the variance over questions of the true difference,
    s^2 the mean variance of one sample within a question. None where the effect is 0: no n would do.
    """
    if effect == 0:
        return None
    spread = variance + sample_variance_a / samples_a + sample_variance_b / samples_b
    return max(1, math.ceil(_z_sum(alpha, power) ** 2 * spread / effect**2 - 1e-9))


def seeds_needed(
    effect: float, seed_sd: float, alpha: float = 0.05, power: float = 0.8, paired: bool = False, limit: int = 10_000
) -> int | None:
    """Seeds per arm for a t test on seed means to find `effect`, by the noncentral t distribution.

    `seed_sd` is the standard deviation of a seed's mean, or of the paired difference where `paired`. None where
    the effect is 0 or more than `limit` seeds would be needed. At least 2.
    """
    if effect == 0 or _seed_power(effect, seed_sd, limit, alpha, paired) < power:
        return None
    low, high = 1, limit  # power grows with the seeds: search for the first that is enough
    while high - low > 1:
        middle = (low + high) // 2
        enough = _seed_power(effect, seed_sd, middle, alpha, paired) >= power
        low, high = (low, middle) if enough else (middle, high)
    return high


def t_detectable(standard_error: float, df: float, alpha: float = 0.05, power: float = 0.8) -> float | None:
    """Smallest true difference that a two-sided t test with this standard error and df finds with chance `power`.

    By the noncentral t; the chance of rejecting on the wrong side is left out. None where it is more than 37
    standard errors (two seeds at a strict level), where no finite answer would be worth much.
    """
    if standard_error == 0:
        return None

    def falls_short(shift: float) -> float:
        return power - _t_power(shift, df, alpha)

    return None if falls_short(37.0) > 0 else standard_error * _crossing(falls_short, 0.0, 37.0)


def missing_bounds(
    summed_difference: float, shared: int, only_a: ArrayLike, only_b: ArrayLike
) -> tuple[float, float] | None:
    """Least and largest difference over ALL questions if the missing values, in [0, 1], were the worst or best.

    `summed_difference` is sum(b - a) over the `shared` questions; `only_a` [m_a] and `only_b` [m_b] hold the
    values of the questions that the other arm lacks (Manski's worst-case bounds). None without any question.
    """
    import numpy as np

    a, b = np.asarray(only_a, dtype=np.float64), np.asarray(only_b, dtype=np.float64)
    total = shared + len(a) + len(b)
    if total == 0:
        return None
    low = (summed_difference - float(a.sum()) + float((b - 1).sum())) / total
    high = (summed_difference + float((1 - a).sum()) + float(b.sum())) / total
    return low, high


# --------------------------------------------------------------------------- the parts they share


def _normal_quantile(level: float) -> float:
    from scipy.special import ndtri

    return float(ndtri((1 + level) / 2))


def _upper_normal(z: float) -> float:
    from scipy.special import ndtr

    return float(ndtr(-z))


def _two_sided_normal(z: float) -> float:
    return min(1.0, 2 * _upper_normal(abs(z)))


def _z_sum(alpha: float, power: float) -> float:
    from scipy.special import ndtri

    return float(ndtri(1 - alpha / 2) + ndtri(power))


def _t_result(
    name: str, estimate: float, error: float, df: float, level: float, interval_name: str, note: str = ""
) -> Result:
    from scipy.special import stdtr, stdtrit

    statistic = estimate / error
    half = float(stdtrit(df, (1 + level) / 2)) * error
    interval = Interval(estimate - half, estimate + half, level, interval_name)
    p = min(1.0, 2 * float(stdtr(df, -abs(statistic))))
    return Result(name, statistic, p, estimate, interval, float(df), error, note)


def _degenerate(d: Floats, name: str) -> Result | None:
    """The result of a test on differences without spread, or None where a test can run."""
    if len(d) == 0:
        return Result(name, None, None, None, note="nothing in common: nothing to test")
    mean = float(d.mean())
    if len(d) == 1:
        return Result(name, None, None, mean, note="one difference alone: no test and no interval")
    if not _constant(d):
        return None
    if abs(mean) < 1e-12:
        return Result(name, 0.0, 1.0, 0.0, note="every difference is zero")
    return Result(name, None, None, mean, note="every difference is the same: no spread to test against")


def _constant(x: Floats) -> bool:
    return float(x.max() - x.min()) <= 1e-12 * max(1.0, abs(float(x[0])))


def _square_and_add(
    share_a: float, interval_a: Interval, share_b: float, interval_b: Interval, phi: float
) -> tuple[float, float]:
    """Newcombe's joining of two Wilson intervals into limits for share_b - share_a."""
    down_a, up_a = share_a - interval_a.low, interval_a.high - share_a
    down_b, up_b = share_b - interval_b.low, interval_b.high - share_b
    difference = share_b - share_a
    low = difference - math.sqrt(max(down_b**2 - 2 * phi * down_b * up_a + up_a**2, 0.0))
    high = difference + math.sqrt(max(down_a**2 - 2 * phi * down_a * up_b + up_b**2, 0.0))
    return low, high


def _crossing(falling: Callable[[float], float], low: float, high: float) -> float:
    """Where a falling function is zero in [low, high], by bisection to 1e-14."""
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if falling(middle) > 0 else (low, middle)
        if high - low < 1e-14:
            break
    return (low + high) / 2


def _lattice_unit(values: Floats) -> int | None:
    """The smallest k <= 64 such that every value is a multiple of 1/k, None where there is none."""
    import numpy as np

    probe = values[:512]
    for unit in range(1, FINEST_LATTICE + 1):
        for part in (probe, values):
            scaled = part * unit
            if float(np.abs(scaled - np.rint(scaled)).max()) > 1e-7:
                break
        else:
            return unit
    return None


def _exact_sign_flip(steps: NDArray[np.int64], observed: int) -> float:
    """P(|sum of +-steps| >= observed), by the inverse Fourier transform of the characteristic function."""
    import numpy as np

    step_sizes, counts = np.unique(steps, return_counts=True)
    total = int(steps.sum())
    if observed == total:
        return float(2.0 ** (1 - len(steps)))
    length = 2 * total + 1
    angles = 2 * np.pi * np.arange(total + 1) / length
    spectrum = np.ones(total + 1)
    for step, count in zip(step_sizes, counts, strict=True):
        spectrum *= np.cos(angles * step) ** count
    masses = np.fft.irfft(spectrum, n=length)[: total + 1]  # symmetric: mass at +s equals mass at -s
    p = 1.0 if observed == 0 else 2 * float(masses[observed:].sum())
    return min(1.0, max(p, 1e-13))


def _chunks(rows: int, width: int, cells: int = 4_000_000) -> list[int]:
    """Row counts that sum to `rows`, each at most `cells` cells of this width, to bound memory."""
    step = max(1, cells // max(width, 1))
    return [min(step, rows - start) for start in range(0, rows, step)]


def _bootstrap_means(x: Floats, seed: int, resamples: int) -> Floats:
    """Means of `resamples` resamples of x. Few distinct values are drawn as multinomial counts: the same law."""
    import numpy as np

    generator = np.random.default_rng(seed)
    distinct, counts = np.unique(x, return_counts=True)
    if len(distinct) <= 256:
        drawn = generator.multinomial(len(x), counts / len(x), size=resamples)
        return np.asarray(drawn @ distinct / len(x), dtype=np.float64)
    parts = [x[generator.integers(0, len(x), size=(rows, len(x)))].mean(axis=1) for rows in _chunks(resamples, len(x))]
    return np.concatenate(parts)


def _cluster_sums(d: Floats, clusters: ArrayLike) -> tuple[Floats, Floats]:
    import numpy as np

    labels = np.asarray(clusters)
    if labels.shape != d.shape:
        raise ValueError(f"clusters of shape {labels.shape} for differences of shape {d.shape}")
    _, index = np.unique(labels, return_inverse=True)
    size = int(index.max()) + 1 if len(index) else 0
    sums: Floats = np.bincount(index, weights=d, minlength=size).astype(np.float64)
    return sums, np.bincount(index, minlength=size).astype(np.float64)


def _seed_power(effect: float, seed_sd: float, seeds: int, alpha: float, paired: bool) -> float:
    """Power of a two-sided t test on seed means with `seeds` seeds per arm."""
    if seeds < 2:
        return 0.0
    if seed_sd == 0:
        return 1.0
    df = seeds - 1 if paired else 2 * (seeds - 1)
    return _t_power(min(abs(effect) / (seed_sd * math.sqrt((1 if paired else 2) / seeds)), 37.0), df, alpha)


def _t_power(shift: float, df: float, alpha: float) -> float:
    """Power of a two-sided t test whose true difference is `shift` (at most 37) standard errors."""
    from scipy.special import nctdtr, stdtrit

    limit = float(stdtrit(df, 1 - alpha / 2))
    if shift - limit > 30:
        return 1.0  # a miss is beyond all doubt, and scipy's nctdtr gives nan out there
    upper: Any = nctdtr(df, shift, limit)
    return 1 - float(upper)  # the chance of rejecting on the wrong side is left out: below 1e-4 at any useful power


def _farrington_manning(right_a: int, n_a: int, right_b: int, n_b: int, difference: float) -> float:
    """Score z of H0: p_b - p_a = difference, with the variance at the restricted maximum likelihood."""
    share_a, share_b = right_a / n_a, right_b / n_b

    def slope(p_a: float) -> float:
        """Derivative of the log likelihood along p_b = p_a + difference; falling in p_a."""
        p_b = p_a + difference
        return (share_a - p_a) * n_a / (p_a * (1 - p_a)) + (share_b - p_b) * n_b / (p_b * (1 - p_b))

    low, high = max(0.0, -difference), min(1.0, 1 - difference)
    edge = 1e-12
    p_a = _crossing(slope, low + edge, high - edge)
    p_b = p_a + difference
    variance = max(p_a * (1 - p_a), 0.0) / n_a + max(p_b * (1 - p_b), 0.0) / n_b
    numerator = share_b - share_a - difference
    if variance < 1e-10:
        return 0.0 if abs(numerator) < 1e-9 else math.copysign(math.inf, numerator)
    return numerator / math.sqrt(variance)
