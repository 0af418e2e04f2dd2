"""A database of another version of nsd is made again from disk, whichever way it is opened."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from nsd.runner.store import journal
from nsd.runner.store.filling import SCHEMA_VERSION
from nsd.runner.store.index import Store
from nsd.runner.store.workspace import Workspace
from toy_workspace import finish, record

# As the first version made it: no version, no repeats, notes and looks; `events` stands for a changed table.
OLD_SCHEMA = """
CREATE TABLE experiments(experiment TEXT, spec_digest TEXT, question TEXT, spec_yaml TEXT,
    resolved JSON, hypotheses JSON, recorded_at TIMESTAMP, PRIMARY KEY(experiment, spec_digest));
CREATE TABLE runs(run TEXT PRIMARY KEY, experiment TEXT, condition TEXT, seed BIGINT,
    spec_digest TEXT, eval_digest TEXT, train_digest TEXT, label_digest TEXT, status TEXT, reason TEXT,
    started_at TIMESTAMP, ended_at TIMESTAMP);
CREATE TABLE stages(digest TEXT PRIMARY KEY, kind TEXT, plugin TEXT, seed BIGINT, data_hash TEXT,
    started_at TIMESTAMP, ended_at TIMESTAMP, seconds DOUBLE, gpu_seconds DOUBLE, manifest JSON, folder TEXT);
CREATE TABLE eval_values(eval_digest TEXT, question_id TEXT, value DOUBLE);
CREATE TABLE events(digest TEXT, text TEXT);
INSERT INTO stages(digest, kind) VALUES ('gone', 'eval');
INSERT INTO runs(run, status) VALUES ('stale/base/seed1', 'done');
"""


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A run with one repeat, a note and a look on disk, and the database of an older nsd."""
    workspace = Workspace(tmp_path)
    workspace.create()
    finish(workspace, "first", [1.0], events=[{"step": 1, "text": "hot"}])
    finish(workspace, "again", [0.0], events=[{"step": 1, "text": "hot"}])
    record(workspace, "toy", {"base": "first"}, repeats={"base": ["again"]})
    stamp = "2026-01-02T03:04:05+02:00"
    journal.append(workspace.notes, [{"run": "toy", "written_at": stamp, "text": "keep"}])
    look = {"looked_at": stamp, "experiment": "toy", "a": "toy/base", "b": "toy/x", "metric": "accuracy"}
    look |= {"evidence": {"a": ["first"], "b": ["again"]}, "n": 1, "p": 0.5, "verdict": "UNRESOLVED", "command": "run"}
    journal.append(workspace.looks, [look])
    connection = duckdb.connect(str(workspace.database))
    connection.execute(OLD_SCHEMA)
    connection.close()
    return workspace


# What schema 3 held beside the tables of today: every run twice.
SCHEMA_3 = """
CREATE TABLE schema_version(version INT);
INSERT INTO schema_version VALUES (3);
CREATE TABLE experiments(experiment TEXT, spec_digest TEXT, question TEXT, spec_yaml TEXT,
    resolved JSON, hypotheses JSON, recorded_at TIMESTAMP, PRIMARY KEY(experiment, spec_digest));
CREATE TABLE runs(run TEXT PRIMARY KEY, experiment TEXT, condition TEXT, seed BIGINT,
    spec_digest TEXT, eval_digest TEXT, train_digest TEXT, label_digest TEXT, status TEXT, reason TEXT,
    started_at TIMESTAMP, ended_at TIMESTAMP);
CREATE TABLE repeats(run TEXT, repeat INT, eval_digest TEXT);
CREATE TABLE version_runs(run TEXT, experiment TEXT, spec_digest TEXT, place INT);
CREATE TABLE version_repeats(experiment TEXT, spec_digest TEXT, run TEXT, repeat INT, eval_digest TEXT, place INT);
CREATE TABLE last_run(experiment TEXT, spec_digest TEXT, run_at TIMESTAMP, PRIMARY KEY(experiment, spec_digest));
INSERT INTO runs(run, status) VALUES ('stale/base/seed1', 'done');
INSERT INTO version_runs VALUES ('stale/base/seed1', 'stale', 'old', 0);
"""


def rows(connection: duckdb.DuckDBPyConnection, sql: str) -> list[tuple[object, ...]]:
    return connection.execute(sql).fetchall()


def check_rebuilt(connection: duckdb.DuckDBPyConnection) -> None:
    assert rows(connection, "SELECT version FROM schema_version") == [(SCHEMA_VERSION,)]
    assert rows(connection, "SELECT digest FROM stages ORDER BY 1") == [("again",), ("first",)]
    assert rows(connection, "SELECT run FROM runs") == [("toy/base/seed1",)]
    assert rows(connection, "SELECT run, repeat, eval_digest FROM repeats") == [("toy/base/seed1", 1, "again")]
    assert rows(connection, "SELECT run, text, written_at::TEXT FROM notes") == [("toy", "keep", "2026-01-02 01:04:05")]
    looks = rows(connection, "SELECT a, b, json_extract_string(evidence, '$.evidence.a[0]'), n, p FROM looks")
    assert looks == [("toy/base", "toy/x", "first", 1, 0.5)]
    assert rows(connection, "SELECT count(*) FROM events WHERE step = 1") == [(2,)]


def test_opening_for_reading_rebuilds_an_old_database(workspace: Workspace) -> None:
    with Store(workspace).read() as connection:
        check_rebuilt(connection)


def test_opening_for_writing_rebuilds_an_old_database(workspace: Workspace) -> None:
    with Store(workspace).write() as connection:
        check_rebuilt(connection)


def test_a_database_that_holds_every_run_twice_is_rebuilt(workspace: Workspace) -> None:
    workspace.database.unlink()
    with duckdb.connect(str(workspace.database)) as connection:
        connection.execute(SCHEMA_3)
    with Store(workspace).read() as connection:
        check_rebuilt(connection)
        tables = {name for (name,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()}
    assert tables.isdisjoint({"version_runs", "version_repeats", "last_run"})


def test_indexing_a_stage_into_an_old_database_works(workspace: Workspace) -> None:
    Store(workspace).index_stages([("eval", "first")])
    with Store(workspace).read() as connection:
        check_rebuilt(connection)


def test_a_database_of_a_later_version_is_rebuilt_too(workspace: Workspace) -> None:
    Store(workspace).rebuild()
    connection = duckdb.connect(str(workspace.database))
    connection.execute("UPDATE schema_version SET version = version + 1; DROP TABLE looks; CREATE TABLE looks(x INT)")
    connection.close()
    with Store(workspace).read() as connection:
        check_rebuilt(connection)


def test_a_database_of_this_version_is_left_as_it_is(workspace: Workspace) -> None:
    store = Store(workspace)
    store.rebuild()
    with store.write() as connection:
        connection.execute("INSERT INTO curves VALUES ('d', 1, 'loss', 0.5)")
    with store.read() as connection:
        assert rows(connection, "SELECT value FROM curves") == [(0.5,)]


def test_a_missing_database_is_made_whole_by_the_first_writer(workspace: Workspace) -> None:
    workspace.database.unlink()
    Store(workspace).index_stages([("eval", "again")])
    with Store(workspace).read() as connection:
        check_rebuilt(connection)


def test_an_odd_line_in_a_journal_does_not_stop_the_rebuild(workspace: Workspace) -> None:
    odd = [{"run": "toy", "written_at": "2026-W01-1", "text": "week"}, {"run": 7, "written_at": "no time"}, {"text": 1}]
    odd.append({"run": "toy", "written_at": "2026-01-01T00:00:00", "text": "lone \ud800"})
    journal.append(workspace.notes, odd)
    journal.append(workspace.looks, [{"looked_at": "2026-01-01T00:00:00", "n": "many"}, {"n": 10**30}])
    Store(workspace).rebuild()
    with Store(workspace).read() as connection:
        assert len(rows(connection, "SELECT text FROM notes")) == 3
        assert len(rows(connection, "SELECT a FROM looks")) == 1


def test_a_rebuild_knows_which_version_was_run_last(tmp_path: Path) -> None:
    """The older version was taken up again: its runs stand under the names, before and after a rebuild."""
    workspace = Workspace(tmp_path)
    workspace.create()
    record(workspace, "toy", {"base": "old"}, version="aaaaaaaaaaaa", run_at="2026-01-03T00:00:00+00:00")
    record(workspace, "toy", {"base": "new"}, version="bbbbbbbbbbbb", recorded_at="2026-01-02T00:00:00+00:00")
    store = Store(workspace)
    store.rebuild()
    with store.read() as connection:
        assert rows(connection, "SELECT eval_digest FROM current_runs") == [("old",)]
        assert rows(connection, "SELECT eval_digest FROM runs ORDER BY 1") == [("new",), ("old",)]
