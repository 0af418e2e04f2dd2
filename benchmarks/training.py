"""Wall time of an SFT and a GRPO stage through nsd's trainers beside a bare TRL script doing the same steps.

    python -m benchmarks.training [--only sft|grpo] [--model FOLDER] [--repeats 3] [--threads 2] [--json FILE]

Both run in fresh processes, in turn, with the same seed, data and model (by default the embedded one, else a
random one of that kind); the losses of every step must be equal, or the benchmark fails. Two times are given: the
whole process, as a user waits for it, and the part after the imports. Limits: checkpoints by the clock (nsd's
default) fall into longer runs only; a machine shared with others makes single ratios noisy, so the median counts.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
EMBEDDED = ROOT / "plugins" / "embedded" / "wordmath-1m"
TASKS: dict[str, dict[str, Any]] = {
    "sft": {"learning_rate": 5e-4, "batch_size": 16, "steps": 80},
    "grpo": {
        "learning_rate": 1e-5,
        "prompts_per_step": 8,
        "num_generations": 8,
        "max_tokens": 64,
        "steps": 12,
        "rollout": "trl",
    },
}


def rows(count: int) -> list[tuple[str, str]]:
    """Prompts and targets of different lengths."""
    names = ["Ada", "Ben", "Cleo", "Dan"]
    made = []
    for index in range(count):
        a, b, name = index % 37 + 2, index % 23 + 3, names[index % 4]
        question = f"Problem: {name} has {a} apples and buys {b} more. How many apples does {name} have?"
        made.append((f"{question}\n\nSolution:", f"{name} has {a} + {b} = {a + b} apples.\n#### {a + b}"))
    return made


def plugin_stage(kind: str, folder: Path) -> None:
    """The nsd side, in a process of its own."""
    started = time.perf_counter()
    from nsd.plugins.api import (
        Budget,
        Example,
        ModelRef,
        Prompt,
        Question,
        Reward,
        Rollout,
        TrainJob,
        TrainSeeds,
        question_id,
    )
    from nsd.plugins.registry import find, plugin
    from nsd.plugins.verifiers.numeric import Numeric

    @plugin("reward", "vowel_share")
    class VowelShare(Reward):
        def rewards(self, rollouts: Sequence[Rollout]) -> list[float]:
            texts = [rollout.text for rollout in rollouts]
            return [sum(letter in "aeiou" for letter in text) / max(1, len(text)) for text in texts]

    import torch  # noqa: F401  (imports are outside the second clock, as in the bare script)
    from trl import GRPOTrainer, SFTTrainer  # noqa: F401

    imported = time.perf_counter() - started
    task = json.loads((folder / "task.json").read_text())
    losses: list[float] = []
    examples = [
        Example(Question(question_id(prompt), prompt, target), prompt, target, target, "labeled")
        for prompt, target in task["rows"]
    ]
    if kind == "sft":
        config = {"batch_size": task["batch_size"]}
    else:
        config = {name: task[name] for name in ("prompts_per_step", "num_generations", "max_tokens", "rollout")}
        config["rewards"] = ["vowel_share"]
    trainer_class: Any = find("trainer", kind)
    trainer = trainer_class(trainer_class.Config(learning_rate=task["learning_rate"], **config))
    job = TrainJob(
        model=ModelRef(task["model"]),
        lora=None,
        examples=examples,
        prompt=Prompt(),
        verifier=Numeric(),
        seeds=TrainSeeds(task["seed"], task["seed"], task["seed"]),
        budget=Budget(steps=task["steps"]),
        output_dir=folder / "nsd",
        checkpoint_dir=Path(tempfile.mkdtemp(dir=folder)),
        report=lambda step, total, metrics: losses.append(metrics["loss"]),
        warn=lambda text, field: print(f"warning ({field}): {text}", file=sys.stderr),
        should_stop=lambda: False,
    )
    trainer.train(job)
    seconds = time.perf_counter() - started - imported
    print("RESULT " + json.dumps({"seconds": seconds, "losses": losses}))


def timed(command: list[str], threads: int) -> dict[str, Any]:
    environment = os.environ | {
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONPATH": str(ROOT),
    }
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    whole = time.perf_counter() - started
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if done.returncode or not lines:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return {"whole": whole, **json.loads(lines[-1].removeprefix("RESULT "))}


def default_model(folder: Path) -> Path:
    if (EMBEDDED / "config.json").is_file():
        return EMBEDDED
    sys.path.insert(0, str(ROOT / "tests"))
    from tiny_model import make_tiny_model

    made: Path = make_tiny_model(
        folder / "model",
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    return made


def main() -> int:
    """Measure, print, and return 1 where losses differ."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--only", choices=sorted(TASKS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--stage", nargs=2, metavar=("KIND", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stage:
        plugin_stage(options.stage[0], Path(options.stage[1]))
        return 0
    figures: dict[str, Any] = {}
    equal = True
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = options.model or default_model(folder)
        for kind, task in TASKS.items():
            if options.only not in (None, kind):
                continue
            (folder / "task.json").write_text(json.dumps(task | {"model": str(model), "seed": 42, "rows": rows(1280)}))
            ours = [sys.executable, str(Path(__file__).resolve()), "--stage", kind, str(folder)]
            bare = [sys.executable, str(Path(__file__).with_name("bare_trl.py").resolve()), kind, str(folder)]
            runs: dict[str, list[dict[str, Any]]] = {"nsd": [], "bare": []}
            for repeat in range(options.repeats):
                order = [("nsd", ours), ("bare", bare)]
                for label, command in order if repeat % 2 == 0 else reversed(order):
                    runs[label].append(timed(command, options.threads))
            same = all(run["losses"] == runs["bare"][0]["losses"] for run in [*runs["nsd"], *runs["bare"]])
            same &= len(runs["bare"][0]["losses"]) == task["steps"]
            equal &= same
            figure: dict[str, Any] = {"steps": task["steps"], "losses_equal": same}
            for part in ("whole", "seconds"):
                ratios = [a[part] / b[part] for a, b in zip(runs["nsd"], runs["bare"], strict=True)]
                figure[part] = {
                    **{label: statistics.median(run[part] for run in runs[label]) for label in runs},
                    "ratio": statistics.median(ratios),
                    "ratios": ratios,
                }
            figures[kind] = figure
            for part, words in (("whole", "whole process"), ("seconds", "after imports")):
                row = figure[part]
                singles = ", ".join(f"{ratio:.3f}" for ratio in row["ratios"])
                times = f"nsd {row['nsd']:6.2f} s, bare TRL {row['bare']:6.2f} s, ratio {row['ratio']:.3f}"
                print(f"{kind:5} {task['steps']:4} steps, {words}: {times} (of {singles})")
            print(f"{kind:5} losses of all steps {'equal' if same else 'DIFFER'}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2))
    return 0 if equal else 1


if __name__ == "__main__":
    raise SystemExit(main())
