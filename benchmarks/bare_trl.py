"""What a user would write without nsd: TRL's trainers called directly. benchmarks/training.py measures against it.

python benchmarks/bare_trl.py sft|grpo FOLDER      reads FOLDER/task.json, prints one line of JSON
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer


def vowel_share(completions: list[str], **_: object) -> list[float]:
    return [sum(letter in "aeiou" for letter in text) / max(1, len(text)) for text in completions]


def main(kind: str, folder: Path) -> None:
    started = time.perf_counter()
    task = json.loads((folder / "task.json").read_text())
    model = AutoModelForCausalLM.from_pretrained(task["model"], dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(task["model"], padding_side="left")
    common = {
        "output_dir": str(folder / "bare"),
        "seed": task["seed"],
        "learning_rate": task["learning_rate"],
        "logging_steps": 1,
        "report_to": [],
        "disable_tqdm": True,
        "save_strategy": "no",
        "use_cpu": task["device"] == "cpu",
        "bf16": task["device"] != "cpu",
        "activation_checkpointing": False,
        "max_steps": task["steps"],
    }
    if kind == "sft":
        rows = [{"prompt": prompt, "completion": " " + target} for prompt, target in task["rows"]]
        trainer = SFTTrainer(
            model=model,
            args=SFTConfig(per_device_train_batch_size=task["batch_size"], **common),
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
        )
    else:
        rollouts = task["prompts_per_step"] * task["num_generations"]
        trainer = GRPOTrainer(
            model=model,
            reward_funcs=vowel_share,
            args=GRPOConfig(
                per_device_train_batch_size=rollouts,
                num_generations=task["num_generations"],
                max_completion_length=task["max_tokens"],
                temperature=1.0,
                top_p=1.0,
                top_k=0,
                loss_type="dr_grpo",
                beta=0.04,
                **common,
            ),
            train_dataset=Dataset.from_list([{"prompt": prompt} for prompt, _ in task["rows"]]),
            processing_class=tokenizer,
        )
    trainer.train()
    trainer.save_model(str(folder / "bare" / "final"))
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    print("RESULT " + json.dumps({"seconds": time.perf_counter() - started, "losses": losses}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
