"""How often each test cries wolf and each interval holds, simulated over sizes, samples, seeds and rates.

    python -m benchmarks.calibration [--simulations 100] [--rows recipe] [--json FILE] [--record]

For every row of the table of tests (reports/stats/choose.py) it draws answers whose questions have a difficulty that
both arms share (logit-normal, SD 1.5) and an arm's own strength a question (SD .5; .7 between recipes, and .2 from
training seed to training seed). Without a true difference it counts how often the test rejects at .05; with one and
without, how often the interval of level .95 holds it. It prints each row's mean and its worst case with where it was.

Limits: other shapes of difficulty are not simulated; a rate from 100 simulations is good to .022 (one SE at .05), so
that the worst of hundreds of cases lies about three of these from what is true. It judges nothing;
tests/reports/stats/test_calibration.py holds the claims in the suite.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from benchmarks import frame
from nsd.reports import stats
from nsd.reports.judge.arms import arm_interval
from nsd.reports.judge.pairs import FEW_SEEN

Floats = NDArray[np.float64]
DIFFICULTY, STRENGTH, RECIPE, SEED = 1.5, 0.5, 0.7, 0.2  # SDs in logits
RATES = (0.02, 0.1, 0.5, 0.9, 0.98)
SIZES = (5, 10, 20, 50, 200, 1000)
UNEVEN = ((2, 2), (2, 5), (2, 8), (3, 3), (3, 8), (5, 5), (8, 8))
WELCH = ((2, 2), (3, 3), (5, 5), (8, 8), (5, 8), (2, 3), (2, 5), (2, 8), (3, 5), (3, 8))
TRAINED = ((2, 2), (3, 3), (5, 5), (8, 8), (1, 2), (1, 3), (1, 5), (1, 8))


@dataclass(frozen=True)
class Row:
    """One case of one row of the table."""

    row: str
    case: str
    simulations: int
    rejected: float | None
    covered: float | None
    passed: float | None


@dataclass(frozen=True)
class Trial:
    """One simulation. None: not asked. `passed`: the worse arm is shown not to be worse by its true difference."""

    rejected: bool | None = None
    covered: bool | None = None
    passed: bool | None = None


def trial(limits: stats.Limits | stats.Result | None, truth: float) -> Trial:
    """What limits say of a true difference: two-sided at .05, and one-sided for the arm that is worse."""
    if limits is None or isinstance(limits, stats.Result):  # too few: no verdict
        return Trial(False if truth == 0 else None, True, None if truth == 0 else False)
    below, above = limits.p_greater(truth), limits.p_less(truth)
    covered = min(below, above) >= 0.025
    return Trial(not covered if truth == 0 else None, covered, None if truth == 0 else (below, above)[truth > 0] < 0.05)


@cache
def intercept(rate: float, spread: float) -> float:
    """The logit at which answers of this spread are right at this rate."""
    draws = np.random.default_rng(0).normal(size=200_000) * spread
    low, high = -14.0, 14.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if expit(middle + draws).mean() < rate else (low, middle)
    return (low + high) / 2


def answers(
    generator: np.random.Generator, rates: tuple[float, float], samples: tuple[int, int], n: int
) -> tuple[Floats, Floats]:
    """Means of a question's samples for two arms on the same questions."""
    spread = math.hypot(DIFFICULTY, STRENGTH)
    difficulty = generator.normal(0, DIFFICULTY, n)
    found = []
    for rate, k in zip(rates, samples, strict=True):
        chance = expit(intercept(rate, spread) + difficulty + generator.normal(0, STRENGTH, n))
        found.append(generator.binomial(k, chance) / k)
    return found[0], found[1]


def recipes(
    generator: np.random.Generator,
    rates: tuple[float, float],
    k: tuple[int, int],
    seeds: tuple[int, int],
    n: int,
    scatter: tuple[float, float] = (SEED, SEED),
) -> tuple[Floats, Floats]:
    """[seeds, questions] of two arms; one seed stands for a model that is not trained, `scatter` are SDs in logits."""
    difficulty = generator.normal(0, DIFFICULTY, n)
    found = []
    for rate, samples, count, over_seeds in zip(rates, k, seeds, scatter, strict=True):
        moved = over_seeds if count > 1 else 0.0
        logit = intercept(rate, math.hypot(DIFFICULTY, RECIPE, moved)) + difficulty + generator.normal(0, RECIPE, n)
        logit = logit[None, :] + generator.normal(0, 1, (count, 1)) * moved
        found.append(generator.binomial(samples, expit(logit)) / samples)
    return found[0], found[1]


def thin(drawn: tuple[int, int], a: Floats, b: Floats, n: int) -> bool:
    """Whether unequal numbers of samples leave one arm's rarer outcome hardly seen, as reports/judge/pairs.py asks."""
    seen = [k * n * min(float(x.mean()), 1 - float(x.mean())) for k, x in zip(drawn, (a, b), strict=True)]
    return drawn[0] != drawn[1] and min(seen) < FEW_SEEN


def paired(generator: np.random.Generator, k: tuple[int, int], n: int, rates: tuple[float, float]) -> Trial:
    """What nsd takes for one pair of arms."""
    a, b = answers(generator, rates, k, n)
    truth = rates[1] - rates[0]
    if k == (1, 1):
        both, a_only, b_only = int(a @ b), int(a @ (1 - b)), int((1 - a) @ b)
        interval = stats.newcombe_paired(both, a_only, b_only, n - both - a_only - b_only)
        assert interval is not None
        p, excludes = stats.mcnemar(a_only, b_only).p, not interval.low <= 0 <= interval.high
        covered = interval.low <= truth <= interval.high
        worse = (a_only, b_only) if truth < 0 else (b_only, a_only)
        passed = truth != 0 and (stats.margin_test_paired(*worse, n, abs(truth), both_sides=False).p or 0.0) < 0.05
    else:
        lopsided = thin(k, a, b, n)
        limits = stats.mean_limits(b - a, (-1.0, 1.0), lopsided)
        assert limits is not None
        p = stats.two_sided_p(limits)
        excludes, covered = p < 0.05, stats.two_sided_p(limits, truth) >= 0.05
        passed = bool(trial(limits, truth).passed)
        if not lopsided and n >= stats.FEW_QUESTIONS:
            p = stats.sign_flip(b - a, seed=0).p if k[0] == k[1] else stats.paired_t(b - a).p
    rejected = p is not None and p < 0.05 and excludes
    return Trial(None if truth else rejected, covered, passed if truth else None)


def recipe(
    generator: np.random.Generator,
    k: tuple[int, int],
    seeds: tuple[int, int],
    n: int,
    rates: tuple[float, float],
    scatter: tuple[float, float] = (SEED, SEED),
) -> Trial:
    """The same for the claim about a recipe."""
    a, b = recipes(generator, rates, k, seeds, n, scatter)
    lopsided = thin((seeds[0] * k[0], seeds[1] * k[1]), a, b, n)
    limits = stats.two_level_limits(a, b, (seeds[0] > 1, seeds[1] > 1), lopsided=lopsided)
    return trial(limits, rates[1] - rates[0])


def sixth(
    generator: np.random.Generator,
    k: tuple[int, int],
    seeds: tuple[int, int],
    n: int,
    rates: tuple[float, float],
    scatter: tuple[float, float],
) -> Trial:
    """Whether two equal recipes are told apart at the level that Holm leaves the first of six claims."""
    limits = stats.two_level_limits(*recipes(generator, rates, k, seeds, n, scatter))
    return Trial(rejected=not isinstance(limits, stats.Result) and stats.two_sided_p(limits) < 0.05 / 6)


def by_means(
    generator: np.random.Generator, seeds: tuple[int, int], scatter: tuple[float, float], level: float
) -> Trial:
    """Welch's t on seed means (`--test seeds`), whose arms scatter by `scatter` about one mean."""
    a, b = (generator.normal(0.5, 0.01 * one, count) for one, count in zip(scatter, seeds, strict=True))
    found = stats.welch_t(a, b, 1 - level)
    covered = found.interval is None or found.interval.low <= 0 <= found.interval.high
    return Trial(found.p is not None and found.p < level, covered if level == 0.05 else None)


def rare(
    generator: np.random.Generator, k: int, seeds: tuple[int, int], n: int, expected: float, elsewhere: float
) -> Trial:
    """A difference that lies on a rare kind of question alone: of n so many are `expected`."""
    kind = generator.random(n) < expected / n
    arms = []
    for count, right in zip(seeds, (1.0, 0.0), strict=True):
        logit = math.log(elsewhere / (1 - elsewhere)) + generator.normal(0, 1, (count, 1)) * (SEED if count > 1 else 0)
        arms.append(generator.binomial(k, np.where(kind, right, expit(logit + np.zeros(n)))) / k)
    if max(seeds) == 1:
        return trial(stats.mean_limits((arms[1] - arms[0])[0], (-1.0, 1.0)), -expected / n)
    return trial(stats.two_level_limits(arms[0], arms[1], (seeds[0] > 1, seeds[1] > 1)), -expected / n)


def alone(generator: np.random.Generator, k: int, seeds: int, n: int, rate: float) -> Trial:
    """Whether an arm's own interval holds its rate."""
    _, block = recipes(generator, (rate, rate), (1, k), (1, seeds), n)
    interval = arm_interval(block, 0.95, "accuracy")
    return Trial(covered=interval is None or interval.low - 1e-9 <= rate <= interval.high + 1e-9)


def grouped(
    generator: np.random.Generator,
    groups: int,
    unequal: bool,
    rates: tuple[float, float],
    tie: float,
    seeds: tuple[int, int] = (1, 1),
    k: int = 1,
) -> Trial:
    """Questions in groups that share difficulty and, by an SD of `tie`, what an arm, and a seed, makes of them."""
    sizes = np.full(groups, 10)
    if unequal:
        sizes = np.maximum(1, np.round(10 * np.exp(generator.normal(size=groups)))).astype(int)
    index = np.repeat(np.arange(groups), sizes)
    n = len(index)
    common, arms = DIFFICULTY * generator.normal(size=groups)[index] + generator.normal(size=n), []
    for rate, count in zip(rates, seeds, strict=True):
        moved, tied = (SEED, tie / 2) if count > 1 else (0.0, 0.0)
        base = intercept(rate, math.hypot(DIFFICULTY, 1.0, tie, moved, tied))
        logit = base + common + tie * generator.normal(size=groups)[index] + moved * generator.normal(size=(count, 1))
        logit = logit + tied * generator.normal(size=(count, groups))[:, index]
        arms.append(generator.binomial(k, expit(logit)) / k)
    truth = rates[1] - rates[0]
    if max(seeds) == 1:
        return trial(stats.cluster_limits((arms[1] - arms[0])[0], index, (-1.0, 1.0)), truth)
    return trial(stats.two_level_limits(arms[0], arms[1], (seeds[0] > 1, seeds[1] > 1), clusters=index), truth)


def grouped_alone(generator: np.random.Generator, groups: int, unequal: bool, rate: float, seeds: int, k: int) -> Trial:
    """Whether an arm's own interval holds its rate where questions come in groups."""
    sizes = np.full(groups, 10)
    if unequal:
        sizes = np.maximum(1, np.round(10 * np.exp(generator.normal(size=groups)))).astype(int)
    index = np.repeat(np.arange(groups), sizes)
    moved = SEED if seeds > 1 else 0.0
    logit = intercept(rate, math.hypot(DIFFICULTY, 1.0, moved)) + DIFFICULTY * generator.normal(size=groups)[index]
    logit = logit + generator.normal(size=len(index)) + moved * generator.normal(size=(seeds, 1))
    interval = arm_interval(generator.binomial(k, expit(logit)) / k, 0.95, "accuracy", index)
    return Trial(covered=interval is None or interval.low - 1e-9 <= rate <= interval.high + 1e-9)


def cases() -> Iterator[tuple[str, str, int, Callable[..., Trial], tuple[object, ...]]]:
    """Row, case, divisor of the number of simulations, what to simulate, and with which arguments."""
    kinds: dict[str, tuple[tuple[int, int], ...]] = {
        "one right-or-wrong value a question": ((1, 1),),
        "several samples a question": ((2, 2), (8, 8), (32, 32)),
        "unequal numbers of samples": ((1, 24), (1, 4), (4, 32)),
    }
    for (row, k), n, rate in product(((row, k) for row, counts in kinds.items() for k in counts), SIZES, RATES):
        other = rate + 0.15 if rate < 0.8 else rate - 0.15
        slow = 4 if n == 1000 else 1
        yield row, f"n {n}, k {k[0]}/{k[1]}, rate {rate}", slow, paired, (k, n, (rate, rate))
        yield row, f"n {n}, k {k[0]}/{k[1]}, {rate} against {other:g}", slow, paired, (k, n, (rate, other))
    for seeds, k, n, rate in product(TRAINED, ((1, 1), (8, 8), (1, 8)), (5, 10, 20, 30, 100, 500), (0.05, 0.3, 0.9)):
        row = "recipes, both trained" if seeds[0] > 1 else "a recipe against an untrained arm"
        case = f"n {n}, k {k[0]}/{k[1]}, seeds {seeds[0]}/{seeds[1]}, rate {rate}"
        yield row, case, 3 if n == 500 else 1, recipe, (k, seeds, n, (rate, rate))
        if k == (8, 8) and n in (20, 30, 100) and rate > 0.05:
            yield row, f"{case} against {rate - 0.05:g}", 1, recipe, (k, seeds, n, (rate, rate - 0.05))
    uneven: tuple[tuple[float, float], ...] = ((0.2, 0.0), (0.2, 0.04), (0.04, 0.2))
    for seeds, scatter, n, k_all in product(UNEVEN, uneven, (100, 1000), (1, 8)):
        case = f"n {n}, k {k_all}, seeds {seeds[0]}/{seeds[1]}, seed SD {scatter[0]}/{scatter[1]}"
        given = ((k_all, k_all), seeds, n, (0.5, 0.5), scatter)
        yield "recipes, one of which scatters more", case, 1, recipe, given
        yield "the same at a sixth of the level", case, 1, sixth, given
    for seeds, other in product(WELCH, (0.0, 0.1, 0.2, 0.4, 0.7, 1.0, 2.0)):
        row = "seed means alone" if seeds[0] == seeds[1] or min(seeds) >= 5 else "seed means alone, which is refused"
        case = f"seeds {seeds[0]}/{seeds[1]}, the second scatters {other:g} times"
        yield row, case, 1, by_means, (seeds, (1.0, other), 0.05)
        yield f"{row}, at a sixth of the level", case, 1, by_means, (seeds, (1.0, other), 0.05 / 6)
    some: tuple[tuple[int, tuple[int, int]], ...] = (
        (8, (1, 1)), (32, (1, 1)), (1, (3, 3)), (4, (3, 3)), (4, (8, 8)), (8, (1, 3)), (4, (2, 2))
    )  # fmt: skip
    for (k_all, seeds), n, expected, elsewhere in product(some, (20, 30, 60, 200), (1, 3), (0.9, 0.98)):
        row = "a rare kind of question, recipes" if max(seeds) > 1 else "a rare kind of question, samples"
        case = f"n {n}, k {k_all}, seeds {seeds[0]}/{seeds[1]}, {expected} expected, elsewhere {elsewhere}"
        yield row, case, 1, rare, (k_all, seeds, n, expected, elsewhere)
    pairs = ((0.05, 0.05), (0.5, 0.5), (0.9, 0.85), (0.98, 0.96))
    for groups, unequal, rates, tie in product((5, 10, 20, 40), (False, True), pairs, (0.2, 1.0)):
        case = f"{groups} groups of {'unequal' if unequal else 'equal'} size, tie {tie}, rates {rates[0]}/{rates[1]}"
        yield "groups of questions", case, 1, grouped, (groups, unequal, rates, tie)
        both: tuple[tuple[tuple[int, int], int], ...] = (((2, 2), 1), ((3, 3), 4), ((1, 5), 1), ((8, 8), 4))
        for seeds, k_all in both if unequal else ():
            longer = f"{case}, seeds {seeds[0]}/{seeds[1]}, k {k_all}"
            yield "recipes, groups of questions", longer, 1, grouped, (groups, unequal, rates, tie, seeds, k_all)
    for groups, unequal, rate, (count, k_all) in product(
        (5, 40), (False, True), (0.02, 0.5, 0.98), ((1, 1), (1, 8), (3, 4))
    ):
        case = f"{groups} groups of {'unequal' if unequal else 'equal'} size, rate {rate}, seeds {count}, k {k_all}"
        yield "an arm alone, groups of questions", case, 2, grouped_alone, (groups, unequal, rate, count, k_all)
    for count, samples, n, rate in product((1, 2, 3, 8), (1, 4, 32), (5, 10, 30, 100, 1000), RATES):
        row = "an arm alone" if count == 1 else "an arm alone, several seeds"
        yield row, f"n {n}, k {samples}, seeds {count}, rate {rate}", 2, alone, (samples, count, n, rate)


def simulated(simulations: int, rows: str = "") -> list[Row]:
    """Every case of the rows whose name has `rows` in it, each case with a stream of its own."""
    found = []
    for number, (row, case, slow, one, given) in enumerate(cases()):
        if rows not in row:
            continue
        generator, times = np.random.default_rng([20260101, number]), max(50, simulations // slow)
        trials = [one(generator, *given) for _ in range(times)]
        shares = (share([getattr(t, name) for t in trials]) for name in ("rejected", "covered", "passed"))
        found.append(Row(row, case, times, *shares))
    return found


def share(answers: list[bool | None]) -> float | None:
    """Of those that were asked; None where none was."""
    known = [answer for answer in answers if answer is not None]
    return sum(known) / len(known) if known else None


def table(rows: list[Row]) -> list[str]:
    """False-positive rates and coverages of each row of the table: over all its cases, and the worst with its place."""
    lines = [
        "| row | cases | rejected, no effect | most | where | covered | least | where "
        "| not worse, at the margin | most | where |",
        f"|{'---|' * 11}",
    ]
    for name in dict.fromkeys(row.row for row in rows):
        mine = [row for row in rows if row.row == name]
        cells = []
        for what, worst in (("rejected", max), ("covered", min), ("passed", max)):
            known = [(getattr(row, what), row.case) for row in mine if getattr(row, what) is not None]
            if not known:
                cells += ["–"] * 3
                continue
            end, where = worst(known, key=lambda one: one[0])
            cells += [f"{np.mean([one for one, _ in known]):.3f}", f"{end:.3f}", where]
        lines.append(f"| {name} | {len(mine)} | {' | '.join(cells)} |")
    return lines


ASKED = {
    "rejected": ("false alarms", "the level", 0.05, max),
    "covered": ("coverage", "the level", 0.95, min),
    "passed": ("passes for not worse, at the margin", "the level", 0.05, max),
}


def summed(rows: list[Row]) -> Iterator[frame.Row]:
    """Each row of the table against its levels, with the worst case."""
    for name in dict.fromkeys(row.row for row in rows):
        for key, (what, peer, level, worst) in ASKED.items():
            known = [(getattr(row, key), row.case) for row in rows if row.row == name and getattr(row, key) is not None]
            if known:
                mean, aim = float(np.mean([one for one, _ in known])), level / 6 if "sixth" in name else level
                end, where = worst(known, key=lambda one: one[0])
                note = f"mean of {len(known)} cases; {'least' if worst is min else 'most'} {end:.3f} ({where})"
                yield frame.Row(f"{what}: {name}", peer, "", mean, aim, mean / aim, note)


def measure(options: argparse.Namespace) -> Iterator[frame.Row | str]:
    """Simulate, print the table, and the cases that stray by more than 2.6 standard errors."""
    rows = simulated(options.simulations, options.rows)
    print("\n".join(table(rows)))
    for row in (one for one in rows if "refused" not in one.row):
        over_seeds = 0.015 if "recipe" in row.row or "seed means" in row.row else 0.0
        level = 0.05 / 6 if "sixth" in row.row else 0.05
        over_seeds = 0.015 if "sixth" in row.row else over_seeds
        allowed = level + over_seeds + 2.6 * math.sqrt(level * (1 - level) / row.simulations)
        if row.rejected is not None and row.rejected > allowed:
            print(f"stray: {row.row}, {row.case}: rejected {row.rejected:.3f}")
        if row.covered is not None and row.covered < 0.94 - 2.6 * math.sqrt(0.06 * 0.94 / row.simulations):
            print(f"stray: {row.row}, {row.case}: covered {row.covered:.3f}")
        if row.passed is not None and row.passed > allowed:
            print(f"stray: {row.row}, {row.case}: passed {row.passed:.3f}")
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))
    draws = sorted({row.simulations for row in rows})
    yield f"{draws[0]} to {draws[-1]} draws a case."
    yield from summed(rows)


def main() -> int:
    """Simulate and print."""
    parser = frame.argument_parser(__doc__)
    parser.add_argument("--simulations", type=int, default=100)
    parser.add_argument("--rows", default="", help="only rows whose name has this in it")
    parser.add_argument("--json", type=Path, help="write every case to this file")
    options = parser.parse_args()
    return frame.report(options, measure(options), ("numpy", "scipy"))


if __name__ == "__main__":
    sys.exit(main())
