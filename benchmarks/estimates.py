"""What `nsd plan` says of a stage on a GPU against what the stage takes there: seconds, and the peak of memory.

    python -m benchmarks.estimates [--model 500m] [--device cuda] [--record]

One spec is planned in an empty workspace, so that nothing but the model speaks, then run: sampling with K = 1 and 8,
SFT of every weight and of an adapter, GRPO and SDPO with nsd's rollouts. The ratio is the estimate's value over the
stage's. Seconds are those of the manifest, memory is what torch allocated at most (`max_memory_allocated`) beside the
estimate of the same. Models are those of benchmarks.generation. Without a GPU it says so and ends.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.frame import NotMeasured, Row, argument_parser, gpu_name, report
from benchmarks.generation import MADE, made
from nsd.runner.launch.cards import card_of
from nsd.runner.launch.estimate import Estimator
from nsd.runner.launch.memory import GIB
from nsd.runner.plan.build import build_plan
from nsd.runner.spec.load import load_spec
from nsd.runner.store.workspace import Workspace
from nsd.runner.work.execute import execute

SPEC = """\
name: estimates
model: {{path: {model}, dtype: bfloat16}}
data: {{use: wordmath, split: {{labeled: 640, unlabeled: 256, test: 512}}}}
labeler: {{use: consensus, k: 8, temperature: 1.0, max_tokens: 256}}
trainer: {{use: sft, epochs: 1, batch_size: 16, learning_rate: 1e-5}}
eval: {{use: accuracy, temperature: 1.0, max_tokens: 256}}
conditions:
  base: {{train_on: []}}
  sft: {{train_on: [labeled]}}
  adapter: {{train_on: [labeled], model: {{lora: {{rank: 16}}}}}}
  grpo: {{train_on: [labeled], trainer: {{use: grpo, beta: 0.04, {rollouts}}}}}
  sdpo: {{train_on: [labeled], trainer: {{use: sdpo, success_reward_threshold: 0, {rollouts}}}}}
  labels: {{train_on: [pseudo], label_with: base}}
"""
ROLLOUTS = "steps: 6, prompts_per_step: 8, num_generations: 8, max_tokens: 256, temperature: 1.0, learning_rate: 1e-6"


def measure(options: argparse.Namespace) -> Iterator[Row]:
    """Two rows for each stage that computes on the GPU: seconds and memory."""
    name = gpu_name(options.device)
    if name is None:
        raise NotMeasured("there is no GPU, and an estimate is of one")
    card = card_of(name)
    if card is None:
        raise NotMeasured(f"{name} is not in the table of docs/estimates.md")
    with tempfile.TemporaryDirectory() as given:
        folder = Path(given)
        model = made(options.model, folder / options.model)
        (folder / "spec.yaml").write_text(SPEC.format(model=model, rollouts=ROLLOUTS))
        workspace = Workspace(folder / "w")
        plan = build_plan(load_spec(folder / "spec.yaml"))
        guesses = {one.digest: one for one in Estimator(plan, workspace).on(f"{card.name}:1").stages}
        # A model of random weights labels nothing, so only first stages run: one at a time, so that a figure that came
        # is kept where a borrowed machine's time ends.
        for digest in [one.digest for one in plan.stages.values() if not one.inputs]:
            if execute(plan, workspace, only=[digest]).exit_code:
                raise SystemExit("estimates: a stage failed")
            (found,) = workspace.manifests(digest=digest)
            guess, seconds, peak = guesses[digest], found.seconds, found.machine.gpu_peak_bytes
            if guess.allocated is None or guess.seconds is None or seconds is None or peak is None:
                continue
            what = f"{guess.title}, {options.model}"
            yield Row(what, "the stage", "s", guess.seconds, seconds, guess.seconds / seconds)
            yield Row(f"{what}, memory", "the stage", "GiB", guess.allocated / GIB, peak / GIB, guess.allocated / peak)


def main() -> int:
    """Measure, or say why not."""
    parser = argument_parser(__doc__, device=True)
    parser.add_argument("--model", choices=MADE, default="500m")
    options = parser.parse_args()
    return report(options, measure(options), ("torch", "transformers", "trl"))


if __name__ == "__main__":
    sys.exit(main())
