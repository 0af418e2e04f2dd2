"""Other metrics than an evaluation's own, computed from its stored samples, without generating anything.

    compare_runs(connection, runs, metric="pass@4")

    own          the evaluation's own value per question (the default)
    accuracy     share of a question's samples that are right (avg@k over all stored samples)
    avg@K, pass@K, maj@K    over the first K samples (pass@K: unbiased, over all of them)
    score        mean score of a question's samples, for verifiers that grade
    tokens       mean length of a completion, in tokens
    truncated, failed       share of samples cut at the token limit, ended by an error

A failed completion scores 0 and has no vote. `pass@K` is 1 - C(n - c, K) / C(n, K) for c right among n samples (Chen
et al. 2021, arXiv 2107.03374, equation 1).
`maj@K` here counts answers as equal where their normalised texts are; on a tie the answer seen first wins. A verifier
that knows more equalities (`math`) may merge votes that this keeps apart; the protocol `maj@k` asks the verifier.
What was not recorded is refused and not taken for nothing: votes of runs whose answers are not known, lengths without
tokens, truncation and failures where nothing says why a completion ended.
Limits: runs imported without samples have only their own value.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from nsd.plugins.errors import InputError
from nsd.plugins.metrics import takes_votes

if TYPE_CHECKING:
    import duckdb

# What an evaluation scored, whichever version of nsd stored it: a failed completion scores 0 and has no answer.
_SAMPLES = (
    "(SELECT * REPLACE (CASE WHEN failed THEN 0 ELSE score END AS score, correct AND NOT failed AS correct, "
    "CASE WHEN failed THEN NULL ELSE answer END AS answer) "
    "FROM (SELECT *, stop_reason IS NOT DISTINCT FROM 'error' AS failed FROM eval_samples))"
)
PLAIN = {
    "accuracy": "avg(correct::INT)",
    "score": "avg(score)",
    "tokens": "avg(tokens)",
    "truncated": "avg((stop_reason IS NOT DISTINCT FROM 'length')::INT)",
    "failed": "avg((stop_reason IS NOT DISTINCT FROM 'error')::INT)",
}
_NOT_FAILED = "stop_reason IS DISTINCT FROM 'error'"
UNITS = {"tokens": "tokens"}  # what is no share of one; all others are read in points
NEUTRAL = ("tokens", "truncated", "failed")  # more of it is neither better nor worse: verdicts say HIGHER, LOWER
SEARCH = "discovery@"
_WITH_K = re.compile(r"(avg|pass|maj)@([1-9][0-9]{0,5})")


def is_search(metric: str) -> bool:
    """Whether a question's value tells how many samples it took to solve it."""
    return metric.startswith(SEARCH)


def turns_on_one_sample(metric: str) -> bool:
    """Whether a single sample can change a question's whole value, not its share of it alone."""
    return takes_votes(metric) or metric.startswith("pass@") or is_search(metric)


def check_metric(metric: str) -> None:
    """Raises InputError for a metric there is not."""
    if metric not in PLAIN and not _WITH_K.fullmatch(metric):
        raise InputError(f"no metric {metric!r}: one of {', '.join(PLAIN)}, avg@K, pass@K or maj@K, such as pass@4")


def values_sql(connection: duckdb.DuckDBPyConnection, metric: str | None, digests: Sequence[str]) -> str:
    """A query for (eval_digest, question_id, value) of every evaluation. Raises InputError for too few samples."""
    if metric is None:
        return "SELECT eval_digest, question_id, value FROM eval_values"
    _check_samples(connection, metric, digests)
    if metric in PLAIN:
        return f"SELECT eval_digest, question_id, {PLAIN[metric]} AS value FROM {_SAMPLES} GROUP BY 1, 2"
    match = _WITH_K.fullmatch(metric)
    assert match is not None
    kind, k = match[1], int(match[2])
    if kind == "avg":
        return (
            f"SELECT eval_digest, question_id, avg(correct::INT) AS value FROM {_SAMPLES} "
            f"WHERE sample < {k} GROUP BY 1, 2"
        )
    if kind == "pass":
        missed = f"list_product(list_transform(range({k}), lambda i: greatest(n - c - i, 0) / (n - i)))"
        return (
            f"SELECT eval_digest, question_id, 1 - {missed} AS value FROM (SELECT eval_digest, question_id, "
            f"count(*) AS n, count(*) FILTER (WHERE correct) AS c FROM {_SAMPLES} GROUP BY 1, 2)"
        )
    return (
        "SELECT eval_digest, question_id, first(is_right::INT ORDER BY votes DESC, seen) AS value FROM ("
        "SELECT eval_digest, question_id, answer, count(answer) AS votes, min(sample) AS seen, "
        "coalesce(arg_min(correct, sample), false) AND answer IS NOT NULL AS is_right "
        f"FROM {_SAMPLES} WHERE sample < {k} GROUP BY 1, 2, 3) GROUP BY 1, 2"
    )


def _check_samples(connection: duckdb.DuckDBPyConnection, metric: str, digests: Sequence[str]) -> None:
    searched = connection.execute(
        "SELECT metric FROM eval_info WHERE eval_digest IN (SELECT unnest(?::TEXT[])) AND starts_with(metric, ?)",
        [list(digests), SEARCH],
    ).fetchall()
    if searched and metric not in NEUTRAL:
        raise InputError(
            f"a search ends with the first right sample, so {metric} of its samples would be too low: compare by "
            f"{searched[0][0]}"
        )
    fewest = dict(
        connection.execute(
            "SELECT eval_digest, min(stored) FROM (SELECT eval_digest, question_id, count(*) AS stored "
            "FROM eval_samples WHERE eval_digest IN (SELECT unnest(?::TEXT[])) GROUP BY 1, 2) GROUP BY 1",
            [list(digests)],
        ).fetchall()
    )
    if any(digest not in fewest for digest in digests):
        raise InputError(f"{metric} needs stored samples, and a run of these was imported without any")
    match = _WITH_K.fullmatch(metric)
    if match is not None and fewest and min(fewest.values()) < int(match[2]):
        raise InputError(
            f"{metric} needs {match[2]} samples per question and {min(fewest.values())} are stored; "
            f"evaluate with more (eval.k), or ask for {match[1]}@{min(fewest.values())}"
        )
    _check_recorded(connection, metric, digests)


def _check_recorded(connection: duckdb.DuckDBPyConnection, metric: str, digests: Sequence[str]) -> None:
    """Raises InputError where what the metric is about was not recorded, so that its absence would be counted."""
    if metric == "tokens":
        unknown, what = "count(*) FILTER (tokens IS NULL) > 0", "tokens were not recorded for every sample"
        way_out = "imported ones have none"
    elif takes_votes(metric):
        # A right answer that is not known; or none is known, and no verifier has looked for any.
        unknown = f"bool_or(correct AND answer IS NULL AND {_NOT_FAILED}) OR "
        unknown += "(count(answer) = 0 AND any_value(verifier_hash) IS NULL)"
        what = f"answers were not recorded, so that {metric} has no votes to count"
        way_out = "import them with --answer, --gold and --verifier"
    elif metric in ("truncated", "failed"):
        unknown, what = "count(stop_reason) = 0", "why a completion ended was not recorded"
        way_out = "import them with --finish FIELD"
    else:
        return
    found = connection.execute(
        f"SELECT eval_digest FROM eval_samples JOIN eval_info USING (eval_digest) "
        f"WHERE eval_digest IN (SELECT unnest(?::TEXT[])) GROUP BY 1 HAVING {unknown}",
        [list(digests)],
    ).fetchall()
    if found:
        of = {digest for (digest,) in found}
        rows = connection.execute("SELECT run, eval_digest FROM current_runs ORDER BY run").fetchall()
        names = list(dict.fromkeys(run for run, digest in rows if digest in of))
        shown = f"{', '.join(names[:3])}{', ...' if len(names) > 3 else ''}" or "these runs"
        raise InputError(f"{what} in {shown}: {way_out}, or take another metric")
