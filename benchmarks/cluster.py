"""Drawing over two workers of a Ray cluster beside one: how near to twice as fast.

    python -m benchmarks.cluster [--record]          # needs nsd[ray]

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
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pyarrow.parquet

from benchmarks.frame import NotMeasured, Row, argument_parser, report

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


def draw(folder: Path, workers: int) -> Measured:
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


def measure() -> Iterator[Row | str]:
    """One row: questions a second of two workers over those of one."""
    if find_spec("ray") is None:
        raise NotMeasured("Ray is not installed: pip install -c constraints.txt 'ray[data]'")
    with tempfile.TemporaryDirectory(prefix="nsd-bench-") as folder:
        one, two = (draw(Path(folder) / str(workers), workers) for workers in (1, 2))
    if one.texts != two.texts:
        raise SystemExit("cluster: two workers wrote other texts than one")
    rates = [QUESTIONS / found.drawing for found in (two, one)]
    yield Row(
        f"{QUESTIONS} questions that sleep half a second each, two Ray workers",
        "one Ray worker",
        "questions/s",
        rates[0],
        rates[1],
        rates[0] / rates[1],
        f"{rates[0] / rates[1] / 2:.2f} of linear; the same texts",
    )
    starts = [found.stage - found.drawing for found in (two, one)]
    yield f"Beside the drawing {starts[0]:.0f} and {starts[1]:.0f} s went to start and to end."


def main() -> int:
    """Measure, or say why not."""
    options = argument_parser(__doc__).parse_args()
    return report(options, measure(), ("ray",))


if __name__ == "__main__":
    sys.exit(main())
