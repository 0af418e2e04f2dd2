"""How often each test cries wolf and each interval holds, simulated over sizes, samples, seeds and rates.

    python -m benchmarks.calibration [--simulations 100] [--json FILE]

For every row of the table of tests (reports/stats/choose.py) it draws answers whose questions have a difficulty that
both arms share (logit-normal, SD 1.5) and an arm's own strength a question (SD .5; .7 between recipes, and .2 from
training seed to training seed). Without a true difference it counts how often the test rejects at .05; with one and
without, how often the interval of level .95 holds it. It prints the worst case of each row with where it was: the table
in docs/deciding.md.

Limits: other shapes of difficulty are not simulated; a rate from 100 simulations is good to .022 (one SE at .05), so
that the worst of hundreds of cases lies about three of these from what is true. It prints and judges nothing;
tests/reports/stats/test_calibration.py holds the claims in the suite.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from nsd.reports import stats
from nsd.reports.judge.arms import arm_interval
from nsd.reports.judge.pairs import FEW_SEEN

Floats = NDArray[np.float64]
DIFFICULTY, STRENGTH, RECIPE, SEED = 1.5, 0.5, 0.7, 0.2  # SDs in logits
RATES = (0.02, 0.1, 0.5, 0.9, 0.98)
SIZES = (5, 10, 20, 50, 200, 1000)
TRAINED = ((2, 2), (3, 3), (5, 5), (8, 8), (1, 2), (1, 3), (1, 5), (1, 8))


@dataclass(frozen=True)
class Row:
    """One case of one row of the table."""

    row: str
    case: str
    simulations: int
    rejected: float | None
    covered: float | None


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
    generator: np.random.Generator, rates: tuple[float, float], k: tuple[int, int], seeds: tuple[int, int], n: int
) -> tuple[Floats, Floats]:
    """[seeds, questions] of two arms; one seed stands for a model that is not trained."""
    difficulty = generator.normal(0, DIFFICULTY, n)
    found = []
    for rate, samples, count in zip(rates, k, seeds, strict=True):
        moved = SEED if count > 1 else 0.0
        logit = intercept(rate, math.hypot(DIFFICULTY, RECIPE, moved)) + difficulty + generator.normal(0, RECIPE, n)
        logit = logit[None, :] + generator.normal(0, 1, (count, 1)) * moved
        found.append(generator.binomial(samples, expit(logit)) / samples)
    return found[0], found[1]


def thin(drawn: tuple[int, int], a: Floats, b: Floats, n: int) -> bool:
    """Whether unequal numbers of samples leave one arm's rarer outcome hardly seen, as reports/judge/pairs.py asks."""
    seen = [k * n * min(float(x.mean()), 1 - float(x.mean())) for k, x in zip(drawn, (a, b), strict=True)]
    return drawn[0] != drawn[1] and min(seen) < FEW_SEEN


def paired(
    generator: np.random.Generator, k: tuple[int, int], n: int, rates: tuple[float, float]
) -> tuple[bool | None, bool]:
    """Rejected (None with a true difference), and covered, by what nsd takes for one pair of arms."""
    a, b = answers(generator, rates, k, n)
    truth = rates[1] - rates[0]
    if k == (1, 1):
        both, a_only, b_only = int(a @ b), int(a @ (1 - b)), int((1 - a) @ b)
        interval = stats.newcombe_paired(both, a_only, b_only, n - both - a_only - b_only)
        assert interval is not None
        p, excludes = stats.mcnemar(a_only, b_only).p, not interval.low <= 0 <= interval.high
        covered = interval.low <= truth <= interval.high
    else:
        lopsided = thin(k, a, b, n)
        limits = stats.mean_limits(b - a, (-1.0, 1.0), lopsided)
        assert limits is not None
        p = stats.two_sided_p(limits)
        excludes, covered = p < 0.05, stats.two_sided_p(limits, truth) >= 0.05
        if not lopsided and n >= stats.FEW_QUESTIONS:
            p = stats.sign_flip(b - a, seed=0).p if k[0] == k[1] else stats.paired_t(b - a).p
    return (bool(p is not None and p < 0.05 and excludes) if truth == 0 else None), covered


def recipe(
    generator: np.random.Generator, k: tuple[int, int], seeds: tuple[int, int], n: int, rate: float
) -> tuple[bool, bool]:
    """The same for the claim about a recipe, without a true difference."""
    a, b = recipes(generator, (rate, rate), k, seeds, n)
    lopsided = thin((seeds[0] * k[0], seeds[1] * k[1]), a, b, n)
    found = stats.two_level_limits(a, b, (seeds[0] > 1, seeds[1] > 1), lopsided=lopsided)
    rejected = not isinstance(found, stats.Result) and stats.two_sided_p(found) < 0.05
    return rejected, not rejected


def alone(generator: np.random.Generator, k: int, seeds: int, n: int, rate: float) -> tuple[None, bool]:
    """Whether an arm's own interval holds its rate."""
    _, block = recipes(generator, (rate, rate), (1, k), (1, seeds), n)
    interval = arm_interval(block, 0.95, "accuracy")
    return None, interval is None or interval.low - 1e-9 <= rate <= interval.high + 1e-9


def grouped(generator: np.random.Generator, groups: int, unequal: bool, rate: float) -> tuple[bool, None]:
    """Whether the cluster-robust t rejects right-or-wrong answers in groups that share difficulty and strength."""
    sizes = np.full(groups, 10)
    if unequal:
        sizes = np.maximum(1, np.round(10 * np.exp(generator.normal(size=groups)))).astype(int)
    index = np.repeat(np.arange(groups), sizes)
    difficulty = DIFFICULTY * generator.normal(size=groups)[index] + generator.normal(size=len(index))
    base = intercept(rate, math.hypot(DIFFICULTY, 1.0, 0.7))
    right = [
        generator.random(len(index)) < expit(base + difficulty + 0.7 * generator.normal(size=groups)[index])
        for _ in range(2)
    ]
    p = stats.cluster_t(right[1].astype(float) - right[0], index).p
    return p is not None and p < 0.05, None


def cases() -> Iterator[tuple[str, str, int, Callable[..., tuple[bool | None, bool | None]], tuple[object, ...]]]:
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
        yield row, case, 3 if n == 500 else 1, recipe, (k, seeds, n, rate)
    for groups, unequal, rate in product((3, 4, 5, 10, 20, 40), (False, True), (0.05, 0.5)):
        case = f"{groups} groups of {'unequal' if unequal else 'equal'} size, rate {rate}"
        yield "groups of questions", case, 1, grouped, (groups, unequal, rate)
    for count, samples, n, rate in product((1, 2, 3, 8), (1, 4, 32), (5, 10, 30, 100, 1000), RATES):
        row = "an arm alone" if count == 1 else "an arm alone, several seeds"
        yield row, f"n {n}, k {samples}, seeds {count}, rate {rate}", 2, alone, (samples, count, n, rate)


def simulated(simulations: int) -> list[Row]:
    """Every case, each with a stream of its own."""
    rows = []
    for number, (row, case, slow, one, given) in enumerate(cases()):
        generator, times = np.random.default_rng([20260101, number]), max(50, simulations // slow)
        found = [one(generator, *given) for _ in range(times)]
        rejected, covered = (
            None if found[0][i] is None else sum(bool(pair[i]) for pair in found) / times for i in (0, 1)
        )
        rows.append(Row(row, case, times, rejected, covered))
    return rows


def table(rows: list[Row]) -> list[str]:
    """The worst false-positive rate and the worst coverage of each row of the table, with where each was."""
    lines = ["| row | cases | most rejected, no effect | where | least covered | where |", "|---|---|---|---|---|---|"]
    for name in dict.fromkeys(row.row for row in rows):
        mine = [row for row in rows if row.row == name]
        wrong = max((row for row in mine if row.rejected is not None), key=lambda row: row.rejected or 0, default=None)
        held = min((row for row in mine if row.covered is not None), key=lambda row: row.covered or 0, default=None)
        cells = [
            *(("–", "–") if wrong is None else (f"{wrong.rejected:.3f}", wrong.case)),
            *(("–", "–") if held is None else (f"{held.covered:.3f}", held.case)),
        ]
        lines.append(f"| {name} | {len(mine)} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    """Simulate, print the table, and the cases that stray by more than two standard errors."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--simulations", type=int, default=100)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = simulated(arguments.simulations)
    print("\n".join(table(rows)))
    for row in rows:
        allowed = (
            0.05 + (0.015 if row.row.startswith("recipe") else 0.0) + 2.6 * math.sqrt(0.05 * 0.95 / row.simulations)
        )
        if row.rejected is not None and row.rejected > allowed:
            print(f"stray: {row.row}, {row.case}: rejected {row.rejected:.3f}")
        if row.covered is not None and row.covered < 0.94 - 2.6 * math.sqrt(0.06 * 0.94 / row.simulations):
            print(f"stray: {row.row}, {row.case}: covered {row.covered:.3f}")
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))


if __name__ == "__main__":
    main()
