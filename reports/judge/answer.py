"""An experiment's answer: its declared claims as one family, everything else as another, each with its marks.

    with Store(workspace).read() as connection:
        found = answer(connection, "quickstart")
        print(found.headline())

The **family** of a claim is every claim that the experiment's spec declares or has ever declared under its name,
corrected together as the spec says (Holm by default). An unfinished, failed or dropped claim keeps its place, the first
two as p = 1: finishing or losing an arm changes nothing for the others. A claim on record before its results is judged
in the family. Everything else is **exploratory** and corrected by Benjamini-Hochberg: every other pair of conditions,
and claims written after their results existed, which carry a mark. A claim's result exists from the moment both its
conditions have an evaluation.

Limits: only what was run in this workspace is known; who deletes records deletes this memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import combinations
from typing import TYPE_CHECKING, Any

from nsd.plugins.errors import InputError
from nsd.reports import stats
from nsd.reports.judge.anytime import ANY_LOOK, planned_looks
from nsd.reports.judge.compare import (
    check_detect,
    check_intervals,
    conclude,
    levels_left_of_tested,
    measured_with,
    weigh,
)
from nsd.reports.judge.comparison import Comparison
from nsd.reports.judge.hypotheses import Asked, ClaimVerdict, Rules, judge_family, verdict_on, weigh_claim
from nsd.reports.judge.looks import earlier_looks, look_number
from nsd.reports.judge.metrics import NEUTRAL, UNITS
from nsd.reports.judge.pairs import gather
from nsd.reports.judge.ranks import RankBand, rank_bands
from nsd.reports.judge.readings import RECIPE, other_reading, readings_of, what_would
from nsd.reports.judge.runs import Arm, condition_arms, measured_by
from nsd.reports.judge.sandboxes import sandbox_notes
from nsd.reports.judge.seeds import choose_seeds
from nsd.reports.judge.trainings import training_notes
from nsd.reports.judge.values import Values, load_values
from nsd.reports.judge.versions import (
    Version,
    as_version,
    claims_of,
    current_version,
    declared_earlier,
    seeds_elsewhere,
    versions_of,
)
from nsd.runner.store.shapes import Claim, Hypotheses, Look

if TYPE_CHECKING:
    import duckdb

    from nsd.reports.judge.subgroups import ByField
    from nsd.runner.store.workspace import Workspace


@dataclass(frozen=True)
class Answer:
    """Both families of an experiment.

    `verdicts`: on claims declared before their results (primary). `late`: on claims written afterwards, each with
    its `mark`. `exploratory`: other pairs of conditions. `primary_family`: every claim declared now or earlier;
    `dropped` are those of earlier versions, `unfinished` counts those that cannot be judged (yet).
    `exploratory_family`: tests corrected together there. `runs`: those that every number comes from, which the version
    `spec_digest` of the spec asked for; `seeds` are theirs.
    `metric`: one asked for instead of the evaluation's own. `beside`: by arm, the evaluation that measures it, where
    that is not the first of the spec. `looks`: how many were planned, or "any". `other`: the declared claims in their
    other reading (readings.py), `late_other` the late ones, `not_supported` what it would take where the seeds cannot
    carry it.
    """

    experiment: str
    question: str | None
    spec_digest: str | None
    runs: list[str]
    seeds: list[int]
    recorded_at: datetime | None
    alpha: float
    correction: str
    primary_family: int
    exploratory_family: int
    verdicts: list[ClaimVerdict]
    late: list[ClaimVerdict]
    exploratory: list[Comparison]
    dropped: list[str]
    unfinished: int
    notes: list[str]
    metric: str | None = None
    looks: int | str | None = None
    beside: dict[str, str] = field(default_factory=dict)
    other: list[ClaimVerdict] = field(default_factory=list)
    late_other: list[ClaimVerdict] = field(default_factory=list)
    not_supported: str = ""

    def headline(self) -> str:
        """The outcome of the declared claims, and of what: a sentence for each reading."""
        claims = self.verdicts or self.late
        if not claims:
            found = [one for one in self.exploratory if one.verdict.apart]
            none = "No hypothesis was declared in the spec"
            if self.metric in NEUTRAL:
                none = f"More {self.metric} is neither better nor worse, so no claim of the spec is judged by it"
            return (
                f"{none}; of "
                f"{_count(len(self.exploratory), 'exploratory comparison')} {len(found)} "
                f"{'shows' if len(found) == 1 else 'show'} a difference{_for(readings_of(self.exploratory))}."
            )

        kind = _count(len(claims), "declared claim")
        if not self.verdicts and self.metric is not None:
            kind = f"{_count(len(claims), 'claim')}, judged by {self.metric} instead (exploratory)"
        elif not self.verdicts:
            kind = f"{_count(len(claims), 'claim')}, all written after the results (exploratory)"
        family = f" ({self.family_line()})" if self.verdicts else ""
        about: dict[str, list[ClaimVerdict]] = {}
        for one in claims:
            about.setdefault(readings_of([one.comparison or one.by]), []).append(one)
        parts = [f"{reading}: {_outcome(mine)}" if reading else _outcome(mine) for reading, mine in about.items()]
        sentence = f"Of {kind}{family}{', for ' if next(iter(about)) else ': '}{'; '.join(parts)}."
        if other := self.other if self.verdicts else self.late_other:
            sentence += f" For {readings_of([one.comparison for one in other])}: {_outcome(other)}."
        if self.not_supported and not any(one.comparison and one.comparison.claim == "recipe" for one in claims):
            sentence += f" For {RECIPE}: nothing, with one trained model an arm."
        return sentence

    def family_line(self) -> str:
        """The family that declared claims are corrected in, and what of it is not in the table."""
        parts = [
            (len(self.late), "written late"),
            (len(self.dropped), "of earlier versions"),
            (self.unfinished, "without a result"),
        ]
        more = ", ".join(f"{count} {what}" for count, what in parts if count)
        any_look = ", valid at any look" if self.looks == ANY_LOOK else ""
        return f"family of {self.primary_family}{any_look}{': ' if more else ''}{more}"

    def runs_line(self) -> str:
        """Which runs every number comes from."""
        seeds = f"seed{'' if len(self.seeds) == 1 else 's'} {', '.join(map(str, self.seeds))}"
        version = f", version {self.spec_digest[:8]} of the spec" if self.spec_digest else ""
        return f"From {_count(len(self.runs), 'run')}: {seeds if self.seeds else 'no seed'}{version}."

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        found = dict(vars(self))
        for name in ("verdicts", "late", "exploratory", "other", "late_other"):
            found[name] = [one.to_json() for one in found[name]]
        found["recorded_at"] = None if self.recorded_at is None else self.recorded_at.isoformat()
        return {**found, "headline": self.headline()}

    def comparisons(self) -> list[Comparison]:
        """Every comparison behind the answer, declared ones first."""
        return self.judged() + self.exploratory

    @property
    def exploratory_about(self) -> str:
        """What the exploratory comparisons speak of."""
        return readings_of(self.exploratory)

    def by_measurement(self) -> list[list[Comparison]]:
        """The exploratory comparisons, those of each evaluation together, the first's first."""
        found: dict[str, list[Comparison]] = {}
        for one in self.exploratory:
            found.setdefault(self.beside.get(one.a, ""), []).append(one)
        return list(found.values())

    def ranks(self) -> list[RankBand]:
        """Bands of the conditions' ranks on the first evaluation; [] where a pair is missing or has a margin."""
        claims = [one.comparison for one in (*self.verdicts, *self.late) if one.margin is None]
        mine = [one for one in (*claims, *self.exploratory) if one is not None and one.a not in self.beside]
        short = f"{self.experiment}/"
        return [
            replace(band, name=band.name.removeprefix(short)) for band in rank_bands(mine, planned_looks(self.looks))
        ]

    def interactions(self) -> list[ByField]:
        """What the claims say of groups of questions, declared ones first."""
        return [one.by for one in (*self.verdicts, *self.late) if one.by is not None]

    def judged(self) -> list[Comparison]:
        """The comparisons behind the claims."""
        found = [verdict.comparison for verdict in (*self.verdicts, *self.late)]
        return [one for one in found if one is not None]


def answer(
    connection: duckdb.DuckDBPyConnection,
    experiment: str,
    spec_digest: str | None = None,
    *,
    hypotheses: Hypotheses | None = None,
    claim: str | None = None,
    metric: str | None = None,
    groups: Mapping[str, str] | None = None,
    pairs: bool = True,
    intervals: str = "corrected",
    detect: float | None = None,
    workspace: Workspace | None = None,
    alone: bool = False,
) -> Answer:
    """Judge an experiment as the version `spec_digest` of its spec declares it, by default the one last run.

    Every number comes from the runs that this version asked for; a version that was never run is answered by those of
    the one last run, and a note says so.

    `hypotheses` is the block of a spec file that may not have been run yet: claims that are on no record are as
    late as can be. `claim` "recipe" or "checkpoint" asks for that reading of every pair; `metric` and `groups` as in
    `compare_runs`. Without `pairs` other pairs are left out where no late claim shares their family: forty arms have
    780 of them. `detect`: a difference of which it is said what it takes, instead of the spec's. `workspace` has the
    questions, which claims about groups of them are tested by. `alone`: the verdicts on claims and nothing beside them,
    no other pairs, no other reading and no notes. Raises InputError where there is no such experiment, or the data
    cannot carry the reading.
    """
    versions = versions_of(connection, experiment)
    current = current_version(versions, spec_digest)
    with as_version(connection, experiment, current.spec_digest if current else None):
        arms = condition_arms(connection, experiment)
        if not versions and not arms:
            raise InputError(f"no experiment {experiment!r} has been run here; `nsd runs` lists what has")
        return _judge(
            *(connection, experiment, versions, current, arms, spec_digest, hypotheses, claim, metric, groups, pairs),
            *(check_intervals(intervals), check_detect(detect, metric), workspace, alone),
        )


def _judge(
    connection: duckdb.DuckDBPyConnection,
    experiment: str,
    versions: Sequence[Version],
    current: Version | None,
    arms: dict[str, Arm],
    asked_for: str | None,
    hypotheses: Hypotheses | None,
    claim: str | None,
    metric: str | None,
    groups: Mapping[str, str] | None,
    pairs: bool,
    intervals: str,
    detect: float | None,
    workspace: Workspace | None,
    alone: bool,
) -> Answer:
    block = hypotheses if hypotheses is not None else current.hypotheses if current else Hypotheses()
    alpha, correction = block.alpha, block.correction
    detect = block.detect if detect is None else detect
    if current is not None:  # in the order of the spec
        arms = {name: arms[name] for name in (*current.conditions, *arms) if name in arms}
    if metric is not None:
        arms = {name: measured_by(arm, metric) for name, arm in arms.items()}
    if metric in UNITS:
        detect = None  # the spec's is a share
    values = load_values(connection, list(arms.values()), groups, metric)
    known_at = _Known(connection, experiment, arms, [one for one in versions if current and one.rest == current.rest])

    asked = {} if metric in NEUTRAL else claims_of(block)
    alike = {key: [v for v in versions if current is None or v.measures_as(current, one)] for key, one in asked.items()}
    marks = {key: _mark(key, one, alike[key], known_at) for key, one in asked.items()}
    if metric is not None:
        marks = dict.fromkeys(marks, f"EXPLORATORY: judged by {metric} instead of the metric of the spec")
    dropped = [] if metric else declared_earlier(versions, list(asked.values()))
    questions = None if workspace is None else Asked(connection, workspace, metric)
    asked_of_each = (alpha, claim, block.looks, questions)
    on_time = [weigh_claim(one, arms, values, *asked_of_each) for key, one in asked.items() if not marks[key]]
    late = [(weigh_claim(one, arms, values, *asked_of_each), marks[key]) for key, one in asked.items() if marks[key]]
    gone = [_weigh_dropped(one, arms, values, alpha, block.looks, questions) for one in dropped]
    family = [*(one.p for one in on_time), *gone, *(one.p for one, _ in late)]
    rules = Rules(alpha, correction, len(family), block.looks, detect)

    chosen = _other_pairs(arms, list(asked.values()), claim) if pairs or late else []
    claimed = [one.p for one, _ in late]
    if alone:  # of the other pairs no more is asked than what they do to the claims beside them
        others, other_p = [], [gather(a, b, values, of).p_value() for a, b, _, of in chosen]
    else:
        others = [weigh(a, b, values, alpha, note, claim=of) for a, b, note, of in chosen]
        other_p = [one.result.p for one in others]
    side_p = [1.0 if p is None else p for p in claimed] + other_p
    side = stats.adjust(side_p, "bh")
    size = sum(p is not None for p in side)
    side_levels = levels_left_of_tested(side_p, side, "bh", alpha)
    side = [None if p is None else q for p, q in zip(claimed, side, strict=False)] + side[len(claimed) :]
    verdicts = [
        one for one in judge_family(on_time, family[len(on_time) :], values, rules, intervals) if one is not None
    ]
    judged = [
        verdict_on(one, p, values, alpha, "bh", size, left, mark, intervals, detect)
        for (one, mark), p, left in zip(late, side, side_levels, strict=False)
    ]
    unknown: list[float | None] = [None] * len(others)
    exploratory = (
        []
        if alone
        else conclude(
            others, side[len(late) :], unknown, values, alpha, "bh", size, side_levels[len(late) :], intervals, detect
        )
    )
    found = Answer(
        experiment=experiment,
        question=current.question if current else None,
        spec_digest=current.spec_digest if current else None,
        runs=[run.name for arm in arms.values() for run in arm.runs],
        seeds=sorted({run.seed for arm in arms.values() for run in arm.runs if run.seed is not None}),
        recorded_at=current.recorded_at if current else None,
        alpha=alpha,
        correction=correction,
        primary_family=len(family),
        exploratory_family=size,
        verdicts=verdicts,
        late=judged,
        exploratory=exploratory,
        dropped=[one.text for one in dropped],
        unfinished=sum(p is None for p in family),
        notes=[]
        if alone
        else [
            *_runs_notes(connection, experiment, current, asked_for),
            *_partly_notes(connection, experiment, arms),
            *_training_notes(connection, arms),
            *sandbox_notes(connection, arms),
            *_notes(versions, current, dropped, hypotheses),
        ],
        metric=metric,
        looks=block.looks,
        beside={arm.name: str(arm.measurement) for arm in arms.values() if arm.beside},
    )
    if metric not in NEUTRAL and not alone:
        other, short = other_reading(on_time, arms, values, rules, intervals)
        # Of late claims each look is their first: what a spec plans is for those on record.
        as_late = Rules(alpha, "bh", max(size, len(late)), block.looks if block.looks == ANY_LOOK else None, detect)
        late_other, late_short = other_reading([one for one, _ in late], arms, values, as_late, intervals)
        marked = dict(zip((one.claim.text for one, _ in late), (mark for _, mark in late), strict=True))
        found = replace(
            found,
            other=other,
            late_other=[replace(one, mark=marked[one.claim]) for one in late_other],
            not_supported=what_would(sorted({*short, *late_short})),
        )
    earlier = earlier_looks(connection, experiment)
    return _with_looks(found, earlier, block.looks)


class _Known:
    """When the result of a claim was first there to be seen: when both its conditions had an evaluation."""

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        experiment: str,
        arms: Mapping[str, Arm],
        versions: Sequence[Version],
    ) -> None:
        """`versions`: those with the same settings, whose results under other seeds were there to be seen too."""
        evaluations = {name: {run.eval_digest for run in arm.runs} for name, arm in arms.items()}
        for condition, digest in connection.execute(
            "SELECT condition, eval_digest FROM runs "
            "WHERE experiment = ? AND spec_digest IN (SELECT unnest(?::TEXT[]))",
            [experiment, [version.spec_digest for version in versions]],
        ).fetchall():
            evaluations.setdefault(condition, set()).add(digest)
        wanted = sorted({digest for mine in evaluations.values() for digest in mine if digest is not None})
        asked = "SELECT digest, ended_at FROM stages WHERE digest IN (SELECT unnest(?::TEXT[]))"
        ended = dict(connection.execute(asked, [wanted]).fetchall())
        self.first = {
            name: min((at for digest in mine if (at := ended.get(digest)) is not None), default=None)
            for name, mine in evaluations.items()
        }

    def at(self, claim: Claim) -> datetime | None:
        """None while there is no result yet."""
        both = [self.first.get(side) for side in (claim.better, claim.worse)]
        return None if None in both else max(at for at in both if at is not None)


def _mark(key: str, claim: Claim, versions: Sequence[Version], known: _Known) -> str:
    """Why a claim is exploratory; "" where it was on record before its result existed."""
    seen = known.at(claim)
    if seen is None:
        return ""
    declared = next((version.recorded_at for version in versions if key in version.claims), None)
    if declared is None:
        return f"EXPLORATORY: on no record; its results exist since {seen:%Y-%m-%d %H:%M}"
    if declared <= seen:
        return ""
    said = f"EXPLORATORY: recorded {declared:%Y-%m-%d %H:%M}, after its results existed ({seen:%Y-%m-%d %H:%M})"
    same = [one for version in versions for one in version.claims.values() if one.text == claim.text]
    return said + ("; the rules (alpha, correction, looks) were changed then" if len(same) > 1 else "")


def _weigh_dropped(
    claim: Claim,
    arms: Mapping[str, Arm],
    values: Values,
    alpha: float,
    looks: int | str | None,
    questions: Asked | None,
) -> float | None:
    """The p of a claim that the spec no longer makes; None where these runs say nothing of it."""
    try:
        return weigh_claim(claim, arms, values, alpha, None, looks, questions).p
    except InputError:  # what an earlier version of nsd let through must not stop the claims of today
        return None


def _other_pairs(
    arms: Mapping[str, Arm],
    claims: Sequence[Claim],
    claim: str | None,
) -> list[tuple[Arm, Arm, str, str | None]]:
    declared = {frozenset((one.better, one.worse)) for one in claims if one.by is None}
    found = []
    for first, second in combinations(arms, 2):
        if frozenset((first, second)) in declared or arms[first].measurement != arms[second].measurement:
            continue
        a, b, _, note, reading = choose_seeds(arms[first], arms[second], claim)
        if measured_with(a, b):
            continue  # conditions may override data or verifier; such pairs are no comparison
        found.append((a, b, note, reading))
    return found


def _training_notes(connection: duckdb.DuckDBPyConnection, arms: Mapping[str, Arm]) -> list[str]:
    """How the arms were trained, once for all evaluations of an arm."""
    found = training_notes(connection, arms)
    said = []
    for name, notes in found.items():
        same = found.get(name.removesuffix(f"@{arms[name].measurement}"), []) if arms[name].beside else []
        said += [f"{name}: {note}" for note in notes if note not in same]
    return said


def _runs_notes(
    connection: duckdb.DuckDBPyConnection, experiment: str, current: Version | None, asked_for: str | None
) -> list[str]:
    """Notes where the runs shown are not those of the version asked for, or not all that there are."""
    if current is None:
        return []
    notes = []
    if asked_for is not None and asked_for != current.spec_digest:
        notes.append(
            f"this version of the spec has not been run: the runs are those of version {current.spec_digest[:8]}"
        )
    elsewhere = seeds_elsewhere(connection, experiment, current.spec_digest)
    return [*notes, elsewhere.sentence()] if elsewhere is not None else notes


def _partly_notes(connection: duckdb.DuckDBPyConnection, experiment: str, arms: Mapping[str, Arm]) -> list[str]:
    """Which seeds a condition with a result still lacks, and why: its numbers are those of the other seeds."""
    lacking: dict[tuple[str, str], list[int]] = {}
    for condition, seed, status, reason in connection.execute(
        "SELECT r.condition, r.seed, r.status, r.reason FROM current_runs r LEFT JOIN eval_info i USING (eval_digest) "
        "WHERE r.experiment = ? AND i.metric IS NULL AND r.seed IS NOT NULL ORDER BY r.condition, r.seed",
        [experiment],
    ).fetchall():
        if condition in arms:
            lacking.setdefault((condition, f"{status}: {reason}" if reason else status), []).append(seed)
    return [
        f"{condition}: no result of seed{'' if len(seeds) == 1 else 's'} {', '.join(map(str, seeds))} ({why}), so "
        "what is said of it is said of the other seeds"
        for (condition, why), seeds in lacking.items()
    ]


def _notes(
    versions: Sequence[Version],
    current: Version | None,
    dropped: Sequence[Claim],
    hypotheses: Hypotheses | None,
) -> list[str]:
    notes = []
    if dropped:
        texts = ", ".join(one.text for one in dropped)
        notes.append(f"declared by an earlier version of the spec, still counted in the family: {texts}")
    others = {version.rest for version in versions}
    if len(others) > 1:
        notes.append(
            f"{len(others)} versions of this experiment (other settings, not only other hypotheses) were run here; "
            "an answer picked among them is no longer what its p-value says"
        )
    if hypotheses is not None and current is not None and set(claims_of(hypotheses)) - set(current.claims):
        notes.append("the spec file holds claims that are not yet on record: `nsd run` records them, with the date")
    return notes


def _with_looks(found: Answer, earlier: Sequence[Look], planned: int | str | None) -> Answer:
    """Mark verdicts on data that grew since an earlier look; of a planned look say which it is.

    Where verdicts hold at any look there is nothing to mark.
    """
    if planned == ANY_LOOK:
        return found
    looks = planned_looks(planned)
    judged = []
    for verdict in found.verdicts:
        seen = verdict.comparison or verdict.by
        if seen is None:
            judged.append(verdict)
            continue
        number = look_number(earlier, seen)
        if looks > 1:
            said = f"look {number} of {looks} planned, each tested at {found.alpha:g} / {looks}"
            verdict = replace(verdict, note="; ".join(filter(None, (verdict.note, said))))
        if number > looks:
            plan = f"{looks} were planned" if planned else "none was planned (hypotheses.looks)"
            verdict = replace(verdict, mark=f"EXPLORATORY: look {number} at growing data, and {plan}")
        judged.append(verdict)
    return replace(found, verdicts=judged)


def _outcome(claims: Sequence[ClaimVerdict]) -> str:
    """How many claims hold, are refuted or open, with their texts."""
    groups = [
        ("holds", "hold", [one for one in claims if one.holds]),
        ("is refuted", "are refuted", [one for one in claims if one.holds is False]),
        ("is not decided", "are not decided", [one for one in claims if one.holds is None]),
    ]
    said = [
        f"{len(mine)} {single if len(mine) == 1 else many} ({', '.join(one.claim for one in mine)})"
        for single, many, mine in groups
        if mine
    ]
    return "; ".join(said)


def _for(reading: str) -> str:
    return f", for {reading}" if reading else ""


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}{'' if n == 1 else 's'}"
