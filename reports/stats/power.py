"""What a design can detect, and how many questions or seeds a wanted difference takes."""

from __future__ import annotations

import math

from nsd.reports.stats.numerics import crossing, t_power, z_sum


def minimum_detectable_effect(variance: float, n: float, alpha: float = 0.05, power: float = 0.8) -> float | None:
    """Smallest true difference found with chance `power`: (z_{alpha/2} + z_power) sqrt(variance / n).

    `variance` is that of the per-question difference, for right/wrong answers the discordant fraction (at most
    that, by difference squared), which gives 2.80 sqrt(d / n) at the defaults. None where n = 0.
    """
    return z_sum(alpha, power) * math.sqrt(variance / n) if n > 0 else None


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
    return max(1, math.ceil(z_sum(alpha, power) ** 2 * spread / effect**2 - 1e-9))


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
        return power - t_power(shift, df, alpha)

    return None if falls_short(37.0) > 0 else standard_error * crossing(falls_short, 0.0, 37.0)


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
