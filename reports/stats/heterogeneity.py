"""Whether an effect is the same in every group of questions.

    heterogeneity(differences, labels, seed=0).p

Two tests of the same hypothesis, and the larger p of both, for each fails where the other does not:

- Welch's F (Welch 1951, Biometrika 38, 330-336) allows the groups other variances, which they have, since easy
  questions tell two models apart more seldom; it takes a group in which all differences are zero to know its mean.
- A permutation of the questions' labels under the studentised weighted Q of a meta-analysis (Cochran's), in which the
  variance of a group has one further observation of the pooled variance. It is exact where the differences of all
  groups have one distribution, whatever that is, and no group of zeros has weight without limit; where a small group
  varies much more than a large one it rejects too often.

Simulated over groups of 10 to 400 questions, discordances from .05 to .9 and other ones in each group
(tests/reports/stats/test_heterogeneity.py): at most .05 and the error of the simulation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

PERMUTATIONS = 4999
LEAST = 10  # questions of a group that the test takes
_CELLS = 2_000_000  # of a block of permutations, held at once


@dataclass(frozen=True)
class Heterogeneity:
    """`q` over the groups of LEAST questions or more, and the p of the test; None where there are fewer than two."""

    q: float | None
    p: float | None
    groups: int


def heterogeneity(
    differences: Floats, labels: NDArray[np.int64], seed: int = 0, permutations: int = PERMUTATIONS
) -> Heterogeneity:
    """Test whether the mean of `differences` [questions] is the same under every label [questions].

    Groups of fewer than LEAST questions are left out.
    """
    import numpy as np

    _, numbers, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    kept = np.isin(numbers, np.flatnonzero(sizes >= LEAST))
    values, numbers = np.asarray(differences, dtype=float)[kept], np.unique(numbers[kept], return_inverse=True)[1]
    groups = int(numbers.max()) + 1 if len(numbers) else 0
    if groups < 2:
        return Heterogeneity(None, None, groups)
    if np.ptp(values) == 0:  # every question the same: nothing differs from group to group either
        return Heterogeneity(0.0, 1.0, groups)
    member = np.zeros((len(values), groups))
    member[np.arange(len(values)), numbers] = 1.0
    observed = float(_q(values[None, :], member)[0])
    random, reached, left = np.random.default_rng(seed), 0, permutations
    block = max(1, _CELLS // len(values))
    while left:
        size = min(block, left)
        shuffled = random.permuted(np.broadcast_to(values, (size, len(values))), axis=1)
        reached += int((_q(shuffled, member) >= observed * (1 - 1e-9)).sum())
        left -= size
    return Heterogeneity(observed, max((1 + reached) / (1 + permutations), welch_f(values, numbers)), groups)


def welch_f(values: Floats, labels: NDArray[np.int64]) -> float:
    """p of Welch's F test that groups 0, 1, ... of `values` have one mean; a group without spread is certain of it."""
    import numpy as np
    from scipy.special import fdtrc

    sizes = np.bincount(labels).astype(float)
    means = np.bincount(labels, values) / sizes
    variances = np.bincount(labels, (values - means[labels]) ** 2) / (sizes - 1)
    weights = sizes / np.maximum(variances, 1e-9 * values.var(ddof=1))
    shares, groups = weights / weights.sum(), len(sizes)
    between = (weights * (means - shares @ means) ** 2).sum() / (groups - 1)
    spread = ((1 - shares) ** 2 / (sizes - 1)).sum()
    f = between / (1 + 2 * (groups - 2) / (groups**2 - 1) * spread)
    return float(fdtrc(groups - 1, (groups**2 - 1) / (3 * spread), f))


def _q(values: Floats, member: Floats) -> Floats:
    """Q of each row of `values` [rows, questions]; `member` [questions, groups] is 1 where a question is of a group."""
    import numpy as np

    sizes = member.sum(axis=0)
    means = values @ member / sizes
    within = np.maximum(values**2 @ member - sizes * means**2, 0.0)  # never below zero by rounding
    pooled = within.sum(axis=1, keepdims=True) / (len(member) - len(sizes))
    never_zero = 1e-9 * values.var(axis=1, ddof=1, keepdims=True)
    weights = sizes**2 / (within + pooled + never_zero)
    centre = (weights * means).sum(axis=1, keepdims=True) / weights.sum(axis=1, keepdims=True)
    found: Floats = (weights * (means - centre) ** 2).sum(axis=1)
    return found
