"""Drawing over two workers of a Ray cluster beside one: how near to twice as fast.

    python -m benchmarks.cluster          # needs nsd[ray]

Each question costs half a second of sleep, so the processors of this machine do not matter: what is measured is whether
the workers are kept busy. Time counts from the first question to the last one, when all workers are there; how long
they take to start is said beside it. Texts are compared.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pyarrow.parquet

QUESTIONS = 80
ENGINE = """
import os
import time
from pathlib import Path

from nsd import Completion, Engine, StopReason
from nsd.plugins.seeds import stream

HERE = Path(__file__).parent


class Sleeping(Engine):
    def generate(self, model, requests, sampling, seed, done=frozenset()):
        (HERE / f"here-{os.getpid()}").touch()
        while len(list(HERE.glob("here-*"))) < int((HERE / "workers").read_text()):
            time.sleep(0.02)
        for request in requests:
            began = time.time()
            time.sleep(0.5)
            with (HERE / "times").open("a") as times:
                times.write(f"{began} {time.time()}\\n")
            text = f"The answer is {stream(seed, request.question_id, 0) % 10}"
            yield [Completion(request.question_id, 0, text, 4, StopReason.STOP)]
"""
SPEC = f"""\
name: cluster
model: builtin:wordmath-1m
data: {{use: wordmath, train: 30, test: {QUESTIONS}, split: {{labeled: 4, test: {QUESTIONS}}}}}
engine: ./sleeping.py:Sleeping
eval: {{use: accuracy, max_tokens: 8, temperature: 1.0}}
conditions: {{base: {{train_on: []}}}}
"""


@dataclass(frozen=True)
class Measured:
    """Seconds from the first question to the last, seconds of the whole stage, and the texts."""

    drawing: float
    stage: float
    texts: list[str]


def measure(folder: Path, workers: int) -> Measured:
    """Draw with so many workers."""
    folder.mkdir()
    (folder / "sleeping.py").write_text(ENGINE)
    (folder / "workers").write_text(str(workers))
    resources = f"resources: {{device: cpu, over: ray, sampling_processes: {workers}}}\n"
    (folder / "spec.yaml").write_text(SPEC + resources)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "nsd.runner.cli", "run", "spec.yaml"]
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    times = [tuple(map(float, line.split())) for line in (folder / "times").read_text().splitlines()]
    (artifact,) = folder.glob("nsd-workspace/artifacts/sample-*")
    seconds = json.loads((artifact / "manifest.json").read_text())["seconds"]
    texts = pyarrow.parquet.read_table(artifact / "samples.parquet").column("text").to_pylist()
    return Measured(max(end for _, end in times) - min(began for began, _ in times), seconds, texts)


def main() -> None:
    """Measure, or say why not."""
    if find_spec("ray") is None:
        print("cluster: skipped, Ray is not installed: pip install -c constraints.txt 'ray[data]'")
        return
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="nsd-bench-") as folder:
        one, two = (measure(Path(folder) / str(workers), workers) for workers in (1, 2))
    print(f"drawing {QUESTIONS} questions of half a second each over Ray, {time.monotonic() - began:.0f} s in all")
    for workers, found in ((1, one), (2, two)):
        start = found.stage - found.drawing
        print(f"  {workers} worker{'s' * (workers > 1)}: {found.drawing:6.1f} s, and {start:.0f} s to start and to end")
    print(f"  of linear: {one.drawing / two.drawing / 2:.2f}; the same texts: {one.texts == two.texts}")


if __name__ == "__main__":
    main()
