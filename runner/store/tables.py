"""The Parquet files of artifacts: one place that knows their columns.

Rows keep the order they are written in. What grows with a run's questions is written and read a part at a time
(`write`, `batches`, stored.py); the rest is read whole.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nsd.plugins.api import (
    Completion,
    Confidence,
    KeptRollout,
    PseudoLabel,
    Question,
    Score,
    Scored,
    SideFile,
    StopReason,
)
from nsd.plugins.durable import replacing
from nsd.plugins.side_files import as_text
from nsd.runner.store.shapes import Broken
from nsd.runner.store.workspace import Workspace, side_name

if TYPE_CHECKING:
    import pyarrow


def _schema(columns: dict[str, str]) -> pyarrow.Schema:
    import pyarrow

    types = {
        "text": pyarrow.string(),
        "int": pyarrow.int64(),
        "float": pyarrow.float64(),
        "bool": pyarrow.bool_(),
    }
    return pyarrow.schema([(name, types[kind]) for name, kind in columns.items()])


QUESTIONS = {"id": "text", "text": "text", "answer": "text", "solution": "text", "context": "text", "meta": "text"}
QUESTIONS |= {"side_files": "text"}  # null where a question has none; files of before have no such column
COMPLETIONS = {
    "question_id": "text",
    "sample": "int",
    "text": "text",
    "tokens": "int",
    "stop_reason": "text",
    "error": "text",
}
# Null where an engine has no log-probabilities; files of before have none of these columns.
CONFIDENCES = {name: f"confidence_{name}" for name in Confidence.__dataclass_fields__}
COMPLETIONS |= dict.fromkeys(CONFIDENCES.values(), "float")
_NO_CONFIDENCE: dict[str, None] = dict.fromkeys(CONFIDENCES.values())
# `numbers` is null where a verdict has none; files of before have no such column.
VERDICT = {"score": "float", "correct": "bool", "answer": "text", "feedback": "text", "numbers": "text"}
SCORED = {**COMPLETIONS, **VERDICT}
SCORES = {"question_id": "text", "sample": "int", **VERDICT}
VALUES = {"question_id": "text", "value": "float"}
TEXTS = {"question_id": "text", "text_hash": "text"}  # of imported questions that are known by another id
LABELS = {
    "question_id": "text",
    "label": "text",
    "target": "text",
    "confidence": "float",
    "votes": "int",
    "k": "int",
    "kept": "bool",
    "correct": "bool",
    "tally": "text",
    "drawn": "int",  # null where all k were; files of before have no such column
}
CURVES = {"step": "int", "metric": "text", "value": "float"}
ROLLOUTS = {
    "step": "int",
    "question_id": "text",
    "sample": "int",
    "text": "text",
    "tokens": "int",
    "stop_reason": "text",
    "answer": "text",
    "score": "float",
    "reward": "float",
    "masked": "bool",
    "teacher_input": "text",
}
GROUP = 16_384  # rows that are written at a time
BATCH = 4096  # rows that are read at a time
_MOST_CHARACTERS = 2**29 - 1  # an array's text has less than 2 GiB, a character up to four bytes


def write(path: Path, columns: dict[str, str], rows: Iterable[dict[str, Any]]) -> None:
    """Write rows under a temporary name and rename, so that a file with its name is whole.

    A row group has `GROUP` rows; more are not held.
    """
    import pyarrow
    import pyarrow.parquet

    schema, coming = _schema(columns), iter(rows)
    with replacing(path) as temporary:
        taken = list(itertools.islice(coming, GROUP))
        with pyarrow.parquet.ParquetWriter(temporary, schema, compression="zstd") as writer:
            while True:
                arrays = [
                    _array([_storable(row.get(name)) for row in taken], schema.field(name).type) for name in columns
                ]
                writer.write_table(pyarrow.Table.from_arrays(arrays, schema=schema))
                if not (taken := list(itertools.islice(coming, GROUP))):
                    break


def _array(values: list[Any], kind: pyarrow.DataType) -> Any:
    """The values of a column, None for null.

    What `pyarrow.array` makes of them, which first imports pandas: that takes longer than all else of a small write.
    It is asked where a value has not the very type of its column, and for gigabytes of text, which it divides.
    """
    import numpy as np
    import pyarrow

    kinds: dict[pyarrow.DataType, type[str] | type[int] | type[float] | type[bool]] = {
        pyarrow.string(): str,
        pyarrow.int64(): int,
        pyarrow.float64(): float,
        pyarrow.bool_(): bool,
    }
    python = kinds[kind]
    here = [value is not None for value in values]
    if not all(type(value) is python for value in values if value is not None):
        return pyarrow.array(values, kind)
    if python is str:
        if sum(len(value) for value in values if value is not None) > _MOST_CHARACTERS:
            return pyarrow.array(values, kind)
        builder = pyarrow.lib.StringBuilder()
        builder.append_values(values)
        return builder.finish()
    content = np.array([python() if value is None else value for value in values], dtype=python)
    bits = np.packbits(content, bitorder="little") if python is bool else content
    valid = None if all(here) else pyarrow.py_buffer(np.packbits(here, bitorder="little"))
    return pyarrow.Array.from_buffers(kind, len(values), [valid, pyarrow.py_buffer(bits)])


def looks_whole(path: Path) -> bool:
    """Whether a Parquet file is there with its end: a file that was cut off has none."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 4))
            return size > 12 and file.read() == b"PAR1"
    except OSError:
        return False


def _storable(value: Any) -> Any:
    # Lone surrogates (a model can be made to print them) have no UTF-8 form.
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) and not value.isascii() else value


def read(path: Path) -> list[dict[str, Any]]:
    """All rows of a Parquet file. Raises Broken where it is torn, is none, or cannot be read."""
    import pyarrow
    import pyarrow.parquet

    try:
        # Not `read_table`: it imports pyarrow.dataset, and with it pandas, which takes longer than all else here.
        with pyarrow.parquet.ParquetFile(path) as file:
            rows: list[dict[str, Any]] = file.read().to_pylist()
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise Broken(path, str(error).splitlines()[0] if str(error) else type(error).__name__) from error
    return rows


def batches(path: Path, columns: Sequence[str] | None = None) -> Iterator[list[dict[str, Any]]]:
    """The rows of a Parquet file in order, `BATCH` at a time; all of their columns, or these. Raises Broken."""
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(BATCH, columns=None if columns is None else list(columns)):
                yield batch.to_pylist()
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise Broken(path, str(error).splitlines()[0] if str(error) else type(error).__name__) from error


def count(path: Path) -> int:
    """How many rows a Parquet file has. Raises Broken."""
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            return int(file.metadata.num_rows)
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise Broken(path, str(error).splitlines()[0] if str(error) else type(error).__name__) from error


def write_questions(path: Path, questions: Iterable[Question]) -> None:
    """Store questions in order; of their side files what these are known by."""
    write(
        path,
        QUESTIONS,
        (
            {
                "id": question.id,
                "text": question.text,
                "answer": question.answer,
                "solution": question.solution,
                "context": question.context,
                **_meta_row(question),
            }
            for question in questions
        ),
    )


def as_stored(question: Question) -> Question:
    """A question as a run gives it to a verifier: its meta has been JSON, where a tuple is a list."""
    kept = {**json.loads(_meta_row(question)["meta"]), **question.side_files}
    return replace(question, meta=kept)


def read_questions(path: Path) -> list[Question]:
    """Questions as `write_questions` stored them, with the side files that lie beside. Raises Broken."""
    return questions_of(read(path), path)


def questions_of(rows: Iterable[dict[str, Any]], path: Path) -> list[Question]:
    """The questions of some rows of a file. Raises Broken."""
    try:
        return [_question(row, path.parent) for row in rows]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Broken(path, f"it holds no questions ({error})") from error


def _meta_row(question: Question) -> dict[str, Any]:
    side = question.side_files
    small = {key: value for key, value in question.meta.items() if key not in side}
    known_by = {key: [one.sha256, one.size] for key, one in side.items()}
    return {
        "meta": json.dumps(small, sort_keys=True, default=as_text),
        "side_files": json.dumps(known_by, sort_keys=True) if side else None,
    }


def _question(row: dict[str, Any], folder: Path) -> Question:
    files = side_files(row, folder)
    fields = {name: value for name, value in row.items() if name != "side_files"}
    return Question(**{**fields, "meta": {**json.loads(row["meta"]), **files}})


def side_files(row: Mapping[str, Any], folder: Path) -> dict[str, SideFile]:
    """The side files that the row of a question names, which lie in a folder."""
    side = row.get("side_files")
    if side is None:
        return {}
    return {key: SideFile(sha256, size, folder / side_name(sha256)) for key, (sha256, size) in json.loads(side).items()}


def held_questions(workspace: Workspace, content_hash: str) -> list[Question]:
    """The questions of a split that a workspace has; [] where it has none, and a broken file is set aside."""
    path = workspace.data_file(content_hash)
    try:
        return read_questions(path) if path.is_file() else []
    except Broken as broken:
        workspace.set_aside(path, broken, "the next `nsd run` of its spec writes it again")
        return []


def write_completions(path: Path, completions: Iterable[Completion]) -> None:
    """Store completions in the order given."""
    write(path, COMPLETIONS, (completion_row(completion) for completion in completions))


def completion_row(completion: Completion) -> dict[str, Any]:
    """A completion as a row."""
    return {
        "question_id": completion.question_id,
        "sample": completion.sample,
        "text": completion.text,
        "tokens": completion.tokens,
        "stop_reason": str(completion.stop_reason),
        "error": completion.error,
        **_confidence_row(completion.confidence),
    }


def _confidence_row(confidence: Confidence | None) -> Mapping[str, float | None]:
    if confidence is None:
        return _NO_CONFIDENCE
    return {column: getattr(confidence, name) for name, column in CONFIDENCES.items()}


def confidence_of(row: Mapping[str, Any]) -> Confidence | None:
    """The confidences of a completion's row, None where it has none."""
    if row.get("confidence_logprob") is None:
        return None
    values = {name: row.get(column) for name, column in CONFIDENCES.items()}
    known = {name: value for name, value in values.items() if value is not None}
    return Confidence(**known) if len(known) == len(values) else None


def read_completions(path: Path) -> list[Completion]:
    """Completions as `write_completions` (or `write_scored`) stored them. Raises Broken."""
    return _completions(read(path), path)


def stream_completions(path: Path) -> Iterator[Completion]:
    """The same, of which a batch is held. Raises Broken."""
    return itertools.chain.from_iterable(_completions(rows, path) for rows in batches(path))


def _completions(rows: Iterable[dict[str, Any]], path: Path) -> list[Completion]:
    try:
        return [
            Completion(
                question_id=row["question_id"],
                sample=row["sample"],
                text=row["text"],
                tokens=row["tokens"],
                stop_reason=StopReason(row["stop_reason"]),
                error=row["error"],
                confidence=confidence_of(row),
            )
            for row in rows
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise Broken(path, f"it holds no completions ({error})") from error


def stream_failed(path: Path) -> Iterator[str | None]:
    """Of each completion why it failed, None where it did not; "" where no reason was given. Raises Broken."""
    for rows in batches(path, ["stop_reason", "error"]):
        yield from ((row["error"] or "") if row["stop_reason"] == StopReason.ERROR else None for row in rows)


def write_scored(path: Path, scored: Iterable[Scored]) -> None:
    """Store completions with their verdicts."""
    write(
        path,
        SCORED,
        (
            {
                **completion_row(item.completion),
                **_verdict_row(item.score),
            }
            for item in scored
        ),
    )


def read_scored(path: Path) -> list[Scored]:
    """Completions with their verdicts, as `write_scored` stored them. Raises Broken."""
    scores = read_scores(path)
    return [Scored(one, scores[one.question_id, one.sample]) for one in read_completions(path)]


def _verdict_row(score: Score) -> dict[str, Any]:
    numbers = json.dumps(dict(score.numbers), sort_keys=True) if score.numbers else None
    return {**{name: getattr(score, name) for name in VERDICT}, "numbers": numbers}


def write_scores(path: Path, scores: Mapping[tuple[str, int], Score]) -> None:
    """Store verdicts by (question id, sample)."""
    rows = ({"question_id": key, "sample": sample, **_verdict_row(score)} for (key, sample), score in scores.items())
    write(path, SCORES, rows)


def read_scores(path: Path) -> dict[tuple[str, int], Score]:
    """Verdicts as `write_scores` stored them. Raises Broken."""
    try:
        return {
            (row["question_id"], row["sample"]): Score(
                row["score"], row["correct"], row["answer"], row["feedback"], json.loads(row.get("numbers") or "{}")
            )
            for row in read(path)
        }
    except (KeyError, TypeError, ValueError) as error:
        raise Broken(path, f"it holds no verdicts ({error})") from error


def write_rollouts(path: Path, rollouts: Iterable[KeptRollout]) -> None:
    """Store the rollouts of a training in the order given."""
    rows = ({name: getattr(one, name) for name in ROLLOUTS} for one in rollouts)
    write(path, ROLLOUTS, ({**row, "stop_reason": str(row["stop_reason"])} for row in rows))


def read_rollouts(path: Path) -> Iterator[list[KeptRollout]]:
    """Rollouts as they were stored, those of a step together, one step at a time. Raises Broken."""
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for number in range(file.num_row_groups):
                rows = file.read_row_group(number).to_pylist()
                yield [KeptRollout(**{**row, "stop_reason": StopReason(row["stop_reason"])}) for row in rows]
    except (OSError, ValueError, KeyError, TypeError, pyarrow.ArrowException) as error:
        raise Broken(path, f"it holds no rollouts ({error})") from error


def join(path: Path, parts: Sequence[Path]) -> None:
    """One Parquet file of the rows of others with the same columns, in this order: a row group of each.

    Raises Broken for one of them that cannot be read.
    """
    import pyarrow
    import pyarrow.parquet

    def rows_of(part: Path) -> Any:
        try:
            return pyarrow.parquet.read_table(part)
        except (OSError, ValueError, pyarrow.ArrowException) as error:
            raise Broken(part, str(error)) from error

    schema = rows_of(parts[0]).schema
    with (
        replacing(path) as temporary,
        pyarrow.parquet.ParquetWriter(temporary, schema, compression="zstd") as writer,
    ):
        for part in parts:
            if (rows := rows_of(part)).schema != schema:
                raise Broken(part, f"its columns are not those of {parts[0].name}")
            writer.write_table(rows)


def write_labels(path: Path, labels: Iterable[tuple[PseudoLabel, bool | None]]) -> None:
    """Store pseudo-labels, each with whether it equals the hidden truth (None: unknown)."""
    write(
        path,
        LABELS,
        (
            {
                "question_id": label.question_id,
                "label": label.label,
                "target": label.target,
                "confidence": label.confidence,
                "votes": label.votes,
                "k": label.k,
                "kept": label.kept,
                "correct": right,
                "tally": json.dumps(dict(label.tally), ensure_ascii=False),
                "drawn": label.drawn,
            }
            for label, right in labels
        ),
    )
