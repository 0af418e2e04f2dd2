"""`nsd runs`: the list of runs with their results."""

from __future__ import annotations

from nsd.plugins.errors import InputError
from nsd.plugins.screen import console, print_json, table
from nsd.plugins.words import duration
from nsd.reports.judge.rows import run_rows
from nsd.runner.store.workspace import Workspace


def print_runs(workspace: Workspace, pattern: str, as_json: bool) -> None:
    """The list of runs."""
    rows = run_rows(workspace, pattern)
    if as_json:
        print_json({"runs": rows})
        return
    if not rows:
        raise InputError(f"no run is like {pattern!r}; `nsd runs` lists them all")

    priced = any(row["usd"] is not None for row in rows)
    columns = ["run", "status", "metric", "value", "n", "train time", *(["$"] if priced else []), "ended"]
    shown = table(*columns, right=("value", "n", "train time", "$"))

    for row in rows:
        status = row["status"] + (f": {row['reason'][:60]}" if row["reason"] else "")
        value = "" if row["mean"] is None else f"{row['mean']:.4f}"
        spent = "" if row["train_seconds"] is None else duration(row["train_seconds"])
        ended = "" if row["ended_at"] is None else f"{row['ended_at']:%Y-%m-%d %H:%M}"
        cost = ["" if row["usd"] is None else f"{row['usd']:.2f}"] if priced else []
        shown.add_row(row["run"], status, row["metric"] or "", value, str(row["n"] or ""), spent, *cost, ended)
    console().print(shown)
