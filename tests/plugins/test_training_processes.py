"""Training in processes of its own: killed with SIGKILL at chosen moments, and shared by two processes."""

from __future__ import annotations

import json
import random
import signal
from pathlib import Path
from typing import Any

import pytest

from several_processes import GRPO, SFT, finish, log_of, start, write_job
from tiny_model import make_tiny_model
from training_job import weights_hash

LORA = {"rank": 2, "alpha": 8}

RLOO = {name: value for name, value in GRPO.items() if name != "save_every"}

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


def kill_at(path: Path, moment: str, count: int) -> None:
    """Start the job and have it killed at its `count`-th report, or change of a checkpoint's file."""
    job = json.loads(path.read_text())
    path.write_text(json.dumps(job | {"die": {"at": moment, "after": count}}))
    done = start(path, 1)
    assert done.returncode == -signal.SIGKILL, done.stderr[-3000:]
    path.write_text(json.dumps(job))


@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
@pytest.mark.parametrize(("kind", "config"), [("sft", SFT), ("grpo", GRPO)], ids=["sft", "grpo"])
def test_killed_at_any_moment_ends_in_the_same_weights(
    model: Path, tmp_path: Path, kind: str, config: dict[str, Any], lora: dict[str, Any] | None
) -> None:
    whole = write_job(tmp_path / "whole", model, kind, config, count=10, lora=lora)
    finish(whole)
    killed = write_job(tmp_path / "killed", model, kind, config, count=10, lora=lora)
    chance = random.Random(f"{kind} {lora}")
    for moment in ("report", "file", "file", "report"):
        kill_at(killed, moment, chance.randint(2, 6 if moment == "report" else 40))
    finish(killed)
    assert weights_hash(tmp_path / "killed" / "weights") == weights_hash(tmp_path / "whole" / "weights")
    [end_whole], [end_killed] = (
        [line for line in log_of(tmp_path / name) if "result" in line] for name in ("whole", "killed")
    )
    assert end_killed["tokens"] == end_whole["tokens"]
    assert end_killed["notes"]["resumed_from"] is not None
    # Whatever a step reported before and after a kill, it was the same training.
    loss = {line["step"]: line["loss"] for line in log_of(tmp_path / "whole") if "loss" in line}
    assert all(line["loss"] == loss[line["step"]] for line in log_of(tmp_path / "killed") if "loss" in line)


@pytest.mark.parametrize(
    ("kind", "config", "count"),
    [
        # Nine rows in batches of four: the last one has a row for one process and none for the other.
        ("sft", SFT | {"epochs": 2, "max_length": 24}, 9),
        ("sft", SFT | {"epochs": 2, "max_length": 24, "group_by_length": True}, 9),
        ("grpo", GRPO | {"steps": 6}, 12),
    ],
    ids=["sft", "by length", "grpo"],
)
def test_two_processes_share_a_step_and_one_reports(
    model: Path, tmp_path: Path, kind: str, config: dict[str, Any], count: int
) -> None:
    from safetensors.torch import load_file

    single = write_job(tmp_path / "single", model, kind, config, count=count)
    finish(single)
    first = write_job(tmp_path / "first", model, kind, config, count=count)
    finish(first, processes=2)
    again = write_job(tmp_path / "again", model, kind, config, count=count)
    finish(again, processes=2)
    assert weights_hash(tmp_path / "again" / "weights") == weights_hash(tmp_path / "first" / "weights")
    steps = [line["step"] for line in log_of(tmp_path / "first") if "loss" in line]
    assert steps == list(range(1, 7))
    assert [set(line) & {"loss", "warning"} for line in log_of(tmp_path / "first", rank=1)] == [set()]
    [end] = [line for line in log_of(tmp_path / "first") if "result" in line]
    assert end["notes"]["processes"] == 2
    assert [line["field"] for line in log_of(tmp_path / "first") if "warning" in line] == (
        ["trainer.max_length"] if kind == "sft" else []
    )
    if kind == "sft":
        # The batch of a step is the same global one, so the two runs differ by rounding alone.
        ours, alone = (load_file(tmp_path / name / "weights" / "model.safetensors") for name in ("first", "single"))
        assert max((ours[name] - alone[name]).abs().max().item() for name in alone) < 1e-4
        losses = [[line["loss"] for line in log_of(tmp_path / name) if "loss" in line] for name in ("first", "single")]
        assert losses[0] == pytest.approx(losses[1], rel=1e-4)
        [other] = [line for line in log_of(tmp_path / "single") if "result" in line]
        assert end["tokens"] == other["tokens"]


@pytest.mark.parametrize(
    ("kind", "config", "count", "stop_after"),
    [("grpo", GRPO | {"steps": 6}, 12, 3), ("sft", SFT | {"epochs": 3}, 9, 4)],  # sft: within its second epoch
    ids=["grpo", "sft"],
)
def test_two_processes_stop_and_resume_exactly(
    model: Path, tmp_path: Path, kind: str, config: dict[str, Any], count: int, stop_after: int
) -> None:
    whole = write_job(tmp_path / "whole", model, kind, config, count=count)
    finish(whole, processes=2)
    stopped = write_job(tmp_path / "stopped", model, kind, config, count=count, stop_after=stop_after)
    assert start(stopped, 2).returncode != 0
    assert (tmp_path / "stopped" / "checkpoints" / "checkpoint-4" / "nsd.json").exists()
    stopped.write_text(json.dumps(json.loads(stopped.read_text()) | {"stop_after": None}))
    finish(stopped, processes=2)
    assert weights_hash(tmp_path / "stopped" / "weights") == weights_hash(tmp_path / "whole" / "weights")


@pytest.mark.parametrize("moment", ["report", "file"])
def test_killed_at_any_moment_a_watched_training_leaves_the_same_best_weights(
    model: Path, tmp_path: Path, moment: str
) -> None:
    config = SFT | {"epochs": 3, "learning_rate": 1e-2, "save_every": 2}
    watched = {"validation": {"every": 1, "keep": "best"}}
    whole = write_job(tmp_path / "whole", model, "sft", config, **watched)
    finish(whole)
    killed = write_job(tmp_path / "killed", model, "sft", config, **watched)
    chance = random.Random(f"watched {moment}")
    for _ in range(3):
        kill_at(killed, moment, chance.randint(2, 5 if moment == "report" else 40))
    finish(killed)
    assert weights_hash(tmp_path / "killed" / "weights") == weights_hash(tmp_path / "whole" / "weights")
    ends = [next(line for line in log_of(tmp_path / name) if "result" in line) for name in ("whole", "killed")]
    assert ends[0]["notes"]["validation"] == ends[1]["notes"]["validation"]
    assert 0 < ends[0]["notes"]["validation"]["kept_step"] < 9


def test_two_processes_share_the_questions_of_a_validation(model: Path, tmp_path: Path) -> None:
    config = SFT | {"epochs": 2, "learning_rate": 1e-2}
    for name, processes in (("one", 1), ("two", 2)):
        watched = {"validation": {"every": 2, "keep": "best"}, "budget": {"steps": 3}}
        finish(write_job(tmp_path / name, model, "sft", config, **watched), processes)
    points = [
        [(line["step"], line["validation/avg@4"]) for line in log_of(tmp_path / name) if "validation/avg@4" in line]
        for name in ("one", "two")
    ]
    assert [step for step, _ in points[0]] == [0, 2, 3]
    # The steps of two processes differ from one's by rounding, which moves no draw here.
    assert points[0] == points[1]
    ends = [next(line for line in log_of(tmp_path / name) if "result" in line) for name in ("one", "two")]
    assert ends[0]["notes"]["validation"] == ends[1]["notes"]["validation"]
    assert not [line for line in log_of(tmp_path / "two", rank=1) if "validation/avg@4" in line]
    for rank in (0, 1):
        [end] = [line for line in log_of(tmp_path / "two", rank=rank) if "result" in line]
        assert end["notes"]["validation"] == ends[0]["notes"]["validation"]


def test_two_processes_end_with_the_seconds_of_the_first(model: Path, tmp_path: Path) -> None:
    path = write_job(tmp_path / "timed", model, "rloo", RLOO, budget={"seconds": 1.5})
    finish(path, processes=2)
    ends = [next(line for line in log_of(tmp_path / "timed", rank) if "result" in line) for rank in (0, 1)]
    assert ends[0]["result"] == ends[1]["result"] > 1
    assert ends[0]["notes"]["seconds"] >= 1.5


def test_a_batch_that_processes_cannot_share_is_an_error(model: Path, tmp_path: Path) -> None:
    path = write_job(tmp_path / "odd", model, "sft", SFT | {"batch_size": 3})
    done = start(path, 2)
    assert done.returncode != 0
    assert "trainer.batch_size gives 3 rows a step, which 2 processes cannot share evenly" in done.stderr
