"""The DuckDB index over a workspace: every number of every stage, for comparing and looking.

The artifacts are the truth; `rebuild` makes the whole database again from manifests, Parquet files, experiment
records, notes and looks. A database that another version of nsd made is rebuilt when it is opened, and so is one that
is missing or broken; in memory, where the workspace cannot be written. DuckDB lets one process write at a time, so a
connection is held for one short transaction and others wait their turn (`nsd.runner.store.opening`).

What is indexed is checked against its manifest. A stage whose files cannot be read is set aside; one that the index
cannot take for another reason is named and left out, and everything else goes on.

    with Store(workspace).write() as connection: ...
    with Store(workspace).read() as connection: ...
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from nsd.plugins.errors import InputError, NsdError
from nsd.runner.store import opening, tables
from nsd.runner.store.opening import fault_of, hold, open_index, replace, set_aside, wait_a_little
from nsd.runner.store.shapes import Broken, ExperimentRecord, is_look, read_manifest
from nsd.runner.store.workspace import Workspace, check_files

if TYPE_CHECKING:
    import duckdb

Returned = TypeVar("Returned")
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
INDEXED = ("values.parquet", "samples.parquet", "labels.parquet", "curves.parquet")
STAGE_KEY = {
    "stages": "digest",
    "eval_info": "eval_digest",
    "eval_values": "eval_digest",
    "eval_samples": "eval_digest",
    "labels": "label_digest",
    "curves": "train_digest",
    "events": "digest",
}


class IndexDamaged(NsdError):
    """The index could be opened and not be read; it was put away, and whoever opens it next makes it again."""


class _NotIndexed(Exception):
    """A stage or record that could not be put into the index; its cause says why."""

    def __init__(self, what: Path) -> None:
        super().__init__(str(what))
        self.what = what


class Store:
    """Opens the index of a workspace for one short transaction at a time. A broken index is made again from disk."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace

    @contextlib.contextmanager
    def write(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """One transaction: committed at the end of the block, rolled back on any error."""
        self.workspace.create()
        connection = self._open_current()
        try:
            connection.execute("BEGIN")
            yield connection
            connection.execute("COMMIT")
        except BaseException as error:
            with contextlib.suppress(Exception):
                connection.execute("ROLLBACK")
            connection.close()
            self._raise_if_damaged(error)
            raise
        finally:
            connection.close()

    @contextlib.contextmanager
    def read(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A read-only connection. Raises InputError where the workspace has no results yet.

        Where the index must be made again and the workspace cannot be written, it is made in memory.
        """
        connection = self._open_for_reading()
        try:
            yield connection
        except BaseException as error:
            connection.close()
            self._raise_if_damaged(error)
            raise
        finally:
            connection.close()

    def _open_for_reading(self) -> duckdb.DuckDBPyConnection:
        path = self.workspace.database
        try:
            connection = open_index(path, read_only=True)
            if connection is not None:
                if _version(connection) == SCHEMA_VERSION:
                    return connection
                connection.close()
            elif not any(self.workspace.manifests()) and not self.workspace.records():
                raise InputError(
                    f"no results in {self.workspace.root}: run a spec first (nsd run specs/quickstart.yaml), "
                    "or name another folder with --workspace"
                )
            if os.access(self.workspace.root, os.W_OK):
                self._open_current().close()
                connection = open_index(path, read_only=True)
                if connection is not None:
                    return connection
        except OSError as error:
            print(f"nsd: the index {path} is made in memory: {error}", file=sys.stderr)
        import duckdb

        connection = duckdb.connect(":memory:")
        self._make(connection)
        return connection

    def _open_current(self) -> duckdb.DuckDBPyConnection:
        """A connection for writing, to an index of this version."""
        try:
            connection = open_index(self.workspace.database, read_only=False)
        except OSError as error:
            raise InputError(f"cannot write the index {self.workspace.database}: {error.strerror or error}") from error
        assert connection is not None
        try:
            if _version(connection) != SCHEMA_VERSION:
                # A transaction of its own: DuckDB cannot always replace a key that the same transaction inserted.
                self._make(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _raise_if_damaged(self, error: BaseException) -> None:
        """A database can open and still hold a block that cannot be read. Then it is put away, for the next to make."""
        import duckdb

        sound = (duckdb.ProgrammingError, duckdb.DataError, duckdb.IntegrityError, duckdb.InterruptException)
        if not isinstance(error, duckdb.Error) or isinstance(error, sound):
            return
        path = self.workspace.database
        if not path.is_file():
            return
        try:
            with hold(path) as held:
                if held is None or (reason := fault_of(path, held, thorough=True)) is None:
                    return
                set_aside(path, reason)
        except OSError:
            return
        raise IndexDamaged(f"the index {path} was damaged ({reason}): the same command makes it again") from error

    # ------------------------------------------------------------------ indexing

    def index_stages(self, stages: Iterable[tuple[str, str]]) -> None:
        """Put the rows of finished (kind, digest) stages into the index, replacing what stood there."""
        folders = [self.workspace.folder(kind, digest) for kind, digest in stages]
        passed_over: set[Path] = set()

        def index() -> None:
            with self.write() as connection:
                for folder in folders:
                    if folder not in passed_over:
                        self._insert_stage(connection, folder)

        again(lambda: self._without_broken(index, passed_over))

    def index_record(self, record: ExperimentRecord) -> None:
        """Put an experiment record and its runs into the index."""

        def index() -> None:
            with self.write() as connection:
                insert_record(connection, record)

        again(index)

    def index_journals(self) -> None:
        """Bring the notes and looks of the index up to date with their files."""

        def index() -> None:
            with self.write() as connection:
                insert_journals(connection, self.workspace)

        again(index)

    def missing(self, stages: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """Which of these finished (kind, digest) stages the index does not hold yet."""

        def digests() -> set[str]:
            with self.write() as connection:
                return {row[0] for row in connection.execute("SELECT digest FROM stages").fetchall()}

        held = again(digests) if self.workspace.database.exists() else set()
        return [(kind, digest) for kind, digest in stages if digest not in held]

    def rebuild(self) -> dict[str, int]:
        """Make the index again from disk. Returns how many stages and experiment records it holds.

        Whatever the old file has become, nothing of it is used; a directory in its place is set aside.
        """
        self.workspace.create()
        path = self.workspace.database
        deadline = time.monotonic() + opening.TURN_SECONDS
        try:
            while path.is_file():
                with hold(path) as held:
                    if held is not None:
                        return self._make_beside()
                wait_a_little(path, deadline)
            connection = open_index(path, read_only=False)
        except OSError as error:
            raise InputError(f"cannot write the index {path}: {error.strerror or error}") from error
        with connection or contextlib.nullcontext():
            assert connection is not None
            return self._make(connection)

    def _make_beside(self) -> dict[str, int]:
        """Make a new index and put it in the place of the old one, of which nothing is read."""
        import duckdb

        new = self.workspace.database.with_name(f".{self.workspace.database.name}.{os.getpid()}.new")
        new.unlink(missing_ok=True)
        try:
            with duckdb.connect(str(new)) as connection:
                counts = self._make(connection)
            replace(self.workspace.database, new)
        finally:
            new.unlink(missing_ok=True)
            new.with_name(f"{new.name}.wal").unlink(missing_ok=True)
        return counts

    def _make(self, connection: duckdb.DuckDBPyConnection) -> dict[str, int]:
        """Drop what tables there are and fill this version's from disk, in one transaction."""
        passed_over: set[Path] = set()

        def make() -> dict[str, int]:
            connection.execute("BEGIN")
            try:
                found = self._fill(connection, passed_over)
                connection.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(Exception):
                    connection.execute("ROLLBACK")
                raise
            return found

        return self._without_broken(make, passed_over)

    def _fill(self, connection: duckdb.DuckDBPyConnection, passed_over: set[Path]) -> dict[str, int]:
        for (name,) in connection.execute("SELECT table_name FROM duckdb_tables() WHERE NOT temporary").fetchall():
            connection.execute(f'DROP TABLE "{name}"')
        for statement in SCHEMA_SQL.split(";"):
            if statement.strip():
                connection.execute(statement)
        connection.execute("INSERT INTO schema_version VALUES (?)", [SCHEMA_VERSION])
        stages = experiments = 0
        for manifest in self.workspace.manifests():
            if (folder := manifest.folder) not in passed_over:
                stages += self._insert_stage(connection, folder)
        # What was run last stands under each run's name.
        for record in sorted(self.workspace.records(), key=lambda one: one.taken_up_at):
            path = Path("record", record.experiment, record.spec_digest)  # a name to say, of no file
            if path not in passed_over:
                try:
                    insert_record(connection, record)
                except Exception as error:
                    raise _NotIndexed(path) from error
                experiments += 1
        insert_journals(connection, self.workspace)
        return {"stages": stages, "experiments": experiments}

    def _insert_stage(self, connection: duckdb.DuckDBPyConnection, folder: Path) -> bool:
        """Whether the stage is in the index now; one that does not match its manifest is set aside."""
        try:
            check_files(folder, read_manifest(folder), contents=INDEXED)
        except Broken as broken:
            self.workspace.set_aside(folder, broken, "the stage is owed again")
            return False
        try:
            insert_stage(connection, folder)
        except Exception as error:
            raise _NotIndexed(folder) from error
        return True

    def _without_broken(self, action: Callable[[], Returned], passed_over: set[Path]) -> Returned:
        """Do it again after each stage that the index cannot take, without that one."""
        while True:
            try:
                return action()
            except _NotIndexed as failed:
                cause = failed.__cause__
                assert isinstance(cause, Exception)
                passed_over.add(failed.what)
                if (broken := _unreadable_table(failed.what)) is not None:
                    self.workspace.set_aside(failed.what, broken, "the stage is owed again")
                elif _is_of_the_data(cause):
                    reason = str(cause).splitlines()[0] if str(cause) else type(cause).__name__
                    print(f"nsd: {failed.what} is left out of the index: {reason}", file=sys.stderr)
                else:
                    raise cause from None


def again(action: Callable[[], Returned]) -> Returned:
    """Do it, and once more where the index turned out to be damaged: it is made again then."""
    try:
        return action()
    except IndexDamaged as damaged:
        print(f"nsd: {damaged}", file=sys.stderr)
        return action()


def _unreadable_table(folder: Path) -> Broken | None:
    """The first of a stage's indexed files that cannot be read."""
    for name in INDEXED:
        path = folder / name
        try:
            if path.is_file():
                tables.read(path)
        except Broken as broken:
            return broken
    return None


def _is_of_the_data(error: Exception) -> bool:
    """Whether what is indexed is at fault, not the disk, the memory or the index."""
    import duckdb

    of_rows = (duckdb.ProgrammingError, duckdb.DataError, duckdb.IntegrityError, duckdb.NotSupportedError)
    return isinstance(error, (*of_rows, Broken, KeyError, TypeError, ValueError, AttributeError, OverflowError))


def _version(connection: duckdb.DuckDBPyConnection) -> int | None:
    """The schema version a database was made with; None for one without, or an empty one."""
    if not connection.execute("SELECT 1 FROM duckdb_tables() WHERE table_name = 'schema_version'").fetchone():
        return None
    row = connection.execute("SELECT version FROM schema_version").fetchone()
    return int(row[0]) if row else None


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
    odd = "SELECT 1 FROM eval_values WHERE eval_digest = ? AND NOT isfinite(value) LIMIT 1"
    if connection.execute(odd, [digest]).fetchone():
        raise Broken(folder / "values.parquet", "it holds values that are no numbers")
    if info is not None:
        columns = "question_id, sample, score, correct, answer, stop_reason, tokens"
        _copy(connection, folder / "samples.parquet", "eval_samples", columns, digest)
    columns = "question_id, label, confidence, votes, k, kept, correct"
    _copy(connection, folder / "labels.parquet", "labels", columns, digest)
    _copy(connection, folder / "curves.parquet", "curves", "step, metric, value", digest)
    for run in manifest.get("imported", []):
        _put(
            connection,
            "INSERT OR REPLACE INTO runs VALUES (?,NULL,?,NULL,NULL,?,NULL,NULL,'imported',NULL,?,?)",
            [run["run"], run["run"], run.get("eval_digest"), manifest.get("started_at"), manifest.get("ended_at")],
        )
        connection.execute("DELETE FROM counts WHERE run = ?", [run["run"]])
        if run.get("counts") is not None:
            _put(connection, "INSERT INTO counts VALUES (?,?,?)", [run["run"], *run["counts"]])


def _put(connection: duckdb.DuckDBPyConnection, sql: str, values: Iterable[Any]) -> None:
    """Insert a row; a lone surrogate in a text becomes a question mark, since DuckDB takes none."""
    row = [value.encode("utf-8", "replace").decode() if isinstance(value, str) else value for value in values]
    connection.execute(sql, row)


def storable_json(value: Any) -> str:
    """JSON that DuckDB takes: a lone surrogate (a model can be made to print one) becomes a question mark."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace").decode("utf-8")


def _copy(connection: duckdb.DuckDBPyConnection, path: Path, table: str, columns: str, digest: str) -> None:
    if path.is_file():
        connection.execute(f"INSERT INTO {table} SELECT ?, {columns} FROM read_parquet(?)", [digest, str(path)])


def insert_record(connection: duckdb.DuckDBPyConnection, shape: ExperimentRecord) -> None:
    """Insert an experiment record and its runs inside the caller's transaction."""
    record = shape.to_json()
    _put(
        connection,
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
    connection.execute("INSERT OR REPLACE INTO last_run VALUES (?,?,?)", [*version, shape.taken_up_at])
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
        _put(connection, "INSERT OR REPLACE INTO runs VALUES (?,?,?,?,?,?,?,?,?,?,?,?)", row)
        _put(connection, "INSERT INTO version_runs VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)", [*row, place])
        connection.execute("DELETE FROM repeats WHERE run = ?", [run["run"]])
        for repeat in run.get("repeats", []):
            again = [run["run"], repeat["repeat"], repeat["eval_digest"]]
            _put(connection, "INSERT INTO repeats VALUES (?,?,?)", again)
            _put(connection, "INSERT INTO version_repeats VALUES (?,?,?,?,?,?)", [*version, *again, place])


def insert_journals(connection: duckdb.DuckDBPyConnection, workspace: Workspace) -> None:
    """Replace the notes and looks by what their files hold, inside the caller's transaction.

    A line without a readable time or with a field of another type is left out of the index; it stays in the file.
    """
    from nsd.runner.store import journal

    notes = [_row(entry, "written_at", ("run", "text")) for entry in journal.read(workspace.notes)]
    looks = []
    for entry in journal.read(workspace.looks):
        evidence = json.dumps({"evidence": entry.get("evidence"), "train": entry.get("train")})
        row = _row({**entry, "evidence": evidence}, "looked_at", LOOK_TEXTS)
        n, p = entry.get("n"), entry.get("p")
        if not is_look(entry):
            continue
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
