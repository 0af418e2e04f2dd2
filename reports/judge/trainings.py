"""What a reader must know of how the arms were trained, as the stages behind them have it on record.

training_notes(connection, arms)     # {"ttt": ["trained on the test questions without answers"]}
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from nsd.plugins.words import AFTER_TEST_QUESTIONS, BUDGET_OF_SECONDS, ON_TEST_QUESTIONS, ON_VERDICTS
from nsd.reports.judge.runs import KEY_SQL, made_sql

if TYPE_CHECKING:
    import duckdb

    from nsd.reports.judge.runs import Arm

# Trainings on test questions, each with what was made with it: labels, samples, further trainings.
_SQL = f"""
WITH RECURSIVE behind AS (
    SELECT unnest(?::TEXT[]) AS train, unnest(?::TEXT[]) AS digest
    UNION
    SELECT b.train, unnest(json_extract_string(s.manifest, '$.inputs.*')) FROM behind b JOIN stages s USING (digest)
),
held AS MATERIALIZED (SELECT digest, manifest FROM stages WHERE digest IN (SELECT digest FROM behind)),
made AS (SELECT digest, {KEY_SQL} AS key FROM held)
SELECT train, bool_or(train = digest) FROM behind JOIN made USING (digest)
WHERE list_contains(json_extract_string(key, '$.train_on[*].source'), 'test_questions') GROUP BY train
"""


# Trainings that ended by the clock.
_BY_SECONDS_SQL = f"""WITH {made_sql("SELECT unnest(?::TEXT[])")} SELECT digest FROM made
WHERE json_extract_string(key, '$.match.seconds') IS NOT NULL
"""

# Evaluations that trained while they measured.
_SEARCHED_SQL = f"""WITH {made_sql("SELECT unnest(?::TEXT[])")} SELECT digest FROM made
WHERE json_extract_string(key, '$.by') = 'training'
"""

# Evaluations of the weights that validation kept, with what it had measured.
_BEST_SQL = """
SELECT i.eval_digest, s.manifest, (SELECT avg(value) FROM eval_values v WHERE v.eval_digest = i.eval_digest),
       (SELECT count(*) FROM curves c WHERE c.train_digest = s.digest AND c.metric =
           'validation/' || json_extract_string(s.manifest, '$.training.notes.validation.metric'))
FROM current_runs r JOIN eval_info i USING (eval_digest) JOIN stages s ON s.digest = r.train_digest
WHERE i.eval_digest IN (SELECT unnest(?::TEXT[])) AND i.protocol = 'best_within'
"""


def best_notes(connection: duckdb.DuckDBPyConnection, evaluations: Sequence[str]) -> dict[str, str]:
    """By evaluation what validation found best, and what fresh samples of the same weights gave."""
    found = {}
    for digest, manifest, fresh, measured in connection.execute(_BEST_SQL, [list(evaluations)]).fetchall():
        notes = ((json.loads(manifest).get("training") or {}).get("notes") or {}).get("validation")
        if not notes or fresh is None:
            found[digest] = "validation measured nothing while it trained: its value is that of the last weights"
            continue
        best, picked = float(notes["best"]), f"the best of {measured} measurements" if measured > 1 else "measured once"
        found[digest] = (
            f"validation {notes['metric']} {best:.3f} at step {notes['best_step']}, {picked} on these questions; the "
            f"same weights sampled again give {fresh:.3f}, so picking has flattered by {best - fresh:+.3f} on samples; "
            "picked and measured on the same questions, they may still suit these better than others"
        )
    return found


def training_notes(connection: duckdb.DuckDBPyConnection, arms: Mapping[str, Arm]) -> dict[str, list[str]]:
    """Remarks by the name of each arm that was trained on the test questions, or builds on a model that was, and of
    each whose budget was a number of seconds; likewise of each whose evaluation trained.
    """
    evaluated = sorted({run.eval_digest for arm in arms.values() for run in arm.runs if run.eval_digest is not None})
    searched = {digest for (digest,) in connection.execute(_SEARCHED_SQL, [evaluated]).fetchall()}
    trained = sorted({run.train_digest for arm in arms.values() for run in arm.runs if run.train_digest is not None})
    itself = dict(connection.execute(_SQL, [trained, trained]).fetchall())
    clocked = {digest for (digest,) in connection.execute(_BY_SECONDS_SQL, [trained]).fetchall()}
    best = best_notes(connection, evaluated)
    found: dict[str, list[str]] = {}
    for name, arm in arms.items():
        known = [itself[run.train_digest] for run in arm.runs if run.train_digest in itself]
        if known:
            found.setdefault(name, []).append(ON_TEST_QUESTIONS if any(known) else AFTER_TEST_QUESTIONS)
        for run in arm.runs:
            if run.eval_digest in best:
                seed = f"seed {run.seed}: " if len(arm.runs) > 1 else ""
                found.setdefault(name, []).append(f"{seed}{best[run.eval_digest]}")
        if any(run.eval_digest in searched for run in arm.runs):
            found.setdefault(name, []).append(ON_VERDICTS)
        if any(run.train_digest in clocked for run in arm.runs):
            found.setdefault(name, []).append(BUDGET_OF_SECONDS)
    return found
