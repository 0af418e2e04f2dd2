"""How many seeds a wanted difference takes, and what a permutation of them can reach."""

from __future__ import annotations

import math

from nsd.reports.stats.numerics import t_power


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


def smallest_permutation_p(seeds_a: int, seeds_b: int | None = None) -> float:
    """Smallest two-sided p that permuting S_a against S_b seeds can reach: 2 / C(S_a + S_b, S_a).

    Without `seeds_b`: sign-flips of S paired seeds, 2 / 2**S.
    """
    arrangements = 2**seeds_a if seeds_b is None else math.comb(seeds_a + seeds_b, seeds_a)
    return min(1.0, 2 / arrangements)


def seeds_count(seeds: int | None, arms: int, alpha: float) -> tuple[float, int]:
    """How many times the SD of a difference of seed means counts in a test of level `alpha`, and its df.

    `seeds` in each of 1 or 2 trained `arms`; None for seeds without end (df 0).
    """
    from scipy.special import ndtri, stdtrit

    if seeds is None:
        return -float(ndtri(alpha / 2)), 0
    df = arms * (seeds - 1)
    return -float(stdtrit(df, alpha / 2)), df


def _seed_power(effect: float, seed_sd: float, seeds: int, alpha: float, paired: bool) -> float:
    """Power of a two-sided t test on seed means with `seeds` seeds per arm."""
    if seeds < 2:
        return 0.0
    if seed_sd == 0:
        return 1.0
    df = seeds - 1 if paired else 2 * (seeds - 1)
    return t_power(min(abs(effect) / (seed_sd * math.sqrt((1 if paired else 2) / seeds)), 37.0), df, alpha)
