"""Reads recorded results of other tools, so that they can be compared like nsd's own.

    read_import(path, name="mine", id_field="id", correct="is_right")             # JSON lines, 0/1 or true/false
    read_import(path, name="qwen", id_field="id", answer="answers.Qwen2-7B", gold="gold", verifier="numeric")
    read_import(path, name="all", id_field="id", answer="answers.*", gold="gold", verifier="numeric")
    read_import(path, name="mine", id_field="id", correct="ok", finish="finish_reason")   # why each completion ended
    read_import(path, counts=True)                                                # CSV: condition, correct, n

Fields. A dotted name reaches into nested objects; keys may themselves hold dots, and the longest key that fits
is taken first. `*` in the last part stands for every key that fits, giving one run each, named RUN/KEY. A list
in the field, or several lines with one id, are samples of that question; its value is their mean.

What counts. A recorded null, an empty text, NaN, a word for nothing (`NA`, `None`: plugins/datasets/sources.py has
all), or a field absent from a line, is a wrong answer, and is counted as missing in the metadata. Only where the field
lies inside an object that holds other keys (`answers.MODEL`, beside other models) does its absence mean that the
question was not asked: then it is left out of that run, and reported. A line that cannot be read ends the import with
its number; nothing is kept of the file. A gold answer is read as strictly as in nsd's own data; a recorded answer is
what a model said, so that the answer in a sentence counts.

`finish` names the field that says why a completion ended (stop, length, error, ...; a list beside a list; `*` is the
same key as in the other field). A failed one is wrong whatever was recorded of it; where at least half failed there is
no accuracy, and nothing is imported.

Pairing. A question's id is the id field's text as it stands. With `id_is_text` the field holds the question
itself, and the id is its content hash, as in nsd's own runs. Files with a gold field are compared only with files
that hold the same ids and golds; where only right or wrong is recorded, that cannot be checked.

Limits: the whole file is held in memory; CSV is read for counts only.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nsd.plugins.api import StopReason, Verifier
from nsd.plugins.errors import InputError
from nsd.runner.store.workspace import digest_of
from nsd.runner.work.import_rows import (
    ABSENT,
    expand,
    fields_there,
    get_field,
    is_nothing,
    line_id,
    read_lines,
    text_of,
    was_asked,
)

_RIGHT = {"1": True, "1.0": True, "true": True, "0": False, "0.0": False, "false": False}


@dataclass(frozen=True)
class ImportedRun:
    """One run to keep: `values` (question id, mean in [0, 1]) and `samples` with the columns of a scored
    completion, or `counts` (correct, n) alone. `metadata` says where they come from and what was missing.
    """

    run: str
    values: list[tuple[str, float]]
    samples: list[dict[str, Any]]
    counts: tuple[int, int] | None
    metadata: dict[str, Any] = field(default_factory=dict)

    def eval_info(self) -> dict[str, Any]:
        """What the index keeps of an evaluation. Not for counts."""
        most = max((sample["sample"] for sample in self.samples), default=0) + 1
        return {
            "metric": "accuracy",
            "protocol": "imported",
            "data_hash": self.metadata["data_hash"],
            "verifier_hash": self.metadata["verifier_hash"],
            "questions": len(self.values),
            "samples": most,
            "mean": sum(value for _, value in self.values) / len(self.values),
        }

    def describe(self) -> str:
        """A line for people: the mean, and what was missing."""
        if self.counts is not None:
            right, n = self.counts
            return f"{self.run}: {right} of {n} right ({right / n:.4f}), counts only"
        info = self.eval_info()
        missing, absent = self.metadata["missing_answers"], self.metadata["absent_questions"]
        failed = self.metadata["failed_completions"]
        parts = [f"{self.run}: {info['mean']:.4f} on {info['questions']} questions"]
        if info["samples"] > 1:
            parts.append(f"up to {info['samples']} samples each")
        if missing:
            parts.append(f"{missing} without an answer, counted as wrong")
        if failed:
            parts.append(f"{failed} failed, counted as wrong")
        if absent:
            parts.append(f"INCOMPLETE: {absent} questions of the file are not in this run")
        return ", ".join(parts)


def read_import(
    path: Path,
    *,
    name: str | None = None,
    id_field: str | None = None,
    correct: str | None = None,
    answer: str | None = None,
    gold: str | None = None,
    verifier: str | Verifier | None = None,
    counts: bool = False,
    id_is_text: bool = False,
    finish: str | None = None,
) -> list[ImportedRun]:
    """Read and judge a whole file. Raises InputError, with the line where it can, and then returns nothing."""
    if not path.is_file():
        raise InputError(f"there is no file {path}")
    if counts:
        if any(option is not None for option in (id_field, correct, answer, gold, verifier, finish)) or id_is_text:
            raise InputError("--counts reads the columns condition, correct, n: leave the field options out")
        return _read_counts(path, name)
    if name is None or not name.strip():
        raise InputError("an imported run needs a name: --name RUN")
    if id_field is None:
        raise InputError("which field names the question? --id FIELD")
    by_answer = [option is not None for option in (answer, gold, verifier)]
    if (correct is None) == (not any(by_answer)):
        raise InputError("give either --correct FIELD, or --answer FIELD, --gold FIELD and --verifier NAME")
    if correct is None and not all(by_answer):
        raise InputError("--answer, --gold and --verifier go together: all three judge a recorded answer")
    lines = list(read_lines(path))
    if not lines:
        raise InputError(f"{path} has no lines to import")
    ids = [line_id(path, number, row, id_field, id_is_text) for number, row in lines]
    judge: _Judge | None = None
    if correct is None:
        assert gold is not None and verifier is not None
        judge = _Judge.make(path, lines, ids, gold, verifier, id_is_text)
    what = correct or answer
    assert what is not None
    fields = expand(path, lines, what)
    runs = []
    for field_name, key in fields:
        run_name = name if key is None else f"{name}/{key}"
        ends = None if finish is None else finish.replace("*", key or "*")
        runs.append(_one_run(path, lines, ids, run_name, field_name, judge, id_field, ends))
    return runs


# --------------------------------------------------------------------------- counts


def _read_counts(path: Path, prefix: str | None) -> list[ImportedRun]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from error
    reader = csv.DictReader(text.splitlines(), restkey="")
    columns = reader.fieldnames or []
    if lacking := [column for column in ("condition", "correct", "n") if column not in columns]:
        raise InputError(
            f"{path}: no column {', '.join(lacking)}; the first line has {', '.join(columns) or 'nothing'}"
        )
    runs: dict[str, ImportedRun] = {}
    for row in reader:
        place = f"{path}:{reader.line_num}"
        condition = (row["condition"] or "").strip()
        run = f"{prefix}/{condition}" if prefix else condition
        try:
            right, n = int(row["correct"]), int(row["n"])
        except (TypeError, ValueError):
            raise InputError(
                f"{place}: correct {row['correct']!r} and n {row['n']!r} must both be whole numbers"
            ) from None
        if not condition:
            raise InputError(f"{place}: the condition has no name")
        if n < 1 or not 0 <= right <= n:
            raise InputError(f"{place}: {right} correct of {n}: correct lies between 0 and n, and n is at least 1")
        if run in runs:
            raise InputError(f"{place}: the condition {condition!r} stands here twice")
        others = {key: value for key, value in row.items() if key not in ("condition", "correct", "n") and value}
        runs[run] = ImportedRun(run, [], [], (right, n), {"source": "counts", **others})
    if not runs:
        raise InputError(f"{path} has no line below its header")
    return list(runs.values())


# --------------------------------------------------------------------------- judging


@dataclass
class _Judge:
    """Compares recorded answers with gold answers; equal texts are judged once."""

    verifier: Verifier
    golds: dict[str, str]
    data_hash: str | None
    verifier_hash: str
    normal: dict[str, str | None] = field(default_factory=dict)
    verdicts: dict[tuple[str, str], bool] = field(default_factory=dict)

    @classmethod
    def make(
        cls,
        path: Path,
        lines: Sequence[tuple[int, dict[str, Any]]],
        ids: Sequence[str],
        gold_field: str,
        verifier: str | Verifier,
        ids_are_content: bool,
    ) -> _Judge:
        """Normalise every gold answer. Raises InputError at the first that the verifier cannot read.

        Ids that are content hashes pair questions by themselves, so the data need no hash of their own.
        """
        from nsd.runner.plan.keys import plugin_key
        from nsd.runner.spec.digest import digest_config

        place = verifier if isinstance(verifier, str) else verifier.name
        if isinstance(verifier, str):
            from nsd.plugins.registry import find

            made = find("verifier", verifier)()
            assert isinstance(made, Verifier)
            verifier = made
        golds: dict[str, str] = {}
        raw: dict[str, str] = {}
        for (number, row), question in zip(lines, ids, strict=True):
            value = get_field(row, gold_field)
            if is_nothing(value) or isinstance(value, (dict, list)):
                there = fields_there(row) if value is ABSENT else ""
                raise InputError(f"{path}:{number}: no gold answer in the field {gold_field!r}{there}")
            text = text_of(value)
            if (before := raw.setdefault(question, text)) != text:
                raise InputError(f"{path}:{number}: question {question!r} has the gold {text!r} here, {before!r} above")
            normal = verifier.normalise(text)
            if normal is None:
                raise InputError(f"{path}:{number}: verifier {verifier.name!r} finds no answer in the gold {text!r}")
            golds[question] = normal
        # The same key as an evaluation stage's, so that an import pairs with nsd's own runs.
        verifier_hash = digest_of(plugin_key(verifier, digest_config(verifier.config), "verifier", place))
        data_hash = None if ids_are_content else digest_of(["imported", sorted(golds.items())])
        return cls(verifier, golds, data_hash, verifier_hash)

    def __call__(self, question: str, answer: str) -> tuple[bool, str | None]:
        """Whether the answer is right, and its normal form."""
        if answer not in self.normal:
            self.normal[answer] = self.verifier.recorded(answer)
        normal, gold = self.normal[answer], self.golds[question]
        if normal is None:
            return False, None
        if (normal, gold) not in self.verdicts:
            self.verdicts[normal, gold] = self.verifier.same(normal, gold)
        return self.verdicts[normal, gold], normal


def _one_run(
    path: Path,
    lines: Sequence[tuple[int, dict[str, Any]]],
    ids: Sequence[str],
    run: str,
    field_name: str,
    judge: _Judge | None,
    id_field: str,
    finish: str | None,
) -> ImportedRun:
    samples: list[dict[str, Any]] = []
    by_question: dict[str, list[bool]] = {}
    missing = failed = 0
    for (number, row), question in zip(lines, ids, strict=True):
        recorded = get_field(row, field_name)
        if recorded is ABSENT and not was_asked(row, field_name):
            continue
        several = recorded if isinstance(recorded, list) else [recorded]
        if not several:
            raise InputError(f"{path}:{number}: the field {field_name!r} is an empty list: no sample to judge")
        scores = by_question.setdefault(question, [])
        for value, end in zip(several, _ends(path, number, row, finish, recorded), strict=True):
            answer: str | None = None
            if end is StopReason.ERROR:
                right = False
                failed += 1
            elif is_nothing(value):
                right = False
                missing += 1
            elif judge is None:
                right = _right_or_wrong(path, number, field_name, value)
            elif isinstance(value, (dict, list)):
                raise InputError(
                    f"{path}:{number}: the field {field_name!r} holds a {type(value).__name__}, not an answer"
                )
            else:
                right, answer = judge(question, text_of(value))
            samples.append(
                {
                    "question_id": question,
                    "sample": len(scores),
                    "text": None if judge is None or is_nothing(value) else text_of(value),
                    "stop_reason": None if end is None else str(end),
                    "score": float(right),
                    "correct": right,
                    "answer": answer,
                }
            )
            scores.append(right)
    if failed and 2 * failed >= len(samples):
        raise InputError(
            f"{path}: {failed} of {len(samples)} completions of {run} failed: there is no accuracy in them"
        )
    metadata = {
        "source": "samples",
        "id_field": id_field,
        "field": field_name,
        "missing_answers": missing,
        "failed_completions": failed,
        "absent_questions": len(set(ids)) - len(by_question),
        "data_hash": None if judge is None else judge.data_hash,
        "verifier_hash": None if judge is None else judge.verifier_hash,
        "verifier": None if judge is None else judge.verifier.name,
    }
    values = [(question, sum(scores) / len(scores)) for question, scores in by_question.items()]
    return ImportedRun(run, values, samples, None, metadata)


def _ends(
    path: Path, number: int, row: dict[str, Any], finish: str | None, recorded: Any
) -> list[StopReason] | list[None]:
    """Why each completion of a line ended; None for each where no field says it."""
    from nsd.plugins.engines.replay import recorded_end

    count = len(recorded) if isinstance(recorded, list) else 1
    if finish is None:
        return [None] * count
    value = get_field(row, finish)
    if value is ABSENT:
        raise InputError(f"{path}:{number}: no field {finish!r}{fields_there(row, finish)}")
    values = value if isinstance(value, list) else [value] * count
    if len(values) != count:
        raise InputError(f"{path}:{number}: the field {finish!r} has {len(values)} entries for {count} completions")
    return [recorded_end(one, f"{path}:{number}: the field {finish!r}") for one in values]


def _right_or_wrong(path: Path, number: int, field_name: str, value: Any) -> bool:
    found = _RIGHT.get(text_of(value).strip().lower()) if not isinstance(value, dict) else None
    if found is None:
        shown = json.dumps(value, ensure_ascii=False)[:60]
        raise InputError(
            f"{path}:{number}: the field {field_name!r} holds {shown}, where 0, 1, true or false was expected"
        )
    return found
