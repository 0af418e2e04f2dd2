"""A process that dies between any two steps leaves the old or the new, never a half that is taken for whole.

Each death is a real one: a forked process that ends (`os._exit`) just before its n-th step, for every n until it lives.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nsd.plugins.durable import write_atomically
from nsd.plugins.errors import NsdError
from nsd.runner.store import journal
from nsd.runner.store import workspace as artifacts
from nsd.runner.store.bucket import BrokenThere, Bucket, BucketError, patiently
from nsd.runner.store.shapes import Manifest
from nsd.runner.store.workspace import Workspace

DIED = 9
STEPS = (  # whatever changes the disk
    (artifacts, "flush"),
    (Path, "rename"),
    (Path, "replace"),
    (Path, "unlink"),
    (Path, "mkdir"),
    (shutil, "rmtree"),
    (os, "fsync"),
)


def dies_before_step(number: int, action: Callable[[], object]) -> bool:
    """Whether a process that does this died before its step of this number (else it did all of it)."""
    pid = os.fork()
    if pid == 0:
        left = [number]

        def counting(real: Callable[..., Any]) -> Callable[..., Any]:
            def step(*arguments: Any, **options: Any) -> Any:
                if left[0] == 0:
                    os._exit(DIED)
                left[0] -= 1
                return real(*arguments, **options)

            return step

        try:
            for owner, name in STEPS:
                setattr(owner, name, counting(getattr(owner, name)))
            action()
        except BaseException:
            os._exit(1)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status in (0, DIED), status
    return status == DIED


def make(workspace: Workspace) -> None:
    """A stage from the start: what an attempt does, also after one that died."""
    with workspace.lock("train", "d") as partial:
        if workspace.is_whole("train", "d"):
            workspace.discard_partial("train", "d")
            return
        (partial / "artifact" / "model").mkdir(parents=True, exist_ok=True)
        (partial / "artifact" / "model" / "weights").write_text("weights")
        (partial / "artifact" / "curves").write_text("curves")
        workspace.commit("train", "d", Manifest(kind="train", digest="d"))


def check_whole(workspace: Workspace) -> None:
    assert workspace.is_whole("train", "d") and workspace.has_weights("d")
    assert workspace.manifest("train", "d").to_json()["files"] == {"curves": 6, "model/weights": 7}
    folder = workspace.folder("train", "d")
    assert (folder / "curves").read_text() == "curves" and (folder / "model" / "weights").read_text() == "weights"
    assert sorted(path.name for path in folder.iterdir()) == ["curves", "manifest.json", "model"]


@pytest.mark.slow
def test_death_at_any_step_of_a_commit(tmp_path: Path) -> None:
    died, whole = 0, 0
    while True:
        workspace = Workspace(tmp_path / str(died))
        workspace.create()
        if not dies_before_step(died, lambda workspace=workspace: make(workspace)):
            break
        if workspace.is_whole("train", "d"):
            whole += 1
            check_whole(workspace)
        else:
            assert not workspace.folder("train", "d").exists()
        make(workspace)  # the next attempt
        check_whole(workspace)
        assert not workspace.partial("train", "d").exists() and not (workspace.root / "set-aside").exists()
        died += 1
    assert died > 12 and 1 <= whole < died - 5  # there were deaths on both sides of the rename


def test_every_file_and_folder_is_flushed_before_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = Workspace(tmp_path)
    steps: list[tuple[str, str]] = []
    real_flush, real_rename, real_fsync = artifacts.flush, Path.rename, os.fsync

    def flush(path: Path) -> None:
        steps.append(("flush", path.name))
        real_flush(path)

    def fsync(descriptor: int) -> None:
        steps.append(("fsync", Path(f"/proc/self/fd/{descriptor}").readlink().name))
        real_fsync(descriptor)

    def rename(path: Path, target: Path) -> Path:
        steps.append(("rename", path.name))
        return real_rename(path, target)

    monkeypatch.setattr(artifacts, "flush", flush)
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "rename", rename)
    make(workspace)
    renamed = steps.index(("rename", "artifact"))
    before = [name for _, name in steps[:renamed]]
    assert {"weights", "curves", "model", "artifact"} <= set(before)
    manifest = next(number for number, name in enumerate(before) if name.startswith(".manifest.json."))
    assert before.index("weights") < manifest and before.index("curves") < manifest  # the manifest is last
    assert ("flush", "artifacts") in steps[renamed:]


def test_death_at_any_step_of_an_atomic_write(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "record.json"
    write_atomically(path, "old")
    died = 0
    while dies_before_step(died, lambda: write_atomically(path, "new")):
        assert path.read_text() in ("old", "new")
        write_atomically(path, "old")
        died += 1
    assert died >= 3 and path.read_text() == "new"


def test_an_atomic_write_that_fails_leaves_the_old_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "record.json"
    write_atomically(path, "old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, "new")
    assert [one.name for one in tmp_path.iterdir()] == ["record.json"] and path.read_text() == "old"


def test_death_at_any_step_of_freeing_weights(tmp_path: Path) -> None:
    from nsd.runner.store.gc import collect

    died = 0
    while True:
        workspace = Workspace(tmp_path / str(died))
        make(workspace)
        if not dies_before_step(died, lambda workspace=workspace: collect(workspace, True, None)):
            break
        assert workspace.is_whole("train", "d")
        model = workspace.folder("train", "d") / "model"
        assert workspace.has_weights("d") == model.exists() and (not model.exists() or (model / "weights").exists())
        died += 1
    assert died >= 2 and not workspace.has_weights("d")


# --------------------------------------------------------------------------- locks


def _finish_when_told(root: Path, inside: Any, go: Any) -> None:
    with Workspace(root).lock("train", "d") as partial:
        inside.set()
        go.wait(30)
        (partial / "artifact").mkdir()
        Workspace(root).commit("train", "d", Manifest(kind="train", digest="d"))


def test_who_waited_for_a_holder_that_removed_the_folder_holds_a_folder_that_is_there(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    inside, go = context.Event(), context.Event()
    holder = context.Process(target=_finish_when_told, args=(tmp_path, inside, go))
    holder.start()
    assert inside.wait(60)
    workspace = Workspace(tmp_path)
    with workspace.lock("train", "d", on_wait=go.set) as partial:
        assert workspace.is_whole("train", "d")  # the holder finished
        assert (partial / "lock").stat().st_ino  # and what is held here is not the folder that it removed
        order: list[str] = []

        def third() -> None:
            with Workspace(tmp_path).lock("train", "d", on_wait=lambda: order.append("waits")):
                order.append("holds")

        beside = threading.Thread(target=third)
        beside.start()
        deadline = time.monotonic() + 30
        while not order and time.monotonic() < deadline:
            time.sleep(0.01)
        assert order == ["waits"]
    beside.join()
    holder.join()
    assert order == ["waits", "holds"] and holder.exitcode == 0


def test_a_folder_that_goes_between_making_and_locking_it_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = Workspace(tmp_path)
    real, gone = os.open, []

    def opens(path: Any, *arguments: Any, **options: Any) -> int:
        if not gone and str(path).endswith("lock"):
            gone.append(path)
            Path(path).parent.rmdir()
        return real(path, *arguments, **options)

    monkeypatch.setattr(os, "open", opens)
    with workspace.lock("train", "d") as partial:
        assert gone and (partial / "lock").exists()


def test_nothing_of_the_next_holder_goes_with_a_finished_ones_folder(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    real = shutil.rmtree
    with workspace.lock("train", "d") as partial:
        (partial / "job.json").write_text("{}")

        def meanwhile(path: Any, *arguments: Any, **options: Any) -> None:
            other = workspace.partial("train", "d")
            other.mkdir()  # somebody else's, made while the old one is being deleted
            (other / "job.json").write_text("theirs")
            real(path, *arguments, **options)

        shutil.rmtree = meanwhile  # type: ignore[assignment]
        try:
            workspace.discard_partial("train", "d")
        finally:
            shutil.rmtree = real
    assert (workspace.partial("train", "d") / "job.json").read_text() == "theirs"


# --------------------------------------------------------------------------- journals


def _append_many(path: Path, name: str, together: Any) -> None:
    together.wait(60)
    for number in range(50):
        journal.append(path, [{"who": name, "number": number, "text": "x" * 5000}])


@pytest.mark.slow
def test_two_processes_that_add_to_a_journal_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "notes.jsonl"
    path.write_bytes(b'{"who": "torn", "numb')
    context = multiprocessing.get_context("spawn")
    together = context.Barrier(2)
    writers = [context.Process(target=_append_many, args=(path, name, together)) for name in "ab"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    entries = journal.read(path)
    for name in "ab":
        assert [entry["number"] for entry in entries if entry["who"] == name] == list(range(50))
    assert len(entries) == 100


def test_what_a_journal_is_checked_against_cannot_change_before_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "looks.jsonl"

    def add_once() -> None:
        journal.append(path, [], lambda held: [] if held else time.sleep(0.05) or [{"first": threading.get_ident()}])

    threads = [threading.Thread(target=add_once) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(journal.read(path)) == 1


def test_a_line_that_is_written_in_parts_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, text: real(descriptor, text[:7]))
    journal.append(tmp_path / "notes.jsonl", [{"text": "a longer note"}, {"text": "another"}])
    assert journal.read(tmp_path / "notes.jsonl") == [{"text": "a longer note"}, {"text": "another"}]


# --------------------------------------------------------------------------- sending


def test_a_store_that_fails_at_any_moment_shows_no_stage_that_is_not_whole(
    here: Workspace, there: Workspace, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(here)
    calls = [0]
    fail_at = [0]
    real = Bucket._try

    def trying(self: Bucket, action: Callable[[], Any]) -> Any:
        calls[0] += 1
        if calls[0] == fail_at[0]:
            raise BucketError("the store is away")
        return real(self, action)

    monkeypatch.setattr(Bucket, "_try", trying)
    failures = 0
    while True:
        fail_at[0], calls[0] = failures + 1, 0
        try:
            bucket.push_stage(here, "train", "d")
            break
        except BucketError:
            failures += 1
            fail_at[0] = 0
            if bucket.stages():  # only what follows the manifest may fail after it
                assert bucket.fetch_stage(there, "train", "d")
                check_whole(there)
                break
            assert not bucket.fetch_stage(there, "train", "d")
    assert failures >= 3
    fail_at[0] = 0
    bucket.push_stage(here, "train", "d")
    assert bucket.fetch_stage(there, "train", "d")
    check_whole(there)


def test_death_while_sending_shows_no_stage_that_is_not_whole(
    here: Workspace, there: Workspace, bucket: Bucket
) -> None:
    make(here)
    died = 0
    while dies_before_step(died, lambda: bucket.push_stage(here, "train", "d")):
        if bucket.stages():
            break
        died += 1
    assert bucket.fetch_stage(there, "train", "d")
    check_whole(there)


@pytest.mark.slow
def test_death_while_fetching_leaves_a_stage_owed(here: Workspace, bucket: Bucket, tmp_path: Path) -> None:
    make(here)
    bucket.push_stage(here, "train", "d")
    died = 0
    while True:
        target = Workspace(tmp_path / f"target{died}")
        target.create()
        if not dies_before_step(died, lambda target=target: bucket.fetch_stage(target, "train", "d")):
            break
        if target.is_whole("train", "d"):
            check_whole(target)
        assert bucket.fetch_stage(target, "train", "d")
        check_whole(target)
        died += 1
    assert died > 10


def test_a_broken_stage_in_the_store_is_made_again_and_replaced(
    here: Workspace, there: Workspace, bucket: Bucket, plan: Any
) -> None:
    from nsd.runner.work.sync import Sync, fetch_finished

    stage = next(one for one in plan.stages.values() if one.kind == "train")
    with here.lock("train", stage.digest) as partial:
        (partial / "artifact").mkdir()
        (partial / "artifact" / "curves").write_text("curves")
        here.commit("train", stage.digest, Manifest(kind="train", digest=stage.digest))
    bucket.push_stage(here, "train", stage.digest)
    (sent,) = Path(bucket.root).rglob("curves")
    sent.write_text("cur")
    sync = Sync(bucket, there, plan)
    assert sync.fetch() == 0 and any("made here again" in message for message in sync.told())
    there_again = Sync(bucket, here, plan)
    there_again._broken_there(stage, NsdError("broken"))
    there_again.begin(stage)
    there_again.end(stage)
    broken: list[Any] = []
    found = fetch_finished(bucket, there, plan, set(bucket.stages()), (), lambda *one: broken.append(one))
    assert found == [stage] and not broken


def test_a_store_that_is_away_when_a_stage_stops_is_told_of_and_no_more(
    here: Workspace, bucket: Bucket, plan: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nsd.runner.work.sync import Sync

    stage = next(iter(plan.stages.values()))
    here.partial(stage.kind, stage.digest).mkdir()

    def away(*_: object) -> None:
        raise BucketError("the store is away")

    sync = Sync(bucket, here, plan)
    sync.begin(stage)
    monkeypatch.setattr(Bucket, "push_partial", away)
    sync.end(stage)
    assert sync.told() == ["not sent: the store is away"]


def test_a_state_that_cannot_be_continued_is_forgotten(here: Workspace, bucket: Bucket, plan: Any) -> None:
    from nsd.runner.work.sync import Sync

    stage = next(iter(plan.stages.values()))
    name = f"{stage.kind}-{stage.digest}"
    state = Path(bucket.root) / "partial" / name / "state.json"
    state.parent.mkdir(parents=True)
    state.write_text(json.dumps({"files": {"shards/000000.parquet": 7}, "texts": {}}))
    sync = Sync(bucket, here, plan)
    assert not sync.begin(stage)
    sync.end(stage)
    (said,) = sync.told()
    assert said.startswith("begun anew: ") and "shards/000000.parquet" in said
    assert not state.exists() or json.loads(state.read_text())["files"] == {}


@pytest.mark.parametrize("error", [BucketError("away"), BrokenThere("broken")])
def test_only_a_store_that_is_away_is_waited_for(error: BucketError) -> None:
    said: list[str] = []

    def fails() -> None:
        raise error

    with pytest.raises(BucketError, match=str(error)):
        patiently(fails, said.append, pauses=(0.0, 0.0))
    assert len(said) == (0 if isinstance(error, BrokenThere) else 2)


def test_a_broken_record_in_the_store_is_passed_over(there: Workspace, bucket: Bucket, plan: Any) -> None:
    from nsd.runner.work.sync import Sync

    folder = Path(bucket.root) / "experiments" / plan.name
    folder.mkdir(parents=True)
    (folder / "aaaa.json").write_text("")
    (folder / "bbbb.json").write_text(json.dumps({"experiment": "../x", "spec_digest": "bbbb"}))
    sync = Sync(bucket, there, plan)
    assert sync.fetch() == 0 and len(sync.told()) == 2
    assert there.records() == [] and not (there.experiments / plan.name).exists()
