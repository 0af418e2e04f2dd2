"""What a design detects and takes by the formulas of textbooks: a reference beside the models of stats/chances.py."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from nsd.reports.stats.limits import OverSeeds, Part, TwoSources
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


def seeds_for(
    a: NDArray[np.float64], b: NDArray[np.float64], effect: float, alpha: float = 0.05, power: float = 0.8
) -> int | None:
    """Seeds of each trained arm ([S, n]; an arm of one row is not trained) that find `effect` on these n questions.

    By one t: seed means and what a seed does at a question are divided by the seeds, the rest of the questions'
    variance is not. None where 10,000 seeds are not enough.
    """
    trained, n = [arm for arm in (a, b) if len(arm) > 1], a.shape[1]
    left = [np.sum((x - x.mean(0) - x.mean(1, keepdims=True) + x.mean()) ** 2) for x in trained]
    noise = [float(one) / (len(x) - 1) / (n - 1) / n for one, x in zip(left, trained, strict=True)]
    whole = float((b.mean(axis=0) - a.mean(axis=0)).var(ddof=1)) / n
    own = max(0.0, whole - sum(one / len(x) for one, x in zip(noise, trained, strict=True)))

    def finds(seeds: int) -> bool:
        arms = tuple(Part(float(x.mean(axis=1).var(ddof=1)) / seeds, seeds - 1) for x in trained)
        residual = sum(noise) / seeds
        both = TwoSources(0.0, Part(own + residual, n - 1), OverSeeds(arms, residual))
        return t_power(min(effect / both.error, 37.0), both.df, alpha) >= power

    found = next((seeds for seeds in range(2, 200) if finds(seeds)), None)
    return found if found is not None or not finds(10_000) else 10_000
