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
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from typing import TYPE_CHECKING

from nsd.plugins.errors import InputError
from nsd.plugins.metrics import averages, takes_votes
from nsd.reports import stats
from nsd.reports.judge.finding import Found, Tie, design_of, discordance_of, tie_of, typical_variance, variance_of
from nsd.reports.judge.metrics import is_search
from nsd.reports.judge.pairs import Evidence, about_recipe, gather
from nsd.reports.judge.runs import Arm, Run, all_runs, condition_arms, runs_of, runs_on
from nsd.reports.judge.seeds import choose_seeds
from nsd.reports.judge.values import Values, load_values

if TYPE_CHECKING:
    import duckdb

ASSUMED_DISCORDANCE = 0.2  # where no paired data say better; about that of two similar models on GSM8K
ASSUMED_SEED_SD = 0.014
ASSUMED_ICC = 0.1  # of the difference of two arms inside a group of questions
ASSUMED_ICC_RANGE = (0.0, 0.3)
MOST_OTHERS = 12


@dataclass(frozen=True)
class Design:
    """How much is measured. `greedy`: temperature 0, so that more samples are the same sample again. `trained`:
    whether the better and the worse condition are trained at all. `seeds` are those of what is trained: seeds of an
    untrained condition are more samples of a question, or where nothing is drawn, nothing. `groups`: the questions in
    each group, for a claim about an interaction. `clusters`: the questions in each group, where the test counts groups.
    """

    questions: int
    samples: int = 1
    seeds: int = 1
    metric: str = "accuracy"
    data_hash: str | None = None
    greedy: bool = False
    trained: tuple[bool, bool] = (True, True)
    groups: tuple[int, ...] = ()
    clusters: tuple[int, ...] = ()

    @property
    def in_groups(self) -> stats.GroupSizes | None:
        """The groups that the test counts, with as many questions in all as are measured; None: each for itself."""
        if not self.clusters:
            return None
        return stats.GroupSizes(tuple(map(float, self.clusters))).of_questions(self.questions)


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
    """`variance` of the per-question difference of two models at `samples` samples a question (right-or-wrong: the
    discordant share; of searches: the share of questions that tell the two apart).

    `sampling`: s_A^2 + s_B^2, the variance of one sample within a question, both arms; None where it is not known.
    `interaction`: what a training seed adds to that variance at a question, both arms, 0 where it is not known (then it
    counts as the questions' own). `seed_sd`: standard deviation over training seeds of a model's true score, beyond
    what questions and samples explain. `engine`: variance by which two evaluations of the same weights differ as a
    whole, beyond their samples. `fewest`: questions below which means of values as skewed as these have no figure.
    `one_trained`: the other arm is not trained, so that all scatter of seeds, and its
    degrees of freedom, are this one's. `variance_range`, `seed_range`: 95 % intervals of what was estimated. `recipe`:
    what the comparison of the two conditions themselves finds about their recipes, each arm with its own seeds, where
    it has their runs; it is then the plan's model at the samples that were drawn. `icc`: how the differences of two
    questions of one group correlate at `samples`, `icc_range` what else it may be where it is assumed, `icc_source` who
    says so; `fewest_groups`: groups below which their sums are too skewed for a figure.
    """

    variance: float
    samples: int
    sampling: float | None
    source: str
    seed_sd: float
    one_trained: bool
    seed_source: str
    notes: tuple[str, ...] = ()
    interaction: float = 0.0
    engine: float = 0.0
    fewest: int = 2
    variance_range: tuple[float, float] | None = None
    seed_range: tuple[float, float] | None = None
    recipe: Found | None = field(default=None, compare=False)
    icc: float = 0.0
    icc_range: tuple[float, float] | None = None
    icc_source: str = ""
    fewest_groups: int = 0

    def icc_at(self, samples: int, at_best: bool = False) -> float:
        """The same correlation at so many samples: noise of samples is not shared inside a group."""
        of = self.least_variance_at(samples) if at_best else self.variance_at(samples)
        if of <= 0 or (self.sampling is None and not at_best):
            return self.icc
        return min(1.0, self.icc * self.variance / of)

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
        """The same if all of it were sampling noise, where that is not known, but for what groups share."""
        if self.sampling is not None:
            return self.variance_at(samples)
        shared = max(0.0, self.icc) * self.variance
        return shared + (self.variance - shared) * self.samples / samples

    @property
    def known(self) -> bool:
        """Whether it is known what samples, and seeds, take away."""
        return self.sampling is not None or self.interaction > 0

    def binary(self, design: Design) -> bool:
        """Whether a question's value is right or wrong, or says which of two searches was faster."""
        counted = takes_votes(design.metric) or is_search(design.metric)
        return counted or (averages(design.metric) and design.samples == 1)


@dataclass(frozen=True)
class _Pair:
    """What two runs say of the per-question difference."""

    variance: float
    samples: int
    sampling: float | None
    n: int
    binary: bool
    fewest: int = 2
    range: tuple[float, float] | None = None
    tie: Tie | None = None


@dataclass(frozen=True)
class _Told:
    """Two runs and what they give of `_Pair` without a question to the database."""

    variance: float
    a: Run
    b: Run
    evidence: Evidence
    tie: Tie | None = None

    @property
    def binary(self) -> bool:
        return self.evidence.table is not None or self.evidence.shape.searched


@dataclass(frozen=True)
class _SeedSpread:
    """`variance` over seeds of one trained arm, and `left`, the noise of a seed at a question in it (None: unknown)."""

    variance: float
    df: int
    left: float | None
    seeds: str


class Spreads:
    """Learns spreads from a results database, each arm's values fetched once."""

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection | None,
        experiment: str | None,
        discordance: float | None = None,
        seed_sd: float | None = None,
        data: Collection[str] = (),
        groups: Mapping[str, str] | None = None,
        icc: float | None = None,
    ) -> None:
        """`data`: the content hashes of the questions that claims are to be planned on."""
        self.groups = groups
        self.icc = icc
        self.connection = connection
        self.experiment = experiment
        self.discordance = discordance
        self.seed_sd = seed_sd
        self.data = data
        self._values: Values | None = None
        self._arms: dict[str, Arm] | None = None
        self._sampling: dict[str, float | None] = {}
        self._pooled: dict[tuple[str, str, str | None], list[_Told]] = {}

    @cached_property
    def mine(self) -> list[Run]:
        """The runs of the experiment; of none, those of no experiment."""
        if self.connection is None:
            return []
        if self.experiment is None:
            return [run for run in _evaluated(all_runs(self.connection)[0]) if run.experiment is None]
        return _evaluated(runs_of(self.connection, self.experiment))

    @cached_property
    def others(self) -> list[Run]:
        """The runs of other experiments on the questions of the claims: read where the experiment's own say nothing."""
        held = [] if self.connection is None else _evaluated(runs_on(self.connection, self.data))
        return [run for run in held if run.experiment != self.experiment]

    @cached_property
    def others_trained(self) -> list[Run]:
        """Those of `others` that were trained, which are few beside the evaluations of a workspace."""
        held = [] if self.connection is None else _evaluated(runs_on(self.connection, self.data, trained=True))
        return [run for run in held if run.trained and run.experiment not in (self.experiment, None)]

    def of(self, claim: Claimed) -> Spread:
        """The spread to plan this claim with."""
        pair, source = self._questions(claim)
        sampling = 0.0 if claim.design.greedy else pair.sampling
        notes = []
        if sampling is None and averages(claim.design.metric):
            notes.append(
                "how much of the variance is sampling noise is unknown: nsd run SPEC --repeat-eval 3 measures it, "
                "and so does an earlier run with avg_at_k"
            )
        icc, icc_range, icc_source = self._icc(claim, pair, source)
        found, seed_source = self._seeds(claim)
        arms, interaction = max(1, sum(claim.design.trained)), 0.0
        if found.left is not None:
            taken = 0.0 if sampling is None else sampling / 2 / pair.samples
            interaction = min(arms * max(0.0, found.left - taken), pair.variance)
        ranges = None
        if found.df:
            low, high = stats.variance_factors(found.df)
            ranges = (math.sqrt(found.variance * low), math.sqrt(found.variance * high))
        return Spread(
            variance=pair.variance,
            samples=pair.samples,
            sampling=sampling,
            source=source,
            seed_sd=math.sqrt(found.variance),
            one_trained=sum(claim.design.trained) == 1,
            seed_source=seed_source,
            notes=tuple(notes),
            interaction=interaction,
            engine=self._engine(claim),
            fewest=pair.fewest,
            variance_range=pair.range,
            seed_range=ranges,
            recipe=self._recipe(claim),
            icc=icc,
            icc_range=icc_range,
            icc_source=icc_source,
            fewest_groups=0 if pair.tie is None else pair.tie.fewest,
        )

    # ------------------------------------------------------------------ groups

    def _icc(self, claim: Claimed, pair: _Pair, source: str) -> tuple[float, tuple[float, float] | None, str]:
        """How differences correlate inside a group, what else it may be where that is assumed, and its source."""
        if not claim.design.clusters:
            return 0.0, None, ""
        if self.icc is not None:
            return self.icc, None, f"stated: correlation of the difference inside a group {self.icc:.2f}"
        if pair.tie is not None:
            tie, whose = pair.tie, source.partition(":")[0]
            return tie.icc, None, f"{whose}: correlation of the difference inside a group {tie.icc:.2f}"
        low, high = ASSUMED_ICC_RANGE
        said = f"correlation of the difference inside a group {ASSUMED_ICC:g} ({low:g} to {high:g})"
        return ASSUMED_ICC, ASSUMED_ICC_RANGE, f"assumed, for want of earlier runs on these groups: {said}"

    # ------------------------------------------------------------------ questions

    def _questions(self, claim: Claimed) -> tuple[_Pair, str]:
        binary = True
        if self.discordance is not None:
            return _Pair(self.discordance, 1, None, 0, binary), f"stated: discordance {self.discordance:.1%}"
        design = claim.design
        mine = [run for run in self.mine if _fits(run, design)]
        if claim.better is not None:
            a, b = (_distinct([run for run in mine if run.condition == name]) for name in (claim.worse, claim.better))
            if found := self._usable(_run_pairs(a, b)):
                return self._said(found, f"earlier runs of {claim.worse} and {claim.better}")
        if found := self._pool("own", mine, design):
            return self._said(found, f"earlier runs of {self.experiment}")
        others = [] if design.data_hash is None else [run for run in self.others if _fits(run, design)]
        others = [run for run in others if run.data_hash == design.data_hash]
        if found := self._pool("others", others, design):
            again = sum(run.same_as is not None for run in others) - sum(
                run.same_as is not None for run in _distinct(others)
            )
            left_out = f" ({again} with the answers of another left out)" if again else ""
            return self._said(found, f"other runs on the same questions{left_out}")
        why = "assumed, for want of earlier runs"
        return _Pair(ASSUMED_DISCORDANCE, 1, None, 0, binary), f"{why}: discordance {ASSUMED_DISCORDANCE:.0%}"

    def _recipe(self, claim: Claimed) -> Found | None:
        """The design behind the comparison of the two conditions' recipes, as `nsd compare` has it."""
        design, stated = claim.design, self.discordance is not None or self.seed_sd is not None
        if self.connection is None or self.experiment is None or claim.better is None or stated:
            return None
        if self._arms is None:
            self._arms = condition_arms(self.connection, self.experiment)
        both = [self._arms.get(str(name)) for name in (claim.worse, claim.better)]
        a, b = both
        if a is None or b is None or not about_recipe(a, b) or any(arm.counts_only for arm in (a, b)):
            return None
        first = a.runs[0], b.runs[0]
        if any(run.metric != design.metric or run.data_hash != design.data_hash for run in first):
            return None
        if not _measured_alike(*first) or any(run.samples != design.samples for run in first):
            return None
        chosen = choose_seeds(a, b, "recipe")
        values = self._load({run.name: run for arm in (chosen.a, chosen.b) for run in arm.runs})
        return design_of(gather(chosen.a, chosen.b, values, chosen.reading))

    def _pool(self, whose: str, runs: Sequence[Run], design: Design) -> list[_Told]:
        key = (whose, design.metric, design.data_hash)
        if key not in self._pooled:
            distinct = _distinct(runs)[-MOST_OTHERS:]
            different = [(a, b) for a, b in combinations(distinct, 2) if not _same_arm(a, b)]
            self._pooled[key] = self._usable(different)
        return self._pooled[key]

    def _usable(self, pairs: Sequence[tuple[Run, Run]]) -> list[_Told]:
        """What pairs of comparable runs say, those that ever differ."""
        fitting = [(a, b) for a, b in pairs if _measured_alike(a, b) and a.answers != b.answers]
        if not fitting or self.connection is None:
            return []
        values = self._load({run.name: run for pair in fitting for run in pair})
        found = []
        for a, b in fitting:
            evidence = gather(Arm(a.name, (a,)), Arm(b.name, (b,)), values, claim="checkpoint")
            variance = typical_variance(evidence)
            if variance > 0 and evidence.n_a >= 2:
                tie = tie_of(evidence)
                found.append(_Told(variance if tie is None else tie.variance, a, b, evidence, tie))
        return found

    def _pair(self, told: _Told) -> _Pair:
        """All that is to be known of a pair; of one alone, since it takes a question to the database or two."""
        evidence = told.evidence
        sampling = self._sampling_of(told.a, told.b)
        limits: tuple[float, float] | None
        if (tie := told.tie) is not None:
            fewest, limits = 2, (tie.variance * tie.ends[0], tie.variance * tie.ends[1])
        else:
            _, limits = discordance_of(evidence) or variance_of(evidence) or (0.0, None)
            fewest = 2 if told.binary or evidence.differences is None else stats.fewest_for_t(evidence.differences)
        return _Pair(told.variance, told.a.samples, sampling, evidence.n_a, told.binary, fewest, limits, tie)

    def _load(self, runs: Mapping[str, Run]) -> Values:
        """Values of these runs; what was loaded for all conditions together serves their pairs as well."""
        assert self.connection is not None
        if self._values is None or not all(run.eval_digest in self._values.row for run in runs.values()):
            arms = [Arm(name, (run,)) for name, run in runs.items()]
            try:
                self._values = load_values(self.connection, arms, self.groups)
            except InputError:  # runs on other questions, which are in none of these groups
                self._values = load_values(self.connection, arms)
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

    def _said(self, pairs: Sequence[_Told], whose: str) -> tuple[_Pair, str]:
        """The pair in the middle, and the range where there are several."""
        ordered = sorted(pairs, key=lambda pair: pair.variance)
        middle = self._pair(ordered[len(ordered) // 2])
        unit, scale = ("discordance", "{:.1%}") if middle.binary else ("variance of the difference", "{:.4f}")
        value = scale.format(middle.variance)
        if len(pairs) == 1:
            return middle, f"{whose}: {unit} {value} of {middle.n} questions"
        low, high = scale.format(ordered[0].variance), scale.format(ordered[-1].variance)
        return middle, f"{whose}: {unit} {value}, median of {len(pairs)} pairs ({low} to {high})"

    # ------------------------------------------------------------------ seeds

    def _seeds(self, claim: Claimed) -> tuple[_SeedSpread, str]:
        """The variance over training seeds of one arm, and its source."""
        if self.seed_sd is not None:
            stated = _SeedSpread(self.seed_sd**2, 0, None, "")
            return stated, f"stated: SD over seeds {_points(self.seed_sd)}"
        design = claim.design
        mine = [run for run in self.mine if _fits(run, design)]

        def others() -> list[Run]:
            held = [] if design.data_hash is None else self.others_trained
            return [run for run in held if _fits(run, design) and run.data_hash == design.data_hash]

        sources: list[tuple[str, Callable[[], list[Run]]]]
        sources = [(f"earlier runs of {self.experiment}", lambda: mine), ("other runs on the same questions", others)]
        if claim.better is not None:
            ours = [run for run in mine if run.condition in (claim.better, claim.worse)]
            sources.insert(0, (f"earlier runs of {claim.worse} and {claim.better}", lambda: ours))
        for whose, runs in sources:
            if (found := self._seed_pool(runs())) is not None:
                return found, f"{whose}: SD over seeds {_points(math.sqrt(found.variance))} ({found.seeds})"
        why = "assumed, for want of earlier runs with several seeds"
        assumed = _SeedSpread(ASSUMED_SEED_SD**2, 0, None, "")
        return assumed, f"{why}: SD over seeds {_points(ASSUMED_SEED_SD)}"

    def _seed_pool(self, runs: Sequence[Run]) -> _SeedSpread | None:
        """Within conditions that have several trained seeds, pooled over them by degrees of freedom.

        The noise of a seed at a question is taken out of the variance of the seed means (stats.two_way).
        """
        grouped: dict[tuple[str | None, str | None, str | None], dict[str | None, Run]] = {}
        for run in runs:
            if run.experiment is not None and run.trained:
                grouped.setdefault((run.experiment, run.condition, run.data_hash), {}).setdefault(run.weights, run)
        several = [list(group.values()) for group in grouped.values() if len(group) >= 2]
        if not several or self.connection is None:
            return None
        values = self._load({run.name: run for group in several for run in group})
        weights, over_seeds, left = 0, 0.0, 0.0
        means = 0.0
        for group in several:
            rows = [values.row[str(run.eval_digest)] for run in group]
            block = values.matrix[rows][:, values.present[rows].all(axis=0)]
            parts = stats.two_way(block)
            if parts is not None:
                df = len(group) - 1
                weights += df
                means += df * float(block.mean(axis=1).var(ddof=1))
                over_seeds += df * parts.rows
                left += df * parts.interaction
        if not weights or means <= 1e-18:
            return None
        conditions = f"{len(several)} condition{'s' if len(several) > 1 else ''}"
        said = f"{conditions}, {weights} degrees of freedom"
        return _SeedSpread(over_seeds / weights, weights, left / weights, said)

    # ------------------------------------------------------------------ repeats

    def _engine(self, claim: Claimed) -> float:
        """By how much repeated evaluations of the same weights differ as a whole, beyond their samples; 0 unknown."""
        if self.connection is None:
            return 0.0
        from nsd.reports.judge.noise import repeated

        mine = [run.name for run in self.mine if _fits(run, claim.design)]
        found = [parts.rows for parts in map(stats.two_way, repeated(self.connection, mine)) if parts is not None]
        return statistics.mean(found) if found else 0.0


def _evaluated(runs: Mapping[str, Run]) -> list[Run]:
    """Those of which more is known than counts."""
    return [run for run in runs.values() if run.eval_digest is not None]


def _fits(run: Run, design: Design) -> bool:
    """Whether a run's metric says something about the planned one."""
    return run.metric == design.metric or (averages(run.metric) and averages(design.metric))


def _distinct(runs: Sequence[Run]) -> list[Run]:
    """Runs without those that repeat another one to the letter."""
    found: dict[tuple[object, ...], Run] = {}
    for run in runs:
        same = (run.experiment, run.condition, run.weights) if run.repeats_itself else (run.answers,)
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
