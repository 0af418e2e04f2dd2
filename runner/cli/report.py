"""`nsd report`: an experiment, or runs that no one spec declares, as a page or as text.

    print_report(workspace, ["specs/quickstart.yaml"], html=Path("report.html"))
    print_report(workspace, ["gsm/*"], output="csv")

A spec file or an experiment's name gives the experiment's report with its declared claims; anything else is a
comparison of the runs named. Making a report is a look at the data, and is recorded as one.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from nsd.plugins.errors import InputError
from nsd.runner.store.index import Store
from nsd.runner.store.shapes import Hypotheses
from nsd.runner.store.workspace import Workspace

if TYPE_CHECKING:
    import duckdb

    from nsd.reports.page.data import PageData

FORMATS = ("md", "csv", "json")


def print_report(
    workspace: Workspace,
    names: Sequence[str],
    html: Path | None = None,
    output: str | None = None,
    baseline: str | None = None,
    force: bool = False,
    metric: str | None = None,
    by: str | None = None,
) -> None:
    """Write the page to `html`, or print one of FORMATS (md where neither is named); both where both are."""
    from nsd.reports.judge.looks import look_entries
    from nsd.runner.store.looks import record_looks

    if output is not None and output not in FORMATS:
        raise InputError(f"no format {output!r}: one of {', '.join(FORMATS)}; a page is --html FILE")
    if html is not None and (html.is_dir() or not html.absolute().parent.is_dir()):
        raise InputError(f"cannot write {html}: name a file in a folder that exists")
    with Store(workspace).read() as connection:
        data = collect(connection, workspace, names, baseline, force, metric)
        if by is not None:
            from nsd.runner.cli.by_field import collect_by_field

            there = {(one.a, one.b, one.field) for one in data.by_field}
            more = collect_by_field(connection, workspace, names, by, metric)
            data = replace(data, by_field=[*data.by_field, *(o for o in more if (o.a, o.b, o.field) not in there)])
    if html is not None:
        from nsd.reports.page.page import render_page

        page = render_page(data).encode()
        write_file(html, page)
        print(f"wrote {html} ({len(page) / 1e6:.1f} MB): {data.headline}", file=sys.stderr if output else sys.stdout)
    record_looks(workspace, "report", look_entries([*data.comparisons, *data.by_field]))
    if output is not None or html is None:
        from nsd.reports.page import text as page_text

        render = {"md": page_text.as_markdown, "csv": page_text.as_csv, "json": page_text.as_json}[output or "md"]
        sys.stdout.write(render(data))


def write_file(path: Path, content: bytes) -> None:
    """Write a page. Raises InputError where it cannot be written."""
    try:
        path.write_bytes(content)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error


def collect(
    connection: duckdb.DuckDBPyConnection,
    workspace: Workspace,
    names: Sequence[str],
    baseline: str | None = None,
    force: bool = False,
    metric: str | None = None,
) -> PageData:
    """The report that these names mean. Raises InputError for names that mean nothing, or too little to compare."""
    from nsd.reports.page.data import collect_comparison, collect_experiment

    single = names[0] if len(names) == 1 else ""
    is_spec = single.endswith((".yaml", ".yml"))
    if not is_spec and not _is_experiment(connection, single):
        return collect_comparison(connection, workspace, names, baseline, force=force, metric=metric)
    if baseline is not None or force:
        raise InputError("--baseline and --force are for comparing runs: an experiment's claims name their own pairs")
    if not is_spec:
        return collect_experiment(connection, workspace, single, metric=metric)
    from nsd.runner.plan.build import spec_digest
    from nsd.runner.spec.load import load_spec

    experiment = load_spec(Path(single))
    hypotheses = Hypotheses(**experiment.hypotheses.to_json()) if experiment.hypotheses else Hypotheses()
    return collect_experiment(connection, workspace, experiment.name, spec_digest(experiment), hypotheses, metric)


def _is_experiment(connection: duckdb.DuckDBPyConnection, name: str) -> bool:
    found = connection.execute("SELECT 1 FROM runs WHERE experiment = ? LIMIT 1", [name]).fetchone()
    return found is not None
