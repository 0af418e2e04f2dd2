"""Whether equal results are a sign of one run under two names: unmistakable(samples=20, high=12, scores=2)."""

from __future__ import annotations

import math

RARE = 1000  # equal results are one run's where chance gives them more seldom than once in so many
GRADES = 10  # so many different scores are no coincidence either


def unmistakable(samples: int, high: int, scores: int) -> bool:
    """Whether another run's equal results must be the same run's: `high` of the samples score a half or more.

    As many could lie in C(samples, high) ways; where all or none are high there is one way, and equal results say
    nothing. `scores`: how many different ones there are.
    """
    return scores > GRADES or math.comb(samples, min(high, samples - high, GRADES)) > RARE
