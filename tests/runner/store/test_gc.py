"""`nsd gc` in a workspace on disk: what it takes, what it leaves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nsd.plugins.errors import InputError
from nsd.runner.store.bucket import Bucket
from nsd.runner.store.gc import collect, human_bytes
from nsd.runner.store.shapes import Manifest
from nsd.runner.store.workspace import Workspace


def whole(workspace: Workspace, kind: str, digest: str) -> Path:
    """A finished stage; a train stage has a model of a thousand bytes."""
    with workspace.lock(kind, digest) as partial:
        (partial / "artifact" / "model").mkdir(parents=True)
        (partial / "artifact" / "model" / "model.safetensors").write_bytes(b"w" * 1000)
        workspace.commit(kind, digest, Manifest(kind=kind, digest=digest, used_by=[f"{digest}/seed1"]))
    return workspace.folder(kind, digest)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """Of two runs one is unfinished: its teacher and itself are needed, as is what a repeat still owed needs."""
    (made := Workspace(tmp_path / "workspace")).create()
    for digest in ("done", "teacher", "student", "again"):
        whole(made, "train", digest)
    whole(made, "eval", "e-done")
    whole(made, "eval", "e-again")
    runs = [
        {"eval_digest": "e-done", "needs": ["done"], "repeats": []},
        {"eval_digest": "e-student", "needs": ["teacher", "student"]},
        {
            "eval_digest": "e-again",
            "needs": [],
            "repeats": [{"repeat": 1, "eval_digest": "e-again2", "needs": ["again"]}],
        },
    ]
    record = made.record_path("toy", "spec")
    record.parent.mkdir(parents=True)
    whole_runs = [
        {
            "run": f"toy/{n}",
            "condition": "c",
            "seed": n,
            "status": "pending",
            "train_digest": None,
            "label_digest": None,
            **run,
        }
        for n, run in enumerate(runs)
    ]
    said = {"question": None, "spec_yaml": "", "resolved": {}, "hypotheses": None, "recorded_at": "2026-01-01T00:00:00"}
    record.write_text(json.dumps({"experiment": "toy", "spec_digest": "spec", **said, "runs": whole_runs}))
    return made


def kept(workspace: Workspace) -> list[str]:
    return [manifest.digest for manifest in workspace.manifests("train") if workspace.has_weights(manifest.digest)]


def test_weights_that_an_unfinished_run_or_repeat_needs_are_kept(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    collect(workspace, yes=True, partial=None)
    assert kept(workspace) == ["again", "student", "teacher"]
    # Everything else of the finished stage stays.
    assert workspace.is_whole("train", "done") and workspace.is_whole("eval", "e-done")
    assert capsys.readouterr().out == "    1.0 kB  weights of done/seed1 (done)\ndeleted 1 folders, 1.0 kB\n"
    collect(workspace, yes=True, partial=None)
    assert "nothing to delete" in capsys.readouterr().out and kept(workspace) == ["again", "student", "teacher"]


def test_nothing_goes_while_a_broken_record_hides_what_is_needed(workspace: Workspace) -> None:
    workspace.record_path("toy", "spec").write_text("{")
    for _ in range(2):  # when it is found broken, and ever after
        with pytest.raises(InputError, match=r"set-aside/experiments-toy-spec\.json is a broken record"):
            collect(workspace, yes=True, partial=None)
    assert kept(workspace) == ["again", "done", "student", "teacher"]


def test_nothing_goes_without_a_yes(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", (workspace.root / "answer").open("w+"))
    (workspace.root / "answer").write_text("n\n")
    collect(workspace, yes=False, partial=None)
    assert kept(workspace) == ["again", "done", "student", "teacher"]


def test_what_a_killed_deletion_left_goes_too(workspace: Workspace) -> None:
    left = workspace.partials / ".removed-0123"
    left.mkdir()
    (left / "model.safetensors").write_bytes(b"w")
    collect(workspace, yes=True, partial=None)
    assert not left.exists()


def test_a_half_done_stage_goes_alone_and_must_be_the_only_one_meant(workspace: Workspace) -> None:
    for digest in ("ab1", "ab2"):
        workspace.partial("train", digest).mkdir(parents=True)
    for meant, found in (("ab", 2), ("zz", 0)):
        with pytest.raises(InputError, match=f"{found} half-done stages match '{meant}'"):
            collect(workspace, yes=True, partial=meant)
    collect(workspace, yes=True, partial="ab1")
    assert not workspace.partial("train", "ab1").exists() and workspace.partial("train", "ab2").is_dir()
    assert len(kept(workspace)) == 4


def under_way(workspace: Workspace, digest: str) -> None:
    shards = workspace.partial("sample", digest) / "shards"
    shards.mkdir(parents=True)
    (shards / "000000.parquet").write_bytes(b"s" * 1000)


def test_a_half_done_stage_goes_in_the_store_too(
    workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bucket = Bucket.open(f"file://{tmp_path / 'store'}")
    for digest in ("ab1", "ab2", "cd"):
        under_way(workspace, digest)
        bucket.push_partial(workspace, "sample", digest)
    assert bucket.partials().keys() == {"sample-ab1", "sample-ab2", "sample-cd"}
    collect(workspace, yes=True, partial="ab1", store=bucket.uri)
    said = capsys.readouterr().out
    assert f"half-done stage sample-ab1 in {bucket.uri}\n    1.0 kB  half-done stage sample-ab1\n" in said
    assert not bucket.fetch_partial(workspace, "sample", "ab1") and bucket.partials().keys() == {
        "sample-ab2",
        "sample-cd",
    }


def test_a_half_done_stage_that_another_machine_left_in_the_store_can_go_from_here(
    workspace: Workspace, tmp_path: Path
) -> None:
    bucket, there = Bucket.open(f"file://{tmp_path / 'store'}"), Workspace(tmp_path / "there")
    under_way(there, "ab1")
    bucket.push_partial(there, "sample", "ab1")
    under_way(workspace, "ab2")
    with pytest.raises(InputError, match=rf"2 half-done stages match 'ab' in .* and {bucket.uri}"):
        collect(workspace, yes=True, partial="ab", store=bucket.uri)
    collect(workspace, yes=True, partial="ab1", store=bucket.uri)
    assert bucket.partials() == {} and workspace.partial("sample", "ab2").is_dir()


@pytest.mark.parametrize(
    ("count", "said"),
    [(999, "999 bytes"), (1000, "1.0 kB"), (1_250_000, "1.2 MB"), (2e9, "2.0 GB"), (3e12, "3.0 TB")],
)
def test_sizes_for_people(count: float, said: str) -> None:
    assert human_bytes(count) == said
