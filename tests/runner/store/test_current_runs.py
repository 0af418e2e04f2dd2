"""One table of runs, keyed by name and spec, and a view of the run that each name stands for today."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from nsd.reports.judge.log import log_entries
from nsd.reports.judge.rows import run_rows
from nsd.runner.store.index import Store
from nsd.runner.store.workspace import Workspace
from toy_workspace import finish, record

FIRST, SECOND, THIRD = (f"2026-01-0{day}T00:00:00+00:00" for day in (1, 2, 3))
OLD, NEW = "aaaaaaaaaaaa", "bbbbbbbbbbbb"


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    workspace = Workspace(tmp_path)
    workspace.create()
    return workspace


def index(workspace: Workspace, *digests: str) -> None:
    """Index the records one by one, in the order named, as runs of these versions do."""
    for digest in digests:
        held = workspace.record("toy", digest)
        assert held is not None
        Store(workspace).index_record(held)


def current(workspace: Workspace) -> list[tuple[object, ...]]:
    with Store(workspace).read() as connection:
        return connection.execute("SELECT run, spec_digest, eval_digest FROM current_runs ORDER BY run").fetchall()


def both_ways(workspace: Workspace) -> list[tuple[object, ...]]:
    """The current runs, which a rebuild leaves as they are."""
    found = current(workspace)
    Store(workspace).rebuild()
    assert current(workspace) == found
    return found


def imported(workspace: Workspace, digest: str, run: str, right: int, ended_at: str) -> None:
    rows = [{"run": run, "eval_digest": None, "counts": [right, 10]}]
    finish(workspace, digest, [], kind="import", eval=None, imported=rows, source_file="a.csv", ended_at=ended_at)
    Store(workspace).index_stages([("import", digest)])


def test_a_name_stands_for_the_version_taken_up_last_whichever_was_indexed_last(workspace: Workspace) -> None:
    record(workspace, "toy", {"base": "old"}, version=OLD, recorded_at=FIRST, run_at=THIRD)
    record(workspace, "toy", {"base": "new"}, version=NEW, recorded_at=SECOND)
    index(workspace, OLD, NEW)
    assert both_ways(workspace) == [("toy/base/seed1", OLD, "old")]


def test_a_name_that_the_last_version_lacks_stands_for_the_one_before(workspace: Workspace) -> None:
    record(workspace, "toy", {"base": "old", "gone": "kept"}, version=OLD, recorded_at=FIRST)
    record(workspace, "toy", {"base": "new"}, version=NEW, recorded_at=SECOND)
    index(workspace, OLD, NEW)
    assert both_ways(workspace) == [("toy/base/seed1", NEW, "new"), ("toy/gone/seed1", OLD, "kept")]


def test_a_run_and_a_version_make_one_row(workspace: Workspace) -> None:
    record(workspace, "toy", {"base": "one"}, version=OLD)
    index(workspace, OLD, OLD)
    record(workspace, "toy", {"base": "two"}, version=OLD)
    index(workspace, OLD)
    assert both_ways(workspace) == [("toy/base/seed1", OLD, "two")]
    with Store(workspace).write() as connection, pytest.raises(duckdb.ConstraintException):
        connection.execute("INSERT INTO runs(run, spec_digest) VALUES ('toy/base/seed1', ?)", [OLD])


def test_a_run_that_a_record_no_longer_holds_leaves_the_index_and_so_do_its_repeats(workspace: Workspace) -> None:
    record(workspace, "toy", {"base": "b", "more": "m"}, version=OLD, repeats={"base": ["b1"], "more": ["m1"]})
    index(workspace, OLD)
    record(workspace, "toy", {"base": "b"}, version=OLD, repeats={"base": ["b1", "b2"]})
    index(workspace, OLD)
    with Store(workspace).read() as connection:
        assert connection.execute("SELECT run FROM runs").fetchall() == [("toy/base/seed1",)]
        repeats = connection.execute("SELECT repeat, eval_digest FROM repeats ORDER BY 1").fetchall()
    assert repeats == [(1, "b1"), (2, "b2")]


def test_versions_of_two_experiments_may_have_one_digest(workspace: Workspace) -> None:
    """A smoke run has the digest of its spec and another name."""
    for name in ("toy", "toy-smoke"):
        record(workspace, name, {"base": name}, version=OLD, repeats={"base": [f"{name}-again"]})
    Store(workspace).rebuild()
    index(workspace, OLD)
    assert [run for run, *_ in current(workspace)] == ["toy-smoke/base/seed1", "toy/base/seed1"]
    with Store(workspace).read() as connection:
        repeats = connection.execute("SELECT eval_digest FROM repeats ORDER BY 1").fetchall()
    assert repeats == [("toy-again",), ("toy-smoke-again",)]


def test_a_name_given_to_two_imports_stands_for_the_later(workspace: Workspace) -> None:
    imported(workspace, "zzz", "mine", 3, FIRST)
    imported(workspace, "aaa", "mine", 7, SECOND)
    Store(workspace).rebuild()
    assert current(workspace) == [("mine", None, None)]
    assert [row["mean"] for row in run_rows(workspace)] == [0.7]


def test_an_import_under_the_name_of_a_run_does_not_take_its_place(workspace: Workspace) -> None:
    finish(workspace, "e", [1.0, 0.0, 0.0, 0.0])
    record(workspace, "toy", {"base": "e"}, version=OLD)
    Store(workspace).rebuild()
    imported(workspace, "aaa", "toy/base/seed1", 7, SECOND)
    assert both_ways(workspace) == [("toy/base/seed1", OLD, "e")]
    (row,) = run_rows(workspace)
    assert (row["status"], row["mean"], row["n"]) == ("done", 0.25, 4)
    means = {entry.kind: [arm.mean for arm in entry.arms] for entry in log_entries(workspace)}
    assert means == {"experiment": [0.25], "import": [0.7]}


@pytest.mark.parametrize(
    ("kind", "found"), [("score", "score"), ("eval", "eval"), ("import", "import"), ("train", None), ("sample", None)]
)
def test_results_lie_in_verdicts_old_evaluations_and_imports(tmp_path: Path, kind: str, found: str | None) -> None:
    workspace = Workspace(tmp_path)
    finish(workspace, "e1", [1.0], kind=kind)
    assert workspace.evaluation("e1") == found


def test_records_come_in_the_order_in_which_they_were_first_written(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    assert workspace.records() == []
    workspace.create()
    for experiment, version, when in (("a", "v3", THIRD), ("b", "v2", SECOND), ("c", "v1", SECOND), ("d", "v4", FIRST)):
        record(workspace, experiment, {}, version=version, recorded_at=when)
    assert [one.spec_digest for one in workspace.records()] == ["v4", "v1", "v2", "v3"]
