"""What a protocol's metric says of its values, wherever a spec, a plan or a report asks.

averages("avg@4"), takes_votes("maj@8"), comparable({"accuracy", "maj@tokens:200000"})
"""

from __future__ import annotations

from collections.abc import Collection


def averages(metric: str) -> bool:
    """Whether the metric is a mean over samples, so that more of them shrink its noise."""
    return metric == "accuracy" or metric.startswith("avg@")


def takes_votes(metric: str) -> bool:
    """Whether a question's samples vote, so that its value is right or wrong."""
    return metric.startswith("maj@")


def comparable(metrics: Collection[str]) -> bool:
    """Whether arms that are measured by different ones of these may be held against each other.

    A vote within a number of generated tokens is there for that: what the same sampling buys without training. The
    others must be a share of the same questions' right answers as it is.
    """
    votes_within = any(one.startswith("maj@tokens:") for one in metrics)
    return votes_within and all(averages(one) or takes_votes(one) for one in metrics)
