"""How much slower a quickstart training gets beside busy loops: the stage alone and loaded, in turn.

    python -m benchmarks.under_load [--rounds 3] [--loops 2] [--condition baseline] [--record]

Each run does the stage anew, in a workspace of its own and through the worker that `nsd run` starts. The figure is the
ratio of the quickest run beside the loops to the quickest alone; 2 would be a fair share where there are as many loops
as cores. More than 3 fails. What the user sets wins over nsd's choice, so `GOMP_SPINCOUNT=300000` in front of the
command measures what OpenMP does by itself. The weights of all runs must be equal: waiting changes no result.

Limits: other work on the machine makes both sides slower, and the ratio smaller; the load before is printed. The stage
sees no GPU: this is about processors.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import nsd
from benchmarks.frame import REPOSITORY, Row, argument_parser, report
from nsd.runner.work.execute import execute

QUICKSTART = REPOSITORY / "specs" / "quickstart.yaml"
LIMIT = 3.0


@contextlib.contextmanager
def busy_loops(count: int) -> Iterator[None]:
    """That many processes which do nothing but take the processor."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def training(condition: str) -> tuple[float, str]:
    """Seconds of the condition's training stage by its manifest, and the sha256 of its weights."""
    from nsd.runner.store.workspace import Workspace

    plan = nsd.plan(QUICKSTART, only=[condition])
    digest = plan.runs[0].train_digest
    if digest is None:
        raise SystemExit(f"{condition} trains nothing")
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(Path(folder))
        outcome = execute(plan, workspace, only=[digest])
        if outcome.exit_code:
            raise SystemExit(f"the training failed: {[failure.reason for failure in outcome.failures]}")
        seconds = workspace.manifest("train", digest).seconds
        if seconds is None:
            raise SystemExit("the manifest states no seconds")
        (weights,) = workspace.folder("train", digest).rglob("*.safetensors")
        return seconds, hashlib.sha256(weights.read_bytes()).hexdigest()


def measure(options: argparse.Namespace) -> Iterator[Row]:
    """The stage alone and beside the loops, in turn."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    times: dict[int, list[float]] = {0: [], options.loops: []}
    weights: set[str] = set()
    for _ in range(options.rounds):
        for count, taken in times.items():
            with busy_loops(count):
                seconds, digest = training(options.condition)
            taken.append(seconds)
            weights.add(digest)
    if len(weights) > 1:
        raise SystemExit("under_load: the weights differ")
    alone, loaded = times.values()
    yield Row(
        f"the quickstart's `{options.condition}` training beside {options.loops} busy loops",
        "the same without the loops",
        "s",
        min(loaded),
        min(alone),
        min(loaded) / min(alone),
        f"quickest of {options.rounds}; weights equal",
    )
    if min(loaded) > LIMIT * min(alone):
        raise SystemExit(f"under_load: more than {LIMIT:g}")


def main() -> int:
    """Measure, print, and return 1 where it is too slow or where weights differ."""
    parser = argument_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--loops", type=int, default=2)
    parser.add_argument("--condition", default="baseline")
    options = parser.parse_args()
    return report(options, measure(options), ("torch", "transformers", "trl"))


if __name__ == "__main__":
    sys.exit(main())
