"""By how much two arms differ from question to question, and one arm from training seed to training seed.

    Spreads(connection, "quickstart").of(claim).source          # where the assumption comes from, in words

The first source that has an answer is taken, and its name goes with the number: what the person states; earlier runs
of the two conditions; any two conditions of the same experiment; other runs on the same questions; an assumption
(20 % discordance, 1.4 points over seeds). Runs are used only where their metric fits and they ever differ: two arms
with the same answers to every question say nothing of how others will.

Limits: the arms to come may differ more or less than those before. The newest `MOST_OTHERS` of other runs on the same
questions are taken.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING

from nsd.reports.judge.metrics import averages, takes_votes
from nsd.reports.judge.needed import ASSUMED_DISCORDANCE
from nsd.reports.judge.pairs import about_recipe, gather
from nsd.reports.judge.runs import Arm, Run, all_runs
from nsd.reports.judge.values import Values, load_values
from nsd.reports.stats.choose import PairTest

if TYPE_CHECKING:
    import duckdb

ASSUMED_SEED_SD = 0.014
MOST_OTHERS = 12


@dataclass(frozen=True)
class Design:
    """How much is measured. `greedy`: temperature 0, so that more samples are the same sample again. `trained`:
    whether the better and the worse condition are trained at all. `seeds` are those of what is trained: seeds of an
    untrained condition are more samples of a question, or where nothing is drawn, nothing.
    """

    questions: int
    samples: int = 1
    seeds: int = 1
    metric: str = "accuracy"
    data_hash: str | None = None
    greedy: bool = False
    trained: tuple[bool, bool] = (True, True)


@dataclass(frozen=True)
class Claimed:
    """A claim and its design. Conditions None stand for any two of the experiment."""

    text: str
    kind: str = "better"
    better: str | None = None
    worse: str | None = None
    margin: float | None = None
    design: Design = field(default_factory=lambda: Design(1))
    note: str = ""


@dataclass(frozen=True)
class Spread:
    """`variance` of the per-question difference at `samples` samples a question (right-or-wrong: the discordant share).

    `sampling`: s_A^2 + s_B^2, the variance of one sample within a question, both arms; None where it is not known.
    `seed_sd`: standard deviation of a seed's mean, or of the paired difference where `seed_paired`. `one_trained`: the
    other arm is not trained, so that the difference has the spread, and the degrees of freedom, of this one alone.
    """

    variance: float
    samples: int
    sampling: float | None
    source: str
    seed_sd: float
    seed_paired: bool
    one_trained: bool
    seed_source: str
    notes: tuple[str, ...] = ()

    @property
    def between(self) -> float:
        """w^2: what no number of samples takes away. Only where `sampling` is known."""
        assert self.sampling is not None
        return max(0.0, self.variance - self.sampling / self.samples)

    def variance_at(self, samples: int) -> float:
        """The variance at this many samples; where the split is unknown, the largest it can be."""
        if self.sampling is None:
            return self.variance * max(1.0, self.samples / samples)
        return self.between + self.sampling / samples

    def least_variance_at(self, samples: int) -> float:
        """The same if all of it were sampling noise, where that is not known."""
        return self.variance * self.samples / samples if self.sampling is None else self.variance_at(samples)

    def binary(self, design: Design) -> bool:
        """Whether a question's value is right or wrong, so that a difference cannot exceed the discordance."""
        return takes_votes(design.metric) or (averages(design.metric) and design.samples == 1)


@dataclass(frozen=True)
class _Pair:
    """What two runs say of the per-question difference."""

    names: str
    variance: float
    samples: int
    sampling: float | None
    n: int
    binary: bool


class Spreads:
    """Learns spreads from a results database, each arm's values fetched once."""

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection | None,
        experiment: str | None,
        discordance: float | None = None,
        seed_sd: float | None = None,
    ) -> None:
        self.connection = connection
        self.experiment = experiment
        self.discordance = discordance
        self.seed_sd = seed_sd
        self.runs: list[Run] = []
        if connection is not None:
            self.runs = [run for run in all_runs(connection)[0].values() if run.eval_digest is not None]
        self._values: Values | None = None
        self._sampling: dict[str, float | None] = {}
        self._pooled: dict[tuple[str, str, str | None], list[_Pair]] = {}

    def of(self, claim: Claimed) -> Spread:
        """The spread to plan this claim with."""
        variance, samples, sampling, source = self._questions(claim)
        if claim.design.greedy:
            sampling = 0.0
        notes = []
        if sampling is None and averages(claim.design.metric):
            notes.append(
                "how much of the variance is sampling noise is unknown: nsd run SPEC --repeat-eval 3 measures it, "
                "and so does an earlier run with avg_at_k"
            )
        return Spread(variance, samples, sampling, source, *self._seeds(claim), tuple(notes))

    # ------------------------------------------------------------------ questions

    def _questions(self, claim: Claimed) -> tuple[float, int, float | None, str]:
        if self.discordance is not None:
            return self.discordance, 1, None, f"stated: discordance {self.discordance:.1%}"
        design = claim.design
        mine = [run for run in self.runs if run.experiment == self.experiment and _fits(run, design)]
        if claim.better is not None:
            a, b = (_distinct([run for run in mine if run.condition == name]) for name in (claim.worse, claim.better))
            if found := self._usable(_run_pairs(a, b)):
                return self._said(found, f"earlier runs of {claim.worse} and {claim.better}")
        if found := self._pool("own", mine, design):
            return self._said(found, f"earlier runs of {self.experiment}")
        others = [run for run in self.runs if run.experiment != self.experiment and _fits(run, design)]
        others = [run for run in others if design.data_hash is not None and run.data_hash == design.data_hash]
        if found := self._pool("others", others, design):
            return self._said(found, "other runs on the same questions")
        why = "assumed, for want of earlier runs"
        return ASSUMED_DISCORDANCE, 1, None, f"{why}: discordance {ASSUMED_DISCORDANCE:.0%}"

    def _pool(self, whose: str, runs: Sequence[Run], design: Design) -> list[_Pair]:
        key = (whose, design.metric, design.data_hash)
        if key not in self._pooled:
            distinct = _distinct(runs)[-MOST_OTHERS:]
            different = [(a, b) for a, b in combinations(distinct, 2) if not _same_arm(a, b)]
            self._pooled[key] = self._usable(different)
        return self._pooled[key]

    def _usable(self, pairs: Sequence[tuple[Run, Run]]) -> list[_Pair]:
        """What pairs of comparable runs say, those that ever differ."""
        fitting = [(a, b) for a, b in pairs if _measured_alike(a, b) and a.eval_digest != b.eval_digest]
        if not fitting or self.connection is None:
            return []
        values = self._load({run.name: run for pair in fitting for run in pair})
        found = []
        for a, b in fitting:
            evidence = gather(Arm(a.name, (a,)), Arm(b.name, (b,)), values, claim="checkpoint")
            binary = evidence.table is not None
            if evidence.table is not None:
                _, a_only, b_only, _ = evidence.table
                variance = (a_only + b_only) / evidence.n_a if evidence.n_a else 0.0
            else:
                variance = evidence.variance() or 0.0
            if variance > 0 and evidence.n_a >= 2:
                sampling = self._sampling_of(a, b)
                found.append(_Pair(f"{a.name}, {b.name}", variance, a.samples, sampling, evidence.n_a, binary))
        return found

    def _load(self, runs: Mapping[str, Run]) -> Values:
        """Values of these runs; what was loaded for all conditions together serves their pairs as well."""
        assert self.connection is not None
        if self._values is None or not all(run.eval_digest in self._values.row for run in runs.values()):
            self._values = load_values(self.connection, [Arm(name, (run,)) for name, run in runs.items()])
        return self._values

    def _sampling_of(self, a: Run, b: Run) -> float | None:
        """s_A^2 + s_B^2 from several samples a question, or from repeated evaluations of one sample each."""
        parts = [self._sampling_of_run(run) for run in (a, b)]
        known = [part for part in parts if part is not None]
        if not known or not averages(a.metric):
            return None
        return 2 * statistics.mean(known)  # an arm that was not repeated is taken to be like the other

    def _sampling_of_run(self, run: Run) -> float | None:
        assert self.connection is not None
        digest = str(run.eval_digest)
        if digest not in self._sampling:
            query = (
                "SELECT avg(spread) FROM (SELECT var_samp(correct::INT) AS spread FROM eval_samples "
                "WHERE eval_digest = ? GROUP BY question_id HAVING count(*) > 1)"
            )
            row = None if run.repeats_itself else self.connection.execute(query, [digest]).fetchone()
            found = None if row is None or row[0] is None else float(row[0])
            if found is None and run.samples == 1 and not run.repeats_itself:
                from nsd.reports.judge.noise import noise_floor

                # Two samples of one question differ with chance 2 p (1 - p), twice the variance of one.
                for one in noise_floor(self.connection, [run.name]):
                    found = None if one.discordant is None else one.discordant / one.n / 2
            self._sampling[digest] = found
        return self._sampling[digest]

    def _said(self, pairs: Sequence[_Pair], whose: str) -> tuple[float, int, float | None, str]:
        """The pair in the middle, and the range where there are several."""
        ordered = sorted(pairs, key=lambda pair: pair.variance)
        middle = ordered[len(ordered) // 2]
        unit, scale = ("discordance", "{:.1%}") if middle.binary else ("variance of the difference", "{:.4f}")
        value = scale.format(middle.variance)
        if len(pairs) == 1:
            return middle.variance, middle.samples, middle.sampling, f"{whose}: {unit} {value} of {middle.n} questions"
        low, high = scale.format(ordered[0].variance), scale.format(ordered[-1].variance)
        source = f"{whose}: {unit} {value}, median of {len(pairs)} pairs ({low} to {high})"
        return middle.variance, middle.samples, middle.sampling, source

    # ------------------------------------------------------------------ seeds

    def _seeds(self, claim: Claimed) -> tuple[float, bool, bool, str]:
        """SD over training seeds, whether of the paired difference, whether of one arm alone, and its source."""
        single = sum(claim.design.trained) == 1
        if self.seed_sd is not None:
            return self.seed_sd, False, single, f"stated: SD over seeds {_points(self.seed_sd)}"
        design = claim.design
        mine = [run for run in self.runs if run.experiment == self.experiment and _fits(run, design)]
        if claim.better is not None:
            a, b = ([run for run in mine if run.condition == name] for name in (claim.worse, claim.better))
            if (pair := self._seed_pair(a, b)) is not None:
                sd, paired, seeds = pair
                said = f"SD of {'the paired difference over seeds' if paired else 'seed means'} {_points(sd)} ({seeds})"
                return sd, paired, single, f"earlier runs of {claim.worse} and {claim.better}: {said}"
        others = [run for run in self.runs if run.experiment not in (self.experiment, None) and _fits(run, design)]
        others = [run for run in others if design.data_hash is not None and run.data_hash == design.data_hash]
        sources = ((f"earlier runs of {self.experiment}", mine), ("other runs on the same questions", others))
        for whose, runs in sources:
            if (pooled := self._seed_pool(runs)) is not None:
                return pooled[0], False, single, f"{whose}: SD over seeds {_points(pooled[0])} ({pooled[1]})"
        why = "assumed, for want of earlier runs with several seeds"
        return ASSUMED_SEED_SD, False, single, f"{why}: SD over seeds {_points(ASSUMED_SEED_SD)}"

    def _seed_pair(self, a: Sequence[Run], b: Sequence[Run]) -> tuple[float, bool, str] | None:
        if not a or not b or self.connection is None or not all(_measured_alike(a[0], run) for run in (*a, *b)):
            return None
        arms = [Arm(str(runs[0].condition), tuple(sorted(runs, key=lambda run: run.seed or 0))) for runs in (a, b)]
        if not about_recipe(*arms):
            return None
        evidence = gather(arms[0], arms[1], load_values(self.connection, arms), claim="recipe")
        means = (evidence.seed_means_a, evidence.seed_means_b)
        trained = [one for one, arm in zip(means, arms, strict=True) if arm.trained and one is not None]
        if not trained:
            return None
        paired = evidence.choice.test is PairTest.SEEDS_PAIRED
        if paired:
            variance = float((trained[1] - trained[0]).var(ddof=1))
        else:
            variance = statistics.mean(float(one.var(ddof=1)) for one in trained)
        seeds = f"{' and '.join(str(len(one)) for one in trained)} seeds"
        return (math.sqrt(variance), paired, seeds) if variance > 1e-18 else None

    def _seed_pool(self, runs: Sequence[Run]) -> tuple[float, str] | None:
        """SD within conditions that have several trained seeds, pooled over them by degrees of freedom."""
        grouped: dict[tuple[str | None, str | None, str | None], dict[str | None, Run]] = {}
        for run in runs:
            if run.experiment is not None and run.trained:
                grouped.setdefault((run.experiment, run.condition, run.data_hash), {}).setdefault(run.weights, run)
        several = [list(group.values()) for group in grouped.values() if len(group) >= 2]
        if not several or self.connection is None:
            return None
        query = (
            "SELECT eval_digest, avg(value) FROM eval_values WHERE eval_digest IN (SELECT unnest(?::TEXT[])) GROUP BY 1"
        )
        digests = [run.eval_digest for group in several for run in group]
        means = dict(self.connection.execute(query, [digests]).fetchall())
        squares, freedom = 0.0, 0
        for group in several:
            found = [means[run.eval_digest] for run in group if run.eval_digest in means]
            if len(found) >= 2:
                squares += statistics.variance(found) * (len(found) - 1)
                freedom += len(found) - 1
        if freedom == 0 or squares <= 1e-18:
            return None
        conditions = f"{len(several)} condition{'s' if len(several) > 1 else ''}"
        return math.sqrt(squares / freedom), f"{conditions}, {freedom} degrees of freedom"


def _fits(run: Run, design: Design) -> bool:
    """Whether a run's metric says something about the planned one."""
    return run.metric == design.metric or (averages(run.metric) and averages(design.metric))


def _distinct(runs: Sequence[Run]) -> list[Run]:
    """Runs without those that repeat another one to the letter."""
    found: dict[tuple[object, ...], Run] = {}
    for run in runs:
        same = (run.experiment, run.condition, run.weights) if run.repeats_itself else (run.eval_digest,)
        found.setdefault((*same, run.data_hash, run.metric), run)
    return list(found.values())


def _measured_alike(a: Run, b: Run) -> bool:
    """Whether the same questions were asked, judged and averaged in the same way."""
    first, second = ((run.data_hash, run.verifier_hash, run.metric, run.samples) for run in (a, b))
    return first == second


def _same_arm(a: Run, b: Run) -> bool:
    return a.experiment is not None and (a.experiment, a.condition) == (b.experiment, b.condition)


def _run_pairs(a: Sequence[Run], b: Sequence[Run]) -> list[tuple[Run, Run]]:
    """Runs of the same seed, else the first of each."""
    matched = [(one, other) for one in a for other in b if one.seed == other.seed]
    return matched or [(one, other) for one in a[:1] for other in b[:1]]


def _points(share: float) -> str:
    return f"{share * 100:.2g} points"
