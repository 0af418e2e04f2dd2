"""The chance that a test of right-or-wrong answers finds a true difference: sums over the counts that may come up.

PairedShares(n=164, discordance=0.2).chance(0.10, alpha=0.05)        # McNemar, and the sign test of searches
UnpairedShares(164, 164, pooled=0.4)                                 # the two-proportion score test
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

MANY_DISCORDANT = 120  # expected; beyond, the normal approximation is right to .01

# --------------------------------------------------------------------------- right or wrong, paired


@dataclass(frozen=True, slots=True)
class PairedShares:
    """McNemar's test on `n` shared questions, of which two arms differ on a share `discordance`.

    A sign test of searches is the same: the questions that tell two arms apart are the discordant ones. A difference
    takes at least as many discordant questions as it is large. `exact`: without mid-p.
    """

    n: int
    discordance: float
    exact: bool = False

    @property
    def largest(self) -> float:
        """Every question one way."""
        return 1.0

    def told(self, effect: float) -> bool:
        """Of any difference."""
        return True

    def error(self, effect: float) -> float:
        """At least that of one discordant question."""
        share = min(1.0, max(self.discordance, effect))
        return max(math.sqrt(max(share - effect**2, 0.0) / self.n), 1 / self.n)

    def chance(self, effect: float, alpha: float) -> float:
        """Binomial over the number of discordant questions, and over how they split."""
        import numpy as np
        from scipy.special import ndtr, ndtri

        share = min(1.0, max(self.discordance, effect))
        if self.n * share > MANY_DISCORDANT:
            spread = share - effect**2
            if spread <= 0:
                return 1.0
            # The test's error is that of no difference, sqrt(d), the estimate's that of this one.
            reach = -float(ndtri(alpha / 2)) * math.sqrt(share)
            return float(ndtr((effect * math.sqrt(self.n) - reach) / math.sqrt(spread)))
        counts = _likely(self.n, share)
        limits = _critical(alpha, self.exact, 1 << int(counts[-1]).bit_length())[counts.astype(int)]
        ours = min(1.0, max(0.0, (1 + effect / share) / 2))
        found = np.where(limits >= 0, _at_most(np.maximum(limits, 0), counts, 1 - ours), 0.0)
        return float(found @ _binomial(counts, self.n, share))

    def margin_chance(self, margin: float, alpha: float, both_sides: bool) -> float:
        """Tango's score test over all tables that are likely where both arms are equally good."""
        import numpy as np
        from scipy.special import ndtr, ndtri

        z, share = -float(ndtri(alpha)), min(1.0, self.discordance)
        if self.n * share > MANY_DISCORDANT:
            root = math.sqrt(share / self.n)
            # Under a difference of the margin the restricted estimate of the discordance is larger than the share.
            under = math.sqrt(max(_restricted(share, margin) - margin**2, 0.0) / self.n)
            one_side = float(ndtr((margin - z * under) / root))
            return max(0.0, 2 * one_side - 1) if both_sides else one_side
        counts = _likely(self.n, share)
        a_only, total = np.meshgrid(np.arange(counts.max() + 1), counts, indexing="xy")
        b_only = total - a_only
        possible = b_only >= 0
        a_only, b_only = np.where(possible, a_only, 0), np.where(possible, b_only, total)
        shown = _tango(a_only, b_only, self.n, -margin) > z
        if both_sides:
            shown &= _tango(a_only, b_only, self.n, margin) < -z
        shown = np.where(total == 0, (1 - min(margin, 1.0)) ** self.n < alpha, shown) & possible
        split = np.where(possible, _binomial(a_only, total, 0.5), 0.0)
        return float((shown * split).sum(axis=1) @ _binomial(counts, self.n, share))


def _likely(n: int, share: float) -> Floats:
    """The counts of a binomial that are worth a sum: five standard deviations and more to both sides."""
    import numpy as np

    reach = 5 * math.sqrt(n * share * (1 - share)) + 5
    return np.arange(max(0, math.floor(n * share - reach)), min(n, math.ceil(n * share + reach)) + 1, dtype=np.float64)


def _binomial(k: Floats, n: Floats | float, share: float) -> Floats:
    """P(X = k)."""
    import numpy as np
    from scipy.special import gammaln, xlog1py, xlogy

    found: Floats = np.exp(
        gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1) + xlogy(k, share) + xlog1py(n - k, -share)
    )
    return found


def _at_most(k: Floats, n: Floats, share: float) -> Floats:
    """P(X <= k)."""
    import numpy as np
    from scipy.special import betainc

    found: Floats = np.where(k >= n, 1.0, betainc(np.maximum(n - k, 1e-300), k + 1, 1 - share))
    return found


@lru_cache(maxsize=64)
def _critical(alpha: float, exact: bool, most: int) -> Floats:
    """For 0 to `most` discordant questions the largest smaller count at which p is below alpha; -1 for none."""
    import numpy as np

    counts = np.arange(most + 1, dtype=np.float64)
    low, high = np.full_like(counts, -1.0), np.floor((counts + 1) / 2)
    while (high - low).max() > 1:
        middle = np.maximum(np.floor((low + high) / 2), 0.0)
        p = 2 * _at_most(middle, counts, 0.5)
        if not exact:
            p = p - _binomial(middle, counts, 0.5)
        below = (p < alpha) & (2 * middle < counts)
        moving = high - low > 1
        low, high = np.where(below & moving, middle, low), np.where(~below & moving, middle, high)
    return low


def _restricted(share: float, margin: float) -> float:
    """The discordance that is likeliest under a difference of `margin` where half of `share` went either way."""
    quadratic, linear = 2.0, -share + 2 * margin
    constant = -share / 2 * margin * (1 - margin)
    # As in intervals.tango_score, with counts as shares of n.
    root = math.sqrt(max(linear**2 - 4 * quadratic * constant, 0.0))
    return 2 * (root - linear) / (2 * quadratic) + margin


def _tango(a_only: Floats, b_only: Floats, n: int, difference: float) -> Floats:
    """`intervals.tango_score` over arrays."""
    import numpy as np

    linear = -b_only - a_only + (2 * n - b_only + a_only) * difference
    constant = -a_only * difference * (1 - difference)
    root = np.sqrt(np.maximum(linear * linear - 8.0 * n * constant, 0.0))
    share = (root - linear) / (4.0 * n)
    variance = np.maximum(n * (2 * share + difference * (1 - difference)), 1e-300)
    found: Floats = (b_only - a_only - n * difference) / np.sqrt(variance)
    return found


# --------------------------------------------------------------------------- right or wrong, unpaired


@dataclass(frozen=True, slots=True)
class UnpairedShares:
    """The two-proportion score test: `n_a` against `n_b` questions, of which a share `pooled` is right."""

    n_a: int
    n_b: int
    pooled: float

    @property
    def largest(self) -> float:
        """All against nothing."""
        return 1.0

    def told(self, effect: float) -> bool:
        """Of any difference."""
        return True

    def error(self, effect: float) -> float:
        """That of the pooled share."""
        return math.sqrt(self.pooled * (1 - self.pooled) * (1 / self.n_a + 1 / self.n_b))

    def chance(self, effect: float, alpha: float) -> float:
        """Binomial in both arms, by their sizes around the pooled share as far as there is room.

        With a few questions Newcombe's interval holds zero more often than the test does; then nothing is found.
        """
        import numpy as np
        from scipy.special import ndtr, ndtri

        n_a, n_b = self.n_a, self.n_b
        low = self.pooled - effect * n_b / (n_a + n_b)
        low = min(max(low, 0.0), 1 - effect) if effect < 1 else 0.0
        high = min(1.0, low + effect)
        limit = -float(ndtri(alpha / 2))
        error = math.sqrt(low * (1 - low) / n_a + high * (1 - high) / n_b)
        middle = (n_a * low + n_b * high) / (n_a + n_b)
        if min(n_a, n_b) > 2000 and error > 0:
            pooled = math.sqrt(middle * (1 - middle) * (1 / n_a + 1 / n_b))
            return float(ndtr((effect - limit * pooled) / error))
        right_a, right_b = _likely(n_a, low)[:, None], _likely(n_b, high)[None, :]
        share = (right_a + right_b) / (n_a + n_b)
        root = np.sqrt(share * (1 - share) * (1 / n_a + 1 / n_b))
        found = (right_b / n_b - right_a / n_a > limit * root + 1e-12) & _newcombe_above(
            right_a, n_a, right_b, n_b, limit
        )
        return float(_binomial(right_a[:, 0], n_a, low) @ found @ _binomial(right_b[0], n_b, high))

    def margin_chance(self, margin: float, alpha: float, both_sides: bool) -> float:
        """Normal approximation to the score test."""
        from scipy.special import ndtr, ndtri

        error = math.sqrt(self.pooled * (1 - self.pooled) * (1 / self.n_a + 1 / self.n_b))
        if error == 0:
            return 0.0
        one_side = float(ndtr(margin / error + float(ndtri(alpha))))
        return max(0.0, 2 * one_side - 1) if both_sides else one_side


def _newcombe_above(right_a: Floats, n_a: int, right_b: Floats, n_b: int, z: float) -> NDArray[np.bool_]:
    """Where `intervals.newcombe_unpaired` leaves zero below it."""
    import numpy as np

    share_a, share_b = right_a / n_a, right_b / n_b
    up_a = _wilson(share_a, n_a, z, 1) - share_a
    down_b = share_b - _wilson(share_b, n_b, z, -1)
    return np.asarray(share_b - share_a > np.sqrt(up_a**2 + down_b**2))


def _wilson(share: Floats, n: int, z: float, side: int) -> Floats:
    import numpy as np

    half = z * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    found: Floats = (share + z * z / (2 * n) + side * half) / (1 + z * z / n)
    return found
