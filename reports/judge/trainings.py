"""What a reader must know of how the arms were trained, as the stages behind them have it on record.

training_notes(connection, arms)     # {"ttt": ["trained on the test questions without answers"]}
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from nsd.plugins.words import AFTER_TEST_QUESTIONS, BUDGET_OF_SECONDS, ON_TEST_QUESTIONS, ON_VERDICTS
from nsd.reports.judge.runs import MADE_SQL

if TYPE_CHECKING:
    import duckdb

    from nsd.reports.judge.runs import Arm

# Trainings on test questions, each with what was made with it: labels, samples, further trainings.
_SQL = f"""{MADE_SQL.replace("WITH", "WITH RECURSIVE", 1)},
behind AS (
    SELECT unnest(?::TEXT[]) AS train, unnest(?::TEXT[]) AS digest
    UNION
    SELECT b.train, unnest(json_extract_string(s.manifest, '$.inputs.*')) FROM behind b JOIN stages s USING (digest)
)
SELECT train, bool_or(train = digest) FROM behind JOIN made USING (digest)
WHERE list_contains(json_extract_string(key, '$.train_on[*].source'), 'test_questions') GROUP BY train
"""


# Trainings that ended by the clock.
_BY_SECONDS_SQL = f"""{MADE_SQL} SELECT digest FROM made
WHERE digest IN (SELECT unnest(?::TEXT[])) AND json_extract_string(key, '$.match.seconds') IS NOT NULL
"""

# Evaluations that trained while they measured.
_SEARCHED_SQL = f"""{MADE_SQL} SELECT digest FROM made
WHERE digest IN (SELECT unnest(?::TEXT[])) AND json_extract_string(key, '$.by') = 'training'
"""


def training_notes(connection: duckdb.DuckDBPyConnection, arms: Mapping[str, Arm]) -> dict[str, list[str]]:
    """Remarks by the name of each arm that was trained on the test questions, or builds on a model that was, and of
    each whose budget was a number of seconds; likewise of each whose evaluation trained.
    """
    evaluated = sorted({run.eval_digest for arm in arms.values() for run in arm.runs if run.eval_digest is not None})
    searched = {digest for (digest,) in connection.execute(_SEARCHED_SQL, [evaluated]).fetchall()}
    trained = sorted({run.train_digest for arm in arms.values() for run in arm.runs if run.train_digest is not None})
    itself = dict(connection.execute(_SQL, [trained, trained]).fetchall())
    clocked = {digest for (digest,) in connection.execute(_BY_SECONDS_SQL, [trained]).fetchall()}
    found: dict[str, list[str]] = {}
    for name, arm in arms.items():
        known = [itself[run.train_digest] for run in arm.runs if run.train_digest in itself]
        if known:
            found.setdefault(name, []).append(ON_TEST_QUESTIONS if any(known) else AFTER_TEST_QUESTIONS)
        if any(run.eval_digest in searched for run in arm.runs):
            found.setdefault(name, []).append(ON_VERDICTS)
        if any(run.train_digest in clocked for run in arm.runs):
            found.setdefault(name, []).append(BUDGET_OF_SECONDS)
    return found
