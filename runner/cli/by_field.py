"""`nsd compare ... --by FIELD`: where an effect lives, by a field of the questions.

Of a spec the pairs that its claims are about, of runs every pair.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nsd.plugins.errors import InputError
from nsd.runner.store.index import Store
from nsd.runner.store.shapes import Hypotheses
from nsd.runner.store.workspace import Workspace

if TYPE_CHECKING:
    import duckdb

    from nsd.reports.judge.subgroups import ByField


def print_by_field(
    workspace: Workspace,
    names: Sequence[str],
    field: str,
    output: str,
    beside: Collection[str] = (),
    metric: str | None = None,
    alpha: float | None = None,
    wide: bool = False,
) -> None:
    """Print differences by group and the interaction. `beside` names options that were given and say nothing here.

    Raises InputError for those, for an unknown run, field or format, and where there is nothing to compare.
    """
    from nsd.plugins.screen import console
    from nsd.reports.judge.compare import check_options
    from nsd.reports.judge.looks import look_entries
    from nsd.reports.text.subgroups import FORMATS, render_by_field
    from nsd.runner.store.looks import record_looks

    if beside:
        flags = ", ".join(f"--{name}" for name in sorted(beside))
        raise InputError(f"--by has no use for {flags}: leave out one or the other")
    if output not in FORMATS:
        raise InputError(f"no format {output!r} with --by: one of {', '.join(FORMATS)}")
    check_options(0.05 if alpha is None else alpha, "bh", metric=metric)
    with Store(workspace).read() as connection:
        found = collect_by_field(connection, workspace, names, field, metric, alpha)
    record_looks(workspace, "compare", look_entries(found))  # before it is printed, as in compare.py
    render_by_field(found, output, console(), wide)


def collect_by_field(
    connection: duckdb.DuckDBPyConnection,
    workspace: Workspace,
    names: Sequence[str],
    field: str,
    metric: str | None = None,
    alpha: float | None = None,
) -> list[ByField]:
    """The pairs that these names mean, by the field."""
    from nsd.reports.judge.subgroups import by_field, pairs_of_experiment, pairs_of_names

    if len(names) == 1 and names[0].endswith((".yaml", ".yml")):
        from nsd.runner.plan.build import spec_digest
        from nsd.runner.spec.load import load_spec

        spec = load_spec(Path(names[0]))
        block = Hypotheses(**spec.hypotheses.to_json()) if spec.hypotheses else None
        digest = spec_digest(spec)
        pairs = pairs_of_experiment(connection, spec.name, digest, block, metric)
        level = alpha if alpha is not None else block.alpha if block is not None else 0.05
        declared = {}
        if block is not None and alpha is None and any(one.by == field for one in block.claims):
            from nsd.reports.judge.answer import answer

            found = answer(
                connection, spec.name, digest, hypotheses=block, metric=metric, pairs=False, workspace=workspace
            )
            declared = {(one.a, one.b): one for one in found.interactions() if one.field == field}
        rest = [(a, b) for a, b in pairs if (a.name, b.name) not in declared]
        return [*declared.values(), *by_field(connection, workspace, rest, field, metric, level)]
    pairs, level = pairs_of_names(connection, names, metric), 0.05 if alpha is None else alpha
    return by_field(connection, workspace, pairs, field, metric, level)
