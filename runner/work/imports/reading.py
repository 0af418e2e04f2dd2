"""Reads recorded results of other tools, so that they can be compared like nsd's own.

    read_import(path, name="mine", id_field="id", correct="is_right")             # JSON lines, 0/1 or true/false
    read_import(path, name="mine", id_field="id", score="f1")                     # graded, 0 to 1
    read_import(path, name="qwen", id_field="id", answer="answers.Qwen2-7B", gold="gold", verifier="numeric")
    read_import(path, name="all", id_field="id", answer="answers.*", gold="gold", verifier="numeric")
    read_import(path, name="mine", id_field="id", correct="ok", finish="finish_reason")   # why each completion ended
    read_import(path, name="mine", source="lm-eval", where={"filter": ["strict-match"]})  # a tool's own file
    read_import(path, counts=True)                                                # CSV: condition, correct, n

Files. JSON lines, a JSON array, CSV (any usual separator), and the files of the tools in `FORMATS`, which fill in the
fields that are not given (formats.py).

Fields. A dotted name reaches into nested objects; keys may themselves hold dots, and the longest key that fits
is taken first. `*` in the last part stands for every key that fits, giving one run each, named RUN/KEY. A list
in the field, or several lines with one id, are samples of that question; its value is their mean. Lines of one id that
another field tells apart (a model, a filter, a seed) are refused: `where` takes those of one (repeats.py).

What counts. A recorded null, an empty text, NaN, a word for nothing (`NA`, `None`: plugins/datasets/sources.py has
all), or a field absent from a line, is a wrong answer, and is counted as missing in the metadata. Only where the field
lies inside an object that holds other keys (`answers.MODEL`, beside other models) does its absence mean that the
question was not asked: then it is left out of that run, and reported. With `samples` every question has that many, and
those that are not there are wrong, and counted too; without it, questions with fewer than others are named. A line that
cannot be read ends the import with its number; nothing is kept of the file. A gold answer is read as strictly as in
nsd's own data; a recorded answer is what a model said, so that the answer in a sentence counts.

`finish` names the field that says why a completion ended (stop, length, error, ...; a list beside a list; `*` is the
same key as in the other field). A failed one is wrong whatever was recorded of it; where at least half failed there is
no accuracy, and nothing is imported.

Pairing. A question's id is the id field's text as it stands. With `id_is_text` the field holds the question
itself, and the id is its content hash, as in nsd's own runs. With `text`, the question's text (or a hash of it) beside
its id, runs whose texts disagree on an id that they share are not compared. Files with a gold field are compared only
with files that hold the same ids and golds. Where none of that is known, pairing rests on ids alone, and is said to.

Limits: what the named fields of a file hold is in memory at once, and of a tool's file all.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nsd.plugins.api import StopReason, Verifier, question_id
from nsd.plugins.errors import InputError
from nsd.runner.work.imports.counts import read_counts
from nsd.runner.work.imports.files import Table
from nsd.runner.work.imports.formats import RIGHT, Fields, Found, read_format
from nsd.runner.work.imports.judge import Judge
from nsd.runner.work.imports.repeats import check_once, check_repeats, in_order
from nsd.runner.work.imports.rows import (
    ABSENT,
    expand,
    fields_there,
    get_field,
    is_nothing,
    line_ids,
    text_of,
    was_asked,
)
from nsd.runner.work.imports.run import ImportedRun

CLOSE = 1e-3  # tools round what they state
_HASH = re.compile(r"[0-9a-f]{32,128}")
MOST_SAMPLES = 10_000  # of a question, that --samples may ask for


def read_import(
    path: Path,
    *,
    name: str | None = None,
    source: str | None = None,
    id_field: str | None = None,
    correct: str | None = None,
    score: str | None = None,
    answer: str | None = None,
    gold: str | None = None,
    verifier: str | Verifier | None = None,
    counts: bool = False,
    id_is_text: bool = False,
    text: str | None = None,
    finish: str | None = None,
    sample: str | None = None,
    samples: int | None = None,
    seed: int | None = None,
    where: Mapping[str, Sequence[str]] | None = None,
) -> list[ImportedRun]:
    """Read and judge a whole file. Raises InputError, with the line where it can, and then returns nothing."""
    if path.is_dir():
        files = sorted(one.name for one in path.iterdir() if one.suffix in (".jsonl", ".json", ".eval", ".csv", ".tsv"))
        there = f": {', '.join(files[:5])}{', ...' if len(files) > 5 else ''}" if files else ", and holds none"
        raise InputError(f"{path} is a folder: import each file of results by itself, with its own --name{there}")
    if not path.is_file():
        raise InputError(f"there is no file {path}")
    fields = Fields(id_field, id_is_text, correct, score, answer, gold, verifier, finish, text, sample)
    if counts:
        if fields != Fields() or source or where or samples is not None or seed is not None:
            raise InputError("--counts reads the columns condition, correct, n: leave the field options out")
        return _from_counts(path, name)
    if name is None or not name.strip():
        raise InputError("an imported run needs a name: --name RUN")
    if seed is not None and not -(2**63) <= seed < 2**63:
        raise InputError(f"--seed {seed}: a whole number of at most 18 digits")
    if samples is not None and samples < 1:
        raise InputError(f"--samples {samples}: a question has at least one")
    if samples is not None and samples > MOST_SAMPLES:
        raise InputError(f"--samples {samples}: at most {MOST_SAMPLES:,} of a question are read")
    if text is not None and id_is_text:
        raise InputError("--id-is-text says that the id is the question's text: leave --text out")
    found = read_format(path, source, fields, where or {})
    fields, table = found.fields, found.table
    what = _value_field(fields)
    assert fields.id is not None
    ids = line_ids(table, fields.id, fields.id_is_text)
    if fields.sample is not None:
        table, ids = in_order(table, ids, fields.sample)
    elif samples is None:
        named = (fields.id, what.partition("*")[0].rstrip("."), fields.gold, fields.finish, fields.text)
        check_repeats(table, ids, [one for one in named if one is not None], what)
        if found.once:
            check_once(table, found.once, found.why_once)
    texts = _texts(table, ids, fields.text)
    judge: Judge | None = None
    if what == fields.answer:
        assert fields.gold is not None and fields.verifier is not None
        judge = Judge.make(table, ids, fields.gold, fields.verifier, fields.id_is_text)
    pairing = "text" if fields.id_is_text else _kind_of_texts(table, fields) if texts else "gold" if judge else "id"
    runs = []
    for field_name, key in expand(table, what):
        run_name = name if key is None else f"{name}/{key}"
        run_name += "" if seed is None else f"/seed{seed}"
        about = _About(replace(found, table=table), ids, field_name, judge, pairing, samples, seed, texts)
        runs.append(_one_run(about, run_name, key))
    return runs


def _value_field(fields: Fields) -> str:
    """The field whose value is judged or taken. Raises InputError where the options do not say which."""
    if fields.id is None:
        raise InputError("which field names the question? --id FIELD")
    given = [one for one in (fields.correct, fields.score) if one is not None]
    if len(given) > 1 or bool(given) == fields.judged:
        raise InputError(
            "give either --correct FIELD, or --score FIELD, or --answer FIELD, --gold FIELD and --verifier NAME"
        )
    if given:
        return given[0]
    if fields.answer is None or fields.gold is None or fields.verifier is None:
        raise InputError("--answer, --gold and --verifier go together: all three judge a recorded answer")
    return fields.answer


def _texts(table: Table, ids: Sequence[str], text_field: str | None) -> dict[str, str]:
    """The hash of each question's text. Raises InputError where one has none, or two."""
    found: dict[str, tuple[str, int]] = {}
    if text_field is None:
        return {}
    for (number, row), question in zip(table.rows, ids, strict=True):
        value = get_field(row, text_field)
        if is_nothing(value) or isinstance(value, (dict, list)):
            there = fields_there(row, text_field) if value is ABSENT else ""
            raise InputError(f"{table.place(number)}: no text of the question in the field {text_field!r}{there}")
        mine = question_id(text_of(value))
        before, line = found.setdefault(question, (mine, number))
        if before != mine:
            raise InputError(
                f"{table.place(number)}: question {question!r} has another text here than on {table.unit} {line}"
            )
    return {question: text for question, (text, _) in found.items()}


def _kind_of_texts(table: Table, fields: Fields) -> str:
    """`checked` for texts, `hashed:64` for hashes of 64 digits: one kind says nothing of another."""
    assert fields.text is not None
    lengths = {
        len(found) if _HASH.fullmatch(found) else 0
        for _, row in table.rows
        if (found := text_of(get_field(row, fields.text)).strip())
    }
    return f"hashed:{lengths.pop()}" if len(lengths) == 1 and 0 not in lengths else "checked"


def _from_counts(path: Path, prefix: str | None) -> list[ImportedRun]:
    return [
        ImportedRun(f"{prefix}/{condition}" if prefix else condition, [], [], pair, {"source": "counts", **others})
        for condition, pair, others in read_counts(path)
    ]


@dataclass(frozen=True)
class _About:
    """What all runs of a file share, and the field of this one."""

    found: Found
    ids: Sequence[str]
    field: str
    judge: Judge | None
    pairing: str
    samples: int | None
    seed: int | None
    texts: Mapping[str, str]


def _one_run(about: _About, run: str, key: str | None) -> ImportedRun:
    table, fields, field_name, judge = about.found.table, about.found.fields, about.field, about.judge
    finish = None if fields.finish is None else fields.finish.replace("*", key or "*")
    graded = fields.score is not None
    samples: list[dict[str, Any]] = []
    by_question: dict[str, list[float]] = {}
    last_line: dict[str, int] = {}
    missing = failed = 0
    for (number, row), question in zip(table.rows, about.ids, strict=True):
        recorded = row[field_name] if field_name in row else get_field(row, field_name)
        if recorded is ABSENT and about.found.name is None and not was_asked(row, field_name):
            continue  # other models were asked; what a tool recorded without a verdict was asked, and counts
        several = recorded if isinstance(recorded, list) else [recorded]
        if not several and about.samples is None:
            raise InputError(
                f"{table.place(number)}: the field {field_name!r} is an empty list: no sample to judge (--samples K "
                "counts each missing one as wrong)"
            )
        scores = by_question.setdefault(question, [])
        last_line[question] = number
        for value, end in zip(several, _ends(table, number, row, finish, recorded), strict=True):
            answer: str | None = None
            score = 0.0
            if end is StopReason.ERROR:
                failed += 1
            elif is_nothing(value):
                missing += 1
            elif graded:
                score = _graded(table, number, field_name, value)
            elif judge is None:
                score = float(_right_or_wrong(table, number, field_name, value))
            elif isinstance(value, (dict, list)):
                raise InputError(
                    f"{table.place(number)}: the field {field_name!r} holds a {type(value).__name__}, not an answer"
                )
            else:
                right, answer = judge(question, text_of(value))
                score = float(right)
            samples.append(
                {
                    "question_id": question,
                    "sample": len(scores),
                    "text": None if judge is None or is_nothing(value) else text_of(value),
                    "stop_reason": None if end is None else str(end),
                    "score": score,
                    "correct": score == 1,
                    "answer": answer,
                }
            )
            scores.append(score)
    if failed and 2 * failed >= len(samples):
        raise InputError(
            f"{table.path}: {failed} of {len(samples)} completions of {run} failed: there is no accuracy in them"
        )
    not_there = _padded(about, samples, by_question, last_line)
    if not by_question:
        raise InputError(f"{table.path}: no question has a sample in the field {field_name!r}")
    metadata = {
        "source": "samples",
        "id_field": fields.id,
        "field": field_name,
        "missing_answers": missing,
        "failed_completions": failed,
        "absent_questions": len(set(about.ids)) - len(by_question) + about.found.missing,
        "data_hash": None if judge is None else judge.data_hash,
        "verifier_hash": None if judge is None else judge.verifier_hash,
        "verifier": None if judge is None else judge.verifier.name,
    }
    more: dict[str, Any] = {
        "format": about.found.name,
        "metric": "score" if graded else None,
        "missing_samples": not_there,
        "left_out": about.found.left_out,
        "ragged": None if about.samples else _ragged(table, by_question, last_line),
        "seed": about.seed,
        "notes": [*about.found.notes, *_stated(about.found, by_question)] or None,
    }
    # What is not there is left out, so that the digest of a plain import stays what it was.
    metadata |= {
        name: value for name, value in more.items() if value not in (None, 0) or (name == "seed" and value == 0)
    }
    values = [(question, sum(scores) / len(scores)) for question, scores in by_question.items()]
    texts = {question: about.texts[question] for question, _ in values} if about.texts else {}
    return ImportedRun(run, values, samples, None, metadata, about.pairing, texts)


def _stated(found: Found, by_question: Mapping[str, Sequence[float]]) -> list[str]:
    """What the tool's own mean is where this one is another."""
    mean = sum(sum(scores) / len(scores) for scores in by_question.values()) / len(by_question)
    if found.stated is None or abs(mean - found.stated) < CLOSE:
        return []
    return [f"{found.name} itself states {found.stated:.4f}"]


def _padded(
    about: _About, samples: list[dict[str, Any]], by_question: dict[str, list[float]], last_line: Mapping[str, int]
) -> int:
    """Wrong samples in the place of those that `samples` asks for and that are not there; how many.

    Raises InputError where a question has more.
    """
    if about.samples is None:
        return 0
    added = 0
    nothing = {"text": None, "stop_reason": None, "score": 0.0, "correct": False, "answer": None}
    for question, scores in by_question.items():
        if len(scores) > about.samples:
            raise InputError(
                f"{about.found.table.place(last_line[question])}: question {question!r} has {len(scores)} samples, "
                f"more than the {about.samples} of --samples"
            )
        for place in range(len(scores), about.samples):
            samples.append({"question_id": question, "sample": place, **nothing})
            scores.append(0.0)
            added += 1
    return added


def _ragged(table: Table, by_question: Mapping[str, Sequence[float]], last_line: Mapping[str, int]) -> str | None:
    """Which questions have fewer samples than others, in words; None where all have as many."""
    most = max(map(len, by_question.values()))
    fewer = [question for question, scores in by_question.items() if len(scores) < most]
    if not fewer:
        return None
    shown = ", ".join(f"{one!r} ({table.unit} {last_line[one]}) has {len(by_question[one])}" for one in fewer[:3])
    more = ", ..." if len(fewer) > 3 else ""
    return (
        f"RAGGED: {len(fewer)} of {len(by_question)} questions have fewer than {most} samples: {shown}{more} "
        f"(--samples {most} counts the missing ones as wrong)"
    )


def _ends(
    table: Table, number: int, row: dict[str, Any], finish: str | None, recorded: Any
) -> list[StopReason] | list[None]:
    """Why each completion of a line ended; None for each where no field says it."""
    count = len(recorded) if isinstance(recorded, list) else 1
    if finish is None:
        return [None] * count
    from nsd.plugins.engines.replay import recorded_end

    value = get_field(row, finish)
    if value is ABSENT:
        raise InputError(f"{table.place(number)}: no field {finish!r}{fields_there(row, finish)}")
    values = value if isinstance(value, list) else [value] * count
    if len(values) != count:
        raise InputError(
            f"{table.place(number)}: the field {finish!r} has {len(values)} entries for {count} completions"
        )
    return [recorded_end(one, f"{table.place(number)}: the field {finish!r}") for one in values]


def _right_or_wrong(table: Table, number: int, field_name: str, value: Any) -> bool:
    found = RIGHT.get(text_of(value).strip().lower()) if not isinstance(value, dict) else None
    if found is None:
        raise InputError(
            f"{table.place(number)}: the field {field_name!r} holds {_shown(value)}, where 0, 1, true or false was "
            "expected (for a score between 0 and 1 say --score instead of --correct)"
        )
    return found


def _graded(table: Table, number: int, field_name: str, value: Any) -> float:
    text = "" if isinstance(value, (dict, list)) else text_of(value).strip()
    try:
        score = float(RIGHT.get(text.lower(), text))
    except ValueError:
        score = -1.0
    if not 0 <= score <= 1:
        raise InputError(
            f"{table.place(number)}: the field {field_name!r} holds {_shown(value)}, where a score between 0 and 1 was "
            "expected"
        )
    return score


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)[:60]
