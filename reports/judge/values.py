"""The values of evaluations as one matrix, each question a column, and what may have been lost on the way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from nsd.plugins.errors import InputError
from nsd.reports.judge.metrics import SEARCH, turns_on_one_sample, values_sql
from nsd.reports.judge.runs import Arm

if TYPE_CHECKING:
    import duckdb
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

AT_ONCE = 20_000  # values


@dataclass(frozen=True)
class Values:
    """Values of evaluations: `matrix` [evaluations, questions] in [0, 1] (not for `tokens`), 0 where `present` is
    false.

    `row` gives an evaluation's line. `lost` is, per evaluation, the share of its value that answers cut at the
    token limit or ended by an error could still have earned; `truncated` and `failed` their shares of samples.
    `clusters` [questions] numbers the groups that questions come in, if they do.
    """

    matrix: Floats
    present: NDArray[np.bool_]
    row: dict[str, int]
    truncated: dict[str, float]
    failed: dict[str, float]
    lost: dict[str, float]
    clusters: NDArray[np.int64] | None = None

    @cached_property
    def binary(self) -> NDArray[np.bool_]:
        """Per evaluation, whether every value is 0 or 1."""
        found: NDArray[np.bool_] = ((self.matrix == 0) | (self.matrix == 1)).all(axis=1)
        return found

    @cached_property
    def _counts(self) -> tuple[Floats, Floats, Floats]:
        """For all pairs at once, over shared questions: how many, right in the first, right in both."""
        right, present = self.matrix, self.present.astype(self.matrix.dtype)
        return present @ present.T, right @ present.T, right @ right.T

    def table(self, a: int, b: int) -> tuple[int, int, int, int]:
        """Paired counts of two binary rows over their shared questions: both right, only a, only b, neither."""
        shared, right, both_right = self._counts
        n, both = int(shared[a, b]), int(both_right[a, b])
        a_only, b_only = int(right[a, b]) - both, int(right[b, a]) - both
        return both, a_only, b_only, n - both - a_only - b_only


def load_values(
    connection: duckdb.DuckDBPyConnection,
    arms: Sequence[Arm],
    groups: Mapping[str, str] | None = None,
    metric: str | None = None,
) -> Values:
    """Fetch the values of every evaluation of these arms, one after another, each question a column.

    `groups` gives each question id its group, where questions are not independent. `metric` computes the values
    from the stored samples instead (metrics.py). Memory is 9 bytes an evaluation and question, and the ids
    of two evaluations.
    """
    import numpy as np

    digests = list(dict.fromkeys(run.eval_digest for arm in arms for run in arm.runs if run.eval_digest is not None))
    columns = _Columns()
    found: list[tuple[NDArray[np.int32] | None, Floats]] = []
    for ids, values in _rows(connection, digests, metric):
        found.append((columns.numbers(ids), values))
    shape = (len(digests), len(columns))
    matrix, present = np.zeros(shape), np.zeros(shape, dtype=bool)
    for line, (numbers, values) in enumerate(found):
        where = slice(len(values)) if numbers is None else numbers
        matrix[line, where], present[line, where] = values, True
    found.clear()
    clusters = None if groups is None else _clusters(columns, groups)
    sizes = dict(zip(digests, present.sum(axis=1).tolist(), strict=True))
    truncated, failed, lost = _attrition(connection, sizes, metric)
    return Values(matrix, present, {digest: i for i, digest in enumerate(digests)}, truncated, failed, lost, clusters)


def _rows(
    connection: duckdb.DuckDBPyConnection, digests: Sequence[str], metric: str | None
) -> Iterator[tuple[Any, Floats]]:
    """Question ids, as a pyarrow array, and values of each evaluation.

    Stored values are fetched for as many evaluations at once as have `AT_ONCE` of them: a query takes a hundred times
    longer than twenty rows of it.
    """
    import numpy as np

    source = values_sql(connection, metric, digests)
    # Cast and zero for no value are DuckDB's work, and numbers pass by DLPack: pyarrow's own ways import pandas.
    query = f"SELECT question_id, coalesce(value, 0)::DOUBLE AS value FROM ({source}) WHERE eval_digest = ?"
    sizes = dict.fromkeys(digests, AT_ONCE)
    if metric is None:
        query = (
            "SELECT question_id, coalesce(value, 0)::DOUBLE AS value FROM eval_values "
            "JOIN (SELECT unnest($1) AS eval_digest, generate_subscripts($1, 1) AS place) USING (eval_digest) "
            "ORDER BY place, eval_values.rowid"
        )
        counted = "SELECT eval_digest, count(*) FROM eval_values WHERE eval_digest IN (SELECT unnest($1)) GROUP BY 1"
        held = dict(connection.execute(counted, [list(digests)]).fetchall())
        sizes = {digest: held.get(digest, 0) for digest in digests}
    for together in _batches(sizes):
        wanted = together if metric is None else together[0]
        rows = connection.sql(query, params=[wanted]).to_arrow_table()
        ids, numbers = rows["question_id"].combine_chunks(), rows["value"].combine_chunks()
        values: Any = np.from_dlpack(numbers)
        start = 0
        for digest in together:
            end = start + sizes[digest] if metric is None else len(values)
            yield ids[start:end], values[start:end]
            start = end


def _batches(sizes: Mapping[str, int]) -> list[list[str]]:
    """The names in order, in lists whose sizes make at most `AT_ONCE`, or of one name."""
    found: list[list[str]] = []
    room = 0
    for name, size in sizes.items():
        if not found or size > room:
            found.append([])
            room = AT_ONCE
        found[-1].append(name)
        room -= size
    return found


class _Columns:
    """Numbers question ids in the order of first sight."""

    def __init__(self) -> None:
        self.ids: Any = None  # a pyarrow array

    def __len__(self) -> int:
        return 0 if self.ids is None else len(self.ids)

    def numbers(self, ids: Any) -> NDArray[np.int32] | None:
        """The column of each id of a pyarrow array; None where they are the first ones, in order.

        Evaluations of one test set hold the same ids in the same order, and comparing them whole is many times
        quicker than looking each one up.
        """
        if self.ids is None:
            self.ids = ids
        if self.ids[: len(ids)].equals(ids):
            return None
        import numpy as np
        import pyarrow
        import pyarrow.compute

        found = pyarrow.compute.index_in(ids, value_set=self.ids)
        if found.null_count:
            self.ids = pyarrow.concat_arrays([self.ids, ids.filter(found.is_null())])
            found = pyarrow.compute.index_in(ids, value_set=self.ids)
        return np.from_dlpack(found).astype(np.int32, copy=False)


def _clusters(columns: _Columns, groups: Mapping[str, str]) -> NDArray[np.int64]:
    """The number of each question's group, in the order of the matrix's columns."""
    import numpy as np

    ids = [] if columns.ids is None else columns.ids.to_pylist()
    if absent := [question for question in ids if question not in groups]:
        raise InputError(f"{len(absent)} of {len(ids)} questions have no group, among them {absent[0]!r}")
    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups.values()))}
    return np.array([numbers[groups[question]] for question in ids], dtype=np.int64)


def _attrition(
    connection: duckdb.DuckDBPyConnection, sizes: Mapping[str, int], metric: str | None
) -> tuple[dict[str, float], dict[str, float], dict[str, float]]:
    """Shares truncated and failed, and what they could have earned. `sizes`: questions of each evaluation."""
    rows = connection.execute(
        "SELECT eval_digest, avg((stop_reason = 'length')::INT), avg((stop_reason = 'error')::INT) FROM eval_samples "
        "WHERE eval_digest IN (SELECT unnest(?::TEXT[])) AND stop_reason IS NOT NULL GROUP BY 1",
        [list(sizes)],
    ).fetchall()
    truncated = {digest: float(cut) for digest, cut, _ in rows}
    failed = {digest: float(error) for digest, _, error in rows}
    touched = [digest for digest, cut, error in rows if cut or error]
    # A mean over samples can gain a lost sample's share; a vote or a pass@k can gain its whole question. Only the few
    # questions that lost a sample are grouped; all others could gain nothing.
    by_question = connection.execute(
        "WITH hit AS (SELECT DISTINCT eval_digest, question_id FROM eval_samples"
        "  WHERE stop_reason IN ('length', 'error') AND eval_digest IN (SELECT unnest(?::TEXT[]))) "
        "SELECT eval_digest, sum(part), sum(whole) FROM ("
        "  SELECT s.eval_digest, s.question_id,"
        "         avg((s.stop_reason IN ('length', 'error') AND NOT s.correct)::INT) AS part,"
        # A search would have ended with the sample that was lost.
        "         max(CASE WHEN s.stop_reason NOT IN ('length', 'error') THEN 0"
        "             WHEN starts_with(i.metric, ?) THEN greatest(0, (i.samples - s.sample) / i.samples - v.value)"
        "             ELSE 1 - v.value END) AS whole"
        "  FROM eval_samples s SEMI JOIN hit USING (eval_digest, question_id)"
        "  JOIN eval_values v USING (eval_digest, question_id) JOIN eval_info i USING (eval_digest)"
        "  WHERE s.eval_digest IN (SELECT unnest(?::TEXT[])) GROUP BY 1, 2) GROUP BY 1",
        [touched, SEARCH, touched],
    ).fetchall()
    if metric in ("tokens", "truncated", "failed"):
        return truncated, failed, {}  # nothing was lost: these are measured on what came, as it came
    measured = "SELECT eval_digest, metric FROM eval_info WHERE eval_digest IN (SELECT unnest(?::TEXT[]))"
    own = dict(connection.execute(measured, [touched]).fetchall())
    lost = {
        digest: float(whole if turns_on_one_sample(metric or str(own.get(digest))) else part) / sizes[digest]
        for digest, part, whole in by_question
    }
    return truncated, failed, lost
