"""Votes that stop when they are decided, against the full vote: the same labels, and how many of them a second.

    OMP_NUM_THREADS=1 python -m benchmarks.votes [--questions N] [--k K ...] [--threshold T] [--rounds N]
                                                 [--device cpu] [--record]

The model is the quickstart's baseline, trained as specs/quickstart.yaml trains it. Both votes draw with the `hf` engine
in this process, from the same streams, in turn: the full one all K samples, the other what it asks for while it draws,
as a run does (runner/work/rounds.py). Accepted questions, their labels and their training targets are compared, and a
difference ends the measurement.

Limits: what the vote that stops loses at the end, where few questions are open, is the larger the fewer questions there
are. Reading a prompt is paid once by either, and weighs more where fewer samples share it.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.clocks import Spent, clocked, median_ratio
from benchmarks.frame import REPOSITORY, Row, argument_parser, report
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

QUICKSTART = REPOSITORY / "specs" / "quickstart.yaml"
SEED = 7


@dataclass(frozen=True)
class Drawn:
    """What a vote drew, and what that took."""

    held: dict[Place, Completion]
    spent: Spent


def measure(options: argparse.Namespace) -> Iterator[Row]:
    """A row for each K."""
    with tempfile.TemporaryDirectory() as folder:
        model = trained(Workspace(Path(folder) / "w"))
        questions = Wordmath(Wordmath.Config(train=0, test=options.questions)).pools().test or []
        for k in options.k:
            yield compare(model, questions, k, options.threshold, options.rounds, options.device)


def trained(workspace: Workspace) -> ModelRef:
    """The baseline of the quickstart."""
    plan = build_plan(load_spec(QUICKSTART), only=["baseline"])
    (digest,) = (stage.digest for stage in plan.stages.values() if stage.kind == "train")
    if execute(plan, workspace, only=[digest]).exit_code:
        sys.exit("the baseline could not be trained")
    return ModelRef(str(workspace.folder("train", digest) / "model"))


def compare(model: ModelRef, questions: Sequence[Question], k: int, threshold: float, rounds: int, device: str) -> Row:
    """Both votes; exits where their labels differ."""
    votes = {
        name: Consensus(Consensus.Config(k=k, threshold=threshold, max_tokens=64, stop_vote=rule))
        for name, rule in (("full", None), ("exact", "exact"))
    }
    engine = HfEngine(HfEngine.Config(device=device))
    draw(engine, model, questions[:4], votes["full"])  # the first call sets up kernels
    drawn: dict[str, list[Drawn]] = {name: [] for name in votes}
    for _ in range(rounds):
        for name, vote in votes.items():
            held, spent = clocked(partial(draw, engine, model, questions, vote))
            drawn[name].append(Drawn(held, spent))
    engine.close()
    kept = {name: labels(questions, votes[name], found[0]) for name, found in drawn.items()}
    if kept["full"] != kept["exact"]:
        raise SystemExit(f"votes: K={k}: the accepted set, its labels or its targets differ")
    walls, processors = (
        [[len(kept[name]) / getattr(one.spent, clock) for one in drawn[name]] for name in ("exact", "full")]
        for clock in ("wall", "processor")
    )
    share = len(drawn["exact"][0].held) / len(drawn["full"][0].held)
    return Row(
        f"accepted labels of votes that stop (`exact`), K = {k}, threshold {threshold:g}, {len(questions)} questions",
        "the full vote",
        "labels/s",
        statistics.median(walls[0]),
        statistics.median(walls[1]),
        median_ratio(*walls),
        f"{share:.0%} of the samples; {len(kept['full'])} accepted, labels and targets identical",
        median_ratio(*processors),
    )


def draw(engine: HfEngine, model: ModelRef, questions: Sequence[Question], vote: Consensus) -> dict[Place, Completion]:
    """Draw what a vote asks for, as a sample stage does."""
    prompt, sampling = Wordmath.default_prompt, vote.sampling()
    wanted = Wanted(vote if vote.in_rounds else None, Numeric(), sampling.n, engine.least_rows)
    held: dict[Place, Completion] = {}
    requests = [Request(one.id, prompt.render(one)) for one in questions]
    if vote.in_rounds:
        growing = wanted.growing(questions, held)
        batches = engine.generate_growing(model, requests, sampling, SEED, growing)
    else:
        batches = engine.generate(model, requests, sampling, SEED)
    for batch in batches:
        held |= {(one.question_id, one.sample): one for one in batch}
    return held


def labels(questions: Sequence[Question], vote: Consensus, drawn: Drawn) -> dict[str, tuple[str | None, str | None]]:
    """Label and target of every accepted question."""
    samples: dict[str, list[Completion]] = {}
    for (question, _), one in sorted(drawn.held.items()):
        samples.setdefault(question, []).append(one)
    found = vote.label(questions, samples, Numeric(), 0)
    return {one.question_id: (one.label, one.target) for one in found if one.kept}


def main() -> int:
    """Measure and print."""
    parser = argument_parser(__doc__, device=True)
    parser.add_argument("--questions", type=int, default=150)
    parser.add_argument("--k", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--threshold", type=float, default=0.75)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    return report(options, measure(options), ("torch", "transformers", "trl"))


if __name__ == "__main__":
    sys.exit(main())
