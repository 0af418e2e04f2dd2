"""A run with an S3 bucket (moto's, over the real protocol): written, taken home, and whole whatever dies."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from pyarrow import fs

from cluster.commands import Command, nsd, project, results
from cluster.one_machine.bucket import Service
from e2e import command_line
from e2e.command_line import TINY_SPEC
from nsd.runner.store.bucket import Bucket


@pytest.fixture
def caller(bucket: Service) -> dict[str, str]:
    """The environment of a command that reaches the bucket."""
    return {**command_line.environment(), **bucket.environment, "NSD_PUSH_SECONDS": "0.2"}


def test_a_run_with_a_bucket_comes_home_and_is_indexed(bucket: Service, caller: dict[str, str], tmp_path: Path) -> None:
    store = bucket.create("whole") + "/study"
    first = project(tmp_path / "first", TINY_SPEC)
    nsd(first, caller, "run", "spec.yaml", "--store", store)
    second = project(tmp_path / "second", TINY_SPEC)
    nsd(second, caller, "run", "spec.yaml", "--store", store)
    assert results(second / "nsd-workspace") == results(first / "nsd-workspace")
    assert not list((second / "nsd-workspace").rglob("*.safetensors"))
    runs = [nsd(folder, caller, "compare", "spec.yaml", "-f", "csv") for folder in (first, second)]
    assert runs[0] == runs[1] and "student" in runs[0]


def test_a_run_killed_while_it_sends_leaves_no_stage_that_is_not_whole(
    bucket: Service, caller: dict[str, str], tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = bucket.create("killed") + "/study"
    for name, value in bucket.environment.items():
        monkeypatch.setenv(name, value)
    seen = Bucket.open(store)

    def sending() -> bool:
        """Whether files of the trained model are there, and not yet the manifest that makes them a stage."""
        files = fs.FileSelector(f"{seen.root}/files", recursive=True, allow_not_found=True)
        there = [info.path for info in seen.filesystem.get_file_info(files) if "/train-" in info.path]
        return bool(there) and not any(kind == "train" for kind, _ in seen.stages())

    folder = project(tmp_path / "first", TINY_SPEC)
    command = Command(folder, caller, "run", "spec.yaml", "--store", store)
    command.until(lambda: list(folder.glob("nsd-workspace/artifacts/train-*")), pause=0.01)  # it is sent after that
    command.until(sending, pause=0.0)
    os.killpg(command.process.pid, signal.SIGKILL)
    command.process.wait()
    assert sending()
    second = project(tmp_path / "second", TINY_SPEC)
    nsd(second, caller, "run", "spec.yaml", "--store", store)
    assert results(second / "nsd-workspace") == results(tiny)
    assert len(seen.stages()) == 10
