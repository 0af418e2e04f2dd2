"""The tables of the index, and how they are filled: a stage's folder, an experiment record, the journals.

    create_tables(connection)
    insert_stage(connection, folder)          # inside the caller's transaction
    insert_record(connection, record)

What stands here knows rows alone; who may open the index, and what becomes of a folder that cannot be put into it, is
`nsd.runner.store.index`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsd.plugins.paths import inside
from nsd.runner.store.shapes import Broken, ExperimentRecord, Manifest, is_look, read_manifest
from nsd.runner.store.workspace import TRUTH, Workspace

if TYPE_CHECKING:
    import duckdb

SCHEMA_VERSION = 5  # raise it with every change of SCHEMA_SQL: older databases are then rebuilt
SCHEMA_SQL = """
CREATE TABLE IF NOT EXISTS schema_version(version INT);
CREATE TABLE IF NOT EXISTS experiments(experiment TEXT, spec_digest TEXT, question TEXT, spec_yaml TEXT,
    resolved JSON, hypotheses JSON, recorded_at TIMESTAMP, run_at TIMESTAMP, PRIMARY KEY(experiment, spec_digest));
-- What each version of a spec asked for. `place` is the place of a run in it. An imported run has no spec: its
-- spec_digest is null, as no column of a primary key may be, and its name stands for the last such import.
-- `measurement` is the evaluation that a run is of, null where its spec names none. `beside` says that it is not the
-- first one of the spec, and `condition` is then `condition@measurement`.
CREATE TABLE IF NOT EXISTS runs(run TEXT NOT NULL, experiment TEXT, condition TEXT, seed BIGINT,
    spec_digest TEXT, eval_digest TEXT, train_digest TEXT, label_digest TEXT, status TEXT, reason TEXT,
    started_at TIMESTAMP, ended_at TIMESTAMP, place INT, measurement TEXT, beside BOOLEAN, UNIQUE(run, spec_digest));
CREATE TABLE IF NOT EXISTS repeats(run TEXT, spec_digest TEXT, repeat INT, eval_digest TEXT);
-- The run that a name stands for today: that of the version taken up last among those that have the name.
CREATE VIEW IF NOT EXISTS current_runs AS SELECT r.* FROM runs r
    LEFT JOIN experiments e ON e.experiment = r.experiment AND e.spec_digest = r.spec_digest
    QUALIFY row_number() OVER (
        PARTITION BY r.run ORDER BY e.run_at DESC NULLS LAST, e.recorded_at, r.spec_digest NULLS LAST) = 1;
CREATE TABLE IF NOT EXISTS stages(digest TEXT PRIMARY KEY, kind TEXT, plugin TEXT, seed BIGINT, data_hash TEXT,
    started_at TIMESTAMP, ended_at TIMESTAMP, seconds DOUBLE, gpu_seconds DOUBLE, manifest JSON, folder TEXT);
CREATE TABLE IF NOT EXISTS eval_info(eval_digest TEXT PRIMARY KEY, metric TEXT, protocol TEXT, data_hash TEXT,
    verifier_hash TEXT, questions INT, samples INT);
CREATE TABLE IF NOT EXISTS eval_values(eval_digest TEXT, question_id TEXT, value DOUBLE);
-- What imported questions say that are known by an id of their file. Those of nsd are known by their content.
CREATE TABLE IF NOT EXISTS eval_texts(eval_digest TEXT, question_id TEXT, text_hash TEXT);
CREATE TABLE IF NOT EXISTS eval_samples(eval_digest TEXT, question_id TEXT, sample INT, score DOUBLE,
    correct BOOLEAN, answer TEXT, stop_reason TEXT, tokens INT);
CREATE TABLE IF NOT EXISTS counts(run TEXT PRIMARY KEY, correct BIGINT, n BIGINT);
CREATE TABLE IF NOT EXISTS labels(label_digest TEXT, question_id TEXT, label TEXT, confidence DOUBLE, votes INT,
    k INT, kept BOOLEAN, correct BOOLEAN);
CREATE TABLE IF NOT EXISTS curves(train_digest TEXT, step INT, metric TEXT, value DOUBLE);
CREATE TABLE IF NOT EXISTS events(digest TEXT, step INT, text TEXT, field TEXT);
CREATE TABLE IF NOT EXISTS notes(run TEXT, written_at TIMESTAMP, text TEXT);
CREATE TABLE IF NOT EXISTS looks(looked_at TIMESTAMP, experiment TEXT, a TEXT, b TEXT, metric TEXT, evidence JSON,
    n BIGINT, p DOUBLE, verdict TEXT, command TEXT);
"""
TABLES_BY_STAGE = ("stages", "eval_info", "eval_values", "eval_texts", "eval_samples", "labels", "curves", "events")
INDEXED = ("values.parquet", "texts.parquet", "samples.parquet", "labels.parquet", "curves.parquet")
STAGE_KEY = {
    "stages": "digest",
    "eval_info": "eval_digest",
    "eval_values": "eval_digest",
    "eval_texts": "eval_digest",
    "eval_samples": "eval_digest",
    "labels": "label_digest",
    "curves": "train_digest",
    "events": "digest",
}
LOOK_TEXTS = ("experiment", "a", "b", "metric", "evidence", "verdict", "command")


def create_tables(connection: duckdb.DuckDBPyConnection) -> None:
    """Drop what tables and views there are and make this version's, empty."""
    for (name,) in connection.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal").fetchall():
        connection.execute(f'DROP VIEW "{name}"')
    for (name,) in connection.execute("SELECT table_name FROM duckdb_tables() WHERE NOT temporary").fetchall():
        connection.execute(f'DROP TABLE "{name}"')
    for statement in SCHEMA_SQL.split(";"):
        if statement.strip():
            connection.execute(statement)
    connection.execute("INSERT INTO schema_version VALUES (?)", [SCHEMA_VERSION])


def remove_import(connection: duckdb.DuckDBPyConnection, manifest: Manifest) -> None:
    """Delete the rows of an import that is no more, inside the caller's transaction."""
    for table in TABLES_BY_STAGE:
        connection.execute(f"DELETE FROM {table} WHERE {STAGE_KEY[table]} = ?", [manifest.digest])
    for run in manifest.imported:
        connection.execute("DELETE FROM runs WHERE run = ? AND spec_digest IS NULL", [run.run])
        connection.execute("DELETE FROM counts WHERE run = ?", [run.run])


def insert_stage(connection: duckdb.DuckDBPyConnection, folder: Path) -> None:
    """Insert the rows of one finished stage folder inside the caller's transaction."""
    manifest = read_manifest(folder).to_json()
    digest = manifest["digest"]
    held = connection.execute("SELECT folder FROM stages WHERE digest = ?", [digest]).fetchone()
    if held and held[0] != folder.name and (folder.parent / held[0] / "manifest.json").is_file():
        raise ValueError(f"{held[0]} has the same digest")  # its rows would take the place of that one's
    for table in TABLES_BY_STAGE:
        connection.execute(f"DELETE FROM {table} WHERE {STAGE_KEY[table]} = ?", [digest])
    _put(
        connection,
        "INSERT INTO stages VALUES (?,?,?,?,?,?,?,?,?,?,?)",
        [
            digest,
            manifest["kind"],
            manifest.get("plugin"),
            manifest.get("seed"),
            manifest.get("data_hash"),
            manifest.get("started_at"),
            manifest.get("ended_at"),
            manifest.get("seconds"),
            manifest.get("gpu_seconds"),
            storable_json(manifest),
            # Relative, so that a workspace can be moved or synced from a bucket.
            folder.name,
        ],
    )
    for event in manifest.get("events", []):
        _put(
            connection,
            "INSERT INTO events VALUES (?,?,?,?)",
            [digest, event.get("step"), event["text"], event.get("field")],
        )
    info = manifest.get("eval")
    if info is not None:
        _put(
            connection,
            "INSERT INTO eval_info VALUES (?,?,?,?,?,?,?)",
            [
                digest,
                info["metric"],
                info["protocol"],
                info["data_hash"],
                info["verifier_hash"],
                info["questions"],
                info["samples"],
            ],
        )
    _copy(connection, folder / "values.parquet", "eval_values", "question_id, value", digest)
    _copy(connection, folder / "texts.parquet", "eval_texts", "question_id, text_hash", digest)
    odd = "SELECT 1 FROM eval_values WHERE eval_digest = ? AND NOT isfinite(value) LIMIT 1"
    if connection.execute(odd, [digest]).fetchone():
        raise Broken(folder / "values.parquet", "it holds values that are no numbers")
    if info is not None:
        columns = "question_id, sample, score, correct, answer, stop_reason, tokens"
        _copy(connection, folder / "samples.parquet", "eval_samples", columns, digest)
    columns = "question_id, label, confidence, votes, k, kept, correct"
    _copy(connection, folder / "labels.parquet", "labels", columns, digest)
    truths = [name for name in manifest.get("files", {}) if name.startswith(TRUTH)]
    for name in ("curves.parquet", *truths):
        _copy(connection, inside(folder, name), "curves", "step, metric, value", digest)
    for run in manifest.get("imported", []):
        connection.execute("DELETE FROM runs WHERE run = ? AND spec_digest IS NULL", [run["run"]])
        _put(
            connection,
            "INSERT INTO runs VALUES (?,NULL,?,?,NULL,?,NULL,NULL,'imported',NULL,?,?,NULL,NULL,false)",
            [
                run["run"],
                run.get("condition") or run["run"],
                run.get("seed"),
                run.get("eval_digest"),
                manifest.get("started_at"),
                manifest.get("ended_at"),
            ],
        )
        connection.execute("DELETE FROM counts WHERE run = ?", [run["run"]])
        if run.get("counts") is not None:
            _put(connection, "INSERT INTO counts VALUES (?,?,?)", [run["run"], *run["counts"]])


def insert_record(connection: duckdb.DuckDBPyConnection, shape: ExperimentRecord) -> None:
    """Insert an experiment record and its runs inside the caller's transaction."""
    record = shape.to_json()
    _put(
        connection,
        "INSERT OR REPLACE INTO experiments VALUES (?,?,?,?,?,?,?,?)",
        [
            record["experiment"],
            record["spec_digest"],
            record["question"],
            record["spec_yaml"],
            storable_json(record["resolved"]),
            storable_json(record["hypotheses"]),
            record["recorded_at"],
            shape.taken_up_at,
        ],
    )
    version, names = [record["experiment"], record["spec_digest"]], [_storable(run["run"]) for run in record["runs"]]
    mine = "experiment = ? AND spec_digest = ?"
    connection.execute(
        f"DELETE FROM repeats WHERE (run, spec_digest) IN (SELECT (run, spec_digest) FROM runs WHERE {mine})", version
    )
    # Runs that stay are replaced below: DuckDB may refuse a key that the same transaction deleted.
    connection.execute(f"DELETE FROM runs WHERE {mine} AND run NOT IN (SELECT unnest(?::TEXT[]))", [*version, names])
    for place, run in enumerate(record["runs"]):
        row = [
            run["run"],
            record["experiment"],
            run["condition"],
            run["seed"],
            record["spec_digest"],
            run["eval_digest"],
            run["train_digest"],
            run["label_digest"],
            run["status"],
            run.get("reason"),
            run.get("started_at"),
            run.get("ended_at"),
            place,
            run.get("measurement"),
            bool(run.get("beside")),
        ]
        _put(connection, "INSERT OR REPLACE INTO runs VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)", row)
        for repeat in run.get("repeats", []):
            again = [run["run"], record["spec_digest"], repeat["repeat"], repeat["eval_digest"]]
            _put(connection, "INSERT INTO repeats VALUES (?,?,?,?)", again)


def insert_journals(connection: duckdb.DuckDBPyConnection, workspace: Workspace) -> None:
    """Replace the notes and looks by what their files hold, inside the caller's transaction.

    A line without a readable time or with a field of another type is left out of the index; it stays in the file.
    """
    from nsd.runner.store import journal

    notes = [_row(entry, "written_at", ("run", "text")) for entry in journal.read(workspace.notes)]
    looks = []
    for entry in journal.read(workspace.looks):
        evidence = json.dumps({name: entry.get(name) for name in ("evidence", "train", "by")})
        row = _row({**entry, "evidence": evidence}, "looked_at", LOOK_TEXTS)
        n, p = entry.get("n"), entry.get("p")
        if not is_look(entry):
            continue
        if row is not None and isinstance(n, int) and abs(n) < 2**62 and (p is None or isinstance(p, (int, float))):
            looks.append([*row, n, None if p is None else float(p)])
    _replace(connection, "notes(written_at, run, text)", [note for note in notes if note is not None])
    _replace(connection, f"looks(looked_at, {', '.join(LOOK_TEXTS)}, n, p)", looks)


def storable_json(value: Any) -> str:
    """JSON that DuckDB takes: a lone surrogate (a model can be made to print one) becomes a question mark."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace").decode("utf-8")


def _put(connection: duckdb.DuckDBPyConnection, sql: str, values: Iterable[Any]) -> None:
    """Insert a row; a lone surrogate in a text becomes a question mark, since DuckDB takes none."""
    connection.execute(sql, [_storable(value) if isinstance(value, str) else value for value in values])


def _storable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def _copy(connection: duckdb.DuckDBPyConnection, path: Path, table: str, columns: str, digest: str) -> None:
    if path.is_file():
        connection.execute(f"INSERT INTO {table} SELECT ?, {columns} FROM read_parquet(?)", [digest, str(path)])


def _row(entry: Mapping[str, Any], time_field: str, names: Iterable[str]) -> list[Any] | None:
    """The entry's time as UTC and its texts, None where one of them is no such thing."""
    try:
        stamp = datetime.fromisoformat(entry[time_field])
    except (KeyError, TypeError, ValueError):
        return None
    if stamp.tzinfo is not None:
        stamp = stamp.astimezone(UTC).replace(tzinfo=None)
    texts = [entry.get(name) for name in names]
    if not all(text is None or isinstance(text, str) for text in texts):
        return None
    return [stamp, *(text and _storable(text) for text in texts)]


def _replace(connection: duckdb.DuckDBPyConnection, target: str, rows: list[list[Any]]) -> None:
    """Put these rows in place of all a table has; column by column, since row by row is slow in DuckDB."""
    connection.execute(f"DELETE FROM {target.partition('(')[0]}")
    if rows:
        columns = [list(column) for column in zip(*rows, strict=True)]
        connection.execute(f"INSERT INTO {target} SELECT {', '.join(['unnest(?)'] * len(columns))}", columns)
