"""`nsd compare`: runs against each other, or a spec's claims and all else, and the record of having looked.

A spec alone is answered by its families (reports/judge/answer.py). Options that make it another question (a baseline, a
test of one's own, a margin, a level, a correction, a matrix) compare its conditions as pairs instead, all exploratory.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nsd.plugins.errors import InputError
from nsd.plugins.screen import console
from nsd.runner.store.index import Store
from nsd.runner.store.shapes import Hypotheses
from nsd.runner.store.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Unpack

    import duckdb

    from nsd.plugins.api import Question
    from nsd.reports.judge.compare import Options
    from nsd.runner.store.shapes import Look

CLAIMS = ("checkpoint", "recipe")
ABOUT_PAIRS = {"baseline", "alpha", "correction", "margin", "test", "force", "looks"}  # not about the claims of a spec


def print_comparison(
    workspace: Workspace,
    names: list[str],
    output: str,
    *,
    matrix: bool = False,
    groups_from: str | None = None,
    wide: bool = False,
    **asked: Unpack[Options],
) -> None:
    """Compare and print. `asked` holds what was given; `groups_from` names a CSV file or a field of the questions.

    Raises InputError for unknown runs, formats, metrics, or what the data cannot carry.
    """
    from nsd.reports.judge.compare import compare_runs
    from nsd.reports.judge.looks import look_entries
    from nsd.reports.text.matrix import render_matrix
    from nsd.reports.text.render import check_format, render

    check_format(output)
    if asked.get("claim", CLAIMS[0]) not in CLAIMS:
        raise InputError(f"no claim {asked['claim']!r}: {' or '.join(CLAIMS)}")
    if len(names) == 1 and names[0].endswith((".yaml", ".yml")):
        if not matrix and not ABOUT_PAIRS & asked.keys():
            _print_answer(workspace, Path(names[0]), output, asked, groups_from, wide)
            return
        from nsd.runner.spec.load import load_spec

        experiment = load_spec(Path(names[0])).name
        names = [experiment]
        if (baseline := asked.get("baseline")) and "/" not in baseline:
            asked["baseline"] = f"{experiment}/{baseline}"
    with Store(workspace).read() as connection:
        asked["groups"] = read_groups(workspace, connection, groups_from)
        comparisons = compare_runs(connection, names, **asked)
    _record(workspace, look_entries(comparisons))
    if matrix:
        render_matrix(comparisons, output, console())
    else:
        render(comparisons, output, console(), wide)


def _print_answer(
    workspace: Workspace, path: Path, output: str, asked: Options, groups_from: str | None, wide: bool
) -> None:
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
            claim=asked.get("claim"),
            metric=asked.get("metric"),
            groups=read_groups(workspace, connection, groups_from),
            intervals=asked.get("intervals", "corrected"),
            detect=asked.get("detect"),
            workspace=workspace,
        )
    _record(workspace, look_entries([*found.comparisons(), *found.interactions()]))
    render_answer(found, output, console(), wide)


def _record(workspace: Workspace, looks: Sequence[Look]) -> None:
    """Before anything is printed: a pipe that closes early, as of `head`, leaves no look unrecorded."""
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
    from nsd.runner.cli.grouping import grouping
    from nsd.runner.store import tables

    def held() -> Iterator[Question]:
        hashes = connection.execute("SELECT DISTINCT data_hash FROM eval_info WHERE data_hash IS NOT NULL").fetchall()
        for (content,) in hashes:
            yield from tables.held_questions(workspace, content)

    return grouping(wanted, held())
