"""What verdicts at any look (`looks: any`) keep and what they cost, by simulation: the tables of docs/deciding.md.

    python -m benchmarks.any_look [--times 1000] [--seed 0] [--json FILE] [--record]

false alarms   no effect, looks at growing data: how often some look decides, where each is tested as if it were the
               only one, at a share of alpha (planned), and at any look. Questions grow from 20 to 1000 at ten looks, or
               with a look at every single one; samples of each of 40 questions from 2 to 32; training seeds of each arm
               from 3 to 12; groups of questions from 8 to 100; and seeds, samples and questions in turn.
coverage       ten looks at growing questions where b is better by 10 points: how often all ten intervals hold it.
width          of an interval at any look, against one of a single look, of the last of three planned looks and of ten.
finding        b better by 10 points, up to ten looks: how often it is found, and at how many questions it is then.

Limits: one way of drawing answers (logistic, with difficulty of the question, training seed, and a recipe's own way
with a question); looks of the table's tests as they are in reports/stats.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import frame
from nsd.reports import stats
from nsd.reports.stats.anytime import anytime_p, fixed_alpha, information_ratio
from nsd.reports.stats.numerics import normal_quantile

ALPHA = 0.05
RATES = (0.1, 0.5, 0.9)
TEN = [int(n) for n in np.geomspace(20, 1000, 10).round()]
Floats = NDArray[np.float64]
Look = tuple[float, float]  # p of its own test, and its standard error
Growth = Callable[[np.random.Generator, float], Iterator[Look]]


def answers(generator: np.random.Generator, rate: float, seeds: int, questions: int, samples: int) -> list[Floats]:
    """Right answers of two arms without a difference, [seeds, questions, samples] each.

    A single seed scatters nothing: how it happened to turn out is a true difference of these weights.
    """
    scatter = 0.15 if seeds > 1 else 0.0
    difficulty = math.log(rate / (1 - rate)) + generator.normal(0, 1.5, (1, questions, 1))
    arms = []
    for _ in range(2):
        own = difficulty + generator.normal(0, 0.4, (1, questions, 1)) + generator.normal(0, scatter, (seeds, 1, 1))
        arms.append((generator.random((seeds, questions, samples)) < 1 / (1 + np.exp(-own))).astype(float))
    return arms


def table_of(a: Floats, b: Floats) -> tuple[int, int, int, int]:
    """Both right, only a, only b, neither."""
    both, right_a, right_b = int((a * b).sum()), int(a.sum()), int(b.sum())
    return both, right_a - both, right_b - both, len(a) - right_a - right_b + both


def error_of(table: tuple[int, int, int, int]) -> float:
    """Standard error of a paired difference, at least that of one question."""
    n, (_, a_only, b_only, _) = sum(table), table
    return max(math.sqrt(((a_only + b_only) / n - ((b_only - a_only) / n) ** 2) / n), 1 / n)


def look_at(a: Floats, b: Floats) -> Look:
    """A look at values [seeds, questions, samples]: McNemar, permutation of question means, or two-level t."""
    n = a.shape[1]
    if len(a) > 1:
        found = stats.two_level(a.mean(axis=2), b.mean(axis=2))
        return 1.0 if found.p is None else found.p, max(found.standard_error or 0.0, 1 / n)
    if a.shape[2] == 1:
        table = table_of(a[0, :, 0], b[0, :, 0])
        return stats.mcnemar(table[1], table[2]).p or 0.0, error_of(table)
    differences = (b - a).mean(axis=(0, 2))
    error = max(float(differences.std(ddof=1)) / math.sqrt(n), 1 / n)
    return stats.sign_flip(differences, seed=0).p or 0.0, error


def by_questions(generator: np.random.Generator, rate: float, looks: Sequence[int] = TEN) -> Iterator[Look]:
    """More questions, one answer each."""
    a, b = answers(generator, rate, 1, looks[-1], 1)
    return (look_at(a[:, :n], b[:, :n]) for n in looks)


def by_every_question(generator: np.random.Generator, rate: float) -> Iterator[Look]:
    """A look after every single question."""
    return by_questions(generator, rate, range(20, 1001))


def by_samples(generator: np.random.Generator, rate: float) -> Iterator[Look]:
    """More samples of each question."""
    a, b = answers(generator, rate, 1, 40, 32)
    return (look_at(a[:, :, :k], b[:, :, :k]) for k in (2, 3, 4, 6, 8, 12, 16, 20, 26, 32))


def by_seeds(generator: np.random.Generator, rate: float) -> Iterator[Look]:
    """More training seeds in each arm."""
    a, b = answers(generator, rate, 12, 100, 1)
    return (look_at(a[:s], b[:s]) for s in range(3, 13))


def by_groups(generator: np.random.Generator, rate: float) -> Iterator[Look]:
    """More groups of questions, 2 to some 20 in each, which share how a recipe takes them."""
    sizes = generator.geometric(0.2, 100) + 1
    group = np.repeat(np.arange(100), sizes)
    difficulty = math.log(rate / (1 - rate)) + generator.normal(0, 1.5, len(group))
    b_own = generator.normal(0, 0.8, 100)[group]
    a_own = generator.normal(0, 0.8, 100)[group]
    a, b = (
        (generator.random(len(group)) < 1 / (1 + np.exp(-difficulty - own))).astype(float) for own in (a_own, b_own)
    )
    for groups in np.geomspace(8, 100, 10).astype(int):
        kept = group < groups
        found = stats.cluster_t((b - a)[kept], group[kept])
        yield 1.0 if found.p is None else found.p, max(found.standard_error or 0.0, 1 / int(kept.sum()))


def by_all(generator: np.random.Generator, rate: float) -> Iterator[Look]:
    """First seeds, then samples, then questions are added, over and over."""
    a, b = answers(generator, rate, 6, 200, 8)
    steps = [
        (3, 40, 2),
        (4, 40, 2),
        (4, 40, 4),
        (4, 80, 4),
        (5, 80, 4),
        (5, 80, 8),
        (5, 140, 8),
        (6, 140, 8),
        (6, 200, 8),
    ]
    return (look_at(a[:s, :n, :k], b[:s, :n, :k]) for s, n, k in [*steps[:1], *steps])


GROWTHS: dict[str, tuple[Growth, int]] = {
    "questions, ten looks": (by_questions, 1),
    "questions, a look at each": (by_every_question, 5),
    "samples": (by_samples, 3),
    "training seeds": (by_seeds, 1),
    "groups of questions": (by_groups, 1),
    "seeds, samples, questions": (by_all, 1),
}


def false_alarms(times: int, seed: int) -> list[dict[str, Any]]:
    """How often some look decides though there is no difference."""
    rows = []
    for name, (growth, cost) in GROWTHS.items():
        for rate in RATES:
            generator, n = np.random.default_rng(seed), max(times // cost, 100)
            hits = {"as if each were the only one": 0, "planned": 0, "any": 0}
            for _ in range(n):
                looks = list(growth(generator, rate))
                hits["as if each were the only one"] += any(p < ALPHA for p, _ in looks)
                hits["planned"] += any(p < ALPHA / len(looks) for p, _ in looks)
                hits["any"] += any(anytime_p(p, information_ratio(error)) < ALPHA for p, error in looks)
            rows.append({"grows": name, "rate": rate, "times": n, **{how: count / n for how, count in hits.items()}})
    return rows


def paired(
    generator: np.random.Generator, discordance: float, difference: float
) -> Iterator[tuple[int, int, int, int]]:
    """Tables of ten looks at questions of which a share differs, b ahead by `difference`."""
    ahead, behind = (discordance + difference) / 2, (discordance - difference) / 2
    kind = generator.choice(4, p=[(1 - discordance) / 2, behind, ahead, (1 - discordance) / 2], size=TEN[-1])
    for n in TEN:
        both, a_only, b_only, neither = (int((kind[:n] == one).sum()) for one in range(4))
        yield both, a_only, b_only, neither


def coverage(times: int, seed: int) -> list[dict[str, Any]]:
    """How often all ten intervals hold a true difference of .1 together."""
    rows = []
    for discordance in (0.12, 0.2, 0.4):
        generator, held = np.random.default_rng(seed), {"one look each": 0, "any": 0}
        for _ in range(times):
            tables = list(paired(generator, discordance, 0.1))
            levels = {"one look each": [ALPHA] * len(tables)}
            levels["any"] = [fixed_alpha(ALPHA, information_ratio(error_of(table))) for table in tables]
            for how, alphas in levels.items():
                found = [
                    stats.newcombe_paired(*table, level=1 - one) for table, one in zip(tables, alphas, strict=True)
                ]
                held[how] += all(one is not None and one.low <= 0.1 <= one.high for one in found)
        rows.append({"discordance": discordance, "times": times, **{how: n / times for how, n in held.items()}})
    return rows


def widths() -> list[dict[str, Any]]:
    """Half-widths by the normal quantile, in points; the intervals of the table are near these."""
    rows = []
    for discordance in (0.1, 0.2, 0.4):
        for n in (20, 50, 100, 200, 500, 1319, 5000):
            error = math.sqrt(discordance / n)
            here = normal_quantile(1 - fixed_alpha(ALPHA, information_ratio(error)))
            one, three, ten = (normal_quantile(1 - ALPHA / looks) for looks in (1, 3, 10))
            sizes = {how: z * error for how, z in (("one look", one), ("three", three), ("ten", ten), ("any", here))}
            rows.append({"discordance": discordance, "n": n, **sizes, "times as wide": here / one})
    return rows


def finding(times: int, seed: int) -> list[dict[str, Any]]:
    """How often a true difference of .1 is found by the tenth look, and at how many questions in the middle case."""
    rows = []
    for discordance in (0.12, 0.2, 0.4):
        generator = np.random.default_rng(seed)
        at: dict[str, list[int]] = {"planned (ten)": [], "any": []}
        once = 0
        for _ in range(times):
            tables = list(paired(generator, discordance, 0.1))
            looks = [(stats.mcnemar(table[1], table[2]).p or 0.0, error_of(table)) for table in tables]
            once += looks[-1][0] < ALPHA
            decided = {
                "planned (ten)": [p < ALPHA / len(looks) for p, _ in looks],
                "any": [anytime_p(p, information_ratio(error)) < ALPHA for p, error in looks],
            }
            for how, found in decided.items():
                at[how] += [next((n for n, is_found in zip(TEN, found, strict=True) if is_found), 10**9)]
        row: dict[str, Any] = {"discordance": discordance, "one look at 1000": once / times}
        for how, where in at.items():
            row |= {f"{how}: found": sum(n < 10**9 for n in where) / times, f"{how}: at n": int(np.median(where))}
        rows.append(row)
    return rows


def show(title: str, rows: list[dict[str, Any]]) -> None:
    """A Markdown table."""
    print(f"\n{title}\n\n| {' | '.join(rows[0])} |\n|{'---|' * len(rows[0])}")
    for row in rows:
        print(f"| {' | '.join(f'{cell:.3f}' if isinstance(cell, float) else str(cell) for cell in row.values())} |")


def measure(options: argparse.Namespace) -> Iterator[frame.Row | str]:
    """All tables; the recorded rows are means over the rates."""
    found = {
        "width": widths(),
        "finding": finding(options.times, options.seed),
        "coverage": coverage(options.times, options.seed),
        "false alarms": false_alarms(options.times, options.seed),
    }
    for title, rows in found.items():
        show(title, rows)
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    alarms = found["false alarms"]
    allowed = ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / options.times)
    if any(row["any"] > allowed for row in alarms):
        raise SystemExit(f"any_look: more than {allowed:.3f} false alarms")
    yield f"No effect; means over the rates {', '.join(map(str, RATES))}."
    for grows in GROWTHS:
        mine = [row for row in alarms if row["grows"] == grows]
        how = "as if each were the only one"
        own, other = (float(np.mean([row[one] for row in mine])) for one in ("any", how))
        note = f"{mine[0]['times']} draws a rate"
        yield frame.Row(f"false alarms at any look: {grows}", f"looks {how}", "", own, other, own / other, note)
    for row in found["coverage"]:
        own, other = row["any"], row["one look each"]
        what = f"ten intervals that all hold a difference of .1, {row['discordance']:.0%} of questions differ"
        yield frame.Row(what, "intervals of one look each", "", own, other, own / other, f"{row['times']} draws")


def main() -> int:
    """Simulate and print."""
    parser = frame.argument_parser(__doc__)
    parser.add_argument("--times", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write every table to this file")
    options = parser.parse_args()
    return frame.report(options, measure(options), ("numpy", "scipy"))


if __name__ == "__main__":
    sys.exit(main())
