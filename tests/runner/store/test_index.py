"""What single planted faults in store and provenance got past."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nsd.runner.store import provenance, tables
from nsd.runner.store.bucket import Bucket
from nsd.runner.store.index import IndexDamaged, again
from nsd.runner.store.shapes import Broken, Manifest
from nsd.runner.store.stored import side_files_of
from nsd.runner.store.workspace import Workspace


def finished(workspace: Workspace, digest: str) -> None:
    with workspace.lock("label", digest) as partial:
        (partial / "artifact").mkdir(parents=True)
        (partial / "artifact" / "labels.parquet").write_text("labels")
        workspace.commit("label", digest, Manifest(kind="label", digest=digest))


@pytest.mark.parametrize(
    ("uri", "kind", "root"),
    [
        ("s3://results/runs/?region=eu-west-1", "s3", "results/runs"),
        ("gs://anonymous@results/runs/", "gcs", "results/runs"),
    ],
)
def test_a_cloud_address_opens_that_cloud_at_that_folder(
    uri: str, kind: str, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    bucket = Bucket.open(uri)  # opening asks nobody
    assert (bucket.filesystem.type_name, bucket.root, bucket.uri) == (kind, root, uri)


def test_fetching_what_is_here_already_says_that_it_is_here(here: Workspace, bucket: Bucket) -> None:
    finished(here, "d1")
    bucket.push_stage(here, "label", "d1")
    written = here.folder("label", "d1").stat().st_ino
    assert bucket.fetch_stage(here, "label", "d1") is True
    assert here.folder("label", "d1").stat().st_ino == written
    assert bucket.fetch_stage(here, "label", "d2") is False


def test_only_missing_records_of_an_experiment_are_brought(bucket: Bucket, here: Workspace) -> None:
    there = Path(bucket.root) / "experiments" / "toy"
    there.mkdir(parents=True)
    fields = {"experiment": "toy", "spec_yaml": "", "resolved": {}, "hypotheses": None, "runs": []}

    def record(digest: str, question: str) -> str:
        return json.dumps({**fields, "spec_digest": digest, "question": question, "recorded_at": "2026-01-01T00:00:00"})

    for digest in ("one", "two"):
        (there / f"{digest}.json").write_text(record(digest, "theirs"))
    here.record_path("toy", "one").parent.mkdir(parents=True)
    here.record_path("toy", "one").write_text(record("one", "mine"))
    bucket.fetch_records(here, "toy", say=pytest.fail)
    assert {one.spec_digest: one.question for one in here.records()} == {"one": "mine", "two": "theirs"}


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory is a repository with one commit of one file, `code.py`."""
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        (tmp_path / "code.py").write_text("before\n")
        identity = ["-c", "user.name=toy", "-c", "user.email=toy@example.org"]
        subprocess.run(["git", *identity, *command], cwd=tmp_path, check=True)
    monkeypatch.chdir(tmp_path)
    provenance.git_state.cache_clear()
    yield tmp_path
    provenance.git_state.cache_clear()


def test_the_commit_and_what_is_not_committed_are_recorded(repository: Path) -> None:
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    assert provenance.git_state() == {"commit": head, "diff": None}
    (repository / "code.py").write_text("after\n")
    provenance.git_state.cache_clear()
    diff = provenance.git_state()["diff"]
    assert diff is not None and "-before\n+after\n" in diff


def test_a_package_that_is_not_installed_hides_none_behind_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "PACKAGES", ("no-such-package", "duckdb"))
    provenance.packages.cache_clear()
    try:
        assert set(provenance.packages()) == {"python", "duckdb"}
    finally:
        provenance.packages.cache_clear()


def test_the_machine_says_how_many_threads_torch_takes() -> None:
    torch = pytest.importorskip("torch")
    assert provenance.machine().to_json()["torch_threads"] == torch.get_num_threads()


def test_a_file_without_questions_is_broken_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "questions.parquet"
    pq.write_table(pa.table({"id": ["q"], "meta": ["{}"], "unknown": ["x"]}), path)
    with pytest.raises(Broken, match="it holds no questions") as raised:
        tables.read_questions(path)
    assert raised.value.path == path


def test_side_files_that_are_none_make_the_questions_broken(tmp_path: Path) -> None:
    path = tmp_path / "questions.parquet"
    pq.write_table(pa.table({"id": ["q"], "side_files": ["[1]"]}), path)
    with pytest.raises(Broken, match="it holds no questions") as raised:
        list(side_files_of(path))
    assert raised.value.path == path


def test_a_damaged_index_is_told_and_the_second_try_counts(capsys: pytest.CaptureFixture[str]) -> None:
    tries = iter([IndexDamaged("index.duckdb was damaged and is made again"), "rows"])

    def ask() -> str:
        found = next(tries)
        if isinstance(found, IndexDamaged):
            raise found
        return str(found)

    assert again(ask) == "rows"
    assert capsys.readouterr().err == "nsd: index.duckdb was damaged and is made again\n"


def test_a_stage_goes_on_with_another_numpy_and_not_with_another_torch() -> None:
    there = {"nsd": "1", "torch": "2.13.0", "transformers": "5", "trl": "1", "peft": "0", "numpy": "2", "duckdb": "1"}
    assert provenance.shaping(there) == {"torch": "2.13.0", "transformers": "5", "trl": "1", "peft": "0"}


@pytest.mark.parametrize(
    ("world", "local", "count"), [(None, None, 1), ("8", "4", 2), ("4", "8", 1), ("8", "0", 1), ("x", "1", 1)]
)
def test_machines_are_counted_by_their_processes(
    world: str | None, local: str | None, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("WORLD_SIZE", world), ("LOCAL_WORLD_SIZE", local)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    assert repr(provenance.machines()) == str(count)


@pytest.mark.parametrize("columns", [{"stop_reason": ["asleep"]}, {"unknown": ["x"]}, None])
def test_a_file_without_rollouts_is_broken_by_its_name(tmp_path: Path, columns: dict[str, list[str]] | None) -> None:
    path = tmp_path / "rollouts.parquet"
    path.write_bytes(b"PAR1")
    if columns is not None:
        pq.write_table(pa.table(columns), path)
    with pytest.raises(Broken, match="it holds no rollouts") as raised:
        list(tables.read_rollouts(path))
    assert raised.value.path == path


def test_a_manifest_without_files_names_none() -> None:
    made = Manifest(kind="eval", digest="e")
    assert (made.files, made.sha256, made.shared, made.imported, made.events) == ({}, {}, {}, [], [])
