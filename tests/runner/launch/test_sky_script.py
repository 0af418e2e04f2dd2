"""The script that a rented machine runs, with a stand-in for `nsd`: what it is told, its exit code, when it waits.

tests/e2e/test_sky_script.py runs the real one.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import yaml

from support import PATIENCE, REPOSITORY, wait_until

TASK = yaml.safe_load((REPOSITORY / "sky.yaml").read_text())
NSD = """#!/bin/sh
echo "$*" > "$HOME/told"
env | grep -E '^(NSD_|HF_TOKEN|WANDB)' | sort > "$HOME/heard"
exit "${CODE:-0}"
"""


def start(folder: Path, **envs: str) -> subprocess.Popen[str]:
    (folder / "env" / "bin").mkdir(parents=True)
    (folder / "env" / "bin" / "nsd").write_text(NSD)
    (folder / "env" / "bin" / "nsd").chmod(0o755)
    values = {**TASK["envs"], **TASK["secrets"], "SPEC": "spec.yaml", "NSD_ENVIRONMENT": str(folder / "env"), **envs}
    environment = {**os.environ, **values, "HOME": str(folder)}
    return subprocess.Popen(["bash", "-c", TASK["run"]], env=environment, stdout=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    out, _ = process.communicate(timeout=PATIENCE)
    return process.returncode, out


@pytest.mark.parametrize("code", [0, 1, 75])
def test_how_the_run_ended_is_how_the_job_ended(tmp_path: Path, code: int) -> None:
    assert ended(start(tmp_path, CODE=str(code))) == (code, "")
    assert (tmp_path / "nsd-finished").read_text() == f"{code}\n"


def test_the_run_is_told_its_spec_flags_and_settings_and_none_that_is_empty(tmp_path: Path) -> None:
    settings = {"NSD_STORE": "file:///s", "NSD_JOB": "j", "NSD_USD_PER_HOUR": "2", "NSD_PUSH_SECONDS": "3"}
    process = start(tmp_path, NSD_FLAGS="--only a --seed 1", HF_TOKEN="secret", **settings)
    assert ended(process)[0] == 0
    assert (tmp_path / "told").read_text() == "run spec.yaml --only a --seed 1\n"
    told = dict(line.split("=", 1) for line in (tmp_path / "heard").read_text().splitlines())
    assert told | settings == told and told["HF_TOKEN"] == "secret" and "WANDB_API_KEY" not in told
    assert told["NSD_WORKSPACE"] == str(tmp_path / "nsd-workspace")


def test_of_settings_that_are_empty_the_run_hears_nothing(tmp_path: Path) -> None:
    assert ended(start(tmp_path))[0] == 0
    names = {line.partition("=")[0] for line in (tmp_path / "heard").read_text().splitlines()}
    unset = {"NSD_STORE", "NSD_JOB", "NSD_USD_PER_HOUR", "NSD_PUSH_SECONDS", "HF_TOKEN", "WANDB_API_KEY"}
    assert names & unset == set()


def test_after_its_deadline_nothing_is_run(tmp_path: Path) -> None:
    code, out = ended(start(tmp_path, NSD_DEADLINE="1000000000"))
    assert code == 1 and "the time this launch was given is over" in out
    assert not (tmp_path / "told").exists()


@pytest.mark.parametrize("code", [0, 1])
def test_without_a_store_it_waits_for_whoever_fetches(tmp_path: Path, code: int) -> None:
    process = start(tmp_path, CODE=str(code), NSD_KEEP_SECONDS="3600")
    assert process.stdout is not None
    assert process.stdout.readline() == "nsd: waiting for the results to be fetched\n"
    assert (tmp_path / "nsd-finished").exists() and process.poll() is None
    (tmp_path / "nsd-fetched").touch()
    assert wait_until(lambda: process.poll() is not None) and process.returncode == code
    process.stdout.close()


def test_with_a_store_it_does_not_wait(tmp_path: Path) -> None:
    assert ended(start(tmp_path, NSD_KEEP_SECONDS="3600", NSD_STORE="file:///s")) == (0, "")
