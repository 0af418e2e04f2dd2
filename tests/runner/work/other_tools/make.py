"""Makes the files of this folder anew, by running the other tools on the model that nsd ships.

    python tests/runner/work/other_tools/make.py OUT           # README.md says which versions, and in which environment

Everything runs on the CPU, without a network: the model, the tasks and the questions are copied into a folder of their
own and named from there, so that no file holds a folder of this machine. The tools' files are kept as they wrote them.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
MODEL = HERE.parents[3] / "plugins" / "embedded" / "wordmath-1m"
QUIET = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}


def run(*command: str, folder: Path) -> None:
    subprocess.run((sys.executable, "-m", *command), check=True, cwd=folder, env={**os.environ, **QUIET})


def lm_eval(folder: Path, out: Path) -> None:
    """`samples_*.jsonl` of both tasks: one greedy answer read by two filters, and three drawn ones read by two."""
    run(
        *("lm_eval", "run", "--model", "hf", "--model_args", "pretrained=wordmath-1m,dtype=float32,max_length=1024"),
        *("--device", "cpu", "--tasks", "words,words_sampled", "--include_path", "tasks", "--batch_size", "20"),
        *("--log_samples", "--output_path", "lm_eval", "--seed", "7"),
        folder=folder,
    )
    for name in ("words", "words_sampled"):
        (found,) = (folder / "lm_eval").rglob(f"samples_{name}_2*.jsonl")
        shutil.copyfile(found, out / f"samples_{name}.jsonl")


def inspect(folder: Path, out: Path) -> None:
    """A greedy log with two scorers as a zip and as JSON, and one of three epochs with a scorer of several values."""
    for task, form, limit in (("words", "eval", 40), ("words", "json", 12), ("epochs", "eval", 12)):
        logs = folder / f"{task}-{form}"
        run(
            *("inspect_ai", "eval", f"tasks/inspect_tasks.py@{task}", "--model", "hf/wordmath-1m"),
            *("-M", "model_path=wordmath-1m", "-M", "device=cpu", "--log-dir", logs.name, "--log-format", form),
            *("--display", "none", "--max-connections", "20", "--seed", "7", "--limit", str(limit)),
            folder=folder,
        )
        (found,) = logs.glob(f"*.{form}")
        shutil.copyfile(found, out / f"inspect_{task}.{form}")


def openai_evals(out: Path) -> None:
    """A log as the LocalRecorder of openai/evals writes it, of the greedy answers that lm-eval drew.

    A run of oaieval asks for a key even where no model of OpenAI's is asked, so this is made after its source
    (evals/record.py): the run's spec, events of kinds mixed, the report last.
    """
    rows = [json.loads(line) for line in (out / "samples_words.jsonl").read_text(encoding="utf-8").splitlines()]
    rows = [row for row in rows if row["filter"] == "strict-match"]
    when = "2026-01-01 00:00:00.000000+00:00"
    spec = {"completion_fns": ["wordmath-1m"], "eval_name": "words.dev.v0", "base_eval": "words", "split": "dev"}
    spec |= {"run_config": {}, "created_by": "", "run_id": "260101000000AAAAAAAA", "created_at": when}
    lines: list[dict[str, Any]] = [{"spec": spec}]

    def event(sample: str, kind: str, data: dict[str, Any]) -> None:
        more = {"sample_id": sample, "type": kind, "data": data, "created_by": "", "created_at": when}
        lines.append({"run_id": spec["run_id"], "event_id": len(lines) - 1, **more})

    for number, row in enumerate(rows):
        sample, right = f"words.dev.{number}", row["exact_match"] == 1
        prompt = [{"role": "user", "content": row["doc"]["question"]}]
        event(sample, "sampling", {"prompt": prompt, "sampled": [row["resps"][0][0]]})
        picked = row["filtered_resps"][0]
        event(sample, "match", {"correct": right, "expected": row["target"], "picked": picked, "sampled": picked})
        event(sample, "metrics", {"length": len(row["resps"][0][0]), "formed": float("####" in row["resps"][0][0])})
    right = sum(row["exact_match"] == 1 for row in rows)
    lines.append({"final_report": {"accuracy": right / len(rows)}})
    (out / "openai_evals.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", choices=("lm-eval", "inspect"))
    arguments = parser.parse_args()
    out = arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        shutil.copytree(MODEL, folder / MODEL.name)
        shutil.copytree(HERE / "tasks", folder / "tasks")
        shutil.copyfile(HERE / "questions.jsonl", folder / "questions.jsonl")
        if arguments.only != "inspect":
            lm_eval(folder, out)
            openai_evals(out)
        if arguments.only != "lm-eval":
            inspect(folder, out)


if __name__ == "__main__":
    main()
