"""Where an effect lives: the difference of two arms in each group of questions, and whether it differs between groups.

    for found in by_field(connection, workspace, pairs, "level"):
        print(found.sentence())

The groups are the values of a field of the questions' `meta`, or with `length` thirds of the questions by their
characters. Each group's difference is tested as the whole is, and its interval stands for itself. That an effect shows
in one group and not in another says nothing of a difference between them: that is what the interaction asks
(reports/stats/heterogeneity.py), about the weights that were measured. An interaction that a spec declares
(`{compare: [a, b], by: level}`) is judged in the family of its claims, by the same test; all else is exploratory, and
the p of those asked for at once are corrected by Benjamini-Hochberg.

Limits: questions are taken as independent (no `--groups`); a field with many values is refused, not binned.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING, Any

from nsd.plugins.errors import InputError
from nsd.plugins.groups import grouped, in_order
from nsd.plugins.words import CORRECTIONS
from nsd.reports import stats
from nsd.reports.judge.compare import evaluations_of, measured_with, not_comparable, trainings_of
from nsd.reports.judge.comparison import say_p
from nsd.reports.judge.pairs import RESAMPLING_SEED, gather
from nsd.reports.judge.runs import Arm, condition_arms, measured_by, resolve
from nsd.reports.judge.seeds import choose_seeds
from nsd.reports.judge.values import Values, load_values
from nsd.reports.judge.versions import as_version, current_version, versions_of
from nsd.reports.stats.heterogeneity import LEAST, heterogeneity

if TYPE_CHECKING:
    import duckdb
    import numpy as np
    from numpy.typing import NDArray

    from nsd.plugins.api import Question
    from nsd.runner.store.shapes import Hypotheses
    from nsd.runner.store.workspace import Workspace

    Floats = NDArray[np.float64]
    Pairs = Sequence[tuple[Arm, Arm]]


@dataclass(frozen=True)
class Group:
    """The questions with one value of the field; `difference` is b - a, `ci` its interval for itself."""

    name: str
    n: int
    mean_a: float | None
    mean_b: float | None
    difference: float | None
    ci: tuple[float, float] | None
    test: str


@dataclass(frozen=True)
class ByField:
    """A pair by a field. `p` and `q` of the interaction over `tested` groups; None where fewer than two are enough.

    `evals_a` to `trained_b` as in Comparison.
    """

    a: str
    b: str
    metric: str
    field: str
    n: int
    difference: float | None
    groups: list[Group]
    q: float | None
    p: float | None
    p_adjusted: float | None
    tested: int
    family: int
    alpha: float
    about: str
    exploratory: bool = True
    correction: str = "bh"
    evals_a: tuple[str, ...] = ()
    evals_b: tuple[str, ...] = ()
    trained_a: tuple[str, ...] = ()
    trained_b: tuple[str, ...] = ()

    @property
    def test(self) -> str:
        """What tests the interaction."""
        return f"interaction by {self.field} (Welch F and permutation)"

    @property
    def shown(self) -> bool:
        """Whether the difference is shown not to be the same in all groups."""
        return self.p_adjusted is not None and self.p_adjusted < self.alpha

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    def sentence(self) -> str:
        """The interaction in words."""
        pair = f"{self.b} against {self.a}"
        if self.p is None:
            return f"{pair}: fewer than two groups of {LEAST} questions, so no interaction with {self.field} is tested"
        what = "differs" if self.shown else "is not shown to differ"
        adjusted = f", adjusted {say_p(self.p_adjusted)}" if self.family > 1 else ""
        some = "" if self.tested == len(self.groups) else f", those of {LEAST} questions or more"
        return (
            f"{pair}: the difference {what} by {self.field} (interaction over {self.tested} groups{some}: "
            f"{say_p(self.p)}{adjusted})"
        )


def by_field_notes(found: Sequence[ByField]) -> list[str]:
    """What must be known of all of them: which were declared, and that the others were not."""
    said = []
    level = f"{1 - found[0].alpha:.0%}" if found else "95%"
    declared = [one for one in found if not one.exploratory]
    if declared:
        pairs = ", ".join(f"{one.b} against {one.a}" for one in declared)
        how = CORRECTIONS[declared[0].correction]
        said.append(
            f"declared beforehand: the interaction of {pairs}, in the family of {declared[0].family} claims, p "
            f"adjusted by {how}; the groups' own intervals are {level}, each for itself"
        )
    if len(declared) < len(found) or not found:
        said.append(
            f"EXPLORATORY: groups of questions that no claim names; {level} intervals, each for itself. An effect in "
            "one group and none in another is no difference between them: the interaction asks that"
        )
    return said


def pairs_of_names(connection: duckdb.DuckDBPyConnection, names: Sequence[str], metric: str | None = None) -> Pairs:
    """Every pair of the runs named. Raises InputError for unknown names, and for pairs that are no comparison."""
    arms, _ = resolve(connection, names)
    pairs = list(combinations(_measured(arms, metric), 2))
    for a, b in pairs:
        if fault := measured_with(a, b):
            raise InputError(not_comparable(a, b, fault))
    return pairs


def pairs_of_experiment(
    connection: duckdb.DuckDBPyConnection,
    experiment: str,
    spec_digest: str | None,
    hypotheses: Hypotheses | None,
    metric: str | None = None,
) -> Pairs:
    """The pairs that its claims are about, or every pair of the first evaluation where nothing is claimed.

    Raises InputError where none of them has results.
    """
    current = current_version(versions_of(connection, experiment), spec_digest)
    with as_version(connection, experiment, current.spec_digest if current else None):
        arms = condition_arms(connection, experiment)
    arms = dict(zip(arms, _measured(list(arms.values()), metric), strict=True))
    claims = [] if hypotheses is None else hypotheses.claims
    named = dict.fromkeys((one.worse, one.better) for one in claims)
    if not named:
        named = dict.fromkeys(combinations([name for name, arm in arms.items() if not arm.beside], 2))
    pairs = [(arms[a], arms[b]) for a, b in named if a in arms and b in arms]
    pairs = [(a, b) for a, b in pairs if not measured_with(a, b)]
    if not pairs:
        raise InputError(f"no two conditions of {experiment!r} that can be compared have results yet")
    return pairs


def _measured(arms: Sequence[Arm], metric: str | None) -> list[Arm]:
    return list(arms) if metric is None else [measured_by(arm, metric) for arm in arms]


def by_field(
    connection: duckdb.DuckDBPyConnection,
    workspace: Workspace,
    pairs: Pairs,
    field: str,
    metric: str | None = None,
    alpha: float = 0.05,
) -> list[ByField]:
    """Each pair by a field of its questions. Raises InputError for a field that they do not have or that has too many
    values, and for arms that are known by counts alone.
    """
    found = [pair_by_field(connection, workspace, a, b, field, metric, alpha) for a, b in pairs]
    adjusted = stats.adjust([one.p for one in found], "bh")
    family = sum(one.p is not None for one in found)
    return [replace(one, p_adjusted=p, family=family) for one, p in zip(found, adjusted, strict=True)]


def pair_by_field(
    connection: duckdb.DuckDBPyConnection,
    workspace: Workspace,
    first: Arm,
    second: Arm,
    field: str,
    metric: str | None,
    alpha: float,
    claim: str | None = None,
) -> ByField:
    """A pair by a field, b - a; `claim` asks for that reading. Raises InputError as `by_field` does."""
    for arm in (first, second):
        if arm.counts_only:
            raise InputError(f"{arm.name} is known by its counts alone: nothing is known of its questions")
    a, b, about, _, reading = choose_seeds(first, second, claim)
    of = groups_of(connection, workspace, (a, b), field)
    names = list(dict.fromkeys(of.values()))  # numbered in this order
    values = load_values(connection, [a, b], of, metric)
    assert values.clusters is not None
    differences, shared = _differences(a, b, values)
    labels = values.clusters
    interaction = heterogeneity(differences[shared], labels[shared], seed=RESAMPLING_SEED)
    groups = []
    for name in in_order(names):
        mine = shared & (labels == names.index(name))
        if mine.any():
            groups.append(_group(name, a, b, _only(values, mine), reading, alpha))
    whole = gather(a, b, _only(values, shared), reading)
    return ByField(
        a=first.name,
        b=second.name,
        metric=a.runs[0].metric,
        field=field,
        n=int(shared.sum()),
        difference=whole.difference,
        groups=groups,
        q=interaction.q,
        p=interaction.p,
        p_adjusted=interaction.p,
        tested=interaction.groups,
        family=1,
        alpha=alpha,
        about=about,
        evals_a=evaluations_of(a),
        evals_b=evaluations_of(b),
        trained_a=trainings_of(a),
        trained_b=trainings_of(b),
    )


def _group(name: str, a: Arm, b: Arm, values: Values, reading: str | None, alpha: float) -> Group:
    evidence = gather(a, b, values, reading)
    result = evidence.test(1 - alpha)
    ci = None if result.interval is None else (result.interval.low, result.interval.high)
    return Group(name, evidence.n_a, evidence.mean_a, evidence.mean_b, evidence.difference, ci, result.name)


def _only(values: Values, columns: NDArray[np.bool_]) -> Values:
    """The values of some questions; what was lost is known of all questions together only."""
    matrix, present = values.matrix[:, columns], values.present[:, columns]
    return replace(values, matrix=matrix, present=present, truncated={}, failed={}, lost={}, clusters=None)


def _differences(a: Arm, b: Arm, values: Values) -> tuple[Floats, NDArray[np.bool_]]:
    """b - a for every question, each the mean over an arm's weights, and which questions both have."""
    import numpy as np

    shared = np.ones(values.matrix.shape[1], dtype=bool)
    differences = np.zeros(values.matrix.shape[1])
    for arm, sign in ((a, -1), (b, 1)):
        rows = [[values.row[str(run.eval_digest)] for run in draws] for draws in arm.observations]
        differences += sign * np.mean([values.matrix[draws].mean(axis=0) for draws in rows], axis=0)
        shared &= values.present[[row for draws in rows for row in draws]].all(axis=0)
    return differences, shared


# --------------------------------------------------------------------------- the groups of questions


def groups_of(
    connection: duckdb.DuckDBPyConnection, workspace: Workspace, arms: Iterable[Arm], field: str
) -> dict[str, str]:
    """Question id -> group, for every question that these arms were asked. Raises InputError as `groups.grouped`."""
    from nsd.runner.store import tables

    runs = [run for arm in arms for run in arm.runs]
    ids = connection.execute(
        "SELECT DISTINCT question_id FROM eval_values WHERE eval_digest IN (SELECT unnest(?::TEXT[])) ORDER BY 1",
        [[run.eval_digest for run in runs]],
    ).fetchall()
    known: dict[str, Question] = {}
    for content in dict.fromkeys(run.data_hash for run in runs if run.data_hash is not None):
        known |= {one.id: one for one in tables.held_questions(workspace, content)}
    asked = {str(one): known.get(str(one)) for (one,) in ids}
    if not any(asked.values()):
        raise InputError(f"the questions of {runs[0].name} are not in this workspace, so they have no {field!r}")
    return grouped(asked, field)
