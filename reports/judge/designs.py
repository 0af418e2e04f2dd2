"""A planned comparison as a model: its chance at any number of questions, samples and seeds.

    asked = Asked(claim, spread, "recipe", wanted=0.02, level=0.05, power=0.8)
    asked.chance(asked.model(questions=4000))                   # that .02 is found with 4000 questions
    asked.least("seeds")                                        # seeds per arm from which it is, the rest as planned
    asked.endless("samples")                                    # the design with samples without end: its floor

Of recipes whose runs are on record it is the model of their comparison (finding.py). Without them, and for other
samples, the parts are those of spread.py. About checkpoints: V(K) / n, and an engine's noise, which no test sees. About
recipes: seeds (and with them the engine) over S, and of the questions' variance what a seed adds over S n.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from nsd.plugins.metrics import averages
from nsd.plugins.words import SEEDS_AT_ANY_LOOK
from nsd.reports import stats
from nsd.reports.judge.metrics import UNITS, is_search
from nsd.reports.judge.spread import Claimed, Spread
from nsd.reports.stats.anytime import AnyLook
from nsd.reports.stats.chances import FEWEST
from nsd.reports.stats.heterogeneity import LEAST

ENDLESS = {"groups": 10**8, "questions": 10**9, "samples": 10**6, "seeds": 10**5}
MOST = {"groups": 10**6, "questions": 10**7, "samples": 10**5, "seeds": 10**4}


@dataclass(frozen=True)
class Asked:
    """A claim, what its values vary by, and what is wanted of it: `wanted` found at `level` with chance `power`.

    `any_look`: the verdict is to hold at any look, and this is one of them.
    """

    claim: Claimed
    spread: Spread
    about: str
    wanted: float
    level: float
    power: float
    any_look: bool = False

    @property
    def scales(self) -> tuple[float, float] | None:
        """The 95 % interval of the spread it rests on most, as factors: of seeds for a recipe, else of questions."""
        spread = self.spread
        if self.about == "recipe":
            if spread.recipe is not None:
                return spread.recipe.scales
            if spread.seed_range is None or spread.seed_sd == 0:
                return None
            return (spread.seed_range[0] / spread.seed_sd) ** 2, (spread.seed_range[1] / spread.seed_sd) ** 2
        if spread.variance_range is None:
            return None
        return spread.variance_range[0] / spread.variance, spread.variance_range[1] / spread.variance

    @property
    def purchases(self) -> tuple[str, ...]:
        """What more of changes anything: questions always, samples where they average, seeds for a recipe.

        Of questions in groups: more groups like these, or more questions in the same groups.
        """
        design = self.claim.design
        found = ["groups", "questions"] if design.clusters else ["questions"]
        if averages(design.metric) and not design.greedy and self.spread.sampling is not None:
            found.append("samples")
        if self.about == "recipe" and self.claim.kind != "interaction":
            found.append("seeds")
        return tuple(found)

    def model(
        self,
        questions: int | None = None,
        samples: int | None = None,
        seeds: int | None = None,
        at_best: bool = False,
        scale: float = 1.0,
        groups: int | None = None,
    ) -> stats.Model | None:
        """The model with so many of each, by default as planned; None where no figure can be given.

        `at_best`: as if all variance of an unknown split were noise of samples. `scale`: see `scales`.
        """
        if self.claim.kind == "interaction":
            return None if self.any_look else self._groups(questions, samples, at_best, scale)
        if self.any_look and self.about == "recipe" and (seeds or self.claim.design.seeds) < SEEDS_AT_ANY_LOOK:
            return None
        if (sizes := self.claim.design.in_groups) is not None:
            more = sizes if groups is None else sizes.of_groups(groups)
            more = more if questions is None else more.of_questions(questions)
            once = self._counting_groups(sizes, more, samples, seeds, at_best, scale)
        else:
            once = self._once(questions, samples, seeds, at_best, scale)
        return AnyLook(once) if self.any_look and once is not None else once

    def _groups(self, questions: int | None, samples: int | None, at_best: bool, scale: float) -> stats.Model | None:
        """Groups that grow with the questions; None where fewer than two are large enough for the test."""
        design, spread = self.claim.design, self.spread
        k, times = samples or design.samples, (questions or design.questions) / design.questions
        sizes = tuple(size for one in design.groups if (size := round(one * times)) >= LEAST)
        variance = (spread.least_variance_at(k) if at_best else spread.variance_at(k)) * scale
        return stats.Groups(sizes, variance) if len(sizes) > 1 and variance > 0 else None

    def _once(
        self, questions: int | None, samples: int | None, seeds: int | None, at_best: bool, scale: float
    ) -> stats.Model | None:
        """The model of a design that is looked at once."""
        design, spread = self.claim.design, self.spread
        n, k, s = questions or design.questions, samples or design.samples, seeds or design.seeds
        least = spread.least_variance_at(k) if at_best else spread.variance_at(k)
        if self.about == "checkpoint":
            variance = least * scale
            if spread.binary(design) and k == design.samples and not spread.engine:
                return stats.PairedShares(n, min(1.0, variance))
            if n < max(FEWEST, spread.fewest):
                return None
            return stats.sign_flip_means(variance, n, k if averages(design.metric) else None, extra=2 * spread.engine)
        if s < 2 or n < FEWEST:
            return None
        if spread.recipe is not None and k == design.samples and not at_best:
            return spread.recipe.at(n, s, scale)
        arms = 1 if spread.one_trained else 2
        trained, own = self._split(k, least, arms, at_best)
        residual = trained / s / n
        of_an_arm = (spread.seed_sd**2 * scale + spread.engine) / s + residual / arms
        parts = stats.Parts(own / n + residual, n - 1, (stats.Part(of_an_arm, s - 1),) * arms, residual)
        return stats.Means(parts, units=0 if design.metric in UNITS else n)

    def _counting_groups(
        self,
        now: stats.GroupSizes,
        sizes: stats.GroupSizes,
        samples: int | None,
        seeds: int | None,
        at_best: bool,
        scale: float,
    ) -> stats.Model | None:
        """The model where the test counts groups of these `sizes` in place of those planned `now`."""
        design, spread = self.claim.design, self.spread
        k, s = samples or design.samples, seeds or design.seeds
        if sizes.groups < stats.FEWEST_CLUSTERS:
            return None
        variance = spread.least_variance_at(k) if at_best else spread.variance_at(k)
        icc, bounded, fewest = spread.icc_at(k, at_best), design.metric not in UNITS, spread.fewest_groups
        if self.about == "checkpoint":
            counted = spread.binary(design) and k == design.samples and not is_search(design.metric)
            variance = min(1.0, variance * scale) if counted else variance * scale
            extra = 2 * spread.engine
            return stats.GroupedMeans(sizes, variance, icc, counted, bounded, extra=extra, fewest=fewest)
        same_groups = sizes.groups != now.groups or sizes == now  # their comparison knows groups like these alone
        if s < 2:
            return None
        if spread.recipe is not None and k == design.samples and not at_best and same_groups:
            return spread.recipe.at(math.ceil(sizes.questions - 1e-6), s, scale)
        arms = 1 if spread.one_trained else 2
        trained, own = self._split(k, variance, arms, at_best)
        residual = trained / s * sizes.spread(icc)
        of_an_arm = (spread.seed_sd**2 * scale + spread.engine) / s + residual / arms
        over = (stats.Part(of_an_arm, s - 1),) * arms
        return stats.GroupedMeans(
            sizes, own + trained / s, icc, False, bounded, over, residual, fewest=spread.fewest_groups
        )

    def _split(self, k: int, variance: float, arms: int, at_best: bool) -> tuple[float, float]:
        """Of the per-question variance, what S seeds divide and what they leave."""
        spread = self.spread
        if spread.sampling is None:
            # Of an unknown split all may be the questions' own; at best nothing is, and the trained arms have it.
            divided = variance * arms / 2 if at_best else min(spread.interaction, variance)
            return divided, variance - divided
        divided = min(spread.interaction, spread.between) + spread.sampling / k * arms / 2
        return divided, max(0.0, variance - divided)

    def chance(self, model: stats.Model | None) -> float:
        """That the wanted difference is found, or the margin shown; 0 where no figure can be given."""
        if model is None or not model.told(self.wanted if self.claim.margin is None else 0.0):
            return 0.0
        if self.claim.margin is None:
            return model.chance(self.wanted, self.level)
        return model.margin_chance(self.wanted, self.level, self.claim.kind == "equivalent_within")

    def smallest(self, model: stats.Model | None) -> float | None:
        """The smallest difference found, or margin shown."""
        if model is None:
            return None
        if self.claim.margin is None:
            return stats.detectable(model, self.level, self.power)
        return stats.smallest_margin(model, self.level, self.power, self.claim.kind == "equivalent_within")

    def least(self, what: str, at_best: bool = False, scale: float = 1.0, most: int | None = None) -> int | None:
        """How many `what` are enough, the rest as planned; None where no number is."""
        make: dict[str, Callable[[int], stats.Model | None]] = {
            "groups": lambda count: self.model(groups=count, at_best=at_best, scale=scale),
            "questions": lambda count: self.model(questions=count, at_best=at_best, scale=scale),
            "samples": lambda count: self.model(samples=count, at_best=at_best, scale=scale),
            "seeds": lambda count: self.model(seeds=count, at_best=at_best, scale=scale),
        }
        limit = MOST[what] if most is None else min(most, MOST[what])
        if self.chance(make[what](limit)) < self.power:
            return None
        design = self.claim.design
        guess = len(design.clusters) if what == "groups" else getattr(design, what)
        return stats.least(lambda count: self.chance(make[what](count)) >= self.power, guess=guess, most=limit)

    def ends(self, what: str) -> tuple[int | None, int | None] | None:
        """The same at both ends of the interval of the spread, or of an assumed correlation inside groups."""
        if (two := self.varied()) is None:
            return None
        ends = two[0][0].least(what, scale=two[0][1]), two[1][0].least(what, scale=two[1][1])
        return stats.spanning(ends, self.least(what))

    def varied(self) -> tuple[tuple[Asked, float], tuple[Asked, float]] | None:
        """What else may be true, at either end: the asked with its spread, and the scale of that."""
        if (ends := self.spread.icc_range) is not None and self.claim.design.clusters:
            low, high = (replace(self, spread=replace(self.spread, icc=icc, icc_range=None)) for icc in ends)
            return (low, 1.0), (high, 1.0)
        if self.scales is None:
            return None
        return (self, self.scales[0]), (self, self.scales[1])

    def endless(self, what: str) -> stats.Model | None:
        """The design with `what` without end."""
        if what == "groups":
            return self.model(groups=ENDLESS[what])
        if what == "questions":
            return self.model(questions=ENDLESS[what])
        return self.model(samples=ENDLESS[what]) if what == "samples" else self.model(seeds=ENDLESS[what])
