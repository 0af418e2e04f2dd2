"""Tests and levels that hold however often growing data are looked at: a normal mixture over any test of the table.

    ratio = information_ratio(standard_error)              # what these data know, against the effects looked for
    anytime_p(stats.mcnemar(40, 62).p, ratio)              # valid at any look, and at the one that one stops at
    stats.newcombe_paired(*table, level=1 - fixed_alpha(0.05, ratio))  # the interval of the same look

Estimates of the same difference from growing data (questions, samples of each question, training seeds, or several of
them) are running means, of which the covariance of two is the variance of the later. Estimate / variance is then, in
information 1 / variance and without any effect, a Brownian motion (Scharfstein, Tsiatis, Robins 1997, JASA 92:1342), in
whatever order questions come. Its likelihood ratio against no effect, averaged over true effects from a normal
distribution with mean 0 and standard deviation EFFECT_SCALE, is a martingale M that starts at 1, so the chance that
M ever reaches 1 / alpha is at most alpha (Ville). With z = estimate / standard error and r = EFFECT_SCALE^2 /
variance

    M = (1 + r)^-1/2 exp(z^2 r / (2 (1 + r)))

(Robbins 1970, Ann Math Stat 41:1397; Howard, Ramdas, McAuliffe, Sekhon 2021, Ann Stat 49:1055; with an estimated
variance, asymptotically: Waudby-Smith, Arbour, Sinha, Kennedy, Ramdas 2024, Ann Stat 52:2613). p is 1 / M. One-sided,
effects come from the upper half of that distribution: M = 2 (1 + r)^-1/2 exp(z^2 r / (2 (1 + r))) Phi(z (r / (1 +
r))^1/2).

z is the normal quantile of the p that the test of the table gives for one look, and the interval is that of the table
at the level of that z, so few questions or seeds are as safe here as in that test. Whatever r is, a two-sided p of .05
takes a one-look p below .0025, so up to twenty looks are also safe by adding their chances up, with no approximation
but that test's own.

Limits: values in [0, 1], whose effects EFFECT_SCALE fits; for other scales the result is valid and wide. Beyond twenty
looks the promise is asymptotic; what simulation says of it is in docs/deciding.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from nsd.reports.stats.chances import Model
from nsd.reports.stats.numerics import crossing

EFFECT_SCALE = 0.1  # chosen before any data: intervals are narrowest where the standard error is about a third of it
LARGEST_Z = 37.0  # beyond it a normal tail is zero in double precision


def information_ratio(standard_error: float) -> float:
    """r, the information 1 / standard_error^2 times EFFECT_SCALE^2. `standard_error` must be positive."""
    return (EFFECT_SCALE / standard_error) ** 2


def anytime_p(p: float, ratio: float) -> float:
    """The two-sided anytime-valid p of a look whose own two-sided p is `p`, at most 1."""
    from scipy.special import ndtri

    z = min(LARGEST_Z, -float(ndtri(max(p, 1e-300) / 2)))
    return min(1.0, math.exp(-_log_mixture(z, ratio)))


def anytime_one_sided_p(p: float, ratio: float) -> float:
    """The one-sided anytime-valid p of a look whose own one-sided p is `p`, at most 1."""
    from scipy.special import ndtri

    z = max(-LARGEST_Z, min(LARGEST_Z, -float(ndtri(min(max(p, 1e-300), 1.0)))))
    return min(1.0, math.exp(-_log_half_mixture(z, ratio)))


def fixed_alpha(alpha: float, ratio: float) -> float:
    """The two-sided p that a look's own test must reach for its anytime-valid p to be `alpha`."""
    from scipy.special import ndtr

    z = math.sqrt((1 + 1 / ratio) * (math.log1p(ratio) - 2 * math.log(alpha)))
    return 2 * float(ndtr(-min(z, LARGEST_Z)))


def fixed_one_sided_alpha(alpha: float, ratio: float) -> float:
    """The same one-sided."""
    from scipy.special import ndtr

    wanted = -math.log(alpha)
    z = crossing(lambda one: wanted - _log_half_mixture(one, ratio), -LARGEST_Z, LARGEST_Z)
    return float(ndtr(-z))


@dataclass(frozen=True, slots=True)
class AnyLook:
    """The design `once` judged at any look: its chances at this one, at the level that a look must reach.

    The ratio is that of the standard error that the design expects.
    """

    once: Model

    @property
    def largest(self) -> float:
        """As of one look."""
        return self.once.largest

    def told(self, effect: float) -> bool:
        """As of one look."""
        return self.once.told(effect)

    def error(self, effect: float) -> float:
        """As of one look."""
        return self.once.error(effect)

    def chance(self, effect: float, alpha: float) -> float:
        """See `chances.Model`."""
        error = self.error(effect)
        return self.once.chance(effect, fixed_alpha(alpha, information_ratio(error)) if error else alpha)

    def margin_chance(self, margin: float, alpha: float, both_sides: bool) -> float:
        """See `chances.Model`."""
        error = self.error(0.0)
        here = fixed_one_sided_alpha(alpha, information_ratio(error)) if error else alpha
        return self.once.margin_chance(margin, here, both_sides)


def _log_mixture(z: float, ratio: float) -> float:
    """log M for a two-sided z."""
    return (z * z * ratio / (1 + ratio) - math.log1p(ratio)) / 2


def _log_half_mixture(z: float, ratio: float) -> float:
    """log M for a one-sided z; rises with z."""
    from scipy.special import log_ndtr

    return _log_mixture(z, ratio) + math.log(2) + float(log_ndtr(z * math.sqrt(ratio / (1 + ratio))))
