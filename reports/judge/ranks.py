"""Many arms in order: which ranks each may have, and which share the first place.

    for band in rank_bands(comparisons):
        print(band.name, band.best, band.worst)

An arm is behind those that are shown to be better than it, by Holm over all pairs; so all bands hold at once with the
chance that the level promises, and an arm that nobody is shown to beat may be the first. From pairwise decisions to
bands: Mogstad, Romano, Shaikh and Wilhelm, Inference for Ranks, Review of Economic Studies 91 (2024), section 3.
The correction that the comparisons themselves were given is another one: here all pairs are one family, by Holm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nsd.reports.judge.comparison import Comparison
from nsd.reports.judge.metrics import NEUTRAL
from nsd.reports.stats import holm

FEWEST = 3  # two arms have a verdict


@dataclass(frozen=True)
class RankBand:
    """An arm with its mean and the ranks it may have, 1 the highest; `apart`: arms that it is shown to differ from."""

    name: str
    mean: float | None
    best: int
    worst: int
    apart: frozenset[str]

    @property
    def says(self) -> str:
        """The band in a column: `2` or `1-3`."""
        return str(self.best) if self.best == self.worst else f"{self.best}-{self.worst}"


def rank_bands(comparisons: Sequence[Comparison], looks: int = 1) -> list[RankBand]:
    """Bands from the highest mean down, at the comparisons' level; [] unless they are all pairs of three arms or more.

    Each `p` must be that of a two-sided test of no difference; with planned looks it is multiplied by their number. A
    pair that could not be tested, or whose interval holds 0, tells nobody apart.
    """
    names = list(dict.fromkeys(name for one in comparisons for name in (one.a, one.b)))
    pairs = {frozenset((one.a, one.b)) for one in comparisons}
    if any(one.metric in NEUTRAL for one in comparisons):  # fewer tokens are no worse place
        return []
    if len(names) < FEWEST or len(pairs) != len(comparisons) or len(pairs) != len(names) * (len(names) - 1) // 2:
        return []
    adjusted = holm([1.0 if one.p is None or one.difference is None else one.p * looks for one in comparisons])
    apart: dict[str, set[str]] = {name: set() for name in names}
    behind, ahead = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
    means: dict[str, float | None] = dict.fromkeys(names)
    for one, p in zip(comparisons, adjusted, strict=True):
        for name, mean in ((one.a, one.mean_a), (one.b, one.mean_b)):
            means[name] = mean if means[name] is None else means[name]
        if p < one.alpha and one.difference and not (one.ci and one.ci[0] <= 0 <= one.ci[1]):
            better, worse = (one.b, one.a) if one.difference > 0 else (one.a, one.b)
            ahead[better] += 1
            behind[worse] += 1
            apart[better].add(worse)
            apart[worse].add(better)
    order = sorted(names, key=lambda name: (means[name] is None, -(means[name] or 0.0), name))
    return [
        RankBand(name, means[name], 1 + behind[name], len(names) - ahead[name], frozenset(apart[name]))
        for name in order
    ]


def first_place(bands: Sequence[RankBand]) -> list[str]:
    """The arms that nobody is shown to beat."""
    return [band.name for band in bands if band.best == 1]


def not_told_apart(bands: Sequence[RankBand]) -> list[list[str]]:
    """Longest runs of neighbours in the order of means of which no two are shown to differ, at least two long."""
    found: list[tuple[int, int]] = []
    for start in range(len(bands)):
        stop = start + 1
        while stop < len(bands) and not any(bands[stop].name in one.apart for one in bands[start:stop]):
            stop += 1
        if stop - start > 1 and (not found or stop > found[-1][1]):
            found.append((start, stop))
    return [[band.name for band in bands[start:stop]] for start, stop in found]


def says_ranks(bands: Sequence[RankBand], alpha: float) -> str:
    """Who shares the first place, in a sentence."""
    first, pairs = first_place(bands), len(bands) * (len(bands) - 1) // 2
    verb = "holds the first place alone" if len(first) == 1 else "share the first place"
    return f"{', '.join(first)} {verb}; ranks hold at once with {1 - alpha:.0%} (Holm over all {pairs} pairs)"
