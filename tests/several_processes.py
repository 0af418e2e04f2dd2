"""Trainings in processes of their own, one or several, for tests: written down, started, and read again."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import subprocess
from pathlib import Path
from typing import Any

from support import wait_until

SFT = {"batch_size": 4, "epochs": 10, "learning_rate": 1e-3, "save_every": 1}
GRPO = {
    "steps": 24,
    "prompts_per_step": 2,
    "num_generations": 4,
    "max_tokens": 12,
    "learning_rate": 1e-3,
    "rewards": ["test_share_of_vowels"],
    "num_iterations": 2,
    "save_every": 2,
}


def write_job(folder: Path, model: Path, kind: str, config: dict[str, Any], **more: Any) -> Path:
    folder.mkdir(parents=True)
    path = folder / "job.json"
    path.write_text(json.dumps({"folder": str(folder), "model": str(model), "kind": kind, "config": config} | more))
    return path


def log_of(folder: Path, rank: int = 0) -> list[dict[str, Any]]:
    """Whole lines of a process's log; a kill may have torn the last one."""
    path = folder / f"log.{rank}"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return [json.loads(line) for line in lines]


def finish(path: Path, processes: int = 1) -> None:
    done = start(path, processes)
    assert done.returncode == 0, done.stderr[-3000:]


def start(path: Path, processes: int) -> subprocess.CompletedProcess[str]:
    """Run a job to its end, in one process or several; `returncode` is that of the first that fails, -9 after SIGKILL.

    The processes are forked from one that has loaded what a training loads, which is half of what a short one takes.
    Training under `accelerate launch` itself is tested with the workers (test_ranks) and `nsd run` (tests/e2e).
    """
    said, port = path.with_suffix(".said"), _free_port()
    said.unlink(missing_ok=True)
    ranks = [_WARM.Process(target=_train, args=(path, said, rank, processes, port)) for rank in range(processes)]
    for one in ranks:
        one.start()
    try:
        code = wait_until(lambda: _ended([one.exitcode for one in ranks]))[0]
    finally:
        for one in ranks:
            one.kill()  # where one failed the others wait for it
            one.join()
    return subprocess.CompletedProcess([str(path)], code, stdout="", stderr=said.read_text() if said.exists() else "")


def _ended(codes: list[int | None]) -> list[int]:
    """[the first failure's code, or 0] when nothing more is to come, else []."""
    failed = [code for code in codes if code]
    return failed[:1] if failed else [] if None in codes else [0]


def _free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return int(opened.getsockname()[1])


_WARM = multiprocessing.get_context("forkserver")
_WARM.set_forkserver_preload(["training_job", "peft", "trl.trainer.sft_trainer", "trl.trainer.grpo_trainer"])


def _train(path: Path, said: Path, rank: int, processes: int, port: int) -> None:
    with said.open("a") as opened:
        os.dup2(opened.fileno(), 1)
        os.dup2(opened.fileno(), 2)
    os.environ["ACCELERATE_USE_CPU"] = "true"
    if processes > 1:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
        os.environ |= {"LOCAL_WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    import torch

    import training_job

    torch.set_num_threads(1)
    training_job.main(path)
