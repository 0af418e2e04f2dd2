"""The DuckDB index over a workspace: every number of every stage, for comparing and looking.

The artifacts are the truth; `rebuild` makes the whole database again from manifests, Parquet files, experiment
records, notes and looks. A database that another version of nsd made is rebuilt when it is opened, and so is one
that is missing. DuckDB lets one process write at a time, so a connection is held for one short
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
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plugins.errors import InputError, NsdError
from runner.artifacts import Workspace

if TYPE_CHECKING:
    import duckdb

TURN_SECONDS = 120.0
SCHEMA_VERSION = 3  # raise it with every change of SCHEMA_SQL: older databases are then rebuilt

SCHEMA_SQL = """
CREATE TABLE IF NOT EXISTS schema_version(version INT);
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
CREATE TABLE IF NOT EXISTS repeats(run TEXT, repeat INT, eval_digest TEXT);
-- What each version of a spec asked for, while `runs` and `repeats` hold, under each name, what was run last.
CREATE TABLE IF NOT EXISTS version_runs(run TEXT, experiment TEXT, condition TEXT, seed BIGINT,
    spec_digest TEXT, eval_digest TEXT, train_digest TEXT, label_digest TEXT, status TEXT, reason TEXT,
    started_at TIMESTAMP, ended_at TIMESTAMP, place INT);
CREATE TABLE IF NOT EXISTS version_repeats(experiment TEXT, spec_digest TEXT, run TEXT, repeat INT, eval_digest TEXT,
    place INT);
CREATE TABLE IF NOT EXISTS last_run(experiment TEXT, spec_digest TEXT, run_at TIMESTAMP,
    PRIMARY KEY(experiment, spec_digest));
CREATE TABLE IF NOT EXISTS notes(run TEXT, written_at TIMESTAMP, text TEXT);
CREATE TABLE IF NOT EXISTS looks(looked_at TIMESTAMP, experiment TEXT, a TEXT, b TEXT, metric TEXT, evidence JSON,
    n BIGINT, p DOUBLE, verdict TEXT, command TEXT);
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
            if _version(connection) != SCHEMA_VERSION:
                # A transaction of its own: DuckDB cannot always replace a key that the same transaction inserted.
                self._make(connection)
            connection.execute("BEGIN")
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
            if not any(self.workspace.manifests()) and not self.workspace.records():
                raise InputError(
                    f"no results in {self.workspace.root}: run a spec first (nsd run specs/quickstart.yaml), "
                    "or name another folder with --workspace"
                )
            self.rebuild()
        connection = self._connect(read_only=True)
        if _version(connection) != SCHEMA_VERSION:
            connection.close()
            with self.write():
                pass  # opening for writing brings the schema up to date
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

    def index_journals(self) -> None:
        """Bring the notes and looks of the index up to date with their files."""
        with self.write() as connection:
            insert_journals(connection, self.workspace)

    def missing(self, stages: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """Which of these finished (kind, digest) stages the index does not hold yet."""
        if not self.workspace.database.exists():
            return stages
        with self.read() as connection:
            held = {row[0] for row in connection.execute("SELECT digest FROM stages").fetchall()}
        return [(kind, digest) for kind, digest in stages if digest not in held]

    def rebuild(self) -> dict[str, int]:
        """Make the index again from disk. Returns how many stages and experiment records it holds.

        A file that is no database any more is replaced.
        """
        self._discard_if_broken()
        self.workspace.create()
        connection = self._connect(read_only=False)
        try:
            return self._make(connection)
        finally:
            connection.close()

    def _make(self, connection: duckdb.DuckDBPyConnection) -> dict[str, int]:
        """Drop what tables there are and fill this version's from disk, in one transaction."""
        connection.execute("BEGIN")
        try:
            for (name,) in connection.execute("SELECT table_name FROM duckdb_tables() WHERE NOT temporary").fetchall():
                connection.execute(f'DROP TABLE "{name}"')
            for statement in SCHEMA_SQL.split(";"):
                if statement.strip():
                    connection.execute(statement)
            connection.execute("INSERT INTO schema_version VALUES (?)", [SCHEMA_VERSION])
            stages = 0
            for manifest in self.workspace.manifests():
                insert_stage(connection, Path(manifest["folder"]))
                stages += 1
            records = self.workspace.records()
            for record in sorted(records, key=run_at):  # what was run last stands under each run's name
                insert_record(connection, record)
            insert_journals(connection, self.workspace)
            connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(Exception):
                connection.execute("ROLLBACK")
            raise
        return {"stages": stages, "experiments": len(records)}


def _version(connection: duckdb.DuckDBPyConnection) -> int | None:
    """The schema version a database was made with; None for one without, or an empty one."""
    if not connection.execute("SELECT 1 FROM duckdb_tables() WHERE table_name = 'schema_version'").fetchone():
        return None
    row = connection.execute("SELECT version FROM schema_version").fetchone()
    return int(row[0]) if row else None


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
            storable_json(manifest),
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


def storable_json(value: Any) -> str:
    """JSON that DuckDB takes: a lone surrogate (a model can be made to print one) becomes a question mark."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace").decode("utf-8")


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
            storable_json(record["resolved"]),
            storable_json(record["hypotheses"]),
            record["recorded_at"],
        ],
    )
    version = [record["experiment"], record["spec_digest"]]
    connection.execute("INSERT OR REPLACE INTO last_run VALUES (?,?,?)", [*version, run_at(record)])
    for table in ("version_runs", "version_repeats"):
        connection.execute(f"DELETE FROM {table} WHERE experiment = ? AND spec_digest = ?", version)
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
        ]
        connection.execute("INSERT OR REPLACE INTO runs VALUES (?,?,?,?,?,?,?,?,?,?,?,?)", row)
        connection.execute("INSERT INTO version_runs VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)", [*row, place])
        connection.execute("DELETE FROM repeats WHERE run = ?", [run["run"]])
        for repeat in run.get("repeats", []):
            again = [run["run"], repeat["repeat"], repeat["eval_digest"]]
            connection.execute("INSERT INTO repeats VALUES (?,?,?)", again)
            connection.execute("INSERT INTO version_repeats VALUES (?,?,?,?,?,?)", [*version, *again, place])


def run_at(record: Mapping[str, Any]) -> str:
    """When a version of a spec was last taken up (ISO 8601): the latest one's runs are what its name stands for."""
    return str(record.get("run_at") or record["recorded_at"])


def insert_journals(connection: duckdb.DuckDBPyConnection, workspace: Workspace) -> None:
    """Replace the notes and looks by what their files hold, inside the caller's transaction.

    A line without a readable time or with a field of another type is left out of the index; it stays in the file.
    """
    from runner import journal

    notes = [_row(entry, "written_at", ("run", "text")) for entry in journal.read(workspace.notes)]
    looks = []
    for entry in journal.read(workspace.looks):
        evidence = json.dumps({"evidence": entry.get("evidence"), "train": entry.get("train")})
        row = _row({**entry, "evidence": evidence}, "looked_at", LOOK_TEXTS)
        n, p = entry.get("n"), entry.get("p")
        if row is not None and isinstance(n, int) and abs(n) < 2**62 and (p is None or isinstance(p, (int, float))):
            looks.append([*row, n, None if p is None else float(p)])
    _replace(connection, "notes(written_at, run, text)", [note for note in notes if note is not None])
    _replace(connection, f"looks(looked_at, {', '.join(LOOK_TEXTS)}, n, p)", looks)


LOOK_TEXTS = ("experiment", "a", "b", "metric", "evidence", "verdict", "command")


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
    return [stamp, *(text and text.encode("utf-8", "replace").decode() for text in texts)]


def _replace(connection: duckdb.DuckDBPyConnection, target: str, rows: list[list[Any]]) -> None:
    """Put these rows in place of all a table has; column by column, since row by row is slow in DuckDB."""
    connection.execute(f"DELETE FROM {target.partition('(')[0]}")
    if rows:
        columns = [list(column) for column in zip(*rows, strict=True)]
        connection.execute(f"INSERT INTO {target} SELECT {', '.join(['unnest(?)'] * len(columns))}", columns)
