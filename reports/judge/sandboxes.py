"""In what the programs of an experiment's arms were run, and what a verdict on a program measures beside its score.

sandbox_notes(connection, arms)     # ["programs ran in bubblewrap, which held: network, files, ..."]
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from nsd.plugins.untrusted import one_line

if TYPE_CHECKING:
    import duckdb

    from nsd.reports.judge.runs import Arm

_SQL = """
SELECT digest, json_extract(manifest, '$.sandbox')::TEXT, json_extract(manifest, '$.eval.numbers')::TEXT FROM stages
WHERE digest IN (SELECT unnest(?::TEXT[]))
"""


def sandbox_notes(connection: duckdb.DuckDBPyConnection, arms: Mapping[str, Arm]) -> list[str]:
    """A line for each kind of sandbox, with what it guaranteed everywhere it ran and what not, and one for each further
    number of the verdicts, with its mean in each arm; none where no stage says any.
    """
    behind = [digest for arm in arms.values() for run in arm.runs for digest in (run.eval_digest, run.train_digest)]
    wanted = sorted({digest for digest in behind if digest is not None})
    sandboxes, numbers = {}, {}
    for digest, sandbox, further in connection.execute(_SQL, [wanted]).fetchall():
        sandboxes[digest], numbers[digest] = _object(sandbox), _object(further)
    return [*_guarantees(list(sandboxes.values())), *_numbers(arms, numbers)]


def _guarantees(sandboxes: list[dict[str, object]]) -> list[str]:
    held: dict[str, set[str]] = {}
    for one in sandboxes:
        given = one.get("guarantees")
        if isinstance(one.get("kind"), str) and isinstance(given, list):
            held.setdefault(str(one["kind"]), {*map(str, given)}).intersection_update(map(str, given))
    if not held:
        return []
    from nsd.plugins.sandbox import GUARANTEES

    lines = []
    for kind, names in sorted(held.items()):
        there = [name for name in GUARANTEES if name in names]
        lacking = [name for name in GUARANTEES if name not in names]
        without = f"; NOT held: {', '.join(lacking)}" if lacking else ""
        lines.append(f"programs ran in {one_line(kind)}, which held: {', '.join(there) or 'nothing'}{without}")
    return lines


def _numbers(arms: Mapping[str, Arm], numbers: Mapping[str, dict[str, object]]) -> list[str]:
    means: dict[str, list[str]] = {}
    for name, arm in arms.items():
        found: dict[str, list[float]] = {}
        for run in arm.runs:
            for key, value in numbers.get(run.eval_digest or "", {}).items():
                if isinstance(value, int | float):
                    found.setdefault(key, []).append(float(value))
        for key, values in found.items():
            mean, share = math.fsum(values) / len(values), all(0 <= value <= 1 for value in values)
            means.setdefault(key, []).append(f"{name} {mean:.1%}" if share else f"{name} {mean:.4g}")
    return [f"{one_line(key)}, which is not the score: {', '.join(said)}" for key, said in sorted(means.items())]


def _object(text: str | None) -> dict[str, object]:
    found = json.loads(text) if text else None
    return found if isinstance(found, dict) else {}
