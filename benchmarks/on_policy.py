"""Trainers on rollouts: drawing by nsd's decode loop and by TRL's generation, steps of sdpo, of TRL's sdpo and of grpo.

    python -m benchmarks.on_policy [--steps 12] [--threads 2] [--device cpu] [--record]

The embedded model on its own word problems, 8 questions x 8 rollouts of at most 64 tokens a step. Each way is a process
of its own; its times are medians over the steps after the first two. nsd's ways draw the same first rollouts, and TRL's
as many.
TRL's SDPO is given the published README's settings as far as it has them: top-100 logits with tail, alpha 0.5, an EMA
teacher, feedback off on both sides.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.clocks import module, run
from benchmarks.frame import REPOSITORY, Row, argument_parser, report, threads

MODEL = REPOSITORY / "plugins" / "embedded" / "wordmath-1m"
WAYS = ("grpo", "grpo, TRL's generation", "sdpo", "TRL's experimental sdpo")
COMMON = {"prompts_per_step": 8, "num_generations": 8, "max_tokens": 64, "temperature": 1.0, "learning_rate": 3e-5}


def examples(count: int) -> list[Any]:
    """Word problems with their answers."""
    from nsd.plugins.api import Example
    from nsd.plugins.datasets.split import split
    from nsd.plugins.registry import find

    dataset_class = find("dataset", "wordmath")
    dataset: Any = dataset_class(dataset_class.Config.model_validate({"split": {"labeled": count, "test": 1}}))
    splits, _ = split(dataset.pools(), dataset.config.split)
    return [
        Example(one, dataset.default_prompt.render(one), one.answer, one.solution, "labeled") for one in splits.labeled
    ]


def nsd_steps(way: str, steps: int, folder: Path, device: str) -> tuple[list[float], list[float]]:
    """Moments at which nsd's trainer reported a step, and the seconds that each drawing took."""
    from nsd.plugins.api import Budget, Device, ModelRef, TrainJob, TrainSeeds
    from nsd.plugins.registry import find

    config: dict[str, Any] = {**COMMON, "steps": steps}
    if way == "sdpo":
        config |= {"include_environment_feedback": False}
    elif way != "grpo":
        config |= {"rollout": "trl"}
    trainer_class: Any = find("trainer", way.partition(",")[0])
    dataset: Any = find("dataset", "wordmath")
    verifier: Any = find("verifier", "numeric")
    moments: list[float] = []
    drawing: list[float] = []

    def report(step: int, total: int | None, metrics: Mapping[str, float]) -> None:
        moments.append(time.perf_counter())
        drawing.append(metrics["step_time/sampling"])

    job = TrainJob(
        model=ModelRef(str(MODEL), dtype="float32"),
        lora=None,
        device=Device("cpu") if device == "cpu" else Device("cuda", "bfloat16"),
        examples=examples(400),
        prompt=dataset.default_prompt,
        verifier=verifier(verifier.Config()),
        seeds=TrainSeeds(1, 2, 3),
        budget=Budget(),
        output_dir=folder / "out",
        checkpoint_dir=folder / "checkpoints",
        report=report,
        warn=lambda *told: None,
        should_stop=lambda: False,
    )
    trainer_class(trainer_class.Config.model_validate(config)).train(job)
    return moments, drawing


def trl_steps(steps: int, folder: Path, device: str) -> list[float]:
    """Moments at which TRL's experimental SDPO trainer ended a step."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl.experimental.sdpo import SDPOConfig, SDPOTrainer

    from nsd.plugins.registry import find

    rows = examples(400)
    verifier_class: Any = find("verifier", "numeric")
    verifier = verifier_class(verifier_class.Config())
    moments: list[float] = []

    class Clock(TrainerCallback):  # type: ignore[misc]  # transformers has no types here
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            moments.append(time.perf_counter())

    def right(prompts: list[Any], completions: list[Any], row: list[int], **_: Any) -> list[float]:
        texts = [one if isinstance(one, str) else one[-1]["content"] for one in completions]
        return [verifier.score(text, rows[index].question).score for text, index in zip(texts, row, strict=True)]

    trainer = SDPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32),
        reward_funcs=right,
        args=SDPOConfig(
            output_dir=str(folder),
            per_device_train_batch_size=COMMON["prompts_per_step"] * COMMON["num_generations"],
            num_generations=COMMON["num_generations"],
            max_completion_length=COMMON["max_tokens"],
            temperature=1.0,
            learning_rate=COMMON["learning_rate"],
            max_steps=steps,
            report_to=[],
            use_cpu=device == "cpu",
            bf16=device != "cpu",
            disable_tqdm=True,
            save_strategy="no",
            activation_checkpointing=False,
            distillation_mode="topk_logits",
            distillation_topk=100,
            distillation_alpha=0.5,
            distillation_add_tail=True,
            teacher_model_kind="ema",
            teacher_update_rate=0.05,
        ),
        train_dataset=Dataset.from_list([{"prompt": one.prompt, "row": index} for index, one in enumerate(rows)]),
        processing_class=AutoTokenizer.from_pretrained(MODEL),
        callbacks=[Clock()],
    )
    trainer.train()
    return moments


def one_way(way: str, steps: int, threads: int, device: str) -> tuple[float, float]:
    """Median seconds of a step and of its drawing (0 for TRL's trainer), the first two left out."""
    warnings.simplefilter("ignore")
    import torch

    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as folder:
        if way.startswith("TRL"):
            moments, drawing = trl_steps(steps, Path(folder), device), [0.0] * steps
        else:
            moments, drawing = nsd_steps(way, steps, Path(folder), device)
    gaps = [after - before for before, after in itertools.pairwise(moments)]
    return statistics.median(gaps[1:]), statistics.median(drawing[2:])


def measure(options: argparse.Namespace) -> Iterator[Row]:
    """Each way in a process of its own."""
    step, drawing = {}, {}
    counts = [f"--{name}={getattr(options, name)}" for name in ("steps", "threads", "device")]
    for way in WAYS:
        found = run(module("on_policy", "--only", way, *counts), threads=options.threads).out
        step[way], drawing[way] = json.loads(found.strip().splitlines()[-1])
    grpo, by_trl, sdpo, theirs = WAYS
    note = f"64 rollouts of at most 64 tokens a step, {threads(options.threads)}"
    for what, peer, own, other in (
        ("drawing the rollouts of a GRPO step", "TRL's own generation", drawing[grpo], drawing[by_trl]),
        ("a GRPO step", "the same with TRL's own generation", step[grpo], step[by_trl]),
        ("a whole SDPO step", theirs, step[sdpo], step[theirs]),
        ("a whole SDPO step", "a GRPO step on the same first rollouts", step[sdpo], step[grpo]),
    ):
        yield Row(what, peer, "s", own, other, own / other, note)


def main() -> int:
    """Measure and print."""
    parser = argument_parser(__doc__, device=True)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        print(json.dumps(one_way(options.only, options.steps, options.threads, options.device)))
        return 0
    return report(options, measure(options), ("torch", "transformers", "trl"))


if __name__ == "__main__":
    sys.exit(main())
