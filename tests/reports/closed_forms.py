"""What a design detects and takes by the formulas of textbooks: a reference beside the models of stats/chances.py."""

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
