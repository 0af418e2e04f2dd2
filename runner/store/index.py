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
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from nsd.plugins.errors import InputError, NsdError
from nsd.runner.store import opening, tables
from nsd.runner.store.filling import (
    INDEXED,
    SCHEMA_VERSION,
    create_tables,
    insert_journals,
    insert_record,
    insert_stage,
    remove_import,
)
from nsd.runner.store.opening import fault_of, hold, open_index, replace, set_aside, wait_a_little
from nsd.runner.store.shapes import Broken, ExperimentRecord, Manifest, read_manifest
from nsd.runner.store.workspace import Workspace, check_files

if TYPE_CHECKING:
    import duckdb

Returned = TypeVar("Returned")


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

    def index_imports(self, stages: Iterable[tuple[str, str]], gone: Iterable[Manifest]) -> None:
        """Put imports into the index in the place of those that are gone."""
        gone = list(gone)

        def remove() -> None:
            with self.write() as connection:
                for manifest in gone:
                    remove_import(connection, manifest)

        if gone:
            again(remove)
        self.index_stages(stages)

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
        create_tables(connection)
        stages = experiments = 0
        imports: list[tuple[str, Path]] = []
        for manifest in self.workspace.manifests():
            if manifest.kind == "import":
                imports.append((manifest.ended_at or "", manifest.folder))
            elif manifest.folder not in passed_over:
                stages += self._insert_stage(connection, manifest.folder)
        # A name given to two imports stands for the later one.
        for _, folder in sorted(imports):
            if folder not in passed_over:
                stages += self._insert_stage(connection, folder)
        for record in self.workspace.records():
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
