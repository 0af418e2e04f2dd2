"""`best_within`: the best validation avg@k that a training reaches within a budget, and what fresh samples leave of it.

    validation: {questions: 50, every: 20}
    match: {by: seconds, amount: 3600}                       # or {by: generated_tokens, amount: 200000}
    eval: {use: best_within, k: 16, temperature: 0.6, top_p: 0.95}

The SDPO study reports the best avg@16 within one and within five hours of training. The best of many measurements is
too high: their noise is picked with it. So the training keeps the weights of its best measurement, and this protocol
samples those very weights again on the same validation questions, with other random streams. The fresh mean is the
arm's value, which claims compare; the report gives both numbers, and how many measurements the best was picked from.

An arm that is not trained is measured on the same questions. Nothing here is said of other questions: `avg_at_k` on the
test questions says that.
"""

from __future__ import annotations

from pydantic import Field

from nsd.plugins.protocols.avg_at_k import AvgAtK
from nsd.plugins.registry import plugin


@plugin("protocol", "best_within")
class BestWithin(AvgAtK):
    """Mean correctness of k fresh completions by the weights that validation kept."""

    version = 1
    on_validation = True

    class Config(AvgAtK.Config):
        k: int = Field(default=16, ge=1, description="Completions of each validation question.")
        temperature: float = Field(default=0.6, ge=0, description="0 is greedy.")
        top_p: float = Field(default=0.95, gt=0, le=1)

    config: Config
