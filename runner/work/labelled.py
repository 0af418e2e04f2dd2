"""The runs that were trained on finished pseudo-labels, by the names a person gives.

labelled_runs(connection, ["quickstart", "study/*/seed1", "specs/quickstart.yaml"])
"""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsd.plugins.errors import InputError
from nsd.plugins.words import hint

if TYPE_CHECKING:
    import duckdb


LABELLED_SQL = """
SELECT run, experiment, condition, seed, status, label_digest, label_digest IN (SELECT label_digest FROM labels),
       coalesce(beside, false)
FROM current_runs ORDER BY experiment NULLS LAST, seed, started_at, run
"""


@dataclass(frozen=True)
class LabelledRun:
    """A run trained on finished pseudo-labels."""

    run: str
    condition: str
    seed: int | None
    label_digest: str


def labelled_runs(connection: duckdb.DuckDBPyConnection, names: Sequence[str]) -> list[LabelledRun]:
    """The runs trained on pseudo-labels among those named, in order and once each.

    A name is a run, a glob over runs, `experiment/condition`, an experiment, or the path of a spec file. Raises
    InputError for a name that fits nothing, with the nearest ones, and where no run named has pseudo-labels,
    with the reason.
    """
    rows = connection.execute(LABELLED_SQL).fetchall()
    found: dict[str, tuple[Any, ...]] = {}
    for name in names:
        wanted = _experiment_of(name) if name.endswith((".yaml", ".yml")) else name
        matching = [row for row in rows if _fits(wanted, row)]
        if not matching:
            known = sorted({text for run, experiment, *_ in rows for text in (run, experiment) if text})
            otherwise = "; `nsd runs` lists them all" if rows else ": there are no runs yet"
            raise InputError(f"no run or experiment is named {wanted!r}{hint(wanted, known, otherwise, most=3)}")
        found.update((row[0], row) for row in matching)
    finished = [
        LabelledRun(run, condition, seed, digest)
        for run, _, condition, seed, _, digest, whole, _ in found.values()
        if whole
    ]
    if not finished:
        raise InputError(_why_none(list(found.values())))
    return finished


def _experiment_of(path: str) -> str:
    from nsd.runner.spec.load import load_spec

    return load_spec(Path(path)).name


def _fits(name: str, row: tuple[Any, ...]) -> bool:
    run, experiment, condition, *_, beside = row
    if beside and name != run:  # the same training, evaluated otherwise
        return False
    return name in (run, experiment, f"{experiment}/{condition}") or fnmatch.fnmatchcase(run, name)


def _why_none(rows: Sequence[tuple[Any, ...]]) -> str:
    waiting = [row for row in rows if row[5] is not None]
    if waiting:
        run, status = waiting[0][0], waiting[0][4]
        return f"the pseudo-labels of {run} are not finished yet (the run's status: {status}); `nsd logs {run}`"
    if len(rows) == 1 and rows[0][4] == "imported":
        return f"{rows[0][0]} was imported: nsd has its results, and knows of no pseudo-labels"
    who = f"{rows[0][0]} was" if len(rows) == 1 else f"none of these {len(rows)} runs was"
    no = "no" if len(rows) == 1 else "any"
    return f"{who} trained on {no} pseudo-labels: name a run whose condition has `pseudo` in train_on"


def name_of(conditions: Sequence[str], runs: Sequence[str]) -> str:
    """`noisy_student, pseudo_only (seed 42)`."""
    seeds = sorted({run.rpartition("/seed")[2] for run in runs if "/seed" in run})
    return ", ".join(conditions) + (f" (seed {', '.join(seeds)})" if seeds else "")
