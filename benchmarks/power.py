"""How often each test finds what was promised: the power of reports/stats/chances.py against the tests, simulated.

    python -m benchmarks.power [--simulations 400] [--rows samples] [--json FILE] [--record]

Answers are drawn as in calibration.py. For every case a true difference is found of which the model promises a chance
near .8, from the true variance; then the test that nsd takes, with its interval, is run on drawn data. The table has
the largest gap of each row and where it was (docs/deciding.md). The last row repeats what a comparison says of itself:
the median of the differences that it "finds" over many data sets is made the truth.

Limits: a rate from 400 simulations is good to .02 (one SE), so the worst of many cases lies three of these from what is
true. It judges nothing; tests/reports/stats/test_chances.py holds the claims in the suite.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks import frame
from benchmarks.calibration import answers, recipes
from benchmarks.power_groups import Case, counted, sampled
from nsd.reports import stats

Floats = NDArray[np.float64]
Generator = np.random.Generator
SIZES, RATES = (5, 10, 20, 50, 200, 1000), (0.02, 0.1, 0.5, 0.9)
MANY = 60_000  # questions that a true variance is taken from
WANTED = 0.8
GROUPS_ONE, GROUPS_SEVERAL = "groups of questions, one value", "groups of questions, 8 samples"
GROUPS_RECIPES = "groups of questions, recipes"
ONE, SEVERAL = "one right-or-wrong value a question", "several samples a question"
RECIPES, TOLD = "recipes, both trained", "what a comparison says that it finds, avg@4"


@dataclass(frozen=True)
class Row:
    """One case: what was promised, and what was found in so many simulations. None: no figure was given."""

    row: str
    case: str
    promised: float | None
    found: float | None
    simulations: int


def shown(p: float | None, interval: stats.Interval | None) -> bool:
    """What a verdict asks, in the right direction."""
    return p is not None and p < 0.05 and interval is not None and interval.low > 0


def mcnemar(a: Floats, b: Floats) -> bool:
    """Whether b is shown to be better on right-or-wrong answers."""
    both, a_only, b_only = int(a @ b), int(a @ (1 - b)), int((1 - a) @ b)
    interval = stats.newcombe_paired(both, a_only, b_only, len(a) - both - a_only - b_only)
    return shown(stats.mcnemar(a_only, b_only).p, interval)


def means(a: Floats, b: Floats) -> bool:
    """The same of means of samples, by the sign-flip test."""
    limits = stats.mean_limits(b - a, (-1.0, 1.0))
    if limits is None:
        return False
    p = stats.sign_flip(b - a, seed=0).p if len(a) >= stats.FEW_QUESTIONS else stats.two_sided_p(limits)
    return shown(p, stats.interval_of(limits, 0.95))


def model_of(a: Floats, b: Floats, k: int, n: int) -> stats.Model | None:
    """What is promised of n questions like these many."""
    if k == 1:
        return stats.PairedShares(n, float((a != b).mean()))
    if n < stats.fewest_for_t(b - a):
        return None
    return stats.sign_flip_means(float((b - a).var()), n, k)


def effect_for(rate: float, promise: Callable[[float], float | None]) -> float | None:
    """The other arm's rate at which the promise is nearest to WANTED, by bisection; None where none is given."""
    low, high = rate, 0.995
    if (top := promise(high)) is None or top < WANTED:
        return None
    for _ in range(9):
        middle = (low + high) / 2
        low, high = (middle, high) if (promise(middle) or 0.0) < WANTED else (low, middle)
    return high


def paired(k: int, n: int, rate: float, simulations: int, seed: list[int]) -> Row:
    """One arm at `rate`, the other where .8 is promised."""

    def promise(other: float) -> float | None:
        a, b = answers(np.random.default_rng(1), (rate, other), (k, k), MANY)
        model = model_of(a, b, k, n)
        return None if model is None else model.chance(other - rate, 0.05)

    name = ONE if k == 1 else SEVERAL
    case, other = f"n {n}, k {k}, rate {rate}", effect_for(rate, promise)
    if other is None:
        return Row(name, case, None, None, 0)
    generator, test = np.random.default_rng(seed), mcnemar if k == 1 else means
    found = sum(test(*answers(generator, (rate, other), (k, k), n)) for _ in range(simulations))
    return Row(name, f"{case} against {other:.3f}", promise(other), found / simulations, simulations)


def recipe(seeds: int, k: int, n: int, rate: float, simulations: int, seed: list[int]) -> Row:
    """Both arms trained; their parts are taken from many seeds on many questions."""

    def parts(other: float) -> tuple[stats.Model, float]:
        a, b = recipes(np.random.default_rng(1), (rate, other), (k, k), (40, 40), 6000)
        found = [stats.two_way(block) for block in (a, b)]
        residual = sum(one.interaction for one in found if one) / seeds / n
        own = float((b - a).mean(axis=0).var()) - sum(one.interaction for one in found if one) / 40
        over = tuple(stats.Part(one.rows / seeds + one.interaction / seeds / n, seeds - 1) for one in found if one)
        model = stats.Means(stats.Parts(own / n + residual, n - 1, over, residual), units=n)
        return model, other - rate

    def promise(other: float) -> float | None:
        model, effect = parts(other)
        return model.chance(effect, 0.05)

    case, other = f"n {n}, k {k}, seeds {seeds}, rate {rate}", effect_for(rate, promise)
    if other is None:
        return Row(f"{RECIPES}, n {n}", case, None, None, 0)
    generator, found = np.random.default_rng(seed), 0
    for _ in range(simulations):
        result = stats.two_level(*recipes(generator, (rate, other), (k, k), (seeds, seeds), n))
        found += shown(result.p, result.interval)
    return Row(f"{RECIPES}, n {n}", f"{case} against {other:.3f}", promise(other), found / simulations, simulations)


def told(n: int, simulations: int, seed: list[int]) -> Row:
    """avg@4: the median of what comparisons without a true difference say that they find is made the truth."""
    generator, says = np.random.default_rng(seed), []
    for _ in range(60):
        a, b = answers(generator, (0.5, 0.5), (4, 4), n)
        model = None if not (b - a).any() else model_of(a, b, 4, n)
        says.append(np.nan if model is None else stats.detectable(model, 0.05, WANTED) or np.nan)
    row, case = TOLD, f"n {n}"
    if np.isnan(says).mean() > 0.5:
        return Row(row, case, None, None, 0)
    wanted = float(np.nanmedian(says))
    found = sum(means(*answers(generator, (0.5 - wanted / 2, 0.5 + wanted / 2), (4, 4), n)) for _ in range(simulations))
    return Row(row, f"{case}, {wanted * 100:.1f} points", WANTED, found / simulations, simulations)


def of_groups(row: str, make: Callable[[], Case | None], simulations: int, seed: list[int]) -> Row:
    """Questions in groups of ten, by the cluster-robust test or the two-level one."""
    case = make()
    if case is None:
        return Row(row, "no figure", None, None, 0)
    generator = np.random.default_rng(seed)
    found = sum(case.found(generator) for _ in range(simulations))
    return Row(row, case.label, case.promised, found / simulations, simulations)


def cases(simulations: int) -> Iterator[tuple[str, Callable[[], Row]]]:
    """The row of every case and what simulates it, each case with a stream of its own."""
    grid = list(product((1, 2, 8, 32), SIZES, RATES))
    for number, (k, n, rate) in enumerate(grid):
        yield ONE if k == 1 else SEVERAL, partial(paired, k, n, rate, simulations, [20260102, number])
    for number, (seeds, n, rate) in enumerate(product((2, 3, 5, 8), (20, 50, 200), (0.1, 0.5))):
        yield f"{RECIPES}, n {n}", partial(recipe, seeds, 8, n, rate, simulations, [20260103, number])
    several = (5, 8, 10, 15, 20, 30, 40)
    for number, (groups, icc, share) in enumerate(product(several, (0.0, 0.1, 0.3, 0.5), (0.1, 0.2, 0.5))):
        yield (
            GROUPS_ONE,
            partial(of_groups, GROUPS_ONE, partial(counted, groups, icc, share), simulations, [20260105, number]),
        )
    for number, (groups, tie, seeds) in enumerate(product(several, (0.0, 0.7, 2.0), (1, 3))):
        row = GROUPS_SEVERAL if seeds == 1 else GROUPS_RECIPES
        yield row, partial(of_groups, row, partial(sampled, groups, tie, seeds), simulations, [20260106, number])
    for number, n in enumerate((6, 10, 20, 30, 50, 100)):
        yield TOLD, partial(told, n, simulations, [20260104, number])


def table(rows: list[Row]) -> list[str]:
    """For each row how many cases have a figure, the mean found, and the widest gaps below and above the promise."""
    lines = [
        "| row | cases with a figure | found where .80 was promised, mean | least | most |",
        "|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(row.row for row in rows):
        mine = [row for row in rows if row.row == name]
        known = [(row.found - row.promised, row) for row in mine if row.found is not None and row.promised is not None]
        if not known:
            continue
        ordered = sorted(known, key=lambda one: one[0])
        ends = [f"{WANTED + gap:.2f} ({row.case})" for gap, row in (ordered[0], ordered[-1])]
        middle = WANTED + sum(gap for gap, _ in known) / len(known)
        lines.append(f"| {name} | {len(known)} of {len(mine)} | {middle:.2f} | {ends[0]} | {ends[1]} |")
    return lines


def measure(options: argparse.Namespace) -> Iterator[frame.Row | str]:
    """Simulate, print the table, and write every case where a file is named."""
    rows = [simulate() for row, simulate in cases(options.simulations) if options.rows in row]
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    print("\n".join(table(rows)))
    yield f"{options.simulations} draws a case."
    for name in dict.fromkeys(row.row for row in rows):
        mine = [row for row in rows if row.row == name]
        known = [row for row in mine if row.found is not None and row.promised is not None]
        if known:
            found, promised = (float(np.mean([getattr(row, key) for row in known])) for key in ("found", "promised"))
            note = f"mean of {len(known)} cases of {len(mine)} that get a figure"
            yield frame.Row(f"power found: {name}", "what is promised", "", found, promised, found / promised, note)


def main() -> int:
    """Simulate and print."""
    parser = frame.argument_parser(__doc__)
    parser.add_argument("--simulations", type=int, default=400)
    parser.add_argument("--rows", default="", help="only rows whose name has this in it")
    parser.add_argument("--json", type=Path, help="write every case to this file")
    options = parser.parse_args()
    return frame.report(options, measure(options), ("numpy", "scipy"))


if __name__ == "__main__":
    sys.exit(main())
