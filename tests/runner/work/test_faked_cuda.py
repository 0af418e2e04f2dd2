"""The TRL arguments that a training gets on the machines that people have, on record, though none is here.

NSD_UPDATE_GOLDEN=1 pytest tests/runner/work/test_faked_cuda.py      # write them anew, then read the diff
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support import PATIENCE, REPOSITORY

GOLDEN = Path(__file__).parents[1] / "golden" / "trl_arguments.json"
SCRIPT = Path(__file__).with_name("faked_cuda.py")


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """In a process of its own: accelerate's state and the process group are one for all of a process."""
    places = [str(REPOSITORY), str(REPOSITORY / "tests"), str(SCRIPT.parent)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, str(SCRIPT)], capture_output=True, text=True, timeout=PATIENCE, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    arguments: dict[str, Any] = json.loads(done.stdout)
    return arguments


@pytest.mark.slow
def test_the_arguments_of_each_machine_are_those_on_record(found: dict[str, Any]) -> None:
    if os.environ.get("NSD_UPDATE_GOLDEN"):
        GOLDEN.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    recorded = json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert set(found) == set(recorded)
    for name, specs in found.items():
        assert specs == recorded[name], name


@pytest.mark.slow
def test_on_every_machine_a_step_sees_the_rows_that_the_spec_says(found: dict[str, Any]) -> None:
    for name, specs in found.items():
        for spec, rows in (("v1_sft", 4), ("v4_grpo", 8)):
            args = specs[spec]
            each = args["per_device_train_batch_size"] * args["gradient_accumulation_steps"]
            assert each * args["world_size"] == rows, (name, spec)
            assert args["n_gpu"] <= 1, f"{name}: more GPUs in one process would be DataParallel"
