"""The files of other evaluation tools, as rows with the names of their fields, for `runner/work/imports/reading.py`.

    found = read_format(Path("samples_gsm8k.jsonl"), None, Fields(), {"filter": ["strict-match"]})
    found.name, found.fields.id, found.fields.correct       # "lm-eval", "doc_id", "exact_match"

`lm-eval`        samples_*.jsonl of lm-evaluation-harness. A line is an answer as one filter read it: one is chosen.
`inspect`        an `.eval` (zip) or JSON log of inspect: `runner/work/imports/inspect_logs.py`.
`openai-evals`   a log of openai/evals, one event a line: `runner/work/imports/openai_logs.py`.

Whatever is given by name stays; only the rest is filled in. A file that is plainly one of these needs no name.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nsd.plugins.errors import InputError
from nsd.plugins.words import hint
from nsd.runner.work.imports.files import Rows, Table, first_bytes, first_line, read_table
from nsd.runner.work.imports.inspect_logs import looks_like_inspect, read_inspect
from nsd.runner.work.imports.openai_logs import by_sample, reported
from nsd.runner.work.imports.rows import ABSENT, fields_there, get_field, is_nothing, text_of

FORMATS = ("lm-eval", "inspect", "openai-evals")
RIGHT = {"1": True, "1.0": True, "true": True, "0": False, "0.0": False, "false": False}
_METRICS = ("exact_match", "acc", "acc_norm")  # of lm-eval's files from before its lines named their metrics


@dataclass(frozen=True)
class Fields:
    """Which field of a row holds what; None for what none holds."""

    id: str | None = None
    id_is_text: bool = False
    correct: str | None = None
    score: str | None = None
    answer: str | None = None
    gold: str | None = None
    verifier: Any = None
    finish: str | None = None
    text: str | None = None
    sample: str | None = None

    @property
    def judged(self) -> bool:
        """Whether answers are to be judged here, and not taken as the tool judged them."""
        return any(one is not None for one in (self.answer, self.gold, self.verifier))

    def heads(self, others: Iterable[str] = ()) -> set[str] | None:
        """Whatever key of a row may lead to one of these fields or the others; None for every key."""
        named = (self.id, self.correct, self.score, self.answer, self.gold, self.finish, self.text, self.sample)
        found: set[str] = set()
        for name in (*named, *others):
            if name is not None:
                parts = name.split(".")
                found.update(".".join(parts[:end]) for end in range(1, len(parts) + 1))
                if "*" in parts[0]:
                    return None
        return found

    def filled(self, **others: str | None) -> Fields:
        """The same, with these fields where none was given."""
        wanting: dict[str, Any] = {name: field for name, field in others.items() if getattr(self, name) is None}
        return replace(self, **wanting)


@dataclass(frozen=True)
class Found:
    """Rows to import. `name` is the format's, None for a plain file; `left_out`: rows that `where` did not take;
    `missing`: questions that the tool meant to ask and has no sample of. `once`: fields in which no two rows of the
    tool's agree, and what it means where they do. `stated`: the mean that the tool itself states. `notes`: what else is
    to be known of the file.
    """

    table: Table
    fields: Fields
    name: str | None = None
    left_out: int = 0
    missing: int = 0
    once: Sequence[str] = ()
    why_once: str = ""
    stated: float | None = None
    notes: Sequence[str] = ()


def read_format(path: Path, source: str | None, fields: Fields, where: Mapping[str, Sequence[str]]) -> Found:
    """The rows of a file that fit `where`, and the fields that hold what. Raises InputError."""
    if source is not None and source not in FORMATS:
        raise InputError(f"no format {source!r}: one of {', '.join(FORMATS)}{hint(source, FORMATS)}")
    name = source or recognised(path, fields)
    missing = 0
    stated: Mapping[str, float] = {}
    notes: Sequence[str] = ()
    if name == "inspect":
        log = read_inspect(path)
        table, missing, stated, notes = log.table, log.missing, log.stated, log.notes
    else:
        table = read_table(path, None if name else fields.heads(where))
    if not table.rows:
        raise InputError(f"{path} has no lines to import")
    if name is None and table.unit == "item" and _of_lm_eval(table.head):
        name = "lm-eval"  # as an array, which older ones wrote
    if name == "openai-evals":
        stated = reported(table)
        table = by_sample(table)
    taken = _taken(table, where)
    left_out = len(table.rows) - len(taken.rows)
    if name == "lm-eval":
        taken, fields = _lm_eval(taken, fields)
    elif name == "inspect":
        fields = _inspect(taken, fields)
    elif name == "openai-evals":
        fields = _openai(taken, fields)
    # lm-eval writes all samples of a question into one line.
    once = ("doc_id", "doc_hash") if name == "lm-eval" else ()
    why = (
        "two files of lm-eval in one? Import each by itself, or name a field that tells them apart by --where. If they "
        "are samples, say how many: --samples K"
    )
    chosen = (fields.correct or fields.score or "").removeprefix("scores.").removeprefix("metrics.")
    mean = None if left_out or fields.judged else stated.get("accuracy" if chosen == "correct" else chosen)
    return Found(taken, fields, name, left_out, missing, once, why if once else "", mean, notes)


def recognised(path: Path, fields: Fields) -> str | None:
    """The format that a file plainly has, None for any other."""
    start = first_bytes(path)
    if looks_like_inspect(start):
        return "inspect"
    if not start.startswith(b"{"):
        return None
    try:
        first = json.loads(first_line(path))
    except (ValueError, RecursionError):
        first = None
    if not isinstance(first, dict):
        return None
    if _of_lm_eval(first):
        return "lm-eval"
    valued = fields.correct or fields.score or (fields.answer and fields.gold and fields.verifier)
    by_hand = fields.id is not None and valued
    events = {"run_id", "event_id", "sample_id", "type", "data"}
    spec = first.get("spec")
    is_spec = isinstance(spec, dict) and {"run_id", "eval_name"} <= spec.keys()
    return "openai-evals" if (is_spec or events <= first.keys()) and not by_hand else None


def _of_lm_eval(row: Mapping[str, Any]) -> bool:
    return "doc_id" in row and ("filtered_resps" in row or "resps" in row)


def _taken(table: Table, where: Mapping[str, Sequence[str]]) -> Table:
    """The rows whose fields have these values; of several values for one field any. Raises InputError for none.

    `null` takes the rows that lack a field which others have, too.
    """
    rows: Rows = table.rows
    for name, values in where.items():
        seen: Counter[str] = Counter()
        kept = []
        found = [(number, row, get_field(row, name)) for number, row in rows]
        known = any(value is not ABSENT for *_, value in found)
        for number, row, value in found:
            if isinstance(value, (dict, list)) or (value is ABSENT and not known):
                continue
            text = "null" if value is None or value is ABSENT else text_of(value)
            seen[text] += 1
            if text in values:
                kept.append((number, row))
        if not kept:
            wanted = " or ".join(map(repr, values))
            there = ", ".join(repr(value[:40]) for value, _ in seen.most_common(8))
            holds = f"; it holds {there}" if there else f"{fields_there(table.head, name)}"
            raise InputError(f"{table.path}: no {table.unit} has {wanted} in the field {name!r}{holds}")
        rows = kept
    return table.with_rows(rows)


def right_or_wrong(table: Table, field: str) -> bool:
    """Whether a field holds nothing but 0, 1, true, false and what says nothing."""
    values = (get_field(row, field) for _, row in table.rows)
    return all(
        is_nothing(one) or (not isinstance(one, (dict, list)) and text_of(one).strip().lower() in RIGHT)
        for value in values
        for one in (value if isinstance(value, list) else [value])
    )


def _valued(table: Table, fields: Fields, field: str) -> Fields:
    """The fields with the tool's own verdict: right or wrong where all of them are, else graded."""
    return fields.filled(**{"correct" if right_or_wrong(table, field) else "score": field})


# --------------------------------------------------------------------------- lm-evaluation-harness


def _lm_eval(table: Table, fields: Fields) -> tuple[Table, Fields]:
    filters = Counter(text_of(row["filter"]) for _, row in table.rows if row.get("filter") is not None)
    if len(filters) > 1:
        found = ", ".join(f"{name} ({count} lines)" for name, count in filters.items())
        raise InputError(
            f"{table.path} holds the same answers as several filters read them: {found}. Choose one: "
            f"--where filter={next(iter(filters))}"
        )
    if fields.id_is_text and fields.id is None:
        raise InputError("--id-is-text needs --id with the field of the question's text, such as --id doc.question")
    fields = fields.filled(id="doc_id", text=None if fields.id_is_text or "doc_hash" not in table.head else "doc_hash")
    if fields.judged:
        rows = [
            (number, {**row, "completions": _texts(table, number, row), "gold": _gold(row.get("target"))})
            for number, row in table.rows
        ]
        return table.with_rows(rows), fields.filled(answer="completions", gold="gold")
    if (given := fields.correct or fields.score) is not None:
        return _no_list(table, given), fields
    lists = (row.get("metrics") for _, row in table.rows)
    named = dict.fromkeys(text_of(one) for names in lists if isinstance(names, list) for one in names)
    metrics = list(named) or [name for name in _METRICS if name in table.head]
    metrics = [name for name in metrics if not _is_list(table, name)] or metrics
    if len(metrics) != 1:
        found = f"several metrics: {', '.join(metrics)}" if metrics else "no metric of its own"
        example = metrics[0] if metrics else "FIELD"
        raise InputError(f"{table.path} has {found}. Choose the one to import: --score {example}")
    return _no_list(table, metrics[0]), _valued(table, fields, metrics[0])


def _is_list(table: Table, metric: str) -> bool:
    """Whether a metric holds a list: gold and prediction (`f1`, `mcc`), or a verdict for each part (`ifeval`)."""
    return any(isinstance(get_field(row, metric), list) for _, row in table.rows)


def _no_list(table: Table, metric: str) -> Table:
    """The same rows. Raises InputError where the metric is a list, of which lm-eval makes a number for the whole file.

    Its items are no samples of the question.
    """
    for number, row in table.rows:
        if isinstance(get_field(row, metric), list):
            raise InputError(
                f"{table.place(number)}: the metric {metric!r} is a list, of which lm-eval makes one number for the "
                "whole file: it has no value for a question. Choose another: --score FIELD"
            )
    return table


def _gold(target: Any) -> Any:
    """What a target states as its answer: of a solution, as gsm8k's, what stands behind its last `####`."""
    return target.rpartition("####")[2] if isinstance(target, str) else target


def _texts(table: Table, number: int, row: Mapping[str, Any]) -> list[str]:
    """The texts that were drawn, before any filter."""
    drawn = row.get("resps")
    inner = drawn[0] if isinstance(drawn, list) and len(drawn) == 1 and isinstance(drawn[0], list) else None
    if not inner or not all(isinstance(text, str) for text in inner):
        raise InputError(f"{table.place(number)}: `resps` holds no drawn texts, so there is nothing to judge")
    return inner


# --------------------------------------------------------------------------- inspect


def _inspect(table: Table, fields: Fields) -> Fields:
    fields = fields.filled(id="id", sample="epoch", finish="finish", text=None if fields.id_is_text else "input")
    if fields.judged:
        return fields.filled(answer="completion", gold="target")
    if fields.correct is not None:
        return fields
    kinds: dict[str, tuple[str, ...]] = {}
    for _, row in table.rows:
        for name, value in row["scores"].items():
            kinds.setdefault(name, tuple(value) if isinstance(value, dict) else ())
    choices = [f"{name}.{key}" if key else name for name, keys in kinds.items() for key in keys or ("",)]
    if fields.score is None and len(choices) != 1:
        found = f"several scores: {', '.join(choices)}. Choose one" if choices else "no scores: judge its completions"
        way = f"--score {choices[0]}" if choices else "--verifier NAME"
        raise InputError(f"{table.path} has {found}: {way}")
    chosen = choices[0] if fields.score is None else fields.score
    if chosen.startswith("scores.") and chosen not in choices:
        chosen = chosen.removeprefix("scores.")
    if chosen not in choices:
        known = f" (there are {', '.join(choices)})" if choices else ""
        raise InputError(f"{table.path}: no score {chosen!r}{hint(chosen, choices)}{known}")
    scorer = next(name for name, keys in kinds.items() if chosen in (name, *(f"{name}.{key}" for key in keys)))
    key = chosen.removeprefix(scorer).removeprefix(".")
    return _valued(table, replace(fields, score=None), f"scores.{scorer}{f'.{key}' if key else ''}")


# --------------------------------------------------------------------------- openai/evals


def _openai(table: Table, fields: Fields) -> Fields:
    has_prompt = any(row["prompt"] for _, row in table.rows)
    text = None if fields.id_is_text or not has_prompt else "prompt"
    fields = fields.filled(id="sample_id", finish="finish", text=text)
    if fields.judged:
        several = next(((number, row["calls"]) for number, row in table.rows if row["calls"] > 1), None)
        if several is not None and fields.answer is None:
            raise InputError(
                f"{table.place(several[0])}: {several[1]} texts were drawn for one verdict (a chain of calls, or a "
                "grader's), and which is the answer is not told. Take the log's own verdict: leave --verifier out"
            )
        return fields.filled(answer="sampled", gold="expected")
    if fields.correct is not None:
        return fields
    chosen = _openai_verdict(table, fields)
    metric = (chosen.score or chosen.correct or "").removeprefix("metrics.")
    for number, row in table.rows:
        if metric in row["twice"]:
            raise InputError(
                f"{table.place(number)}: sample {row['sample_id']!r} has the metric {metric!r} twice, with two values"
            )
    return chosen


def _openai_verdict(table: Table, fields: Fields) -> Fields:
    names = dict.fromkeys(name for _, row in table.rows for name in row["metrics"])
    if fields.score is not None:
        return replace(fields, score=f"metrics.{fields.score}") if fields.score in names else fields
    if any(row["correct"] is not None for _, row in table.rows):
        return fields.filled(correct="correct")
    if len(names) != 1:
        found = f"several metrics: {', '.join(names)}. Choose one: --score {next(iter(names))}" if names else ""
        raise InputError(
            f"{table.path} has no event `match` and "
            + (found or "none of `metrics`: judge what was sampled by --gold FIELD and --verifier NAME")
        )
    return _valued(table, fields, f"metrics.{next(iter(names))}")
