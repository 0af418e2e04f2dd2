"""Artifacts in a bucket: whole or not there, whatever dies when. The store here is a shared folder (file://)."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nsd.plugins.errors import InputError
from nsd.plugins.trainers import _checkpoints
from nsd.plugins.trainers._checkpoints import Marker
from nsd.runner.store.bucket import Bucket, BucketError
from nsd.runner.store.shapes import Manifest
from nsd.runner.store.workspace import Workspace


def finished(workspace: Workspace, digest: str = "d1", text: str = "weights") -> None:
    """A finished train stage with a model and curves."""
    with workspace.lock("train", digest) as partial:
        (partial / "artifact" / "model").mkdir(parents=True)
        (partial / "artifact" / "model" / "model.safetensors").write_text(text)
        (partial / "artifact" / "curves.parquet").write_text("curves")
        workspace.commit("train", digest, Manifest(kind="train", digest=digest))


def test_a_stage_travels_whole(here: Workspace, there: Workspace, bucket: Bucket) -> None:
    finished(here)
    assert bucket.stages() == [] and bucket.push_stage(here, "train", "d1")
    assert bucket.stages() == [("train", "d1")]
    assert bucket.fetch_stage(there, "train", "d1")
    fetched, sent = (workspace.manifest("train", "d1").to_json() for workspace in (there, here))
    assert there.is_whole("train", "d1") and fetched == sent
    model = there.folder("train", "d1") / "model" / "model.safetensors"
    assert model.read_text() == "weights" and not there.partial("train", "d1").exists()


def test_weights_stay_behind_until_they_are_needed(here: Workspace, there: Workspace, bucket: Bucket) -> None:
    finished(here)
    bucket.push_stage(here, "train", "d1")
    bucket.fetch_stage(there, "train", "d1", weights=False)
    assert there.is_whole("train", "d1") and not there.has_weights("d1")
    bucket.fetch_stage(there, "train", "d1", weights=True)
    assert there.has_weights("d1")


def test_pushing_twice_sends_once(here: Workspace, bucket: Bucket) -> None:
    finished(here)
    assert bucket.push_stage(here, "train", "d1") and not bucket.push_stage(here, "train", "d1")


def test_of_two_machines_with_the_same_stage_one_is_seen_with_its_own_files(
    here: Workspace, there: Workspace, bucket: Bucket, tmp_path: Path
) -> None:
    finished(here, text="from here")
    finished(there, text="from there")
    bucket.push_stage(here, "train", "d1")
    manifest = Path(bucket.root) / "manifests" / "train-d1.json"
    kept = manifest.read_text()
    manifest.unlink()  # as if the other machine had not seen it yet
    bucket.push_stage(there, "train", "d1")
    third = Workspace(tmp_path / "third")
    third.create()
    bucket.fetch_stage(third, "train", "d1")
    assert (third.folder("train", "d1") / "model" / "model.safetensors").read_text() == "from there"
    manifest.write_text(kept)  # whichever manifest was last, its own files are there
    fourth = Workspace(tmp_path / "fourth")
    fourth.create()
    bucket.fetch_stage(fourth, "train", "d1")
    assert (fourth.folder("train", "d1") / "model" / "model.safetensors").read_text() == "from here"


# Sends a stage and dies when it opens the hundredth part of its model.
PUSH = """
import os, signal, sys
from pathlib import Path
from nsd.runner.store.workspace import Workspace
from nsd.runner.store.bucket import Bucket
from nsd.runner.store.shapes import Manifest
opened = set()
def watch(event, given):
    if event == "open" and "part-" in str(given[0]):
        opened.add(given[0])
        if len(opened) == 100:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(watch)
Bucket.open(sys.argv[2]).push_stage(Workspace(Path(sys.argv[1])), "train", "d1")
"""


def test_a_machine_that_dies_while_sending_leaves_no_stage(here: Workspace, there: Workspace, bucket: Bucket) -> None:
    finished(here)
    model = here.folder("train", "d1") / "model"
    for number in range(120):
        (model / f"part-{number}").write_bytes(os.urandom(1000))
    done = subprocess.run([sys.executable, "-c", PUSH, str(here.root), bucket.uri])
    assert done.returncode == -signal.SIGKILL
    sent = list((Path(bucket.root) / "files").rglob("part-*"))
    assert 99 <= len(sent) < 120 and bucket.stages() == []
    assert not bucket.fetch_stage(there, "train", "d1") and not there.is_whole("train", "d1")
    bucket.push_stage(here, "train", "d1")
    assert bucket.fetch_stage(there, "train", "d1")


def test_a_torn_object_is_not_taken(here: Workspace, there: Workspace, bucket: Bucket) -> None:
    finished(here)
    bucket.push_stage(here, "train", "d1")
    (path,) = Path(bucket.root).rglob("model.safetensors")
    path.write_text("wei")
    with pytest.raises(BucketError, match=r"model.safetensors has 3 bytes where 7 were written"):
        bucket.fetch_stage(there, "train", "d1")
    assert not there.is_whole("train", "d1")


def test_a_broken_stage_in_the_store_gives_way_to_a_whole_one(
    here: Workspace, there: Workspace, bucket: Bucket
) -> None:
    finished(here)
    bucket.push_stage(here, "train", "d1")
    (manifest,) = Path(bucket.root).rglob("train-d1.json")
    manifest.write_text("{")
    assert bucket.push_stage(here, "train", "d1")
    assert bucket.fetch_stage(there, "train", "d1") and there.has_weights("d1")


def under_way(workspace: Workspace, steps: int) -> None:
    """A training with one whole checkpoint per step and a half-written one after them."""
    partial = workspace.partial("train", "d2")
    for step in range(1, steps + 2):
        folder = partial / "checkpoints" / f"checkpoint-{step}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.safetensors").write_text(f"step {step}")
        if step <= steps:
            _checkpoints.finish(folder, Marker(step, 10, 1, 4))
    (partial / "begun.json").write_text("{}")
    (partial / "curves.jsonl").write_text('{"step": 1}\n' * steps)


def test_another_machine_continues_from_the_newest_whole_checkpoint(
    here: Workspace, there: Workspace, bucket: Bucket
) -> None:
    under_way(here, steps=2)
    bucket.push_partial(here, "train", "d2")
    assert bucket.fetch_partial(there, "train", "d2")
    checkpoints = [path.name for path in (there.partial("train", "d2") / "checkpoints").iterdir()]
    assert checkpoints == ["checkpoint-2"]
    assert (there.partial("train", "d2") / "curves.jsonl").read_text().count("\n") == 2


def test_what_a_machine_has_itself_is_not_replaced(here: Workspace, there: Workspace, bucket: Bucket) -> None:
    under_way(here, steps=2)
    bucket.push_partial(here, "train", "d2")
    under_way(there, steps=5)
    assert not bucket.fetch_partial(there, "train", "d2")
    assert (there.partial("train", "d2") / "checkpoints" / "checkpoint-5").is_dir()


@pytest.mark.parametrize("removed", ["", "checkpoints", "checkpoints/checkpoint-2/model.safetensors"])
def test_what_was_sent_stays_when_a_machine_loses_its_files(
    here: Workspace, there: Workspace, bucket: Bucket, removed: str
) -> None:
    """A cluster that takes a machine away removes its home while the run there still saves and sends."""
    under_way(here, steps=2)
    bucket.push_partial(here, "train", "d2")
    path = here.partial("train", "d2") / removed
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    bucket.push_partial(here, "train", "d2")
    assert bucket.fetch_partial(there, "train", "d2")
    ((path, marker),) = _checkpoints.whole(there.partial("train", "d2") / "checkpoints")
    assert marker.step == 2 and (path / "model.safetensors").read_text() == "step 2"
    assert (there.partial("train", "d2") / "curves.jsonl").read_text().count("\n") == 2


def test_shards_that_were_sent_stay_when_a_machine_loses_them(
    here: Workspace, there: Workspace, bucket: Bucket
) -> None:
    shards = here.partial("sample", "d3") / "shards"
    shards.mkdir(parents=True)
    for number in range(2):
        (shards / f"00000{number}.parquet").write_text(f"shard {number}")
        bucket.push_partial(here, "sample", "d3")
    (shards / "000000.parquet").unlink()
    bucket.push_partial(here, "sample", "d3")
    assert bucket.fetch_partial(there, "sample", "d3")
    assert len(list((there.partial("sample", "d3") / "shards").iterdir())) == 2


def test_finishing_forgets_the_state_under_way(here: Workspace, bucket: Bucket) -> None:
    with here.lock("train", "d1"):
        pass
    (here.partial("train", "d1") / "begun.json").write_text("{}")
    bucket.push_partial(here, "train", "d1")
    finished(here)
    bucket.push_stage(here, "train", "d1")
    assert not (Path(bucket.root) / "partial" / "train-d1").exists()


@pytest.mark.parametrize("uri", ["ftp://somewhere", "bucket", "file://relative/folder"])
def test_an_address_of_another_kind_is_an_error(uri: str) -> None:
    with pytest.raises(InputError, match="store"):
        Bucket.open(uri)


def test_a_store_that_refuses_says_which(here: Workspace, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    finished(here)
    with pytest.raises(BucketError, match="taken"):
        Bucket.open(f"file://{tmp_path / 'taken'}").push_stage(here, "train", "d1")
