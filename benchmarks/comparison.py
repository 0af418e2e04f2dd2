"""Comparing at scale through the command line, beside the script a person would write with pandas and statsmodels.

    python -m benchmarks.comparison [--only models|rows] [--questions 500000] [--runs 20] [--repeats 3] [--json FILE]

models   44 real models on GSM8K: `nsd import` of the recorded answers, then `nsd compare` of all 946 pairs, paired
         and corrected. Peer: read the same file, judge it with the same verifier, loop over the pairs with
         statsmodels.
rows     ten million evaluation rows, 20 runs of 500,000 questions, made here in Parquet as artifacts of a temporary
         workspace: `nsd db rebuild`, then `nsd compare` of all 190 pairs. Peer: pandas reads the same Parquet files
         into one table of questions and runs, and loops over the pairs with statsmodels, whose exact p is turned
         into the mid-p by scipy, since it has none.

Both sides must find the same discordant counts for every pair, or the benchmark fails. Times are whole processes,
memory is the process's own peak. Limits: the made rows have empty completions, so reading completions is not
measured; the peer has no intervals, no check of data and verifier hashes, and no word about missing answers. It
prints, and judges equality alone. Where the real data is absent it says so and leaves that part out.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
ANSWERS = ROOT.parent / "shared" / "data" / "samples" / "zeroeval" / "gsm_answers.jsonl"
NSD = str(Path(sys.executable).with_name("nsd"))
MIB = 1024 * 1024


@dataclass(frozen=True)
class Ran:
    """One finished process: wall seconds, peak resident memory in MiB, standard output."""

    seconds: float
    peak_mib: float
    out: str


def run(*command: str) -> Ran:
    """Run a process alone and measure it. Exits with its standard error where it fails."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=out, stderr=err, env=environment)
        _, status, usage = os.wait4(process.pid, 0)  # the usage of this child alone
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} ended with {process.returncode}:\n{err.read().decode()[-3000:]}")
        unit = 1 if sys.platform == "darwin" else 1024
        return Ran(seconds, usage.ru_maxrss * unit / MIB, out.read().decode())


# --------------------------------------------------------------------------- the peer, in a process of its own


def peer(kind: str, source: Path) -> None:
    """What a person would write: a table of right and wrong, and McNemar for every pair in a loop."""
    import numpy as np
    from scipy.stats import binom
    from statsmodels.stats.contingency_tables import mcnemar
    from statsmodels.stats.multitest import multipletests

    table = _peer_models(source) if kind == "models" else _peer_rows(source)
    known = {name: table[name].notna().to_numpy() for name in table.columns}
    right = {name: table[name].to_numpy(dtype=float, na_value=0.0) == 1 for name in table.columns}
    discordant, p_values = {}, []
    for a, b in combinations(table.columns, 2):
        shared = known[a] & known[b]
        a_only, b_only = int((right[a] & ~right[b] & shared).sum()), int((right[b] & ~right[a] & shared).sum())
        exact = float(mcnemar(np.array([[0, a_only], [b_only, 0]]), exact=True).pvalue)
        p_values.append(max(0.0, exact - float(binom.pmf(min(a_only, b_only), a_only + b_only, 0.5))))
        discordant[f"{a}|{b}"] = [a_only, b_only]
    multipletests(p_values, method="fdr_bh")
    print(json.dumps(discordant))


def _peer_models(source: Path) -> Any:
    import pandas  # type: ignore[import-untyped]  # its stubs are a package of their own

    from nsd.plugins.registry import find

    verifier: Any = find("verifier", "numeric")()
    rows = []
    for line in source.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        gold = verifier.normalise(record["gold"])
        row: dict[str, Any] = {"id": record["id"]}
        for model, answer in record["answers"].items():
            # "160 minutes" states an answer and is no normal form: what nsd reads in it is judged, as on its own side.
            normal = None if answer is None else verifier.extract(str(answer))
            row[f"zeroeval/{model}"] = normal is not None and verifier.same(normal, gold)
        rows.append(row)
    return pandas.DataFrame(rows).set_index("id")


def _peer_rows(source: Path) -> Any:
    import pandas

    found = {}
    for folder in sorted((source / "artifacts").iterdir()):
        name = json.loads((folder / "manifest.json").read_text())["imported"][0]["run"]
        found[name] = pandas.read_parquet(folder / "values.parquet").set_index("question_id")["value"]
    return pandas.DataFrame(dict(sorted(found.items())))


# --------------------------------------------------------------------------- ten million rows


def make_workspace(root: Path, runs: int, questions: int) -> None:
    """Write `runs` finished evaluations of `questions` questions each, as imports of one sample a question.

    Abilities lie 1 point apart and questions differ in difficulty, so that pairs have a discordance like real ones;
    2 % of the samples stop at the token limit, and those are wrong.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet

    from nsd.plugins.api import question_id
    from nsd.plugins.durable import write_atomically
    from nsd.runner.store.workspace import digest_of

    generator = np.random.default_rng(0)
    ids = pa.array([question_id(f"question {number}") for number in range(questions)])
    difficulty = generator.normal(size=questions)
    empty, one = pa.array([""] * questions), pa.array(np.zeros(questions, dtype=np.int64))
    for number in range(runs):
        name = f"scale/model{number:02d}"
        digest = digest_of(["comparison benchmark", name, questions])
        folder = root / "artifacts" / f"import-{digest}"
        folder.mkdir(parents=True)
        cut = generator.random(questions) < 0.02
        right = (generator.normal(size=questions) + difficulty < 0.5 + 0.03 * number) & ~cut
        pa.parquet.write_table(
            pa.table({"question_id": ids, "value": pa.array(right.astype(float))}), folder / "values.parquet"
        )
        samples = {
            "question_id": ids,
            "sample": one,
            "text": empty,
            "tokens": pa.array(generator.integers(20, 256, questions)),
            "stop_reason": pa.array(np.where(cut, "length", "stop")),
            "error": pa.nulls(questions, pa.string()),
            "score": pa.array(right.astype(float)),
            "correct": pa.array(right),
            "answer": pa.array(np.where(right, "1", "0")),
            "feedback": pa.nulls(questions, pa.string()),
        }
        pa.parquet.write_table(pa.table(samples), folder / "samples.parquet")
        manifest = {
            "kind": "import",
            "digest": digest,
            "key": {"kind": "import"},
            "inputs": {},
            "imported": [{"run": name, "eval_digest": digest, "counts": None}],
            "eval": {
                "metric": "accuracy",
                "protocol": "imported",
                "data_hash": "scale",
                "verifier_hash": "scale",
                "questions": questions,
                "samples": 1,
            },
        }
        write_atomically(folder / "manifest.json", json.dumps(manifest))


# --------------------------------------------------------------------------- the two measurements


def models(repeats: int, folder: Path) -> tuple[dict[str, Any] | None, bool]:
    """Import and compare the recorded answers of 44 models."""
    if not ANSWERS.exists():
        print("models: real data absent (../shared/data/samples/zeroeval/gsm_answers.jsonl), left out")
        return None, True
    fields = ["--name", "zeroeval", "--id", "id", "--answer", "answers.*", "--gold", "gold", "--verifier", "numeric"]
    sides: dict[str, list[float]] = {"import": [], "compare": [], "peer": []}
    peaks: dict[str, float] = {}
    equal = True
    reported = False
    for repeat in range(repeats):
        workspace = str(folder / f"models{repeat}")
        imported = run(NSD, "import", str(ANSWERS), *fields, "-w", workspace)
        compared = run(NSD, "compare", "zeroeval/*", "--format", "json", "-w", workspace)
        theirs = run(sys.executable, str(Path(__file__).resolve()), "--peer", "models", str(ANSWERS))
        for name, done in (("import", imported), ("compare", compared), ("peer", theirs)):
            sides[name].append(done.seconds)
            peaks[name] = max(peaks.get(name, 0.0), done.peak_mib)
        comparisons = json.loads(compared.out)["comparisons"]
        equal &= discordant_of(comparisons) == json.loads(theirs.out)
        reported = "INCOMPLETE" in imported.out and any("left out" in (one["note"] or "") for one in comparisons)
    seconds = {name: statistics.median(times) for name, times in sides.items()}
    whole = seconds["import"] + seconds["compare"]
    print(
        f"models: 44 runs, {len(comparisons)} pairs, from recorded answers to the corrected table, median of {repeats}"
    )
    print_row("nsd import", seconds["import"], peaks["import"])
    print_row("nsd compare", seconds["compare"], peaks["compare"])
    ratio = statistics.median(
        (a + b) / c for a, b, c in zip(sides["import"], sides["compare"], sides["peer"], strict=True)
    )
    print_row("both", whole, max(peaks["import"], peaks["compare"]))
    print_row("peer: pandas and statsmodels", seconds["peer"], peaks["peer"], f"ratio {ratio:.2f}")
    print(f"  discordant counts of all pairs {'equal' if equal else 'DIFFER'}")
    print(f"  the incomplete model is {'reported' if reported else 'NOT REPORTED'}")
    figures = {"pairs": len(comparisons), "seconds": seconds, "peak_mib": peaks, "ratio": ratio, "equal": equal}
    return {**figures, "incomplete_reported": reported}, equal and reported


def rows(repeats: int, folder: Path, runs: int, questions: int) -> tuple[dict[str, Any], bool]:
    """Index and compare made evaluations."""
    workspace = folder / "rows"
    make_workspace(workspace, runs, questions)
    indexed = run(NSD, "db", "rebuild", "-w", str(workspace))
    sides: dict[str, list[float]] = {"compare": [], "peer": []}
    peaks: dict[str, float] = {"index": indexed.peak_mib}
    equal = True
    for _ in range(repeats):
        compared = run(NSD, "compare", "scale/*", "--format", "json", "-w", str(workspace))
        theirs = run(sys.executable, str(Path(__file__).resolve()), "--peer", "rows", str(workspace))
        for name, done in (("compare", compared), ("peer", theirs)):
            sides[name].append(done.seconds)
            peaks[name] = max(peaks.get(name, 0.0), done.peak_mib)
        comparisons = json.loads(compared.out)["comparisons"]
        equal &= discordant_of(comparisons) == json.loads(theirs.out)
    seconds = {"index": indexed.seconds, **{name: statistics.median(times) for name, times in sides.items()}}
    ratio = statistics.median(a / b for a, b in zip(sides["compare"], sides["peer"], strict=True))
    memory = peaks["compare"] / peaks["peer"]
    print(f"rows: {runs} runs x {questions} questions = {runs * questions:,} rows, {len(comparisons)} pairs, ", end="")
    print(f"median of {repeats}")
    print_row("nsd db rebuild (once)", seconds["index"], peaks["index"])
    print_row("nsd compare", seconds["compare"], peaks["compare"])
    print_row("peer: pandas and statsmodels", seconds["peer"], peaks["peer"], f"ratio {ratio:.2f}, memory {memory:.2f}")
    print(f"  discordant counts of all pairs {'equal' if equal else 'DIFFER'}", flush=True)
    return {"rows": runs * questions, "seconds": seconds, "peak_mib": peaks, "ratio": ratio, "equal": equal}, equal


def discordant_of(comparisons: list[dict[str, Any]]) -> dict[str, list[int]]:
    """Discordant counts by pair, in the peer's form."""
    return {f"{one['a']}|{one['b']}": one["discordant"] for one in comparisons}


def print_row(name: str, seconds: float, peak_mib: float, more: str = "") -> None:
    """One line of the table."""
    print(f"  {name:<30} {seconds:7.2f} s   peak {peak_mib:6.0f} MiB   {more}".rstrip())


def main() -> int:
    """Measure, print, and return 1 where the sides disagree."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", choices=("models", "rows"))
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--questions", type=int, default=500_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--peer", nargs=2, metavar=("KIND", "SOURCE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peer:
        peer(options.peer[0], Path(options.peer[1]))
        return 0
    sys.path.insert(0, str(ROOT))
    figures: dict[str, Any] = {}
    fine = True
    with tempfile.TemporaryDirectory() as name:
        if options.only in (None, "models"):
            figures["models"], good = models(options.repeats, Path(name))
            fine &= good
        if options.only in (None, "rows"):
            figures["rows"], good = rows(options.repeats, Path(name), options.runs, options.questions)
            fine &= good
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2))
    return 0 if fine else 1


if __name__ == "__main__":
    raise SystemExit(main())
