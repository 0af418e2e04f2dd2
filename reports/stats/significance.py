"""Tests of a difference between two arms, and the adjustment of families of them.

    stats.mcnemar(a_only=40, b_only=62).p                     # two arms, the same questions, right or wrong
    stats.sign_flip(per_question_means_b - per_question_means_a, seed=0)

Every difference is b - a. A result whose `p` is None says in its `note` why no test was possible.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nsd.reports.stats.intervals import LEVEL, Interval, newcombe_unpaired, rule_of_three, tango_interval, tango_score
from nsd.reports.stats.numerics import chunks, constant, crossing, two_sided_normal, upper_normal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

EXACT_SIGNS = 14  # sign-flips of up to this many off-lattice differences are enumerated
FINEST_LATTICE = 64


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


# --------------------------------------------------------------------------- proportions, unpaired


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
    return Result(name, z, two_sided_normal(z), estimate, interval, standard_error=error)


# --------------------------------------------------------------------------- values per question, paired


def paired_t(differences: ArrayLike, level: float = LEVEL, name: str = "paired t") -> Result:
    """Student's t on differences of shape [n] (per question, or per seed), n - 1 degrees of freedom.

    Fewer than two differences: p None. All zero: p = 1. All the same and not zero: there is no spread to hold the
    difference against, so p None. None of these three has an interval.
    """
    import numpy as np

    d = np.asarray(differences, dtype=np.float64)
    if (found := degenerate(d, name)) is not None:
        return found
    n, mean = len(d), float(d.mean())
    error = float(d.std(ddof=1)) / math.sqrt(n)
    return t_result(name, mean, error, n - 1, level, "t")


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
    for rows in chunks(resamples, len(moved)):
        signs = generator.integers(0, 2, size=(rows, len(moved)), dtype=np.int8) * 2 - 1
        hits += int((np.abs(signs @ size) >= total - tolerance).sum())
    return Result(f"{name} ({resamples} draws)", mean, (1 + hits) / (1 + resamples), mean)


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
    if constant(a) and constant(b):
        if abs(estimate) < 1e-12:
            return Result(name, 0.0, 1.0, 0.0, note="every seed of both arms has the same mean")
        return Result(
            name, None, None, estimate, note="no spread between the seeds of either arm: nothing to test with"
        )
    part_a, part_b = float(a.var(ddof=1)) / len(a), float(b.var(ddof=1)) / len(b)
    df = (part_a + part_b) ** 2 / (part_a**2 / (len(a) - 1) + part_b**2 / (len(b) - 1))
    return t_result(name, estimate, math.sqrt(part_a + part_b), df, level, "t on seed means")


# --------------------------------------------------------------------------- no harm, and equivalence


def margin_test_paired(
    a_only: int, b_only: int, n: int, margin: float, both_sides: bool, alpha: float = 0.05
) -> Result:
    """Non-inferiority (H0: difference <= -margin) or, with `both_sides`, TOST equivalence; one-sided p, paired answers.

    By Tango's score test and its interval; n = 0 gives p None.

    Without any question on which the two differ it is the rule of three: differences of at least 1 - alpha^(1/n) on one
    side would have shown with chance 1 - alpha, and p is (1 - margin)^n.
    """
    name = "TOST equivalence (Tango score)" if both_sides else "non-inferiority (Tango score)"
    if n == 0:
        return Result(name, None, None, None, note="no shared question: nothing to test")
    if a_only + b_only == 0:
        same = rule_of_three(n, 1 - 2 * alpha)
        name = f"{name.partition(' (')[0]} (rule of three: no answer differs)"
        return Result(name, None, (1 - min(margin, 1.0)) ** n, 0.0, same)
    z_low, z_high = tango_score(a_only, b_only, n, -margin), tango_score(a_only, b_only, n, margin)
    p = max(upper_normal(z_low), upper_normal(-z_high)) if both_sides else upper_normal(z_low)
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
    p = max(upper_normal(z_low), upper_normal(-z_high)) if both_sides else upper_normal(z_low)
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


# --------------------------------------------------------------------------- the parts they share


def t_result(
    name: str, estimate: float, error: float, df: float, level: float, interval_name: str, note: str = ""
) -> Result:
    """A two-sided t test of an estimate with its standard error (positive), and its interval."""
    from scipy.special import stdtr, stdtrit

    statistic = estimate / error
    half = float(stdtrit(df, (1 + level) / 2)) * error
    interval = Interval(estimate - half, estimate + half, level, interval_name)
    p = min(1.0, 2 * float(stdtr(df, -abs(statistic))))
    return Result(name, statistic, p, estimate, interval, float(df), error, note)


def degenerate(d: Floats, name: str) -> Result | None:
    """The result of a test on differences without spread, or None where a test can run."""
    if len(d) == 0:
        return Result(name, None, None, None, note="nothing in common: nothing to test")
    mean = float(d.mean())
    if len(d) == 1:
        return Result(name, None, None, mean, note="one difference alone: no test and no interval")
    if not constant(d):
        return None
    if abs(mean) < 1e-12:
        return Result(name, 0.0, 1.0, 0.0, note="every difference is zero")
    return Result(name, None, None, mean, note="every difference is the same: no spread to test against")


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


def _farrington_manning(right_a: int, n_a: int, right_b: int, n_b: int, difference: float) -> float:
    """Score z of H0: p_b - p_a = difference, with the variance at the restricted maximum likelihood."""
    share_a, share_b = right_a / n_a, right_b / n_b

    def slope(p_a: float) -> float:
        """Derivative of the log likelihood along p_b = p_a + difference; falling in p_a."""
        p_b = p_a + difference
        return (share_a - p_a) * n_a / (p_a * (1 - p_a)) + (share_b - p_b) * n_b / (p_b * (1 - p_b))

    low, high = max(0.0, -difference), min(1.0, 1 - difference)
    edge = 1e-12
    p_a = crossing(slope, low + edge, high - edge)
    p_b = p_a + difference
    variance = max(p_a * (1 - p_a), 0.0) / n_a + max(p_b * (1 - p_b), 0.0) / n_b
    return (share_b - share_a - difference) / math.sqrt(variance)
