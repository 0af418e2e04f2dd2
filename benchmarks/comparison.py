"""Comparing at scale through the command line, beside the script a person would write with pandas and statsmodels.

    python -m benchmarks.comparison [--only models|rows] [--questions 500000] [--runs 20] [--repeats 3] [--record]

models   44 real models on GSM8K: `nsd import` of the recorded answers, then `nsd compare` of all 946 pairs, paired
         and corrected. Peer: read the same file, judge it with the same verifier, loop over the pairs with
         statsmodels.
rows     ten million evaluation rows, 20 runs of 500,000 questions, made here in Parquet as artifacts of a temporary
         workspace: `nsd db rebuild`, then `nsd compare` of all 190 pairs. Peer: pandas reads the same Parquet files
         into one table of questions and runs, and loops over the pairs with statsmodels, whose exact p is turned
         into the mid-p by scipy, since it has none.

Both sides must find the same discordant counts for every pair, or the benchmark fails. Times are whole processes,
memory is the process's own peak. Limits: the made rows have empty completions, so reading completions is not
measured; the peer has no intervals, no check of data and verifier hashes, and no word about missing answers. Equality
alone is judged. Where the real data is absent it says so and leaves that part out.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

from benchmarks.clocks import Ran, median_ratio, module, of_environment, run
from benchmarks.frame import REPOSITORY, Row, argument_parser, report

ANSWERS = REPOSITORY.parent / "shared" / "data" / "samples" / "zeroeval" / "gsm_answers.jsonl"
NSD = of_environment("nsd")
PEER = "pandas and statsmodels, writing nothing"


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


def models(repeats: int, folder: Path) -> Iterator[Row | str]:
    """Import and compare the recorded answers of 44 models."""
    if not ANSWERS.exists():
        yield "Without the recorded answers of 44 models, which are not here (shared/data/samples/zeroeval)."
        return
    fields = ["--name", "zeroeval", "--id", "id", "--answer", "answers.*", "--gold", "gold", "--verifier", "numeric"]
    sides: dict[str, list[Ran]] = {"import": [], "compare": [], "peer": []}
    for repeat in range(repeats):
        workspace = str(folder / f"models{repeat}")
        imported = run([NSD, "import", str(ANSWERS), *fields, "-w", workspace])
        compared = run([NSD, "compare", "zeroeval/*", "--format", "json", "-w", workspace])
        theirs = run(module("comparison", "--peer", "models", str(ANSWERS)))
        for name, done in (("import", imported), ("compare", compared), ("peer", theirs)):
            sides[name].append(done)
        comparisons = check_equal(compared, theirs)
        if "INCOMPLETE" not in imported.out or not any("left out" in (one["note"] or "") for one in comparisons):
            raise SystemExit("comparison: the incomplete model is not reported")
    middle = {name: statistics.median(one.seconds for one in runs) for name, runs in sides.items()}
    whole = [a.seconds + b.seconds for a, b in zip(sides["import"], sides["compare"], strict=True)]
    yield Row(
        f"import of 44 models and {len(comparisons)} corrected pairs",
        PEER,
        "s",
        statistics.median(whole),
        middle["peer"],
        median_ratio(whole, [one.seconds for one in sides["peer"]]),
        f"{middle['import']:.2f} s of them the import; discordant counts of all pairs equal",
    )
    yield memory("the same, peak memory", [*sides["import"], *sides["compare"]], sides["peer"])


def rows(repeats: int, folder: Path, runs: int, questions: int) -> Iterator[Row | str]:
    """Index and compare made evaluations."""
    workspace = folder / "rows"
    make_workspace(workspace, runs, questions)
    indexed = run([NSD, "db", "rebuild", "-w", str(workspace)])
    sides: dict[str, list[Ran]] = {"compare": [], "peer": []}
    for _ in range(repeats):
        compared = run([NSD, "compare", "scale/*", "--format", "json", "-w", str(workspace)])
        theirs = run(module("comparison", "--peer", "rows", str(workspace)))
        comparisons = check_equal(compared, theirs)
        for name, done in (("compare", compared), ("peer", theirs)):
            sides[name].append(done)
    own, other = ([one.seconds for one in side] for side in sides.values())
    yield Row(
        f"{len(comparisons)} pairs of {runs} runs, {runs * questions:,} rows",
        PEER,
        "s",
        statistics.median(own),
        statistics.median(other),
        median_ratio(own, other),
        f"discordant counts of all pairs equal; `nsd db rebuild` before it took {indexed.seconds:.1f} s",
    )
    yield memory("the same, peak memory", sides["compare"], sides["peer"])


def memory(what: str, own: list[Ran], other: list[Ran]) -> Row:
    """The largest peaks of both sides."""
    mine, theirs = (max(one.peak_mib for one in side) for side in (own, other))
    return Row(what, PEER, "MiB", mine, theirs, mine / theirs)


def check_equal(compared: Ran, theirs: Ran) -> list[dict[str, Any]]:
    """The comparisons, whose discordant counts must be the peer's."""
    comparisons: list[dict[str, Any]] = json.loads(compared.out)["comparisons"]
    own = {f"{one['a']}|{one['b']}": one["discordant"] for one in comparisons}
    peers = json.loads(theirs.out)
    if own != peers:
        differing = sum(own.get(pair) != peers.get(pair) for pair in {*own, *peers})
        raise SystemExit(f"comparison: discordant counts of {differing} of {len(own)} pairs differ")
    return comparisons


def measure(options: argparse.Namespace) -> Iterator[Row | str]:
    """Both measurements, or the one asked for."""
    with tempfile.TemporaryDirectory() as name:
        if options.only in (None, "models"):
            yield from models(options.repeats, Path(name))
        if options.only in (None, "rows"):
            yield from rows(options.repeats, Path(name), options.runs, options.questions)


def main() -> int:
    """Measure and print."""
    parser = argument_parser(__doc__)
    parser.add_argument("--only", choices=("models", "rows"))
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--questions", type=int, default=500_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peer", nargs=2, metavar=("KIND", "SOURCE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peer:
        peer(options.peer[0], Path(options.peer[1]))
        return 0
    return report(options, measure(options), ("pandas", "statsmodels", "duckdb"))


if __name__ == "__main__":
    sys.exit(main())
