"""How the models of a report were trained and where its numbers came from: curves, warnings, provenance.

    curves = collect_curves(connection, costs(connection, "quickstart"), runs)
    origin = collect_origin(connection, [stage.digest for stage in stages])

Curves of more than `POINTS` steps are averaged in equal bins of steps; the figures beside them come from all steps.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nsd.reports.judge.watched import WatchedTraining, collect_watched

if TYPE_CHECKING:
    import duckdb

    from nsd.reports.judge.cost import StageCost

POINTS = 300
# What is drawn, in this order, of a training that has it: the metric's name, what to call it, its unit.
SHOWN = (
    ("reward", "mean reward", "reward, per step"),
    ("completions/clipped_ratio", "completions cut at the token limit", "share of completions"),
    ("completions/mean_length", "length of completions", "tokens"),
    ("kl", "distance from the start (KL)", "nats"),
    ("entropy", "entropy of the rollouts", "nats per token"),
    ("self_distillation/reprompt_sample_fraction", "rollouts whose teacher had something to read", "share of rollouts"),
    ("self_distillation/distillation_loss", "distillation loss", "nats per token"),
    ("majority_ratio", "rollouts that agree with their group's majority", "share of rollouts"),
    ("label_accuracy", "majorities that are right", "share of groups"),
    ("reward_accuracy", "rewards that are right", "share of rollouts"),
    ("ground_truth_ratio", "rollouts that are right", "share of rollouts"),
    ("loss", "training loss", "nats per token"),
)
VALIDATION = "validation/"


@dataclass(frozen=True)
class Event:
    """A health warning: the step of its first sight (None outside training), its text and the field it names."""

    step: int | None
    text: str
    field: str | None


@dataclass(frozen=True)
class Curve:
    """One metric of one training. `points` are (step, value), averaged in `bin_size` steps where there are many.

    `name` says which arms were made by it. `first` and `last` are means of the first and last tenth of the steps.
    """

    digest: str
    name: str
    seed: int | None
    metric: str
    label: str
    unit: str
    points: list[tuple[float, float]]
    bin_size: int
    steps: int
    first: float
    last: float
    low: float
    high: float
    events: list[Event]


@dataclass(frozen=True)
class Origin:
    """Code, packages and machines of every stage, and the hashes of data and verifiers; several where they differ."""

    packages: dict[str, list[str]]
    commits: list[str]
    machines: list[str]
    data_hashes: list[str]
    verifier_hashes: list[str]
    sources: list[str]
    first: str | None
    last: str | None
    stages: int


def collect_curves(
    connection: duckdb.DuckDBPyConnection, stages: Sequence[StageCost], runs: Sequence[str]
) -> list[Curve]:
    """Curves of every finished training among the stages, each metric of `SHOWN` that it has.

    Loss is left out where there is a reward: in reinforcement learning it says nothing about progress.
    """
    trained = [stage for stage in stages if stage.kind == "train"]
    digests = [stage.digest for stage in trained]
    shown = [*_validated(connection, digests), *SHOWN]
    own, seeds = _own(connection, runs), _seeds(connection)
    values: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for digest, step, metric, value in connection.execute(
        "SELECT train_digest, step, metric, value FROM curves WHERE train_digest IN (SELECT unnest(?::TEXT[])) "
        "AND metric IN (SELECT unnest(?::TEXT[])) AND value IS NOT NULL AND isfinite(value) ORDER BY step",
        [digests, [name for name, _, _ in shown]],
    ).fetchall():
        values.setdefault((digest, metric), []).append((int(step), float(value)))
    events = _events(connection, digests)
    found = []
    for metric, label, unit in shown:
        for stage in trained:
            mine = values.get((stage.digest, metric))
            if not mine or (metric == "loss" and (stage.digest, "reward") in values):
                continue
            about = (stage.digest, _name(stage, own), seeds.get(stage.digest), metric, label, unit)
            found.append(_curve(about, mine, events.get(stage.digest, [])))
    return found


def _own(connection: duckdb.DuckDBPyConnection, runs: Sequence[str]) -> dict[str, list[str]]:
    """The arms of each training of these runs."""
    return dict(
        connection.execute(
            "SELECT train_digest, list(DISTINCT condition ORDER BY condition) FROM current_runs "
            "WHERE run IN (SELECT unnest(?::TEXT[])) AND train_digest IS NOT NULL AND NOT coalesce(beside, false) "
            "GROUP BY 1",
            [list(runs)],
        ).fetchall()
    )


def _seeds(connection: duckdb.DuckDBPyConnection) -> dict[str, int | None]:
    return dict(connection.execute("SELECT digest, seed FROM stages").fetchall())


def _name(stage: StageCost, own: Mapping[str, list[str]]) -> str:
    """The arms that a training made, and whether it was but a step on the way to them."""
    conditions = own.get(stage.digest) or sorted({name.rsplit("/", 2)[-2] for name in stage.used_by})
    return ", ".join(conditions) + ("" if stage.digest in own else " (on the way)")


def _validated(connection: duckdb.DuckDBPyConnection, digests: Sequence[str]) -> list[tuple[str, str, str]]:
    """The metrics that validation has measured, as `SHOWN` has others."""
    found = connection.execute(
        "SELECT DISTINCT metric FROM curves WHERE train_digest IN (SELECT unnest(?::TEXT[])) AND "
        "starts_with(metric, ?) ORDER BY 1",
        [list(digests), VALIDATION],
    ).fetchall()
    return [(name, f"validation: {name.removeprefix(VALIDATION)}", "mean over questions") for (name,) in found]


def collect_trainings(
    connection: duckdb.DuckDBPyConnection, stages: Sequence[StageCost], runs: Sequence[str]
) -> list[WatchedTraining]:
    """Every finished training among the stages that validation watched, or whose rollouts may be masked."""
    own, seeds = _own(connection, runs), _seeds(connection)
    trained = {stage.digest: (_name(stage, own), seeds.get(stage.digest)) for stage in stages if stage.kind == "train"}
    return collect_watched(connection, trained)


def _curve(
    about: tuple[str, str, int | None, str, str, str], values: list[tuple[int, float]], events: list[Event]
) -> Curve:
    tenth = max(1, len(values) // 10)
    size = -(-len(values) // POINTS)
    bins = [values[start : start + size] for start in range(0, len(values), size)]
    numbers = [value for _, value in values]
    return Curve(
        *about,
        points=[(sum(step for step, _ in b) / len(b), sum(value for _, value in b) / len(b)) for b in bins],
        bin_size=size,
        steps=values[-1][0],
        first=sum(numbers[:tenth]) / tenth,
        last=sum(numbers[-tenth:]) / tenth,
        low=min(numbers),
        high=max(numbers),
        events=events,
    )


def _events(connection: duckdb.DuckDBPyConnection, digests: Sequence[str]) -> dict[str, list[Event]]:
    """Warnings by stage, each text once with the step of its first sight."""
    found: dict[str, list[Event]] = {}
    for digest, step, text, field in connection.execute(
        "SELECT digest, min(step), text, any_value(field) FROM events WHERE digest IN (SELECT unnest(?::TEXT[])) "
        "GROUP BY digest, text ORDER BY digest, 2 NULLS FIRST, text",
        [list(digests)],
    ).fetchall():
        found.setdefault(digest, []).append(Event(step, text, field))
    return found


@dataclass(frozen=True)
class StageWarning:
    """A warning of a stage, and the runs that it concerns."""

    runs: list[str]
    kind: str
    step: int | None
    text: str
    field: str | None


def collect_warnings(connection: duckdb.DuckDBPyConnection, stages: Sequence[StageCost]) -> list[StageWarning]:
    """What any stage warned about: the runs it concerns, the kind of stage, step, text and field."""
    events = _events(connection, [stage.digest for stage in stages])
    return [
        StageWarning(stage.used_by, stage.kind, event.step, event.text, event.field)
        for stage in stages
        for event in events.get(stage.digest, [])
    ]


def collect_origin(connection: duckdb.DuckDBPyConnection, digests: Sequence[str]) -> Origin:
    """Provenance from the manifests of these stages."""
    rows = connection.execute(
        "SELECT s.manifest, i.data_hash, i.verifier_hash FROM stages s "
        "LEFT JOIN eval_info i ON i.eval_digest = s.digest "
        "WHERE s.digest IN (SELECT unnest(?::TEXT[])) ORDER BY s.started_at, s.digest",
        [list(digests)],
    ).fetchall()
    packages: dict[str, set[str]] = {}
    machines: dict[str, None] = {}  # dictionaries as ordered sets
    commits: dict[str, None] = {}
    sources: dict[str, None] = {}
    times: list[str] = []
    for text, _, _ in rows:
        manifest = json.loads(text)
        for name, version in (manifest.get("packages") or {}).items():
            packages.setdefault(name, set()).add(str(version))
        machines[_machine(manifest.get("machine") or {})] = None
        if manifest.get("git_commit"):
            commits[str(manifest["git_commit"])] = None
        if manifest.get("source_file"):
            sources[str(manifest["source_file"])] = None
        times += [str(manifest[name]) for name in ("started_at", "ended_at") if manifest.get(name)]
    return Origin(
        packages={name: sorted(versions) for name, versions in packages.items()},
        commits=list(commits),
        machines=[one for one in machines if one],
        data_hashes=sorted({str(row[1]) for row in rows if row[1]}),
        verifier_hashes=sorted({str(row[2]) for row in rows if row[2]}),
        sources=list(sources),
        first=min(times, default=None),
        last=max(times, default=None),
        stages=len(rows),
    )


def _machine(facts: dict[str, Any]) -> str:
    gpus = [str(name) for name in facts.get("gpus") or []]
    parts = [str(facts[name]) for name in ("system",) if facts.get(name)]
    if facts.get("device"):
        parts.append(f"device {facts['device']}")
    if facts.get("cpus"):
        parts.append(f"{facts['cpus']} CPUs")
    parts.append(" and ".join(f"{gpus.count(name)} x {name}" for name in dict.fromkeys(gpus)) or "no GPU")
    return ", ".join(parts) if facts else ""
