"""What a reader must know of how the arms were trained, as the stages behind them have it on record.

training_notes(connection, arms)     # {"ttt": "trained on the test questions without answers"}
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from nsd.plugins.words import AFTER_TEST_QUESTIONS, ON_TEST_QUESTIONS
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


def training_notes(connection: duckdb.DuckDBPyConnection, arms: Mapping[str, Arm]) -> dict[str, str]:
    """A remark by the name of each arm that was trained on the test questions, or builds on a model that was."""
    trained = sorted({run.train_digest for arm in arms.values() for run in arm.runs if run.train_digest is not None})
    itself = dict(connection.execute(_SQL, [trained, trained]).fetchall())
    found: dict[str, str] = {}
    for name, arm in arms.items():
        known = [itself[run.train_digest] for run in arm.runs if run.train_digest in itself]
        if known:
            found[name] = ON_TEST_QUESTIONS if any(known) else AFTER_TEST_QUESTIONS
    return found
