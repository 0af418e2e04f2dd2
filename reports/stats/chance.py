"""The chance that b beats a by more than a margin: a posterior probability beside the p, no part of a verdict.

    chance_by_counts(won=30, lost=18, ties=52, margin=0.02)    # right or wrong, the same questions
    chance_by_t(estimate=0.04, spread=0.02, df=99, margin=0.02)

Both say what they assume in `PRIOR_OF_COUNTS` and `PRIOR_OF_T`.
"""

from __future__ import annotations

import math

PRIOR_OF_COUNTS = "prior: Dirichlet(1/2, 1/2, 1/2) over questions that only b, only a, or both alike have right"
PRIOR_OF_T = "prior: flat in the difference and in the logarithm of its spread"


def chance_by_counts(won: int, lost: int, ties: int, margin: float = 0.0) -> float:
    """P(p_won - p_lost > margin | counts) under Jeffreys's prior, the Dirichlet with 1/2 for each of the three kinds.

    The share s of untied questions is Beta(won + lost + 1, ties + 1/2), and independently of it the share of these that
    b wins is Beta(won + 1/2, lost + 1/2); b is ahead by more than the margin where the latter is above
    (1 + margin / s) / 2 (Gelman et al., Bayesian Data Analysis, 3rd edition, section 3.4). Integrated over s.
    Raises ValueError for a margin outside [-1, 1] or a negative count.
    """
    if not -1 <= margin <= 1 or min(won, lost, ties) < 0:
        raise ValueError(f"margin {margin} outside [-1, 1], or a negative count among {won}, {lost}, {ties}")
    import numpy as np
    from scipy.special import betaincc, betaincinv

    if margin == 0:  # whatever the share of ties
        return float(betaincc(won + 0.5, lost + 0.5, 0.5))
    # The middle of each of equally likely slices of s: what is left of an error is below 1e-4 and never a nan.
    slices = (np.arange(512) + 0.5) / 512
    untied = betaincinv(won + lost + 1.0, ties + 0.5, slices)
    with np.errstate(divide="ignore", invalid="ignore"):
        above = np.nan_to_num(np.clip((1 + margin / untied) / 2, 0.0, 1.0), nan=0.5)
    return float(betaincc(won + 0.5, lost + 0.5, above).mean())


def chance_by_t(estimate: float, spread: float, df: float, margin: float = 0.0) -> float:
    """P(difference > margin | data) where (difference - estimate) / spread is Student's t with `df` degrees of freedom.

    The posterior of a mean under the prior 1 / sigma (Gelman et al., Bayesian Data Analysis, 3rd edition, section 3.2).
    With no spread it is 0 or 1, and 1/2 at the margin itself.
    """
    if spread <= 0:
        return 0.5 if math.isclose(estimate, margin) else float(estimate > margin)
    from scipy.special import stdtr

    return float(stdtr(df, (estimate - margin) / spread))
