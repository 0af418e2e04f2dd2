"""How much a result moves when nothing but the sampling seed changes: evaluations repeated with the same weights.

    for one in noise_floor(connection, ["quickstart/base/seed42"]):     # runs with repeats (`nsd run --repeat-eval N`)
        print(one.sentence())
    noise_sentence(found)                                               # one sentence for all of them, "" for none

Two evaluations of one checkpoint on the same questions (an A/A pair) differ by chance alone. So their spread is the
floor under every single-evaluation comparison on this test set, and tests should call them different about as often
as their level says.

Limits: the test questions are the same in every repeat, so the floor holds for this test set and knows nothing of
other questions or of training again with another seed; both make a difference less certain, never more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING, Any

from nsd.reports import stats
from nsd.reports.judge.runs import draws_nothing, made_sql

if TYPE_CHECKING:
    import duckdb
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

LEVEL = 0.05  # of the tests between repeats
NORMAL_95 = 1.959963984540054  # quantile .975 of the standard normal


@dataclass(frozen=True)
class Noise:
    """One run's evaluation and its repeats.

    `means`: the run's own evaluation first, then the repeats in order; `mean` and `sd` over all of them (divisor:
    their number less one). `n`: questions that all of them answered. `pairs`: A/A pairs, every two of `means`;
    `discordant`: questions on which a pair differs in right or wrong, mean over pairs; `called_different`: pairs
    that `test` calls different at .05. The pairs share evaluations, so they are no independent trials and the
    count has no binomial interval. `discordant` is None where values are not right-or-wrong. `floor`: see
    `sampling_floor`. `greedy`: drawn at temperature 0, where repeats can differ by float rounding only; `recorded`:
    read from a recording. Either way the repeats are copies of one evaluation and no pair of them is a trial: `pairs`
    is 0 and `sd` None.
    """

    run: str
    metric: str
    repeats: int
    means: list[float]
    mean: float
    sd: float | None
    n: int
    pairs: int
    discordant: float | None
    called_different: int
    test: str
    floor: float
    greedy: bool
    recorded: bool
    note: str
    on: str | None = None  # the evaluation, where it is not the first of its spec

    @property
    def copies(self) -> bool:
        """Whether the repeats say nothing of sampling."""
        return self.greedy or self.recorded

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return dict(vars(self))

    def sentence(self) -> str:
        """The run's repeats in words."""
        times = f"{self.repeats} repeat{'' if self.repeats == 1 else 's'}"
        spread = "" if self.sd is None else f", SD {self.sd * 100:.2f} points"
        parts = [f"{self.run}: {self.metric} {min(self.means):.4f} to {max(self.means):.4f} over {times}{spread}"]
        if self.discordant is not None:
            parts.append(f"{self.discordant:.1f} of {self.n} questions differ between two of them")
        if self.pairs:
            parts.append(f"{self.test} calls {self.called_different} of {self.pairs} such pairs different at {LEVEL:g}")
        return "; ".join([*parts, self.note] if self.note else parts)


def sampling_floor(values: Floats) -> float:
    """The difference that chance in sampling stays below in 19 of 20 pairs of evaluations of one checkpoint.

    `values` [evaluations, questions] in [0, 1], at least two evaluations and one question. With D the mean, over
    all pairs of evaluations, of the sum over questions of (x - y)^2 (for right-or-wrong values the number of
    discordant questions), the floor is 1.96 sqrt(D) / n. Why: the n questions are drawn independently of each
    other (each completion has a random stream of its own), so the variance of a difference of two means is
    sum_i 2 var_i / n^2, and (x - y)^2 estimates 2 var_i without bias (the conditional variance of Miller 2024,
    arXiv:2411.00640, section 2, for two evaluations). It uses every question, so it is far steadier than the SD of
    a few means. 0 where no pair differs on any question.
    """
    evaluations, n = values.shape
    squared = [float(((values[i] - values[j]) ** 2).sum()) for i, j in combinations(range(evaluations), 2)]
    return NORMAL_95 * math.sqrt(sum(squared) / len(squared)) / int(n)


REPEATS_SQL = f"""
WITH named AS MATERIALIZED (SELECT * FROM current_runs WHERE run IN (SELECT unnest(?::TEXT[]))),
{made_sql("SELECT eval_digest FROM named")}
SELECT r.run, r.eval_digest, i.metric, list(p.eval_digest ORDER BY p.repeat),
       any_value(json_extract_string(s.key, '$.sampling.temperature')),
       any_value(json_extract_string(s.key, '$.engine.use')),
       any_value(CASE WHEN r.beside THEN r.measurement END)
FROM named r JOIN repeats p USING (run, spec_digest) JOIN eval_info i ON i.eval_digest = r.eval_digest
JOIN eval_info j ON j.eval_digest = p.eval_digest LEFT JOIN made s ON s.digest = r.eval_digest
GROUP BY 1, 2, 3
"""


def noise_floor(connection: duckdb.DuckDBPyConnection, runs: Sequence[str]) -> list[Noise]:
    """One Noise for each of these runs that has a finished evaluation and a finished repeat of it, in order."""
    rows = {row[0]: row for row in connection.execute(REPEATS_SQL, [list(runs)]).fetchall()}
    found = []
    for run in dict.fromkeys(runs):
        if run in rows:
            _, digest, metric, repeats, temperature, engine, on = rows[run]
            greedy = draws_nothing(None, temperature)
            values = _values(connection, [digest, *repeats])
            if values.shape[1]:
                found.append(replace(_noise(run, metric, values, greedy, draws_nothing(engine, None)), on=on))
    return found


def repeated(connection: duckdb.DuckDBPyConnection, runs: Sequence[str]) -> list[Floats]:
    """Values [evaluations, questions] of each of these runs that was evaluated again by drawing anew."""
    rows = connection.execute(REPEATS_SQL, [list(runs)]).fetchall()
    drawn = [row for row in rows if not draws_nothing(row[5], row[4])]
    found = [_values(connection, [row[1], *row[3]]) for row in drawn]
    return [values for values in found if min(values.shape) >= 2]


def _values(connection: duckdb.DuckDBPyConnection, digests: list[str]) -> Floats:
    """Values [evaluations, questions] on the questions that all of these evaluations have."""
    import numpy as np

    rows = connection.execute(
        "SELECT list(value ORDER BY list_position(?::TEXT[], eval_digest)) FROM eval_values "
        "WHERE eval_digest IN (SELECT unnest(?::TEXT[])) GROUP BY question_id HAVING count(*) = ? ORDER BY question_id",
        [digests, digests, len(set(digests))],
    ).fetchall()
    return np.array([row[0] for row in rows], dtype=np.float64).reshape(len(rows), len(digests)).T


def _noise(run: str, metric: str, values: Floats, greedy: bool, recorded: bool) -> Noise:
    evaluations, n = values.shape
    means = [float(mean) for mean in values.mean(axis=1)]
    mean = sum(means) / evaluations
    binary = bool(((values == 0) | (values == 1)).all())
    pairs = list(combinations(range(evaluations), 2))
    discordant = [int((values[i] != values[j]).sum()) for i, j in pairs]
    copies = greedy or recorded
    notes = []
    if greedy:
        notes.append("drawn at temperature 0, where repeats cannot differ but by float rounding")
    if recorded:
        notes.append("recorded completions: repeats read the same texts")
    if not any(discordant):
        notes.append("no question's outcome changed")
    return Noise(
        run=run,
        metric=metric,
        repeats=evaluations - 1,
        means=means,
        mean=mean,
        sd=None if copies else math.sqrt(sum((one - mean) ** 2 for one in means) / (evaluations - 1)),
        n=n,
        pairs=0 if copies else len(pairs),
        discordant=sum(discordant) / len(pairs) if binary else None,
        called_different=0 if copies else sum(_called_different(values[i], values[j], binary) for i, j in pairs),
        test="McNemar mid-p" if binary else "paired t on question means",
        floor=sampling_floor(values),
        greedy=greedy,
        recorded=recorded,
        note="; ".join(notes),
    )


def _called_different(a: Floats, b: Floats, binary: bool) -> bool:
    if binary:
        p = stats.mcnemar(int((a > b).sum()), int((b > a).sum())).p
    else:
        p = stats.paired_t(b - a).p
    return p is not None and p < LEVEL


def noise_sentence(found: Sequence[Noise]) -> str:
    """The differences that sampling alone explains, from the noisiest run of each metric; "" for no repeats.

    Several evaluations of a spec are spoken of apart. The sentence names the largest floor: two arms differ with
    variance (V_a + V_b), at most twice the larger V.
    """
    sentences = []
    for metric, on in dict.fromkeys((one.metric, one.on) for one in found):
        every = [one for one in found if (one.metric, one.on) == (metric, on)]
        # Copies show no noise, whatever number of them agree; they speak only where there is nothing else.
        mine = [one for one in every if not one.copies] or every
        worst = max(mine, key=lambda one: one.floor)
        name = "" if len({one.metric for one in found}) == 1 else f" of {metric}"
        name += "" if on is None else f" on {on}"
        if worst.floor == 0:
            why = ": sampling at temperature 0 repeats itself" if all(one.greedy for one in mine) else ""
            why = ": recorded completions are read again" if all(one.recorded for one in mine) else why
            sentences.append(f"Repeated evaluations{name} agreed on every question{why}.")
            continue
        if worst.copies:
            sentences.append(f"Repeated evaluations{name} drew nothing anew, so they show no noise of sampling.")
            continue
        points = worst.floor * 100
        limit = f"{points:.1f}" if points >= 0.1 else f"{points:.1g}"
        sentences.append(
            f"Differences{name} below {limit} points are within the noise of sampling alone on this "
            f"test set ({worst.n} questions; 95 % of evaluations repeated with the same weights differ by less)."
        )
    return " ".join(sentences)
