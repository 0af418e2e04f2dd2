"""The DuckDB index over a workspace: every number of every stage, for comparing and looking.

The artifacts are the truth; `rebuild` makes the whole database again from manifests, Parquet files and
experiment records. DuckDB lets one process write at a time, so a connection is held for one short
transaction and others wait their turn (`TURN_SECONDS`).

    with Store(workspace).write() as connection: ...
    with Store(workspace).read() as connection: ...
"""

from __future__ import annotations

import contextlib
import json
import random
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plugins.errors import InputError, NsdError
from runner.artifacts import Workspace

if TYPE_CHECKING:
    import duckdb

TURN_SECONDS = 120.0

SCHEMA_SQL = """
CREATE TABLE IF NOT EXISTS experiments(experiment TEXT, spec_digest TEXT, question TEXT, spec_yaml TEXT,
    resolved JSON, hypotheses JSON, recorded_at TIMESTAMP, PRIMARY KEY(experiment, spec_digest));
CREATE TABLE IF NOT EXISTS runs(run TEXT PRIMARY KEY, experiment TEXT, condition TEXT, seed BIGINT,
    spec_digest TEXT, eval_digest TEXT, train_digest TEXT, label_digest TEXT, status TEXT, reason TEXT,
    started_at TIMESTAMP, ended_at TIMESTAMP);
CREATE TABLE IF NOT EXISTS stages(digest TEXT PRIMARY KEY, kind TEXT, plugin TEXT, seed BIGINT, data_hash TEXT,
    started_at TIMESTAMP, ended_at TIMESTAMP, seconds DOUBLE, gpu_seconds DOUBLE, manifest JSON, folder TEXT);
CREATE TABLE IF NOT EXISTS eval_info(eval_digest TEXT PRIMARY KEY, metric TEXT, protocol TEXT, data_hash TEXT,
    verifier_hash TEXT, questions INT, samples INT);
CREATE TABLE IF NOT EXISTS eval_values(eval_digest TEXT, question_id TEXT, value DOUBLE);
CREATE TABLE IF NOT EXISTS eval_samples(eval_digest TEXT, question_id TEXT, sample INT, score DOUBLE,
    correct BOOLEAN, answer TEXT, stop_reason TEXT, tokens INT);
CREATE TABLE IF NOT EXISTS counts(run TEXT PRIMARY KEY, correct BIGINT, n BIGINT);
CREATE TABLE IF NOT EXISTS labels(label_digest TEXT, question_id TEXT, label TEXT, confidence DOUBLE, votes INT,
    k INT, kept BOOLEAN, correct BOOLEAN);
CREATE TABLE IF NOT EXISTS curves(train_digest TEXT, step INT, metric TEXT, value DOUBLE);
CREATE TABLE IF NOT EXISTS events(digest TEXT, step INT, text TEXT, field TEXT);
"""
TABLES_BY_STAGE = ("stages", "eval_info", "eval_values", "eval_samples", "labels", "curves", "events")
STAGE_KEY = {
    "stages": "digest",
    "eval_info": "eval_digest",
    "eval_values": "eval_digest",
    "eval_samples": "eval_digest",
    "labels": "label_digest",
    "curves": "train_digest",
    "events": "digest",
}


class Store:
    """Opens the index of a workspace for one short transaction at a time."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace

    @contextlib.contextmanager
    def write(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """One transaction: committed at the end of the block, rolled back on any error."""
        self.workspace.create()
        connection = self._connect(read_only=False)
        try:
            connection.execute("BEGIN")
            for statement in SCHEMA_SQL.split(";"):
                if statement.strip():
                    connection.execute(statement)
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(Exception):
                connection.execute("ROLLBACK")
            raise
        finally:
            connection.close()

    @contextlib.contextmanager
    def read(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A read-only connection. Raises InputError where the workspace has no results yet."""
        if not self.workspace.database.exists():
            if any(self.workspace.manifests()) or self.workspace.records():
                self.rebuild()
            else:
                raise InputError(
                    f"no results in {self.workspace.root}: run a spec first (nsd run specs/quickstart.yaml), "
                    "or name another folder with --workspace"
                )
        connection = self._connect(read_only=True)
        try:
            yield connection
        finally:
            connection.close()

    def _connect(self, read_only: bool) -> duckdb.DuckDBPyConnection:
        import duckdb

        deadline = time.monotonic() + TURN_SECONDS
        while True:
            try:
                return duckdb.connect(str(self.workspace.database), read_only=read_only)
            except duckdb.IOException as error:
                # Another process holds the file for its transaction; anything else will not pass by waiting.
                if "lock" not in str(error).lower():
                    raise NsdError(
                        f"cannot open the index {self.workspace.database}: {error}; "
                        "`nsd db rebuild` makes it again from the artifacts"
                    ) from error
                if time.monotonic() > deadline:
                    raise NsdError(
                        f"the index {self.workspace.database} stayed locked for {TURN_SECONDS:.0f} s"
                    ) from error
                time.sleep(random.uniform(0.02, 0.2))  # the wait shapes no result, so its chance needs no seed

    def _discard_if_broken(self) -> None:
        import duckdb

        if not self.workspace.database.exists():
            return
        try:
            duckdb.connect(str(self.workspace.database)).close()
        except duckdb.Error as error:
            if "lock" not in str(error).lower():
                self.workspace.database.unlink()
                self.workspace.database.with_name("nsd.duckdb.wal").unlink(missing_ok=True)

    # ------------------------------------------------------------------ indexing

    def index_stages(self, stages: Iterable[tuple[str, str]]) -> None:
        """Put the rows of finished (kind, digest) stages into the index, replacing what stood there."""
        with self.write() as connection:
            for kind, digest in stages:
                insert_stage(connection, self.workspace.folder(kind, digest))

    def index_record(self, record: Mapping[str, Any]) -> None:
        """Put an experiment record and its runs into the index."""
        with self.write() as connection:
            insert_record(connection, record)

    def missing(self, stages: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """Which of these finished (kind, digest) stages the index does not hold yet."""
        if not self.workspace.database.exists():
            return stages
        with self.read() as connection:
            if not connection.execute("SELECT 1 FROM information_schema.tables WHERE table_name='stages'").fetchone():
                return stages
            held = {row[0] for row in connection.execute("SELECT digest FROM stages").fetchall()}
        return [(kind, digest) for kind, digest in stages if digest not in held]

    def rebuild(self) -> dict[str, int]:
        """Make the index again from disk. Returns how many stages and experiment records it holds.

        A file that is no database any more is replaced.
        """
        self._discard_if_broken()
        with self.write() as connection:
            for table in (*TABLES_BY_STAGE, "experiments", "runs", "counts"):
                connection.execute(f"DELETE FROM {table}")
            stages = 0
            for manifest in self.workspace.manifests():
                insert_stage(connection, Path(manifest["folder"]))
                stages += 1
            records = self.workspace.records()
            for record in records:
                insert_record(connection, record)
        return {"stages": stages, "experiments": len(records)}


def insert_stage(connection: duckdb.DuckDBPyConnection, folder: Path) -> None:
    """Insert the rows of one finished stage folder inside the caller's transaction."""
    from runner.artifacts import read_manifest

    manifest = read_manifest(folder)
    digest = manifest["digest"]
    for table in TABLES_BY_STAGE:
        connection.execute(f"DELETE FROM {table} WHERE {STAGE_KEY[table]} = ?", [digest])
    connection.execute(
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
            json.dumps(manifest),
            # Relative, so that a workspace can be moved or synced from a bucket.
            folder.name,
        ],
    )
    for event in manifest.get("events", []):
        connection.execute(
            "INSERT INTO events VALUES (?,?,?,?)", [digest, event.get("step"), event["text"], event.get("field")]
        )
    info = manifest.get("eval")
    if info is not None:
        connection.execute(
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
    if info is not None:
        columns = "question_id, sample, score, correct, answer, stop_reason, tokens"
        _copy(connection, folder / "samples.parquet", "eval_samples", columns, digest)
    columns = "question_id, label, confidence, votes, k, kept, correct"
    _copy(connection, folder / "labels.parquet", "labels", columns, digest)
    _copy(connection, folder / "curves.parquet", "curves", "step, metric, value", digest)
    for run in manifest.get("imported", []):
        connection.execute(
            "INSERT OR REPLACE INTO runs VALUES (?,NULL,?,NULL,NULL,?,NULL,NULL,'imported',NULL,?,?)",
            [run["run"], run["run"], run.get("eval_digest"), manifest.get("started_at"), manifest.get("ended_at")],
        )
        connection.execute("DELETE FROM counts WHERE run = ?", [run["run"]])
        if run.get("counts") is not None:
            connection.execute("INSERT INTO counts VALUES (?,?,?)", [run["run"], *run["counts"]])


def _copy(connection: duckdb.DuckDBPyConnection, path: Path, table: str, columns: str, digest: str) -> None:
    if path.is_file():
        connection.execute(f"INSERT INTO {table} SELECT ?, {columns} FROM read_parquet(?)", [digest, str(path)])


def insert_record(connection: duckdb.DuckDBPyConnection, record: Mapping[str, Any]) -> None:
    """Insert an experiment record and its runs inside the caller's transaction."""
    connection.execute(
        "INSERT OR REPLACE INTO experiments VALUES (?,?,?,?,?,?,?)",
        [
            record["experiment"],
            record["spec_digest"],
            record["question"],
            record["spec_yaml"],
            json.dumps(record["resolved"]),
            json.dumps(record["hypotheses"]),
            record["recorded_at"],
        ],
    )
    for run in record["runs"]:
        connection.execute(
            "INSERT OR REPLACE INTO runs VALUES (?,?,?,?,?,?,?,?,?,?,?,?)",
            [
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
            ],
        )
