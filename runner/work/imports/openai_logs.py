"""The events of a log of openai/evals as rows, for `runner/work/imports/formats.py`.

A line is an event of a sample: `match` (right or wrong), `metrics` (numbers by name), `sampling` (a prompt and what was
drawn for it), `error`. The first line is the run's spec, the last its report.

Source: the recorder of openai/evals.
"""

from __future__ import annotations

from typing import Any

from nsd.plugins.errors import InputError
from nsd.runner.work.imports.files import Number, Table
from nsd.runner.work.imports.inspect_logs import message_text
from nsd.runner.work.imports.rows import text_of


def by_sample(table: Table) -> Table:
    """A row for each match of a sample, else one for its metrics, else one of a sample without a verdict.

    The events `sampling` give prompt and text, `error` says that the sample failed; others say nothing of it.
    """
    events: dict[tuple[str, str], list[tuple[int, str, dict[str, Any]]]] = {}
    for number, row in table.rows:
        if row.get("sample_id") is None or "type" not in row:
            continue  # the first line is the run's spec, the last its report
        data = row.get("data")
        if not isinstance(data, dict):
            raise InputError(f"{table.place(number)}: an event whose `data` is no object")
        run = "" if row.get("run_id") is None else text_of(row["run_id"])
        events.setdefault((run, text_of(row["sample_id"])), []).append((number, text_of(row["type"]), data))
    rows: list[tuple[int, dict[str, Any]]] = []
    for (run, sample), mine in events.items():
        drawn = [data for _, kind, data in mine if kind == "sampling"]
        matches = [(number, data) for number, kind, data in mine if kind == "match"]
        metrics = [data for _, kind, data in mine if kind == "metrics"]
        errors = [data for _, kind, data in mine if kind == "error"]
        if not (drawn or matches or metrics or errors):
            continue
        twice = {name for one in metrics for two in metrics for name in one if two.get(name, one[name]) != one[name]}
        for place, (number, data) in enumerate(matches or [(mine[0][0], {})]):
            # Of a chain of calls the first has the question; a grader's call is one of them, too.
            own = len(drawn) == max(1, len(matches))
            said = drawn[place] if own else (drawn or [{}])[0]
            rows.append(
                (
                    number,
                    {
                        "sample_id": sample,
                        "run_id": run,
                        **{name: data.get(name) for name in ("correct", "expected", "picked")},
                        "prompt": message_text(said.get("prompt")),
                        "sampled": _sampled(said.get("sampled")),
                        "calls": 1 if own or not drawn else len(drawn),
                        "twice": sorted(map(str, twice)),
                        "metrics": {name: one for each in metrics for name, one in each.items()},
                        "finish": "error" if errors and not matches and not metrics else "stop",
                    },
                )
            )
    if not rows:
        raise InputError(f"{table.path} has no event of a sample (match, metrics, sampling): nothing to import")
    return Table(table.path, rows)


def reported(table: Table) -> dict[str, float]:
    """What the report at the end of a log states; nothing where there are several."""
    reports = [row["final_report"] for _, row in table.rows if isinstance(row.get("final_report"), dict)]
    if len(reports) != 1:
        return {}
    return {name: float(value) for name, value in reports[0].items() if isinstance(value, Number)}


def _sampled(value: Any) -> Any:
    return value[0] if isinstance(value, list) and len(value) == 1 else value
