"""Stages on disk: whole or not there, one holder at a time, and an index that can be made again."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nsd.plugins.api import SideFile
from nsd.plugins.errors import InputError
from nsd.runner.store import tables
from nsd.runner.store.index import Store
from nsd.runner.store.shapes import Manifest
from nsd.runner.store.workspace import Workspace, digest_of
from support import PATIENCE

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def manifest(digest: str, **more: object) -> dict[str, object]:
    common = {"kind": "eval", "digest": digest, "plugin": "accuracy", "key": {}, "inputs": {}, "seed": 1}
    times = {"started_at": "2026-01-01T00:00:00", "ended_at": "2026-01-01T00:00:05", "seconds": 5.0}
    return {**common, **times, "gpu_seconds": 0.0, **more}


def finish(workspace: Workspace, digest: str, values: dict[str, float]) -> Path:
    with workspace.lock("eval", digest) as partial:
        staging = partial / "artifact"
        staging.mkdir()
        rows = [{"question_id": key, "value": value} for key, value in values.items()]
        tables.write(staging / "values.parquet", tables.VALUES, rows)
        tables.write(staging / "samples.parquet", tables.SCORED, [])
        info = {"metric": "accuracy", "protocol": "accuracy", "data_hash": "d", "verifier_hash": "v"}
        counts = {"questions": len(values), "samples": 1}
        return workspace.commit("eval", digest, Manifest(**manifest(digest, eval={**info, **counts})))


@settings(deadline=None)
@given(JSON_VALUES, JSON_VALUES)
def test_digests_are_equal_exactly_where_values_are(a: object, b: object) -> None:
    same = json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)
    assert (digest_of(a) == digest_of(b)) == same


def test_digest_does_not_depend_on_the_order_of_keys() -> None:
    assert digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1})


def test_a_stage_is_whole_only_after_commit(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    with workspace.lock("eval", "abcd") as partial:
        (partial / "artifact").mkdir()
        (partial / "artifact" / "values.parquet").write_bytes(b"")
        assert not workspace.is_whole("eval", "abcd")
        workspace.commit("eval", "abcd", Manifest(**manifest("abcd")))
    assert workspace.is_whole("eval", "abcd")
    assert workspace.manifest("eval", "abcd").to_json()["files"] == {"values.parquet": 0}


def test_of_many_stages_those_that_are_there_are_found(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    for digest in ("one", "two", "three"):
        finish(workspace, digest, {"q": 1.0})
    names = workspace.stage_names()
    finish(workspace, "later", {"q": 1.0})
    asked = ["three", "gone", "one", "later"]
    assert [one.digest for one in workspace.finished("eval", asked)] == ["three", "one", "later"]
    assert [one.digest for one in workspace.finished("eval", asked, names)] == ["three", "one"]
    assert not list(workspace.finished("train", ["one"], names))


@pytest.mark.parametrize("there", ["nothing", "whole", "short", "folder", "link"])
def test_a_side_file_counts_where_it_is_a_file_of_its_size(tmp_path: Path, there: str) -> None:
    (tmp_path / "tests.json").write_text("[1, 2]")
    wanted, workspace = SideFile.of(tmp_path / "tests.json"), Workspace(tmp_path / "ws")
    path = workspace.side_file(wanted.sha256)
    path.parent.mkdir(parents=True)
    if there == "whole":
        workspace.keep_side_file(wanted)
    elif there == "short":
        path.write_text("[1,")
    elif there == "folder":
        path.mkdir()
    elif there == "link":
        path.symlink_to(tmp_path / "tests.json")
    assert workspace.has_side_file(wanted) == (there == "whole")
    assert os.path.lexists(path) == (there == "whole")


def test_a_folder_without_manifest_gives_way(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    torn = workspace.folder("eval", "abcd")
    torn.mkdir(parents=True)
    (torn / "rubbish").write_text("half an upload")
    assert not workspace.is_whole("eval", "abcd")
    finish(workspace, "abcd", {"q": 1.0})
    assert not (torn / "rubbish").exists() and workspace.is_whole("eval", "abcd")


def _hold(root: Path, entered: object) -> None:
    with Workspace(root).lock("train", "abcd"):
        entered.set()  # type: ignore[attr-defined]
        signal.pause()


def test_a_lock_waits_for_its_holder_and_is_free_when_the_holder_is_killed(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    entered = context.Event()
    holder = context.Process(target=_hold, args=(tmp_path, entered), daemon=True)
    holder.start()
    assert entered.wait(PATIENCE)
    waited: list[bool] = []

    def on_wait() -> None:
        waited.append(True)
        assert holder.pid is not None
        os.kill(holder.pid, signal.SIGKILL)

    with Workspace(tmp_path).lock("train", "abcd", on_wait):
        assert waited == [True]
    holder.join()


def test_rebuild_gives_back_the_same_rows(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    store = Store(workspace)
    finish(workspace, "abcd", {"q1": 1.0, "q2": 0.0})
    store.index_stages([("eval", "abcd")])
    with store.read() as connection:
        before = connection.execute("SELECT * FROM eval_values ORDER BY ALL").fetchall()
    workspace.database.unlink()
    assert store.rebuild() == {"stages": 1, "experiments": 0}
    with store.read() as connection:
        assert connection.execute("SELECT * FROM eval_values ORDER BY ALL").fetchall() == before


def test_indexing_twice_leaves_each_row_once(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    finish(workspace, "abcd", {"q1": 1.0})
    for _ in range(2):
        Store(workspace).index_stages([("eval", "abcd")])
    with Store(workspace).read() as connection:
        assert connection.execute("SELECT count(*) FROM eval_values").fetchone() == (1,)


def test_an_error_inside_a_transaction_leaves_the_index_as_it_was(tmp_path: Path) -> None:
    store = Store(Workspace(tmp_path))
    with store.write() as connection:
        connection.execute("INSERT INTO counts VALUES ('kept', 1, 2)")
    with pytest.raises(RuntimeError), store.write() as connection:
        connection.execute("INSERT INTO counts VALUES ('lost', 1, 2)")
        raise RuntimeError
    with store.read() as connection:
        assert connection.execute("SELECT run FROM counts").fetchall() == [("kept",)]


def _write_many(root: Path, name: str) -> None:
    for number in range(10):
        with Store(Workspace(root)).write() as connection:
            connection.execute("INSERT INTO counts VALUES (?, 1, 2)", [f"{name}{number}"])


@pytest.mark.slow
def test_writers_wait_their_turn(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write_many, args=(tmp_path, name)) for name in "ab"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    with Store(Workspace(tmp_path)).read() as connection:
        assert connection.execute("SELECT count(*) FROM counts").fetchone() == (20,)


def test_an_empty_workspace_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="run a spec first"), Store(Workspace(tmp_path)).read():
        pass


@pytest.mark.slow
@settings(deadline=None)
@given(st.text())
def test_any_text_survives_parquet(text: str) -> None:
    import tempfile

    from nsd.plugins.api import Completion, StopReason

    completion = Completion("q", 0, text, 1, StopReason.STOP)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.parquet"
        tables.write_completions(path, [completion])
        assert tables.read_completions(path)[0].text == text.encode("utf-8", "replace").decode()


def test_confidences_come_back_from_a_file_and_older_files_have_none(tmp_path: Path) -> None:
    from nsd.plugins.api import Completion, Confidence, StopReason

    sure = Completion("q", 0, "a", 1, StopReason.STOP, confidence=Confidence(-1.5, -2.0, 4.0, 5.0, 3.0, 2.5))
    unknown = Completion("q", 1, "b", 1, StopReason.STOP)
    tables.write_completions(tmp_path / "new.parquet", [sure, unknown])
    assert [one.confidence for one in tables.read_completions(tmp_path / "new.parquet")] == [sure.confidence, None]
    before = {name: kind for name, kind in tables.COMPLETIONS.items() if not name.startswith("confidence_")}
    assert len(before) == 6
    tables.write(tmp_path / "old.parquet", before, [tables.completion_row(sure)])
    assert tables.read_completions(tmp_path / "old.parquet") == [sure]
    assert tables.read_completions(tmp_path / "old.parquet")[0].confidence is None


def test_confidences_are_kept_beside_verdicts(tmp_path: Path) -> None:
    from nsd.plugins.api import Completion, Confidence, Score, Scored, StopReason

    sure = Completion("q", 0, "a", 1, StopReason.STOP, confidence=Confidence(-1.5, -2.0, 4.0, 5.0, 3.0, 2.5))
    tables.write_scored(tmp_path / "scored.parquet", [Scored(sure, Score(1.0, True, "a"))])
    (row,) = tables.read(tmp_path / "scored.parquet")
    named = {"logprob": -1.5, "logprob_lowest": -2.0, "mean": 4.0, "tail": 5.0, "bottom": 3.0, "lowest": 2.5}
    assert {name: row[f"confidence_{name}"] for name in named} == named
    assert tables.read_completions(tmp_path / "scored.parquet")[0].confidence == sure.confidence


def test_a_stage_is_held_while_its_lock_is(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    assert not workspace.is_held("train", "abcd")
    with workspace.lock("train", "abcd") as partial:
        assert workspace.is_held("train", "abcd") and not workspace.is_held("train", "other")
    assert (partial / "lock").exists() and not workspace.is_held("train", "abcd")


def test_the_stages_that_were_finished_last_come_by_name(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    for time, digest in enumerate(["c", "a", "d", "b"]):
        os.utime(finish(workspace, digest, {"q": 1.0}), ns=(time, time))
    assert [one.digest for one in workspace.manifests(newest=2)] == ["b", "d"]
    assert [one.digest for one in workspace.manifests(newest=4)] == ["a", "b", "c", "d"]
