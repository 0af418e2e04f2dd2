"""Votes that stop when they are decided, against the full vote: the same labels, and how many of them a second.

    OMP_NUM_THREADS=1 python -m benchmarks.votes [--questions N] [--k K ...] [--threshold T] [--rounds N]

The model is the quickstart's baseline, trained as specs/quickstart.yaml trains it. Both votes draw with the `hf` engine
in this process, from the same streams, in turn: the full one all K samples, the other what it asks for while it draws,
as a run does (runner/work/rounds.py). Accepted questions, their labels and their training targets are compared, and a
difference ends the measurement. Rates are kept labels by wall time; processor time is beside them, for a machine that
other work keeps busy.

Limits: what the vote that stops loses at the end, where few questions are open, is the larger the fewer questions there
are. Reading a prompt is paid once by either, and weighs more where fewer samples share it.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nsd.plugins.api import Completion, ModelRef, Question, Request
from nsd.plugins.datasets.wordmath import Wordmath
from nsd.plugins.engines.hf import HfEngine
from nsd.plugins.labelers.consensus import Consensus
from nsd.plugins.verifiers.numeric import Numeric
from nsd.runner.plan.build import build_plan
from nsd.runner.spec.load import load_spec
from nsd.runner.store.workspace import Workspace
from nsd.runner.work.execute import execute
from nsd.runner.work.rounds import Place, Wanted

QUICKSTART = Path(__file__).parents[1] / "specs" / "quickstart.yaml"
SEED = 7


@dataclass(frozen=True)
class Drawn:
    """What a vote drew, and what that took, in seconds."""

    held: dict[Place, Completion]
    wall: float
    processor: float


def main() -> None:
    """Measure and print."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=150)
    parser.add_argument("--k", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--threshold", type=float, default=0.75)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = trained(Workspace(Path(folder) / "w"))
        questions = Wordmath(Wordmath.Config(train=0, test=options.questions)).pools().test or []
        print(
            f"votes, the quickstart's baseline, {len(questions)} questions, threshold {options.threshold:g}, "
            f"{options.rounds} rounds in turn, {torch.get_num_threads()} threads, cpu",
            flush=True,
        )
        for k in options.k:
            measure(model, questions, k, options.threshold, options.rounds)


def trained(workspace: Workspace) -> ModelRef:
    """The baseline of the quickstart."""
    plan = build_plan(load_spec(QUICKSTART), only=["baseline"])
    (digest,) = (stage.digest for stage in plan.stages.values() if stage.kind == "train")
    if execute(plan, workspace, only=[digest]).exit_code:
        sys.exit("the baseline could not be trained")
    return ModelRef(str(workspace.folder("train", digest) / "model"))


def measure(model: ModelRef, questions: Sequence[Question], k: int, threshold: float, rounds: int) -> None:
    """Print both votes; exits where their labels differ."""
    votes = {
        name: Consensus(Consensus.Config(k=k, threshold=threshold, max_tokens=64, stop_vote=rule))
        for name, rule in (("full", None), ("exact", "exact"))
    }
    engine = HfEngine(HfEngine.Config(device="cpu"))
    draw(engine, model, questions[:4], votes["full"])  # the first call sets up kernels
    drawn: dict[str, list[Drawn]] = {name: [] for name in votes}
    for _ in range(rounds):
        for name, vote in votes.items():
            drawn[name].append(draw(engine, model, questions, vote))
    kept = {name: labels(questions, votes[name], found[0]) for name, found in drawn.items()}
    if kept["full"] != kept["exact"]:
        sys.exit(f"K={k}: the accepted set, its labels or its targets differ")
    samples = {name: len(found[0].held) for name, found in drawn.items()}
    for name, found in drawn.items():
        pairs = list(zip(drawn["full"], found, strict=True))
        wall, processor = (statistics.median(getattr(one, clock) for one in found) for clock in ("wall", "processor"))
        faster = [statistics.median(getattr(a, c) / getattr(b, c) for a, b in pairs) for c in ("wall", "processor")]
        print(
            f"  K={k:<3} {name:6} {samples[name]:6} samples ({samples[name] / samples['full']:.0%}), "
            f"{len(kept[name])} accepted, {len(kept[name]) / wall:6.2f} a second, {processor:5.1f} s of processor; "
            f"{faster[0]:.2f} times the full vote, in processor time {faster[1]:.2f}",
            flush=True,
        )
    print(f"  K={k:<3} accepted set, labels and targets are identical", flush=True)
    engine.close()


def draw(engine: HfEngine, model: ModelRef, questions: Sequence[Question], vote: Consensus) -> Drawn:
    """Draw what a vote asks for, as a sample stage does."""
    prompt, sampling = Wordmath.default_prompt, vote.sampling()
    wanted = Wanted(vote if vote.in_rounds else None, Numeric(), sampling.n, engine.least_rows)
    held: dict[Place, Completion] = {}
    requests = [Request(one.id, prompt.render(one)) for one in questions]
    wall, processor = time.perf_counter(), time.process_time()
    if vote.in_rounds:
        growing = wanted.growing(questions, held)
        batches = engine.generate_growing(model, requests, sampling, SEED, growing)
    else:
        batches = engine.generate(model, requests, sampling, SEED)
    for batch in batches:
        held |= {(one.question_id, one.sample): one for one in batch}
    return Drawn(held, time.perf_counter() - wall, time.process_time() - processor)


def labels(questions: Sequence[Question], vote: Consensus, drawn: Drawn) -> dict[str, tuple[str | None, str | None]]:
    """Label and target of every accepted question."""
    samples: dict[str, list[Completion]] = {}
    for (question, _), one in sorted(drawn.held.items()):
        samples.setdefault(question, []).append(one)
    found = vote.label(questions, samples, Numeric(), 0)
    return {one.question_id: (one.label, one.target) for one in found if one.kept}


if __name__ == "__main__":
    main()
