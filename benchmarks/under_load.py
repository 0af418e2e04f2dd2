"""How much slower a quickstart training gets beside busy loops: the stage alone and loaded, in turn.

    python -m benchmarks.under_load [--rounds 3] [--loops 2] [--condition baseline]

Each run does the stage anew, in a workspace of its own and through the worker that `nsd run` starts. The figure is the
ratio of the quickest run beside the loops to the quickest alone; 2 would be a fair share where there are as many loops
as cores. More than 3 fails. What the user sets wins over nsd's choice, so `GOMP_SPINCOUNT=300000` in front of the
command measures what OpenMP does by itself. The weights of all runs must be equal: waiting changes no result.

Limits: other work on the machine makes both sides slower, and the ratio smaller; the load before is printed.
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
from nsd.runner.work.execute import execute

QUICKSTART = Path(__file__).resolve().parents[1] / "specs" / "quickstart.yaml"
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


def main() -> int:
    """Measure, print, and return 1 where it is too slow or where weights differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--loops", type=int, default=2)
    parser.add_argument("--condition", default="baseline")
    options = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    print(f"training of {options.condition}, {cores} cores, load before {os.getloadavg()[0]:.1f}", flush=True)
    alone: list[float] = []
    loaded: list[float] = []
    weights: set[str] = set()
    for _ in range(options.rounds):
        for count, times in ((0, alone), (options.loops, loaded)):
            with busy_loops(count):
                seconds, digest = training(options.condition)
            times.append(seconds)
            weights.add(digest)
    ratio = min(loaded) / min(alone)
    for name, times in (("alone", alone), (f"beside {options.loops} busy loops", loaded)):
        print(f"  {name:<22} {min(times):6.1f} s   of {', '.join(f'{one:.1f}' for one in times)}")
    print(f"  ratio {ratio:.2f}, at most {LIMIT:g}; weights {'equal' if len(weights) == 1 else 'DIFFER'}")
    return 0 if ratio <= LIMIT and len(weights) == 1 else 1


if __name__ == "__main__":
    raise SystemExit(main())
