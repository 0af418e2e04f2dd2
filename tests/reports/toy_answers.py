"""Claims on record before and after their results."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from nsd.reports.judge.answer import Answer
from toy_results import Results

BEFORE, RESULTS, AFTER = "2026-01-01 10:00", "2026-01-01 12:00", "2026-01-02 09:00"


def claim(better: str, worse: str, kind: str = "better", margin: float | None = None) -> dict[str, Any]:
    return {"text": f"{better} > {worse}", "kind": kind, "better": better, "worse": worse, "margin": margin}


def record(
    results: Results,
    at: str,
    claims: Sequence[dict[str, Any]],
    digest: str = "spec",
    settings: Any = "same",
    field: str = "trainer",
    **rules: Any,
) -> dict[str, Any]:
    """What `nsd run` writes down of a spec, and the runs' link to it."""
    block = {"alpha": 0.05, "correction": "holm", "looks": None, "claims": list(claims), **rules}
    resolved = {"conditions": {name: {field: settings} for name in ("base", "tuned", "third")}}
    results.connection.execute(
        "INSERT INTO experiments VALUES ('s', ?, 'Does it help?', '', ?, ?, ?, ?)",
        [digest, json.dumps(resolved), json.dumps(block), at, at],
    )
    results.connection.execute(
        "INSERT OR IGNORE INTO runs SELECT * REPLACE (? AS spec_digest) FROM runs "
        "WHERE experiment = 's' AND spec_digest = 'spec'",
        [digest],
    )
    return block


def texts(found: Answer) -> tuple[list[str], list[str]]:
    return [one.claim for one in found.verdicts], [one.claim for one in found.late]
