"""Which test fits the data: one table, read from the top, the first row that fits wins.

    choose(Shape(binary=True)).test            # "mcnemar"
    choose(Shape(binary=True), "mcnemar-exact")  # a person's own choice, refused where it cannot be right

Every row says why, and the reason is kept with the result. The simulations behind the rows (how often each test
cries wolf) are tests: tests/reports/stats/test_calibration.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from nsd.reports.stats.limits import FEW_QUESTIONS

MANY_QUESTIONS = 5_000
WELCH_SEEDS = 5  # of each arm, from which Welch's t holds its level at any scatter and unequal numbers


class PairTest(StrEnum):
    """A test of two arms, by the name that a person gives it, and what is asked of one."""

    MCNEMAR = "mcnemar"
    MCNEMAR_EXACT = "mcnemar-exact"
    PERMUTATION = "permutation"
    T = "t"
    BOUNDED = "bounded"
    CLUSTER = "cluster"
    SIGN = "sign"
    TWO_PROPORTION = "two-proportion"
    SEEDS = "seeds"
    SEEDS_PAIRED = "seeds-paired"
    TWO_LEVEL = "two-level"

    @property
    def of_table(self) -> bool:
        """Whether it reads the two-by-two table of paired right-or-wrong answers."""
        return self in (PairTest.MCNEMAR, PairTest.MCNEMAR_EXACT)

    @property
    def of_differences(self) -> bool:
        """Whether it reads a difference per question."""
        return self in (PairTest.PERMUTATION, PairTest.T, PairTest.BOUNDED, PairTest.CLUSTER, PairTest.SIGN)

    @property
    def of_recipe(self) -> bool:
        """Whether it is about training again: it reads seeds."""
        return self in (PairTest.SEEDS, PairTest.SEEDS_PAIRED, PairTest.TWO_LEVEL)

    @property
    def paired(self) -> bool:
        """Whether a question or a seed of one arm is held against the same of the other."""
        return self not in (PairTest.TWO_PROPORTION, PairTest.SEEDS)


class IntervalKind(StrEnum):
    """How the interval of a difference is made: MEAN by what `limits.mean_limits` takes, T by the test's own t."""

    NEWCOMBE_PAIRED = "newcombe-paired"
    NEWCOMBE_UNPAIRED = "newcombe-unpaired"
    MEAN = "mean"
    T = "t"


@dataclass(frozen=True, slots=True)
class Shape:
    """What the data of two arms look like. `seeds` are training seeds per arm, `n` the shared questions.

    `binary`: every value is 0 or 1 (one sample, or one decision such as maj@k). `sampled`: a value is a mean
    of several samples. `clustered`: questions come in groups. `recipe`: the claim is about the recipe, not
    about these checkpoints. `trained`: whether each arm was trained at all; one that was not has one seed, whatever
    number repeats it. `searched`: a value tells how many samples one search took to solve the question. `unequal`: the
    arms' values are made of different numbers of samples or by different metrics, so that under equal means a
    difference is not as likely to be -d as d; `lopsided`: the arm with fewer showed its rarer outcome so seldom that t
    fails as well. `bounded`: values lie in [0, 1].
    """

    counts_only: bool = False
    binary: bool = False
    sampled: bool = False
    clustered: bool = False
    recipe: bool = False
    seeds: tuple[int, int] = (1, 1)
    n: int = 0
    trained: tuple[bool, bool] = (True, True)
    searched: bool = False
    unequal: bool = False
    lopsided: bool = False
    bounded: bool = True

    @property
    def welch_holds(self) -> bool:
        """Whether Welch's t on seed means holds its level whatever either arm's seeds scatter.

        It takes as many of both, or WELCH_SEEDS of each. Two against eight, of which the two scatter more, reject .12
        at .05, and .06 at a sixth of it (benchmarks/calibration.py).
        """
        return self.seeds[0] == self.seeds[1] or min(self.seeds) >= WELCH_SEEDS

    @property
    def scatters(self) -> bool:
        """Whether the seeds show how far training again would move things: two or more in each trained arm."""
        return shows_training(self.seeds, self.trained)


def shows_training(seeds: tuple[int, int], trained: tuple[bool, bool]) -> bool:
    """Whether two arms can carry a claim about a recipe: something was trained, and each trained arm two times."""
    counts = [count for count, learned in zip(seeds, trained, strict=True) if learned]
    return bool(counts) and min(counts) >= 2


@dataclass(frozen=True, slots=True)
class Choice:
    """A test and an interval by name, and why."""

    test: PairTest
    interval: IntervalKind
    because: str


@dataclass(frozen=True, slots=True)
class Rule:
    """A row of the table."""

    when: Callable[[Shape], bool]
    choice: Choice


RULES = (
    Rule(
        lambda s: s.counts_only,
        Choice(
            PairTest.TWO_PROPORTION,
            IntervalKind.NEWCOMBE_UNPAIRED,
            "only counts are known, so answers cannot be paired: low power",
        ),
    ),
    Rule(
        lambda s: s.recipe and s.clustered,
        Choice(
            PairTest.TWO_LEVEL,
            IntervalKind.T,
            "several training seeds, and questions in groups: seeds and groups vary",
        ),
    ),
    Rule(
        lambda s: s.recipe and all(s.trained),
        Choice(
            PairTest.TWO_LEVEL,
            IntervalKind.T,
            "several training seeds in both arms: seeds and questions vary",
        ),
    ),
    Rule(
        lambda s: s.recipe,
        Choice(
            PairTest.TWO_LEVEL,
            IntervalKind.T,
            "several training seeds against an arm that is not trained: seeds and questions vary",
        ),
    ),
    Rule(
        lambda s: s.clustered,
        Choice(
            PairTest.CLUSTER,
            IntervalKind.T,
            "questions come in groups, which are not independent inside",
        ),
    ),
    Rule(
        lambda s: s.searched,
        Choice(
            PairTest.SIGN,
            IntervalKind.MEAN,
            "one search of each question and arm: which of them took fewer samples, and not by how many",
        ),
    ),
    Rule(
        lambda s: s.binary,
        Choice(
            PairTest.MCNEMAR,
            IntervalKind.NEWCOMBE_PAIRED,
            "one right-or-wrong value per question, the same questions in both",
        ),
    ),
    Rule(
        lambda s: s.bounded and s.n < FEW_QUESTIONS,
        Choice(
            PairTest.BOUNDED,
            IntervalKind.MEAN,
            f"fewer than {FEW_QUESTIONS} questions: nothing is asked of their values but that they lie between 0 and 1",
        ),
    ),
    Rule(
        lambda s: s.bounded and s.lopsided,
        Choice(
            PairTest.BOUNDED,
            IntervalKind.MEAN,
            "unequal numbers of samples, and so few of one arm that its rarer outcome is hardly seen",
        ),
    ),
    Rule(
        lambda s: s.unequal,
        Choice(
            PairTest.T,
            IntervalKind.MEAN,
            "unequal numbers of samples a question, so that a difference and its opposite are not equally likely",
        ),
    ),
    Rule(
        lambda s: s.n > MANY_QUESTIONS,
        Choice(PairTest.T, IntervalKind.MEAN, f"more than {MANY_QUESTIONS} questions, where t and permutation agree"),
    ),
    Rule(
        lambda s: s.sampled,
        Choice(
            PairTest.PERMUTATION,
            IntervalKind.MEAN,
            "several samples per question: their mean counts once per question",
        ),
    ),
    Rule(
        lambda s: True,
        Choice(
            PairTest.PERMUTATION, IntervalKind.MEAN, "one continuous value per question, the same questions in both"
        ),
    ),
)

# What each test needs, as a predicate and as words, for a test that a person names.
NEEDS: dict[PairTest, tuple[Callable[[Shape], bool], str, Choice]] = {
    PairTest.MCNEMAR: (
        lambda s: s.binary and not s.counts_only,
        "one right-or-wrong value per question in both arms",
        Choice(PairTest.MCNEMAR, IntervalKind.NEWCOMBE_PAIRED, "asked for"),
    ),
    PairTest.MCNEMAR_EXACT: (
        lambda s: s.binary and not s.counts_only,
        "one right-or-wrong value per question in both arms",
        Choice(PairTest.MCNEMAR_EXACT, IntervalKind.NEWCOMBE_PAIRED, "asked for"),
    ),
    PairTest.PERMUTATION: (
        lambda s: not s.counts_only and not s.unequal,
        "values per question in both arms, of as many samples each (--metric avg@K takes the first K of both)",
        Choice(PairTest.PERMUTATION, IntervalKind.MEAN, "asked for"),
    ),
    PairTest.T: (
        lambda s: not s.counts_only,
        "values per question in both arms",
        Choice(PairTest.T, IntervalKind.MEAN, "asked for"),
    ),
    PairTest.BOUNDED: (
        lambda s: not s.counts_only and s.bounded,
        "values per question in both arms, between 0 and 1",
        Choice(PairTest.BOUNDED, IntervalKind.MEAN, "asked for"),
    ),
    PairTest.CLUSTER: (
        lambda s: s.clustered and not s.counts_only,
        "groups of questions",
        Choice(PairTest.CLUSTER, IntervalKind.T, "asked for"),
    ),
    PairTest.SIGN: (
        lambda s: s.searched,
        "one search of each question in both arms (discovery)",
        Choice(PairTest.SIGN, IntervalKind.MEAN, "asked for"),
    ),
    PairTest.TWO_PROPORTION: (
        lambda s: s.binary or s.counts_only,
        "right-or-wrong values or counts",
        Choice(PairTest.TWO_PROPORTION, IntervalKind.NEWCOMBE_UNPAIRED, "asked for"),
    ),
    PairTest.SEEDS: (
        lambda s: all(s.trained) and s.scatters and s.welch_holds,
        f"as many training seeds in each arm, at least two, or {WELCH_SEEDS} or more in each",
        Choice(PairTest.SEEDS, IntervalKind.T, "asked for"),
    ),
    PairTest.SEEDS_PAIRED: (
        lambda s: all(s.trained) and s.seeds[0] == s.seeds[1] >= 2,
        "the same training seeds in both arms, at least two",
        Choice(PairTest.SEEDS_PAIRED, IntervalKind.T, "asked for"),
    ),
    PairTest.TWO_LEVEL: (
        lambda s: s.scatters,
        "at least two training seeds in each trained arm",
        Choice(PairTest.TWO_LEVEL, IntervalKind.T, "asked for"),
    ),
}


def choose(shape: Shape, asked: str | None = None) -> Choice:
    """The test for data of this shape, or the one asked for. Raises ValueError where that one cannot be right."""
    if asked is None:
        return next(rule.choice for rule in RULES if rule.when(shape))
    if asked not in NEEDS:
        raise ValueError(f"no test {asked!r}: one of {', '.join(NEEDS)}")
    fits, needs, choice = NEEDS[PairTest(asked)]
    if not fits(shape):
        better = choose(shape)
        raise ValueError(f"test {asked!r} needs {needs}; for these runs {str(better.test)!r} fits ({better.because})")
    return choice
