"""Wall time of an SFT and a GRPO stage through nsd's trainers beside a bare TRL script doing the same steps.

    python -m benchmarks.training [--only sft|grpo] [--model FOLDER] [--repeats 3] [--threads 2] [--record]

Both run in fresh processes, in turn, with the same seed, data and model (by default the embedded one, else a
random one of that kind); the losses of every step must be equal, or the benchmark fails. Two times are given: the
whole process, as a user waits for it, and the part after the imports. An SFT stage on word problems of different
lengths is timed with `group_by_length` and without. Limits: checkpoints by the clock (nsd's
default) fall into longer runs only; a machine shared with others makes single ratios noisy, so the median counts.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.clocks import median_ratio, module, run
from benchmarks.frame import REPOSITORY, Row, argument_parser, report, threads

EMBEDDED = REPOSITORY / "plugins" / "embedded" / "wordmath-1m"
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
        Device,
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

    from nsd.runner.work.before_training import collect_seldom, import_for_good

    trainer_class: Any = find("trainer", kind)
    collect_seldom()  # as a worker does
    import_for_good(trainer_class.imports)  # outside the second clock, as in the bare script
    imported = time.perf_counter() - started
    task = json.loads((folder / "task.json").read_text())
    losses: list[float] = []
    examples = [
        Example(Question(question_id(prompt), prompt, target), prompt, target, target, "labeled")
        for prompt, target in task["rows"]
    ]
    config: dict[str, Any]
    if kind == "sft":
        config = {name: task[name] for name in ("batch_size", "group_by_length") if name in task}
    else:
        config = {name: task[name] for name in ("prompts_per_step", "num_generations", "max_tokens", "rollout")}
        config["rewards"] = ["vowel_share"]
    trainer = trainer_class(trainer_class.Config(learning_rate=task["learning_rate"], **config))
    job = TrainJob(
        model=ModelRef(task["model"]),
        lora=None,
        device=Device("cpu") if task["device"] == "cpu" else Device("cuda", "bfloat16"),
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
    """What a side says of itself, and the time of its whole process."""
    ran = run(command, threads=threads)
    lines = [line for line in ran.out.splitlines() if line.startswith("RESULT ")]
    return {"whole": ran.seconds, **json.loads(lines[-1].removeprefix("RESULT "))}


def default_model(folder: Path) -> Path:
    if (EMBEDDED / "config.json").is_file():
        return EMBEDDED
    sys.path.insert(0, str(REPOSITORY / "tests"))
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


def word_problems(count: int) -> list[tuple[str, str]]:
    """Prompts and targets whose lengths differ as problems' do: 36 to 147 tokens of the embedded model."""
    from nsd.plugins.datasets.wordmath import Wordmath

    made = Wordmath(Wordmath.Config(train=count, test=1)).pools().train
    return [(f"{one.text}\n", str(one.solution)) for one in made]


def in_turn(commands: dict[str, list[str]], options: argparse.Namespace) -> list[list[dict[str, Any]]]:
    """What each command says of itself in every round; each goes first as often as the other."""
    runs: dict[str, list[dict[str, Any]]] = {label: [] for label in commands}
    for repeat in range(options.repeats):
        for label in list(commands)[:: 1 if repeat % 2 == 0 else -1]:
            runs[label].append(timed(commands[label], options.threads))
    return list(runs.values())


def grouping(folder: Path, given: dict[str, Any], options: argparse.Namespace) -> Row:
    """A row of `group_by_length` against training without it."""
    commands = {}
    for name in ("grouped", "random"):
        (folder / name).mkdir()
        task = {**TASKS["sft"], **given, "rows": word_problems(1280), "group_by_length": name == "grouped"}
        (folder / name / "task.json").write_text(json.dumps(task))
        commands[name] = module("training", "--stage", "sft", str(folder / name))
    own, plain = ([one["seconds"] for one in side] for side in in_turn(commands, options))
    return Row(
        f"SFT of {given['steps']} steps on word problems, `group_by_length`",
        "without it",
        "s",
        statistics.median(own),
        statistics.median(plain),
        median_ratio(own, plain),
        f"after the imports, {threads(options.threads)}",
    )


def measure(options: argparse.Namespace) -> Iterator[Row]:
    """Both sides in turn."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = options.model or default_model(folder)
        for kind, task in TASKS.items():
            if options.only not in (None, kind):
                continue
            steps = options.steps or task["steps"]
            given = {"model": str(model), "seed": 42, "rows": rows(1280), "device": options.device, "steps": steps}
            (folder / "task.json").write_text(json.dumps(task | given))
            commands = {
                "nsd": module("training", "--stage", kind, str(folder)),
                "bare": module("bare_trl", kind, str(folder)),
            }
            runs = in_turn(commands, options)
            losses = runs[1][0]["losses"]
            if len(losses) != steps or any(one["losses"] != losses for side in runs for one in side):
                raise SystemExit(f"training: {kind}: the losses differ")
            for part, words in (("whole", "whole process"), ("seconds", "after the imports")):
                own, bare = ([one[part] for one in side] for side in runs)
                singles = ", ".join(f"{a / b:.2f}" for a, b in zip(own, bare, strict=True))
                yield Row(
                    f"{kind.upper()} stage of {steps} steps, {words}",
                    "a bare TRL script",
                    "s",
                    statistics.median(own),
                    statistics.median(bare),
                    median_ratio(own, bare),
                    f"of {singles}; losses of all steps equal, {threads(options.threads)}",
                )
            if kind == "sft":
                yield grouping(folder, given, options)


def main() -> int:
    """Measure and print; 1 where losses differ."""
    parser = argument_parser(__doc__, device=True)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--only", choices=sorted(TASKS))
    parser.add_argument("--steps", type=int, help="80 of SFT and 12 of GRPO where not given")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--stage", nargs=2, metavar=("KIND", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stage:
        plugin_stage(options.stage[0], Path(options.stage[1]))
        return 0
    return report(options, measure(options), ("torch", "transformers", "trl"))


if __name__ == "__main__":
    sys.exit(main())
