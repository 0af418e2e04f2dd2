"""`nsd compare`: runs against each other, or a spec's claims and all else, and the record of having looked.

A spec alone is answered by its families (reports/judge/answer.py). Options that make it another question (a baseline, a
test of one's own, a margin, a level, a correction, a matrix) compare its conditions as pairs instead, all exploratory.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nsd.plugins.errors import InputError
from nsd.plugins.screen import console
from nsd.runner.store.index import Store
from nsd.runner.store.shapes import Hypotheses
from nsd.runner.store.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Sequence

    import duckdb

    from nsd.runner.store.shapes import Look

CLAIMS = ("checkpoint", "recipe")


@dataclass(frozen=True)
class Options:
    """Flags of `nsd compare`."""

    claim: str | None = None
    baseline: str | None = None
    metric: str | None = None
    matrix: bool = False
    alpha: float | None = None
    correction: str | None = None
    margin: float | None = None
    test: str | None = None
    groups: str | None = None
    force: bool = False
    wide: bool = False

    @property
    def as_pairs(self) -> bool:
        """Whether the question is about pairs, not about the claims of a spec."""
        given = (self.baseline, self.alpha, self.correction, self.margin, self.test)
        return self.matrix or self.force or any(value is not None for value in given)


def print_comparison(workspace: Workspace, names: list[str], output: str, options: Options) -> None:
    """Compare and print. Raises InputError for unknown runs, formats, metrics, or what the data cannot carry."""
    from nsd.reports.judge.compare import compare_runs
    from nsd.reports.judge.looks import look_entries
    from nsd.reports.text.matrix import render_matrix
    from nsd.reports.text.render import check_format, render

    check_format(output)
    if options.claim is not None and options.claim not in CLAIMS:
        raise InputError(f"no claim {options.claim!r}: {' or '.join(CLAIMS)}")
    baseline = options.baseline
    if len(names) == 1 and names[0].endswith((".yaml", ".yml")):
        if not options.as_pairs:
            _print_answer(workspace, Path(names[0]), output, options)
            return
        from nsd.runner.spec.load import load_spec

        experiment = load_spec(Path(names[0])).name
        names = [experiment]
        baseline = f"{experiment}/{baseline}" if baseline and "/" not in baseline else baseline
    with Store(workspace).read() as connection:
        comparisons = compare_runs(
            connection,
            names,
            alpha=0.05 if options.alpha is None else options.alpha,
            correction=options.correction or "bh",
            test=options.test,
            force=options.force,
            claim=options.claim,
            margin=options.margin,
            baseline=baseline,
            metric=options.metric,
            groups=read_groups(workspace, connection, options.groups),
        )
    if options.matrix:
        render_matrix(comparisons, output, console())
    else:
        render(comparisons, output, console(), options.wide)
    _record(workspace, look_entries(comparisons))


def _print_answer(workspace: Workspace, path: Path, output: str, options: Options) -> None:
    from nsd.reports.judge.answer import answer
    from nsd.reports.judge.looks import look_entries
    from nsd.reports.text.answer import render_answer
    from nsd.runner.plan.build import spec_digest
    from nsd.runner.spec.load import load_spec

    spec = load_spec(path)
    hypotheses = Hypotheses(**spec.hypotheses.to_json()) if spec.hypotheses else None
    with Store(workspace).read() as connection:
        found = answer(
            connection,
            spec.name,
            spec_digest(spec),
            hypotheses=hypotheses,
            claim=options.claim,
            metric=options.metric,
            groups=read_groups(workspace, connection, options.groups),
        )
    render_answer(found, output, console(), options.wide)
    _record(workspace, look_entries(found.comparisons()))


def _record(workspace: Workspace, looks: Sequence[Look]) -> None:
    from nsd.runner.store.looks import record_looks

    record_looks(workspace, "compare", looks)


def read_groups(
    workspace: Workspace, connection: duckdb.DuckDBPyConnection, wanted: str | None
) -> dict[str, str] | None:
    """Question id -> group: from a CSV file with the columns question_id and group, or from a field of the questions'
    `meta`. Raises InputError where there is neither.
    """
    if wanted is None:
        return None
    path = Path(wanted)
    if path.suffix.lower() == ".csv":
        try:
            with path.open(encoding="utf-8", newline="") as file:
                rows = list(csv.DictReader(file))
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"--groups: cannot read {path}: {error}") from error
        if not rows or not {"question_id", "group"} <= set(rows[0]):
            raise InputError(f"--groups: {path} needs a header line with question_id and group, and a row a question")
        return {row["question_id"]: row["group"] for row in rows}
    from nsd.runner.store import tables

    found: dict[str, str] = {}
    fields: set[str] = set()
    hashes = connection.execute("SELECT DISTINCT data_hash FROM eval_info WHERE data_hash IS NOT NULL").fetchall()
    for (content_hash,) in hashes:
        for question in tables.held_questions(workspace, content_hash):
            fields |= set(question.meta)
            if question.meta.get(wanted) is not None:
                found[question.id] = str(question.meta[wanted])
    if not found:
        there = f"; there is {', '.join(sorted(fields))}" if fields else ""
        raise InputError(f"--groups: no question has a field {wanted!r} in its meta{there}; or name a CSV file")
    return found
