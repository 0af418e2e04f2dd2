"""Evaluation: nsd's `hf` engine and verifier against the `hf` backend of lm-evaluation-harness, in turn.

    NSD_TOOLS_PYTHON=/path/to/python OMP_NUM_THREADS=2 python -m benchmarks.evaluation [--questions N] [--rounds N]

lm-evaluation-harness (0.4.13) is run by the Python that NSD_TOOLS_PYTHON names, in an environment of its own with
lm-eval, torch and transformers. Both get the same prompts, token limit and sampling (greedy, then temperature 1), and
what either writes is judged by nsd's verifier. Time is that of an evaluation with the model in memory: neither start-up
nor loading. lm-evaluation-harness is given the quickest of some batch sizes. Greedy texts that differ are counted;
sampled ones come from different random numbers, so their accuracy agrees within noise.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from nsd.plugins.api import ModelRef, Question, Request, Sampling
from nsd.plugins.datasets.wordmath import Wordmath
from nsd.plugins.engines.hf import HfEngine
from nsd.plugins.models import resolve
from nsd.plugins.verifiers.numeric import Numeric

BATCHES = (16, 64, 256)
TASK = """\
task: words
dataset_path: json
dataset_kwargs: {{data_files: {{test: {rows}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{prompt}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {kwargs}
metric_list: [{{metric: exact_match}}]
metadata: {{version: 1}}
"""
# What runs in the other environment: one evaluation for every line that it is sent, a batch size.
OTHER = """
import json, sys, time
import lm_eval
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
model, folder = sys.argv[1:3]
held = HFLM(pretrained=model, dtype="float32", device="cpu")
tasks = TaskManager(include_path=folder)
for line in sys.stdin:
    held.batch_size_per_gpu = int(line)
    started, processor = time.perf_counter(), time.process_time()
    found = lm_eval.simple_evaluate(
        model=held, tasks=["words"], task_manager=tasks, bootstrap_iters=0, log_samples=True
    )
    spent = time.perf_counter() - started, time.process_time() - processor
    texts = {one["doc"]["id"]: one["resps"][0][0] for one in found["samples"]["words"]}
    print("RESULT " + json.dumps([spent, texts]), flush=True)
"""


@dataclass(frozen=True)
class Evaluated:
    """An evaluation: wall and processor time in seconds, and the text to each question."""

    wall: float
    processor: float
    texts: dict[str, str]


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="builtin:wordmath-1m")
    parser.add_argument("--questions", type=int, default=512)
    parser.add_argument("--max-tokens", type=int, default=80)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    tools = os.environ.get("NSD_TOOLS_PYTHON")
    if tools is None:
        print("evaluation: set NSD_TOOLS_PYTHON to the Python of an environment with lm-eval 0.4.13; nothing measured")
        return 0
    model = resolve(options.model)
    questions = Wordmath(Wordmath.Config(train=0, test=options.questions)).pools().test or []
    for temperature in (0.0, 1.0):
        sampling = Sampling(1, temperature, options.max_tokens)
        print(
            f"evaluation, {options.model}, {len(questions)} questions, temperature {temperature:g}, at most "
            f"{sampling.max_tokens} tokens, {options.rounds} rounds in turn, load {os.getloadavg()[0]:.1f}",
            flush=True,
        )
        with tempfile.TemporaryDirectory() as folder, Other(tools, model, questions, sampling, Path(folder)) as other:
            compare(Own(model, questions, sampling), other, questions, options.rounds)
    return 0


def compare(own: Own, other: Other, questions: list[Question], rounds: int) -> None:
    """Time and accuracy of both, and the median ratios of rounds."""
    own.run()  # the first call sets up kernels
    best = min(BATCHES, key=lambda size: other.run(size).processor)
    found = [(own.run(), other.run(best)) for _ in range(rounds)]
    verifier = Numeric()
    for name, runs in (("nsd", [one for one, _ in found]), (f"lm-eval, batch {best}", [one for _, one in found])):
        scores = verifier.score_many([(runs[-1].texts[question.id], question) for question in questions])
        accuracy = statistics.fmean(one.score for one in scores)
        error = math.sqrt(accuracy * (1 - accuracy) / len(scores))
        rate = len(questions) / statistics.median(one.wall for one in runs)
        print(f"  {name:20} {rate:6.1f} questions/s   accuracy {accuracy:.3f} (standard error {error:.3f})")
    differing = sum(found[-1][0].texts[one.id].strip() != found[-1][1].texts[one.id].strip() for one in questions)
    wall = statistics.median(peer.wall / one.wall for one, peer in found)
    processor = statistics.median(peer.processor / one.processor for one, peer in found)
    print(f"  nsd is {wall:.2f} times as fast, in processor time {processor:.2f}; {differing} texts differ", flush=True)


class Own:
    """An evaluation by nsd: completions of the engine, judged."""

    def __init__(self, model: str, questions: list[Question], sampling: Sampling) -> None:
        self.engine = HfEngine(HfEngine.Config(device="cpu"))
        self.ref, self.questions, self.sampling = ModelRef(model, dtype="float32"), questions, sampling
        self.verifier = Numeric()

    def run(self) -> Evaluated:
        """Once."""
        started, processor = time.perf_counter(), time.process_time()
        requests = [Request(one.id, Wordmath.default_prompt.render(one)) for one in self.questions]
        shards = self.engine.generate(self.ref, requests, self.sampling, 1)
        texts = {one.question_id: one.text for shard in shards for one in shard}
        self.verifier.score_many([(texts[one.id], one) for one in self.questions])
        return Evaluated(time.perf_counter() - started, time.process_time() - processor, texts)


class Other:
    """The same by lm-evaluation-harness, in a process of its own that holds the model."""

    def __init__(self, python: str, model: str, questions: list[Question], sampling: Sampling, folder: Path) -> None:
        rows = [
            {"id": one.id, "prompt": Wordmath.default_prompt.render(one), "answer": one.answer} for one in questions
        ]
        (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        kwargs: dict[str, object] = {"until": [], "max_gen_toks": sampling.max_tokens, "do_sample": False}
        if sampling.temperature:
            kwargs |= {"do_sample": True, "temperature": sampling.temperature, "top_k": 0, "top_p": 1.0}
        task = TASK.format(rows=json.dumps(str(folder / "rows.jsonl")), kwargs=json.dumps(kwargs))
        (folder / "words.yaml").write_text(task)
        offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(folder / "home")}
        self.process = subprocess.Popen(
            [python, "-c", OTHER, model, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | offline,
        )

    def __enter__(self) -> Other:
        return self

    def run(self, batch: int) -> Evaluated:
        """Once, with so many prompts at a time."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{batch}\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith("RESULT "):
                (wall, processor), texts = json.loads(line.removeprefix("RESULT "))
                return Evaluated(wall, processor, texts)
        raise SystemExit("evaluation: lm-evaluation-harness ended without a result")

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


if __name__ == "__main__":
    sys.exit(main())
