"""Evaluation: nsd's `hf` engine and verifier against the `hf` backend of lm-evaluation-harness, in turn.

    NSD_TOOLS_PYTHON=PYTHON OMP_NUM_THREADS=2 python -m benchmarks.evaluation [--questions N] [--rounds N] [--record]

lm-evaluation-harness (0.4.13) is run by the Python that NSD_TOOLS_PYTHON names, in an environment of its own with
lm-eval, torch and transformers. Both get the same prompts, token limit and sampling (greedy, then temperature 1), and
what either writes is judged by nsd's verifier. Time is that of an evaluation with the model in memory: neither start-up
nor loading, nor what `simple_evaluate` of lm-evaluation-harness finds out about the machine afterwards.
lm-evaluation-harness is given the quickest of some batch sizes. Greedy texts that differ are counted;
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
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.clocks import Spent, clocked, median_ratio
from benchmarks.frame import NotMeasured, Package, Row, argument_parser, report
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
from importlib.metadata import version
import lm_eval
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
model, folder, device = sys.argv[1:4]
held = HFLM(pretrained=model, dtype="float32", device=device)
tasks = lm_eval.tasks.get_task_dict(["words"], TaskManager(include_path=folder))
for name in ("lm-eval", "torch", "transformers"):
    print("PACKAGE " + json.dumps([name, version(name)]), flush=True)
for line in sys.stdin:
    held.batch_size_per_gpu = int(line)
    started, processor = time.perf_counter(), time.process_time()
    found = lm_eval.evaluate(lm=held, task_dict=tasks, bootstrap_iters=0, log_samples=True)
    spent = time.perf_counter() - started, time.process_time() - processor
    texts = {one["doc"]["id"]: one["resps"][0][0] for one in found["samples"]["words"]}
    print("RESULT " + json.dumps([spent, texts]), flush=True)
"""


@dataclass(frozen=True)
class Evaluated:
    """An evaluation: what it took, and the text to each question."""

    spent: Spent
    texts: dict[str, str]


def measure(options: argparse.Namespace) -> Iterator[Row | Package]:
    """Greedy and sampled."""
    tools = os.environ.get("NSD_TOOLS_PYTHON")
    if tools is None:
        raise NotMeasured("set NSD_TOOLS_PYTHON to the Python of an environment with lm-eval 0.4.13 and torch")
    model = resolve(options.model)
    questions = list(Wordmath(Wordmath.Config(train=0, test=options.questions)).pools().test or [])
    for temperature in (0.0, 1.0):
        sampling = Sampling(1, temperature, options.max_tokens)
        own = Own(model, questions, sampling, options.device)
        with tempfile.TemporaryDirectory() as folder:
            with Other(tools, model, questions, sampling, Path(folder), options.device) as other:
                yield compare(own, other, questions, options.rounds)
            if not temperature:
                yield from (Package(f"{one.name} of the peer", one.version) for one in other.packages)


def compare(own: Own, other: Other, questions: list[Question], rounds: int) -> Row:
    """Rates of both, the median ratio of rounds, and what the last texts were worth."""
    own.run()  # the first call sets up kernels
    other.run(BATCHES[0])
    best = min(BATCHES, key=lambda size: other.run(size).spent.cost(own.device))
    found = [(own.run(), other.run(best)) for _ in range(rounds)]
    verifier = Numeric()
    accuracies = []
    for run in found[-1]:
        scores = verifier.score_many([(run.texts[question.id], question) for question in questions])
        accuracies.append(statistics.fmean(one.score for one in scores))
    error = math.sqrt(accuracies[0] * (1 - accuracies[0]) / len(questions))
    differing = sum(found[-1][0].texts[one.id].strip() != found[-1][1].texts[one.id].strip() for one in questions)
    rates = [[len(questions) / one.spent.wall for one in side] for side in zip(*found, strict=True)]
    processors = [[1 / one.spent.processor for one in side] for side in zip(*found, strict=True)]
    temperature = own.sampling.temperature
    return Row(
        f"evaluation of {len(questions)} questions, {f'temperature {temperature:g}' if temperature else 'greedy'}",
        f"lm-evaluation-harness, `hf`, at its best batch size, {best}",
        "questions/s",
        statistics.median(rates[0]),
        statistics.median(rates[1]),
        median_ratio(*rates),
        f"accuracy {accuracies[0]:.3f} and {accuracies[1]:.3f} (standard error {error:.3f}); {differing} texts differ",
        median_ratio(*processors),
    )


def main() -> int:
    """Measure and print."""
    parser = argument_parser(__doc__, device=True)
    parser.add_argument("--model", default="builtin:wordmath-1m")
    parser.add_argument("--questions", type=int, default=512)
    parser.add_argument("--max-tokens", type=int, default=80)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    return report(options, measure(options), ("torch", "transformers"))


class Own:
    """An evaluation by nsd: completions of the engine, judged."""

    def __init__(self, model: str, questions: list[Question], sampling: Sampling, device: str) -> None:
        self.engine, self.device = HfEngine(HfEngine.Config(device=device)), device
        self.ref, self.questions, self.sampling = ModelRef(model, dtype="float32"), questions, sampling
        self.verifier = Numeric()

    def run(self) -> Evaluated:
        """Once."""
        texts, spent = clocked(self.judged)
        return Evaluated(spent, texts)

    def judged(self) -> dict[str, str]:
        """Prompts, completions, scores."""
        requests = [Request(one.id, Wordmath.default_prompt.render(one)) for one in self.questions]
        shards = self.engine.generate(self.ref, requests, self.sampling, 1)
        texts = {one.question_id: one.text for shard in shards for one in shard}
        self.verifier.score_many([(texts[one.id], one) for one in self.questions])
        return texts


class Other:
    """The same by lm-evaluation-harness, in a process of its own that holds the model."""

    def __init__(
        self, python: str, model: str, questions: list[Question], sampling: Sampling, folder: Path, device: str
    ) -> None:
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
            [python, "-c", OTHER, model, str(folder), device],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | offline,
        )
        self.packages: list[Package] = []

    def __enter__(self) -> Other:
        return self

    def run(self, batch: int) -> Evaluated:
        """Once, with so many prompts at a time."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{batch}\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith("PACKAGE "):
                self.packages.append(Package(*json.loads(line.removeprefix("PACKAGE "))))
            if line.startswith("RESULT "):
                spent, texts = json.loads(line.removeprefix("RESULT "))
                return Evaluated(Spent(*spent), texts)
        raise SystemExit("evaluation: lm-evaluation-harness ended without a result")

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


if __name__ == "__main__":
    sys.exit(main())
