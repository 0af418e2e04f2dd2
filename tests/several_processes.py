"""Trainings in processes of their own, one or several, for tests: written down, started, and read again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from support import PATIENCE

SCRIPT = Path(__file__).resolve().with_name("training_job.py")
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


def command(path: Path, processes: int = 1) -> list[str]:
    if processes == 1:
        return [sys.executable, str(SCRIPT), str(path)]
    # `accelerate launch --cpu --num_processes 2` starts one process (accelerate 1.15); --multi_gpu starts as many as
    # asked for, and ACCELERATE_USE_CPU puts them on the CPU with gloo.
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines", "1"]
    launch += ["--num_processes", str(processes), "--mixed_precision", "no", "--main_process_port", "0"]
    return [*launch, str(SCRIPT), str(path)]


def log_of(folder: Path, rank: int = 0) -> list[dict[str, Any]]:
    """Whole lines of a process's log; a kill may have torn the last one."""
    path = folder / f"log.{rank}"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return [json.loads(line) for line in lines]


def finish(path: Path, processes: int = 1) -> None:
    done = start(path, processes)
    assert done.returncode == 0, done.stderr[-3000:]


def start(path: Path, processes: int) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"ACCELERATE_USE_CPU": "true"}
    return subprocess.run(
        command(path, processes), capture_output=True, text=True, timeout=PATIENCE, env=environment, check=False
    )
