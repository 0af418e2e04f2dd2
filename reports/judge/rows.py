"""Runs as rows: name, status, result, digests, times and dollars, one dictionary each.

run_rows(workspace, "quickstart/*")        # what `nsd runs --json` and `nsd.load_results` give
"""

from __future__ import annotations

import fnmatch
from typing import Any

from nsd.plugins.errors import InputError
from nsd.plugins.words import hint
from nsd.runner.store.index import Store
from nsd.runner.store.workspace import Workspace

RUNS_SQL = """
-- What drew the completions of an evaluation: its samples, or the searches of its questions, each counted once.
WITH drawn AS (
    SELECT n.eval_digest, sum(coalesce(
        (d.manifest->>'$.cost.usd')::DOUBLE, d.seconds * (d.manifest->>'$.cost.usd_per_hour')::DOUBLE / 3600
    )) AS usd
    FROM (
        SELECT DISTINCT digest AS eval_digest, unnest(json_extract_string(manifest, '$.inputs.*')) AS cause FROM stages
    ) n
    JOIN stages d ON d.digest = n.cause AND d.kind IN ('sample', 'discover')
    GROUP BY 1
)
SELECT r.run, r.experiment, r.condition, r.seed, r.status, r.reason, i.metric,
       coalesce(v.mean, c.correct / c.n) AS mean, coalesce(v.n, c.n) AS n,
       r.spec_digest, r.eval_digest, r.train_digest, r.label_digest, r.measurement, r.started_at, r.ended_at,
       t.seconds AS train_seconds, t.gpu_seconds AS train_gpu_seconds,
       -- of its own training and evaluation; what else made it (a teacher, its samples) is in nsd report and log
       coalesce(t.seconds * (t.manifest->>'$.cost.usd_per_hour')::DOUBLE / 3600, 0)
       + coalesce(d.usd, 0)
       + coalesce(
           e.seconds * (e.manifest->>'$.cost.usd_per_hour')::DOUBLE / 3600,
           CASE WHEN d.usd IS NOT NULL THEN 0 END -- a served model's dollars are known where the machine's are not
       ) AS usd
FROM current_runs r
LEFT JOIN eval_info i USING (eval_digest)
LEFT JOIN (SELECT eval_digest, avg(value) AS mean, count(*) AS n FROM eval_values GROUP BY 1) v USING (eval_digest)
LEFT JOIN counts c ON c.run = r.run AND r.spec_digest IS NULL
LEFT JOIN stages t ON t.digest = r.train_digest
LEFT JOIN stages e ON e.digest = r.eval_digest
LEFT JOIN drawn d ON d.eval_digest = r.eval_digest
ORDER BY r.experiment NULLS LAST, r.seed, r.started_at, r.run
"""


def run_rows(workspace: Workspace, pattern: str = "*") -> list[dict[str, Any]]:
    """Every run whose name, experiment or condition (`experiment/condition`) is like the pattern, as dictionaries."""
    with Store(workspace).read() as connection:
        cursor = connection.execute(RUNS_SQL)
        names = [column[0] for column in cursor.description]
        rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    return [row for row in rows if any(fnmatch.fnmatchcase(name, pattern) for name in _ways_to_name(row))]


def _ways_to_name(row: dict[str, Any]) -> list[str]:
    if row["experiment"] is None:
        return [row["run"]]
    return [row["run"], row["experiment"], f"{row['experiment']}/{row['condition']}"]


def find_run(workspace: Workspace, name: str) -> dict[str, Any]:
    """The run of this name. Raises InputError with the nearest names."""
    rows = run_rows(workspace)
    for row in rows:
        if row["run"] == name:
            return row
    raise InputError(f"no run {name!r}{hint(name, [row['run'] for row in rows], '; `nsd runs` lists them', most=3)}")
