"""Which test fits the data: one table, read from the top, the first row that fits wins.

    choose(Shape(binary=True)).test            # "mcnemar"
    choose(Shape(binary=True), "mcnemar-exact")  # a person's own choice, refused where it cannot be right

Every row says why, and the reason is kept with the result. The simulations behind the rows (how often each test
cries wolf) are tests: tests/reports/stats/test_calibration.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

MANY_QUESTIONS = 5_000


@dataclass(frozen=True, slots=True)
class Shape:
    """What the data of two arms look like. `seeds` are training seeds per arm, `n` the shared questions.

    `binary`: every value is 0 or 1 (one sample, or one decision such as maj@k). `sampled`: a value is a mean
    of several samples. `clustered`: questions come in groups. `recipe`: the claim is about the recipe, not
    about these checkpoints. `shared_order`: seed s of both arms saw the same data in the same order. `trained`:
    whether each arm was trained at all; one that was not has one seed, whatever number repeats it.
    """

    counts_only: bool = False
    binary: bool = False
    sampled: bool = False
    clustered: bool = False
    recipe: bool = False
    shared_order: bool = False
    seeds: tuple[int, int] = (1, 1)
    n: int = 0
    trained: tuple[bool, bool] = (True, True)

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

    test: str
    interval: str
    because: str


@dataclass(frozen=True, slots=True)
class Rule:
    """A row of the table."""

    when: Callable[[Shape], bool]
    choice: Choice


RULES = (
    Rule(
        lambda s: s.counts_only,
        Choice("two-proportion", "newcombe-unpaired", "only counts are known, so answers cannot be paired: low power"),
    ),
    Rule(
        lambda s: s.recipe and s.shared_order,
        Choice("seeds-paired", "t", "several training seeds per arm, each seed with the same data order in both"),
    ),
    Rule(
        lambda s: s.recipe and all(s.trained),
        Choice("seeds", "t", "several training seeds per arm: the seed means carry the uncertainty of training"),
    ),
    Rule(
        lambda s: s.recipe,
        Choice("two-level", "t", "several training seeds against an arm that is not trained: seeds and questions vary"),
    ),
    Rule(
        lambda s: s.clustered,
        Choice("cluster", "cluster-bootstrap", "questions come in groups, which are not independent inside"),
    ),
    Rule(
        lambda s: s.binary,
        Choice("mcnemar", "newcombe-paired", "one right-or-wrong value per question, the same questions in both"),
    ),
    Rule(
        lambda s: s.n > MANY_QUESTIONS,
        Choice("t", "t", f"more than {MANY_QUESTIONS} questions, where t and permutation agree"),
    ),
    Rule(
        lambda s: s.sampled,
        Choice("permutation", "cluster-bootstrap", "several samples per question: their mean counts once per question"),
    ),
    Rule(
        lambda s: True,
        Choice("permutation", "bca", "one continuous value per question, the same questions in both"),
    ),
)

# What each test needs, as a predicate and as words, for a test that a person names.
NEEDS: dict[str, tuple[Callable[[Shape], bool], str, Choice]] = {
    "mcnemar": (
        lambda s: s.binary and not s.counts_only,
        "one right-or-wrong value per question in both arms",
        Choice("mcnemar", "newcombe-paired", "asked for"),
    ),
    "mcnemar-exact": (
        lambda s: s.binary and not s.counts_only,
        "one right-or-wrong value per question in both arms",
        Choice("mcnemar-exact", "newcombe-paired", "asked for"),
    ),
    "permutation": (
        lambda s: not s.counts_only,
        "values per question in both arms",
        Choice("permutation", "cluster-bootstrap", "asked for"),
    ),
    "t": (lambda s: not s.counts_only, "values per question in both arms", Choice("t", "t", "asked for")),
    "cluster": (
        lambda s: s.clustered and not s.counts_only,
        "groups of questions",
        Choice("cluster", "cluster-bootstrap", "asked for"),
    ),
    "two-proportion": (
        lambda s: s.binary or s.counts_only,
        "right-or-wrong values or counts",
        Choice("two-proportion", "newcombe-unpaired", "asked for"),
    ),
    "seeds": (
        lambda s: all(s.trained) and s.scatters,
        "at least two training seeds in each arm",
        Choice("seeds", "t", "asked for"),
    ),
    "seeds-paired": (
        lambda s: all(s.trained) and s.seeds[0] == s.seeds[1] >= 2,
        "the same training seeds in both arms, at least two",
        Choice("seeds-paired", "t", "asked for"),
    ),
    "two-level": (
        lambda s: s.scatters,
        "at least two training seeds in each trained arm",
        Choice("two-level", "t", "asked for"),
    ),
}


def choose(shape: Shape, asked: str | None = None) -> Choice:
    """The test for data of this shape, or the one asked for. Raises ValueError where that one cannot be right."""
    if asked is None:
        return next(rule.choice for rule in RULES if rule.when(shape))
    if asked not in NEEDS:
        raise ValueError(f"no test {asked!r}: one of {', '.join(NEEDS)}")
    fits, needs, choice = NEEDS[asked]
    if not fits(shape):
        better = choose(shape)
        raise ValueError(f"test {asked!r} needs {needs}; for these runs {better.test!r} fits ({better.because})")
    return choice
