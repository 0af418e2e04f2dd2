"""Names from a manifest, a store, a record or a file never lead out of their folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nsd.plugins.errors import NsdError
from nsd.plugins.paths import UnsafeName, inside, part
from nsd.runner.plan.model import Plan
from nsd.runner.store.bucket import BrokenThere, Bucket, BucketError
from nsd.runner.store.shapes import Manifest
from nsd.runner.store.workspace import Workspace

HOSTILE = (
    "../x",
    "a/../../x",
    "/etc/x",
    "..",
    ".",
    "",
    "a//b",
    "a/./b",
    "a\x00b",
    "a\nb",
    "..\\x",
    "a\\..\\..\\x",
    "C:/x",
    "c:x",
    "x" * 256,
    "a/",
)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_that_could_lead_out_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UnsafeName):
        inside(tmp_path, name)


@pytest.mark.parametrize("name", ["model.safetensors", "model/a b.json", ".hidden", "..x", "ä/ö", "a-1:2"])
def test_a_plain_name_is_taken(tmp_path: Path, name: str) -> None:
    assert inside(tmp_path, name) == tmp_path / name


@settings(deadline=None)
@given(st.lists(st.sampled_from(["a", "..", ".", "", "/", "\\", "b:", "\x00", "x.y"]), max_size=5).map("/".join))
def test_whatever_is_taken_lies_inside(name: str) -> None:
    root = Path("/nowhere/root")
    try:
        found = inside(root, name)
    except UnsafeName:
        return
    assert found.resolve().is_relative_to(root) and found != root


@pytest.mark.parametrize("name", [3, None, b"x", ["x"]])
def test_what_is_no_text_is_no_name(name: object) -> None:
    with pytest.raises(UnsafeName):
        part(name)


def test_a_link_that_leads_out_is_refused_and_one_that_stays_is_not(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "real").mkdir(parents=True)
    (root / "out").symlink_to(tmp_path)
    (root / "within").symlink_to(root / "real")
    with pytest.raises(UnsafeName):
        inside(root, "out/x")
    assert inside(root, "within/x") == root / "within" / "x"


@pytest.mark.parametrize("bad", ["../x", "/x", "a/b", "a\\b", "a\x00"])
def test_no_part_of_a_workspace_has_a_path_outside(tmp_path: Path, bad: str) -> None:
    workspace = Workspace(tmp_path)
    for make in (
        lambda: workspace.folder("train", bad),
        lambda: workspace.folder(bad, "d"),
        lambda: workspace.partial("train", bad),
        lambda: workspace.data_file(bad),
        lambda: workspace.outcome_path(bad),
        lambda: workspace.record_path(bad, "d"),
        lambda: workspace.record_path("e", bad),
    ):
        with pytest.raises(UnsafeName):
            make()


def everything_outside(root: Path, *inside_of: Path) -> dict[str, str]:
    return {
        str(path): path.read_text(errors="replace")
        for path in root.rglob("*")
        if path.is_file() and not any(path.is_relative_to(one) for one in inside_of)
    }


def in_store(bucket: Bucket, name: str, content: str) -> None:
    path = Path(bucket.root) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


@pytest.mark.parametrize("name", ["../../../x", "/tmp/nsd-x", "model/../../../../x", "..\\x", "a\x00"])
def test_a_stores_manifest_writes_nothing_outside(tmp_path: Path, here: Workspace, bucket: Bucket, name: str) -> None:
    manifest = {"kind": "train", "digest": "d1", "upload": "u", "files": {name: 1}}
    in_store(bucket, "manifests/train-d1.json", json.dumps(manifest))
    in_store(bucket, "files/train-d1/u/x", "x")
    in_store(bucket, "x", "x")
    before = everything_outside(tmp_path, here.root)
    with pytest.raises(BrokenThere, match=r"train-d1\.json"):
        bucket.fetch_stage(here, "train", "d1")
    assert everything_outside(tmp_path, here.root) == before and not here.is_whole("train", "d1")


@pytest.mark.parametrize(
    "change", [{"upload": "../../x"}, {"kind": "eval"}, {"digest": "../d1"}, {"files": [1]}, {"files": {"a": "b"}}]
)
def test_a_stores_manifest_of_another_shape_is_named(
    here: Workspace, bucket: Bucket, change: dict[str, object]
) -> None:
    manifest = {"kind": "train", "digest": "d1", "upload": "u", "files": {}, **change}
    in_store(bucket, "manifests/train-d1.json", json.dumps(manifest))
    with pytest.raises(BrokenThere, match=r"train-d1\.json"):
        bucket.fetch_stage(here, "train", "d1")


@pytest.mark.parametrize(
    "state",
    [
        {"files": {"../../../x": 1}, "texts": {}},
        {"files": {"artifact/manifest.json": 1}, "texts": {}},
        {"files": {}, "texts": {"../x": "text"}},
        {"files": {}, "texts": {"job.json": "{}"}},
        {"files": [], "texts": {}},
        [],
    ],
)
def test_a_stores_state_of_a_stage_under_way_brings_only_what_one_has(
    tmp_path: Path, here: Workspace, bucket: Bucket, state: object
) -> None:
    in_store(bucket, "partial/train-d1/state.json", json.dumps(state))
    in_store(bucket, "partial/train-d1/files/artifact/manifest.json", "x")
    before = everything_outside(tmp_path)
    with pytest.raises(NsdError):
        bucket.fetch_partial(here, "train", "d1")
    after = everything_outside(tmp_path)
    assert {path for path in after if not path.endswith("/lock")} == set(before)


def test_nothing_is_read_or_written_through_a_link_that_leads_out_of_a_store(
    tmp_path: Path, here: Workspace, bucket: Bucket
) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").write_text("secret")
    Path(bucket.root).mkdir()
    for name in ("data", "files", "partial"):
        (Path(bucket.root) / name).symlink_to(secret)
    with pytest.raises(BucketError, match="leads out of"):
        bucket.fetch_file("data/key", here.data / "key")
    with pytest.raises(BucketError, match="leads out of"):
        bucket.push_file(secret / "key", "data/pushed")
    assert [path.name for path in secret.iterdir()] == ["key"] and not list(here.data.iterdir())


def test_a_link_in_an_artifact_is_not_sent(tmp_path: Path, here: Workspace, bucket: Bucket) -> None:
    (tmp_path / "key").write_text("secret")
    with here.lock("train", "d1") as partial:
        (partial / "artifact" / "model").mkdir(parents=True)
        (partial / "artifact" / "model" / "weights").write_text("weights")
        (partial / "artifact" / "model" / "link").symlink_to(tmp_path / "key")
        (partial / "artifact" / "folder").symlink_to(tmp_path)
        (partial / "artifact" / "model" / "again").symlink_to(partial / "artifact" / "model" / "weights")
        here.commit("train", "d1", Manifest(kind="train", digest="d1"))
    assert list(here.manifest("train", "d1").to_json()["files"]) == ["model/weights"]
    bucket.push_stage(here, "train", "d1")
    sent = [path for path in Path(bucket.root).rglob("*") if path.is_file()]
    assert sorted(path.name for path in sent) == ["train-d1.json", "weights"]
    assert not any("secret" in path.read_text() for path in sent)


@pytest.mark.parametrize("name", ["values", "model/weights"])
def test_a_copied_stage_whose_file_is_a_link_is_not_taken_over(
    tmp_path: Path, here: Workspace, there: Workspace, plan: Plan, name: str
) -> None:
    from nsd.runner.launch.home import take_over

    (tmp_path / "key").write_text("secret")
    with there.lock("train", "d1") as partial:
        (partial / "artifact" / "model").mkdir(parents=True)
        for file in ("values", "model/weights"):
            (partial / "artifact" / file).write_text("honest")
        there.commit("train", "d1", Manifest(kind="train", digest="d1"))
    path = there.folder("train", "d1") / name
    path.unlink()
    path.symlink_to(tmp_path / "key")
    assert take_over(there, here, plan, weights=True) == []
    assert not here.has_weights("d1") and not any(
        p.read_text() == "secret" for p in here.root.rglob("*") if p.is_file()
    )


def test_changed_content_of_the_same_size_is_not_taken(here: Workspace, there: Workspace, bucket: Bucket) -> None:
    with here.lock("eval", "d1") as partial:
        (partial / "artifact").mkdir()
        (partial / "artifact" / "values").write_text("right")
        here.commit("eval", "d1", Manifest(kind="eval", digest="d1"))
    bucket.push_stage(here, "eval", "d1")
    (sent,) = Path(bucket.root).rglob("values")
    sent.write_text("wrong")
    with pytest.raises(BrokenThere, match="sha256"):
        bucket.fetch_stage(there, "eval", "d1")
    assert not there.is_whole("eval", "d1")
    assert bucket.push_stage(here, "eval", "d1", replace=True) and bucket.fetch_stage(there, "eval", "d1")
