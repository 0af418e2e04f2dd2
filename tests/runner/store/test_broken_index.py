"""An index that cannot be used is made again by whoever meets it; one that is locked is waited for."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest
from typer.testing import CliRunner

from nsd.runner.cli.app import app
from nsd.runner.store import opening
from nsd.runner.store.index import Store
from nsd.runner.store.opening import IndexLocked, open_index
from nsd.runner.store.workspace import Workspace
from thinned import thinned
from toy_workspace import finish, record


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A finished run with its index, in a folder whose name has the word that DuckDB says of locked files."""
    workspace = Workspace(tmp_path / "in a block of locks")
    finish(workspace, "first", [1.0, 0.0])
    record(workspace, "toy", {"base": "first"})
    Store(workspace).rebuild()
    return workspace


def garbage(path: Path) -> None:
    path.write_bytes(b"garbage, and block after block of it" * 1000)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:12288])


def cut_in_the_header(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:300])


def flipped(path: Path) -> None:  # "computed checksum ... does not match ... in block at location"
    content = bytearray(path.read_bytes())
    for place in range(12288, len(content), 4096):
        content[place : place + 64] = b"\xee" * 64
    path.write_bytes(content)


def flipped_header(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4096:8192] = b"\xee" * 4096
    content[8192:12288] = b"\xee" * 4096
    path.write_bytes(content)


def of_a_later_duckdb(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[12:20] = (9999).to_bytes(8, "little")
    path.write_bytes(content)


def of_another_program(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE t(x)")
    connection.close()


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "something").write_text("of somebody")


def a_dangling_link(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.parent / "gone")


def a_broken_log(path: Path) -> None:
    script = (
        "import duckdb, os, sys\nc = duckdb.connect(sys.argv[1])\n"
        "c.execute('CREATE TABLE t AS SELECT range FROM range(1000)')\nos._exit(1)"
    )
    subprocess.run([sys.executable, "-c", script, str(path)], check=False)
    log = path.with_name(f"{path.name}.wal")
    content = bytearray(log.read_bytes())
    content[200:300] = b"\xee" * 100
    log.write_bytes(content)


BREAKS: list[Callable[[Path], None]] = [
    garbage,
    empty,
    cut,
    cut_in_the_header,
    flipped,
    flipped_header,
    of_a_later_duckdb,
    of_another_program,
    a_folder,
    a_dangling_link,
    a_broken_log,
]


@pytest.mark.parametrize("broken", thinned(BREAKS), ids=lambda one: one.__name__)
def test_rebuild_repairs_it(
    workspace: Workspace, broken: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken(workspace.database)
    monkeypatch.setattr("nsd.runner.store.opening.wait_a_little", None)  # it is not taken for locked
    monkeypatch.setattr("nsd.runner.store.index.wait_a_little", None)
    assert Store(workspace).rebuild() == {"stages": 1, "experiments": 1}
    with Store(workspace).read() as connection:
        assert connection.execute("SELECT count(*) FROM eval_values").fetchone() == (2,)


@pytest.mark.parametrize("broken", thinned(BREAKS), ids=lambda one: one.__name__)
def test_a_command_that_reads_makes_it_again_and_says_so(workspace: Workspace, broken: Callable[[Path], None]) -> None:
    broken(workspace.database)
    result = CliRunner().invoke(app, ["runs", "-w", str(workspace.root)])
    assert result.exit_code == 0 and "toy/base/seed1" in result.stdout and "0.5000" in result.stdout
    assert "Traceback" not in result.stderr and len(result.stderr.splitlines()) <= 1
    assert broken in (empty, a_broken_log) or "made again" in result.stderr
    with duckdb.connect(str(workspace.database), read_only=True) as connection:
        assert connection.execute("SELECT count(*) FROM runs").fetchone() == (1,)


@pytest.mark.parametrize("broken", thinned(BREAKS), ids=lambda one: one.__name__)
def test_writing_into_it_makes_it_again_first(workspace: Workspace, broken: Callable[[Path], None]) -> None:
    broken(workspace.database)
    Store(workspace).index_stages([("eval", "first")])
    with Store(workspace).read() as connection:
        assert connection.execute("SELECT count(*) FROM runs").fetchone() == (1,)


def test_what_stood_in_the_place_of_an_index_is_kept(workspace: Workspace) -> None:
    a_folder(workspace.database)
    Store(workspace).index_stages([])
    assert (workspace.root / "nsd.duckdb.broken" / "something").read_text() == "of somebody"


def test_a_link_to_nothing_is_set_aside_also_by_a_reader(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    a_dangling_link(workspace.database)
    assert open_index(workspace.database, read_only=True) is None
    put_away = workspace.root / "nsd.duckdb.broken"
    assert put_away.is_symlink() and not workspace.database.is_symlink()
    assert capsys.readouterr().err == (
        f"nsd: the index {workspace.database} cannot be read (it is no file): made again; the old one is {put_away}\n"
    )


def test_a_link_to_an_index_is_opened_and_one_to_rubbish_is_broken_as_its_target_is(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    real = workspace.database.rename(workspace.root / "elsewhere.duckdb")
    workspace.database.symlink_to(real)
    (connection := open_index(workspace.database, read_only=True)) is not None and connection.close()
    assert connection is not None
    real.write_bytes(b"rubbish" * 1000)
    assert open_index(workspace.database, read_only=True) is None
    assert "cannot be read (it is no DuckDB database)" in capsys.readouterr().err


HOLD = """
import duckdb, sys
connection = duckdb.connect(sys.argv[1])
connection.execute("BEGIN")
connection.execute("INSERT INTO counts VALUES ('held', 1, 2)")
print("held", flush=True)
sys.stdin.readline()
connection.execute("COMMIT")
connection.close()
"""


@pytest.mark.slow
@pytest.mark.parametrize("action", ["read", "write", "rebuild"])
def test_a_locked_index_is_waited_for_and_kept(
    workspace: Workspace, action: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [sys.executable, "-c", HOLD, str(workspace.database)]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdin is not None and holder.stdout is not None and holder.stdout.readline() == "held\n"
    waits: list[float] = []

    def pause(*_: float) -> float:
        waits.append(0.01)
        if len(waits) == 3:
            assert holder.stdin is not None
            holder.stdin.write("\n")
            holder.stdin.flush()
            holder.wait(30)
        return 0.01

    monkeypatch.setattr("nsd.runner.store.opening.random.uniform", pause)
    store = Store(workspace)
    if action == "rebuild":
        store.rebuild()
    else:
        with store.read() if action == "read" else store.write() as connection:
            assert connection.execute("SELECT run FROM counts").fetchall() == [("held",)]
    assert len(waits) == 3 and holder.returncode == 0
    assert not (workspace.root / "nsd.duckdb.broken").exists()


def test_a_file_that_was_replaced_just_now_is_not_held(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    real, path = fcntl.lockf, workspace.database

    def lockf(*arguments: int) -> None:
        new = path.with_name("new")
        new.write_bytes(b"of another process")
        new.replace(path)
        real(*arguments)

    with opening.hold(path) as held:
        assert held is not None
    monkeypatch.setattr(fcntl, "lockf", lockf)
    with opening.hold(path) as held:
        assert held is None


def test_one_that_stays_locked_is_an_error_that_says_so(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    command = [sys.executable, "-c", HOLD, str(workspace.database)]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    monkeypatch.setattr("nsd.runner.store.opening.TURN_SECONDS", 0.3)
    store = Store(workspace)
    try:
        for action in (store.rebuild, lambda: store.index_stages([]), store.read().__enter__):
            with pytest.raises(IndexLocked, match="stayed locked"):
                action()
    finally:
        holder.communicate("\n")


def test_an_index_that_breaks_while_it_is_read_is_made_again_by_the_next(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nsd.runner.store.index import IndexDamaged

    monkeypatch.setattr("nsd.runner.store.index.fault_of", lambda *_, **__: "a block that cannot be read")
    with pytest.raises(IndexDamaged, match="the same command makes it again"), Store(workspace).read():
        raise duckdb.IOException("could not read")
    with Store(workspace).read() as connection:
        assert connection.execute("SELECT count(*) FROM runs").fetchone() == (1,)


def test_an_error_of_a_query_is_no_damage(workspace: Workspace) -> None:
    with pytest.raises(duckdb.CatalogException), Store(workspace).read() as connection:
        connection.execute("SELECT * FROM nowhere")
    assert not (workspace.root / "nsd.duckdb.broken").exists()


def test_a_workspace_that_cannot_be_written_is_read_all_the_same(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace.database.unlink()
    monkeypatch.setattr("nsd.runner.store.index.os.access", lambda *_: False)  # root may write everywhere
    with Store(workspace).read() as connection:
        assert connection.execute("SELECT count(*) FROM eval_values").fetchone() == (2,)
    assert not workspace.database.exists()


def test_an_index_that_cannot_be_opened_is_made_in_memory_and_that_is_said(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError("no such device")

    monkeypatch.setattr("nsd.runner.store.index.open_index", refused)
    with Store(workspace).read() as connection:
        assert connection.execute("SELECT count(*) FROM eval_values").fetchone() == (2,)
    assert capsys.readouterr().err == f"nsd: the index {workspace.database} is made in memory: no such device\n"


def test_a_folder_that_was_set_aside_gives_way_to_the_next(workspace: Workspace) -> None:
    path = workspace.database
    broken = path.with_name("nsd.duckdb.broken")
    (broken / "inside").mkdir(parents=True)
    path.write_bytes(b"of now")
    opening.set_aside(path, "torn")
    assert broken.read_bytes() == b"of now" and not path.exists()
