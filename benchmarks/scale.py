"""How nsd fares with very many questions, and with very many runs, against what it may take.

    python -m benchmarks.scale [--questions N] [--samples K] [--runs N] [--record]

Questions: a file of made-up problems without answers and a file of K recorded answers of each. `nsd plan`, then
`nsd run` of a spec that labels them by majority vote through the engine `replay` and trains two steps on what was
accepted. The memory is what all processes had together (Pss), at most; it may be 1 GiB. The full size is 1,000,000.

Runs: a workspace of finished evaluations of 20 questions, in experiments of 20 runs with a claim each, written as a run
writes them. The processor time of `nsd plan`, `runs`, `show` and `log`, start-up included; it may be a second. The full
size is 5,000. `nsd plan` is also asked of a spec of which nothing is there.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.frame import Row, argument_parser, report

NSD = str(Path(sys.executable).with_name("nsd"))
KNOWN = 100  # questions with answers, to train on and to test on each
UNANIMOUS = 0.05  # of the questions
EXPERIMENT = 20  # runs
ROUNDS = 5

LABELLING = """
name: million
model: builtin:wordmath-1m
data:
  use: jsonl
  train: train.jsonl
  test: test.jsonl
  unlabeled: unlabeled.jsonl
  fields: {{solution: solution}}
  split: {{labeled: {known}, unlabeled: {questions}, test: {known}}}
resources: {{device: cpu}}
engine: {{use: replay, path: recorded.jsonl}}
labeler: {{use: consensus, k: {k}, threshold: 1.0}}
trainer: {{use: sft, batch_size: 8}}
match: {{by: steps, amount: 2}}
seeds: [1]
conditions:
  recorded: {{train_on: []}}
  student: {{engine: hf, train_on: [pseudo], label_with: recorded}}
"""

MANY_RUNS = """
name: experiment{number}
data: {{use: wordmath, train: 40, test: 40, split: {{labeled: 20, unlabeled: 0, test: 20}}}}
model: builtin:wordmath-1m
resources: {{device: cpu}}
seeds: {seeds}
conditions:
  a: {{train_on: [], prompt: {{template: "a {{question}}"}}}}
  b: {{train_on: [], prompt: {{template: "b {{question}}"}}}}
  c: {{train_on: [], prompt: {{template: "c {{question}}"}}}}
  d: {{train_on: [], prompt: {{template: "d {{question}}"}}}}
hypotheses: {{claims: [b > a]}}
"""


# --------------------------------------------------------------------------- many questions


def question(number: int) -> str:
    """A problem."""
    other = 7 * number % 1000
    return f"A shop sells {number} pens on Monday and {other} on Tuesday. How many pens does it sell on both days?"


def response(number: int, error: int) -> str:
    """A worked answer that is wrong by `error`."""
    other = 7 * number % 1000
    both = number + other + error
    return f"On Monday {number} and on Tuesday {other}. Together that is {both}. #### {both}"


def write_questions(folder: Path, questions: int, k: int) -> Path:
    """Write the files; returns the spec."""
    numbers = random.Random(0)
    with (folder / "unlabeled.jsonl").open("w") as problems, (folder / "recorded.jsonl").open("w") as recorded:
        for number in range(questions + 2 * KNOWN):
            if number >= 2 * KNOWN:
                problems.write(json.dumps({"question": question(number)}) + "\n")
            sure = numbers.random() < UNANIMOUS
            errors = [0] * k if sure else numbers.choices((0, 0, 1, 2, 10), k=k)
            texts = [response(number, error) for error in errors]
            recorded.write(json.dumps({"question": question(number), "completion": texts}) + "\n")
    for name, first in (("train", 0), ("test", KNOWN)):
        with (folder / f"{name}.jsonl").open("w") as known:
            for number in range(first, first + KNOWN):
                answer, solution = str(number + 7 * number % 1000), response(number, 0)
                row = {"question": question(number), "answer": answer, "solution": solution}
                known.write(json.dumps(row) + "\n")
    spec = folder / "spec.yaml"
    spec.write_text(LABELLING.format(known=KNOWN, questions=questions, k=k))
    return spec


@dataclass
class Used:
    """What a command used: seconds of processor time and of the clock, and the most memory in MiB at any moment.

    `before` is the most memory until `mark`, of files, had one.
    """

    processor: float
    clock: float
    peak: float
    before: float


@dataclass
class Watched:
    """Looks at the memory of a process and of those below it."""

    process: subprocess.Popen[bytes]
    mark: tuple[Path, str]
    peak: float = 0.0
    before: float = 0.0
    ended: threading.Event = field(default_factory=threading.Event)

    def watch(self) -> None:
        """Look until the process has ended."""
        while not self.ended.wait(0.2):
            now = sum(map(memory, family(self.process.pid)))
            self.peak = max(self.peak, now)
            if not any(self.mark[0].glob(self.mark[1])):
                self.before = max(self.before, now)


def family(process: int) -> list[int]:
    """A process and all below it."""
    try:
        below = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:
        return [process]
    return [process, *(one for child in below for one in family(int(child)))]


def memory(process: int) -> float:
    """Memory of a process in MiB, what it shares with others in parts (Pss)."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:")), 0.0)


def used(arguments: list[str], folder: Path, mark: tuple[Path, str]) -> Used:
    """Run `nsd` with these arguments."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # with it every start compiles nsd anew
    process = subprocess.Popen(
        [NSD, *arguments], cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    watched = Watched(process, mark)
    watching = threading.Thread(target=watched.watch)
    watching.start()
    code = process.wait()
    watched.ended.set()
    watching.join()
    if code:
        sys.exit(f"nsd {' '.join(arguments)} ended with {code}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Used(processor, time.perf_counter() - started, watched.peak, watched.before)


def many_questions(folder: Path, questions: int, k: int) -> Iterator[Row]:
    """The rows of planning, and of labelling and training."""
    spec = write_questions(folder, questions, k)
    place = ["--workspace", str(folder / "workspace")]
    labelled = folder / "workspace" / "artifacts", "label-*"
    what = f"{questions:,} questions, {k} recorded answers each"
    planned = used(["plan", str(spec), *place], folder, labelled)
    yield memory_row(f"`nsd plan`, {what}", planned.peak, f"{planned.processor:.1f} s of processor time")
    found = used(["run", str(spec), *place], folder, labelled)
    yield memory_row("`nsd run` of it, until the labels are there", found.before, "")
    kept = next(json.loads(path.read_text())["labels"]["kept"] for path in labelled[0].glob("label-*/manifest.json"))
    said = f"{found.processor:.0f} s of processor time for all of it, {kept:,} accepted"
    yield memory_row("the same, with two steps of training on what was accepted", found.peak, said)


def memory_row(what: str, peak: float, note: str) -> Row:
    """A row of memory in MiB."""
    return Row(what, "1 GiB", "MiB", peak, 1024.0, peak / 1024, note)


# --------------------------------------------------------------------------- many runs


def write_runs(folder: Path, runs: int) -> Path:
    """Write a workspace with so many finished runs; returns the spec of one experiment in it."""
    from nsd.plugins.api import Completion, Score, Scored, StopReason
    from nsd.runner.plan.build import build_plan
    from nsd.runner.spec.load import load_spec
    from nsd.runner.store import tables
    from nsd.runner.store.index import Store
    from nsd.runner.store.shapes import EvalInfo, ExperimentRecord, Manifest
    from nsd.runner.store.workspace import Workspace, now
    from nsd.runner.work.jobs import write_data
    from nsd.runner.work.record import Record

    class Later(Store):
        """The index is made once, at the end."""

        def index_record(self, record: ExperimentRecord) -> None:
            pass

    workspace = Workspace(folder / "workspace")
    workspace.create()
    numbers = random.Random(0)
    for number in range(runs // EXPERIMENT):
        spec = folder / f"experiment{number}.yaml"
        first = 5 * number + 1
        spec.write_text(MANY_RUNS.format(number=number, seeds=list(range(first, first + 5))))
        plan = build_plan(load_spec(spec), pin=True)
        write_data(plan, workspace)
        for stage in plan.stages.values():
            job = stage.job
            assert job is not None
            (questions,) = (plan.data[content] for content in job.data)
            rights = [numbers.random() < 0.5 for _ in questions]
            scored = [
                Scored(Completion(one.id, 0, "#### 1", 3, StopReason.STOP), Score(float(right), right, "1"))
                for one, right in zip(questions, rights, strict=True)
            ]
            with workspace.lock(stage.kind, stage.digest) as partial:
                staging = partial / "artifact"
                staging.mkdir()
                result = {}
                if stage.kind == "score":
                    tables.write_scored(staging / "samples.parquet", scored)
                    values = ({"question_id": one.completion.question_id, "value": one.score.score} for one in scored)
                    tables.write(staging / "values.parquet", tables.VALUES, values)
                    info = EvalInfo(
                        metric="accuracy",
                        protocol="accuracy",
                        data_hash=job.data[0],
                        verifier_hash="v",
                        questions=len(rights),
                        samples=1,
                    )
                    result = {"eval": info.changed(mean=sum(rights) / len(rights)).to_json()}
                else:
                    tables.write_completions(staging / "samples.parquet", (one.completion for one in scored))
                manifest = {
                    **{"kind": stage.kind, "digest": stage.digest, "plugin": job.plugin.use, "key": stage.key},
                    **{"settings": stage.settings, "inputs": stage.inputs, "seed": job.seed, "machine": {}},
                    **{"data_hash": job.data[0], "used_by": stage.used_by, "started_at": now(), "ended_at": now()},
                    **{"seconds": 1.0, "gpu_seconds": 0.0, **result},
                }
                workspace.commit(stage.kind, stage.digest, Manifest.model_validate(manifest))
        Record(plan, workspace, Later(workspace)).save()
    Store(workspace).rebuild()
    return spec


def many_runs(folder: Path, runs: int) -> Iterator[Row]:
    """A row of each command."""
    spec = write_runs(folder, runs)
    last = runs // EXPERIMENT - 1
    new = folder / "new.yaml"
    new.write_text(spec.read_text().replace('template: "', 'template: "new '))
    place = ["--workspace", str(folder / "workspace")]
    commands = {
        "`nsd show RUN`": ["show", f"{spec.stem}/a/seed{5 * last + 1}", *place],
        "`nsd runs` of an experiment": ["runs", f"{spec.stem}/*", *place],
        "`nsd runs` of all": ["runs", *place],
        "`nsd plan`, nothing to run": ["plan", str(spec), *place],
        "`nsd plan`, all to run": ["plan", str(new), *place],
        "`nsd log` of all, 20 of them judged": ["log", *place],
        "`nsd log` of all": ["log", *place],
        "`nsd log` of an experiment": ["log", spec.stem, *place],
    }
    for what, arguments in commands.items():
        rounds = 1 if what.endswith("judged") else ROUNDS  # what was judged once is kept
        seconds = statistics.median(used(arguments, folder, (folder, "none")).processor for _ in range(rounds))
        yield Row(f"{what}, {runs:,} finished runs", "a second of processor time", "s", seconds, 1.0, seconds)


def measure(options: argparse.Namespace) -> Iterator[Row]:
    """The rows of both parts."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        if options.questions:
            yield from many_questions(Path(folder), options.questions, options.samples)
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        if options.runs:
            yield from many_runs(Path(folder), options.runs)


def main() -> int:
    """Measure and print."""
    parser = argument_parser(__doc__)
    parser.add_argument("--questions", type=int, default=100_000, help="0 leaves that part out")
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--runs", type=int, default=500, help="0 leaves that part out")
    options = parser.parse_args()
    return report(options, measure(options))


if __name__ == "__main__":
    sys.exit(main())
