"""A finished experiment on disk, with everything a report shows and texts of the test's own choosing.

Every file is what a run leaves: Parquet through runner/store/tables.py, manifests through Workspace.commit, a record,
and the index that `nsd db rebuild` makes of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nsd.plugins.durable import write_atomically
from nsd.runner.store import tables
from nsd.runner.store.index import Store
from nsd.runner.store.shapes import Manifest
from nsd.runner.store.workspace import Workspace

DATA = "d" * 64
TIMES = {"started_at": "2026-01-01T00:00:00+00:00", "ended_at": "2026-01-01T00:01:00+00:00"}


class Written:
    """`workspace` holds the experiment `name` with these arms: condition -> right or wrong, question by question.

    `say` writes a completion from (condition, question number, right); every third answer is cut at the token limit
    where it is wrong. Arms named in `trained` have a curve and a health warning, and learned from one label set.
    """

    def __init__(
        self,
        folder: Path,
        arms: Mapping[str, Sequence[bool]],
        *,
        name: str = "toy",
        asks: str = "Does it help?",
        claims: Sequence[tuple[str, str]] = (),
        trained: Sequence[str] = (),
        say: Any = None,
        question: Any = None,
        warning: str = "all rewards were equal",
        label: str = "7",
        spec: str = "name: toy\n",
        samples: int = 1,
        recorded_at: str = "2025-12-31T00:00:00+00:00",
        looks: int | str | None = None,
        more_claims: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        self.workspace = Workspace(folder / "workspace")
        self.workspace.create()
        self.name, self.samples = name, samples
        self._say = say or (lambda arm, i, right: f"{arm} thinks about {i}.\n#### {i if right else i + 1}")
        count = max(map(len, arms.values()))
        write = question or (lambda i: f"What is {i}?")
        columns = ("solution", "context")
        rows = [
            {"id": f"q{i}", "text": write(i), "answer": str(i), "meta": "{}", **dict.fromkeys(columns)}
            for i in range(count)
        ]
        tables.write(self.workspace.data / f"{DATA}.parquet", tables.QUESTIONS, rows)
        runs = []
        for number, (condition, outcomes) in enumerate(arms.items()):
            label_digest = train_digest = None
            if condition in trained:
                label_digest = self._labels("1" * 20, label)
                train_digest = self._train(f"{number:02d}train{'0' * 13}", label_digest, warning, f"{condition}/seed1")
            digest = self._evaluation(f"{number:02d}eval{'0' * 14}", condition, outcomes, train_digest)
            run = {"run": f"{name}/{condition}/seed1", "condition": condition, "seed": 1, "eval_digest": digest}
            run |= {"train_digest": train_digest, "label_digest": label_digest, "needs": [], "repeats": []}
            runs.append({**run, "status": "done", "reason": None, **TIMES})
        said = [{"text": f"{a} > {b}", "kind": "better", "better": a, "worse": b, "margin": None} for a, b in claims]
        said += [dict(one) for one in more_claims]
        record = {"experiment": name, "spec_digest": "a" * 20, "question": asks, "spec_yaml": spec, "runs": runs}
        record |= {"resolved": {"name": name, "conditions": {key: {} for key in arms}}}
        rules = {"alpha": 0.05, "correction": "holm", "looks": looks}
        record |= {"hypotheses": {**rules, "claims": said} if said else None}
        record |= {"recorded_at": recorded_at}
        # The folder's name is of no account to the index: an experiment's own name may hold anything.
        write_atomically(self.workspace.experiments / "toy" / "a.json", json.dumps(record))
        Store(self.workspace).rebuild()

    def _stage(self, kind: str, digest: str, files: Mapping[str, tuple[dict[str, str], Any]], **manifest: Any) -> str:
        if self.workspace.is_whole(kind, digest):
            return digest
        common: dict[str, Any] = {"kind": kind, "digest": digest, "key": {}, "inputs": {}, "seconds": 60.0}
        common |= {"gpu_seconds": 0.0, "packages": {"nsd": "0.1.0"}, "machine": {"system": "Toy", "cpus": 2}, **TIMES}
        with self.workspace.lock(kind, digest) as partial:
            (partial / "artifact").mkdir()
            for file, (columns, rows) in files.items():
                tables.write(partial / "artifact" / file, columns, rows)
            self.workspace.commit(kind, digest, Manifest(**{**common, **manifest}))
        return digest

    def _evaluation(self, digest: str, condition: str, outcomes: Sequence[bool], train: str | None) -> str:
        values, samples = [], []
        for i, right in enumerate(outcomes):
            values.append({"question_id": f"q{i}", "value": float(right)})
            for sample in range(self.samples):
                stop = "length" if i % 3 == 0 and not right else "stop"
                row = {"question_id": f"q{i}", "sample": sample, "text": self._say(condition, i, right), "tokens": 9}
                row |= {"stop_reason": stop, "score": float(right), "correct": bool(right)}
                samples.append({**row, "answer": str(i if right else i + 1)})
        info = {"metric": "accuracy", "protocol": "accuracy", "data_hash": DATA, "verifier_hash": "v" * 20}
        info |= {"questions": len(values), "samples": self.samples}
        files = {"values.parquet": (tables.VALUES, values), "samples.parquet": (tables.SCORED, samples)}
        return self._stage("eval", digest, files, eval=info, inputs={"model": train} if train else {})

    def _labels(self, digest: str, label: str) -> str:
        rows = []
        for i in range(40):
            confidence = (i % 4 + 1) / 4
            row = {
                "question_id": f"u{i}",
                "label": label,
                "target": label,
                "confidence": confidence,
                "votes": 4,
                "k": 4,
            }
            rows.append({**row, "kept": confidence >= 0.5, "correct": i % 5 < confidence * 5, "tally": "{}"})
        return self._stage("label", digest, {"labels.parquet": (tables.LABELS, rows)})

    def _train(self, digest: str, labels: str, warning: str, used_by: str) -> str:
        rows = [{"step": i, "metric": "loss", "value": 1 / i} for i in range(1, 41)]
        events = [{"step": 20, "text": warning, "field": "trainer.temperature"}]
        files = {"curves.parquet": (tables.CURVES, rows)}
        manifest = {"inputs": {"labels": labels}, "events": events, "used_by": [used_by]}
        return self._stage("train", digest, files, **manifest)


def better_and_worse(count: int = 120) -> dict[str, list[bool]]:
    """A base, an arm that is better, one that cannot be told from the base, and one that is worse."""
    base = [i % 2 == 0 for i in range(count)]
    better = [right or i % 4 == 1 for i, right in enumerate(base)]
    same = [not right if i % 30 == 0 else right for i, right in enumerate(base)]
    worse = [right and i % 3 != 0 for i, right in enumerate(base)]
    return {"base": base, "better": better, "same": same, "worse": worse}


HOSTILE = (
    "<script>window.hacked=1</script>",
    "</script><script>window.hacked=1</script>",
    "<!-- <script>",
    "--><img src=x onerror=window.hacked=1>",
    '"><svg/onload=window.hacked=1>',
    "' onmouseover='window.hacked=1' x='",
    "<a href=javascript:window.hacked=1>x</a>",
    "{{ 7 * 7 }} {% for x in range(3) %}x{% endfor %} {# c #}",
    "${7*7} $\\frac{1}{2}$ $$",
    "]]></style><style>*{display:none}</style>",
    "<iframe srcdoc='<script>parent.hacked=1</script>'></iframe>",
    "<meta http-equiv=refresh content='0;url=https://example.org/'>",
    "<base href=https://example.org/><link rel=stylesheet href=https://example.org/x.css>",
    "\u202egnp.exe\u2066 \u200bzero\u2028line\u2029",
    "\x00\x07\x1b[31mred\x1b]0;title\x07\x85\x9f",
    "\ud800 lone \udfff",
    "\ufffe\uffff \U000e0041 \U0001f600 漢字 ﷽",
    "&lt;b&gt; &amp; &#60; &#x3c;",
)
