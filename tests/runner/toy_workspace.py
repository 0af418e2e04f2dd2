"""Finished evaluations and experiment records on disk, as a run leaves them, without running anything."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from nsd.plugins.durable import write_atomically
from nsd.runner.store import tables
from nsd.runner.store.shapes import Manifest
from nsd.runner.store.workspace import Workspace


def finish(workspace: Workspace, digest: str, values: Sequence[float], kind: str = "eval", **manifest: Any) -> str:
    """Leave a whole evaluation of questions q0, q1, ... on disk, by default as scheme 1 has it; returns its digest."""
    workspace.create()
    common: dict[str, Any] = {"kind": kind, "digest": digest, "key": {}, "inputs": {}, "machine": {}}
    common |= {"seconds": 60.0, "gpu_seconds": 0.0}
    common |= {"started_at": "2026-01-01T00:00:00+00:00", "ended_at": "2026-01-01T00:01:00+00:00"}
    info = {"metric": "accuracy", "protocol": "accuracy", "data_hash": "d", "verifier_hash": "v", "samples": 1}
    with workspace.lock(kind, digest) as partial:
        staging = partial / "artifact"
        staging.mkdir()
        questions = [f"q{i}" for i in range(len(values))]
        rows = [{"question_id": key, "value": value} for key, value in zip(questions, values, strict=True)]
        tables.write(staging / "values.parquet", tables.VALUES, rows)
        scored = {"sample": 0, "text": "", "tokens": 1, "stop_reason": "stop", "answer": "1"}
        samples = [{**scored, **row, "score": row["value"], "correct": row["value"] == 1} for row in rows]
        tables.write(staging / "samples.parquet", tables.SCORED, samples)
        workspace.commit(kind, digest, Manifest(**{**common, "eval": {**info, "questions": len(values)}, **manifest}))
    return digest


def record(
    workspace: Workspace,
    experiment: str,
    evaluations: Mapping[str, str],
    *,
    version: str = "aaaaaaaaaaaa",
    recorded_at: str = "2026-01-01T00:00:00+00:00",
    ended_at: str | None = "2026-01-01T00:01:00+00:00",
    claims: Sequence[tuple[str, str]] = (),
    failed: Mapping[str, str] | None = None,
    repeats: Mapping[str, Sequence[str]] | None = None,
    **fields: Any,
) -> None:
    """Write the record of one version of a spec: condition -> evaluation digest, one seed; `claims` (better, worse)."""
    runs = []
    for condition, digest in evaluations.items():
        reason = (failed or {}).get(condition)
        whole = workspace.evaluation(digest) is not None
        again = [
            {"repeat": number, "eval_digest": other, "needs": []}
            for number, other in enumerate((repeats or {}).get(condition, ()), 1)
        ]
        run = {"run": f"{experiment}/{condition}/seed1", "condition": condition, "seed": 1, "eval_digest": digest}
        run |= {"train_digest": None, "label_digest": None, "needs": [], "repeats": again, "reason": reason}
        run |= {"status": "done" if whole else "failed" if reason else "pending"}
        runs.append({**run, "started_at": recorded_at, "ended_at": ended_at if whole else None})
    said = [{"text": f"{a} > {b}", "kind": "better", "better": a, "worse": b, "margin": None} for a, b in claims]
    content = {"experiment": experiment, "spec_digest": version, "question": "Why?", "spec_yaml": "name: toy"}
    content |= {"resolved": {"name": experiment}, "recorded_at": recorded_at, "runs": runs}
    content |= {"hypotheses": {"alpha": 0.05, "correction": "holm", "claims": said} if said else None}
    write_atomically(workspace.record_path(experiment, version), json.dumps({**content, **fields}))
