"""The `replay` engine: completions somebody recorded, from a file, without a model.

    engine:
      use: replay
      path: runs/math_cot_100.jsonl            # also JSON, CSV, Parquet
      fields: {question: question, completion: response}

A row holds one completion, or a list of them; rows of the same question follow each other in sample number, or
`fields.sample` gives it (counted from 0). Questions are matched by the content of their text (`question_id`), or,
with `fields.id`, by that id. Dotted names reach into objects and lists (`choices.0.message.content`). The file's
content, not its path, is what a stage's digest holds.

A text is cut before the first stop string in it, and has then ended by itself; its token count stays that of the
recording.

Limits: the sampling asked for only says how many completions are wanted, and where they stop; temperature and token
limit are those of the recording, whatever the spec says. There are no confidences.
Token counts are 0 unless `fields.tokens` has them.
"""

from __future__ import annotations

import hashlib
import itertools
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from nsd.plugins.api import (
    Completion,
    Engine,
    ModelRef,
    OutputNeutral,
    PluginConfig,
    Request,
    Sampling,
    SpecPath,
    StopReason,
    question_id,
)
from nsd.plugins.data import cut_at_stop
from nsd.plugins.datasets.sources import Row, read_file
from nsd.plugins.errors import InputError
from nsd.plugins.large import Spooled, key_of
from nsd.plugins.registry import plugin

SHARD = 4096  # completions per yielded batch
_Fields = tuple[str, int, str, int, str, str | None, str]  # of a recorded completion and its place, in order

_FINISHED = {
    **dict.fromkeys(("stop", "eos", "end_turn", "stop_sequence", "tool_calls"), StopReason.STOP),
    **dict.fromkeys(("length", "max_tokens", "max_length"), StopReason.LENGTH),
    **dict.fromkeys(("error", "content_filter", "abort"), StopReason.ERROR),
}


class ReplayFields(PluginConfig):
    """Which field of a row holds what; null for what the rows do not have."""

    question: str = Field(default="question", min_length=1, description="The question's text.")
    id: str | None = Field(default=None, min_length=1, description="nsd's question id, used instead of the text.")
    completion: str = Field(default="completion", min_length=1, description="One text or a list of texts.")
    sample: str | None = Field(default=None, min_length=1, description="Sample number, from 0; one text per row.")
    finish: str | None = Field(
        default=None, min_length=1, description="Why it ended (stop, length, error, ...); a list beside a list."
    )
    tokens: str | None = Field(default=None, min_length=1, description="Token count; a list beside a list.")

    @model_validator(mode="after")
    def _distinct(self) -> ReplayFields:
        if self.completion in (self.question, self.id):
            raise ValueError(f"completion and question are both read from {self.completion!r}")
        return self


@dataclass(frozen=True, slots=True)
class _Recorded:
    """A completion whose question is named by the row; `place` for complaints."""

    completion: Completion
    place: str


@plugin("engine", "replay")
class ReplayEngine(Engine):
    """Recorded completions of the same questions. Raises InputError where the file has too few."""

    needs_model: ClassVar[bool] = False

    class Config(PluginConfig):
        path: Annotated[str, OutputNeutral(), SpecPath()] = Field(
            min_length=1, description="File of recorded completions."
        )
        fields: ReplayFields = Field(default=ReplayFields(), description="Which field holds what.")
        missing: Literal["error", "empty"] = Field(
            default="error",
            description="A question with too few recorded completions: an error, or empty completions marked as "
            "failed, which score 0.",
        )

    config: Config

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        self._read: tuple[Any, _Recording] | None = None  # with the size and time of change of the file

    def content_hash(self) -> str:
        """Sha256 of the file. Raises InputError where it cannot be read."""
        try:
            with self._file().open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise InputError(f"engine replay: {self.config.path} cannot be read: {error.strerror}") from error

    def digest_extra(self) -> dict[str, Any]:
        """The file's content stands in for its path."""
        return {"content": self.content_hash()}

    def generate(
        self,
        model: ModelRef | None,
        requests: Sequence[Request],
        sampling: Sampling,
        seed: int,
        done: AbstractSet[tuple[str, int]] = frozenset(),
    ) -> Iterator[list[Completion]]:
        """See Engine.generate. `model` and `seed` are not used; of `sampling` only n and stop."""
        recording = self._recording()
        recorded = {request.question_id: recording.of(request.question_id) for request in requests}
        if self.config.missing == "error":
            self._check(requests, sampling.n, recorded)
        rows = (
            recorded[request.question_id].get(sample) or _absent(request.question_id, sample, self.config.path)
            for request in requests
            for sample in range(sampling.n)
        )
        while taken := list(itertools.islice(rows, SHARD)):
            shard = [_stopped(row, sampling.stop) for row in taken if (row.question_id, row.sample) not in done]
            if shard:
                yield shard

    def _file(self) -> Path:
        return Path(self.config.path).expanduser()

    def _recording(self) -> _Recording:
        """What the file holds, read through once as long as it stays the same."""
        status = self._file().stat() if self._file().is_file() else None
        stamp = None if status is None else (status.st_size, status.st_mtime_ns)
        if self._read is None or self._read[0] != stamp:
            rows = read_file(self._file())
            items = (item for row in rows for item in _of_row(row, self.config.fields))
            self._read = stamp, _Recording(items, self.config.fields.sample is not None)
        return self._read[1]

    def _check(self, requests: Sequence[Request], n: int, recorded: Mapping[str, Mapping[int, Completion]]) -> None:
        short = [
            (request, count)
            for request in requests
            if (count := sum(sample < n for sample in recorded[request.question_id])) < n
        ]
        if not short:
            return
        request, count = short[0]
        text = request.prompt if isinstance(request.prompt, str) else request.prompt[-1]["content"]
        text = " ".join(text.split())
        more = f"; so do {len(short) - 1} more of {len(requests)} questions" if len(short) > 1 else ""
        raise InputError(
            f"engine replay: {self.config.path} has {count} of the {n} completions wanted for question "
            f"{request.question_id} ({text[:80]!r}{'...' if len(text) > 80 else ''}){more}. Ask for fewer samples, "
            "check that fields.question (or fields.id) names the same questions, or set missing: empty"
        )


class _Recording:
    """Completions of a file by their question. Of each a few numbers are held, and its text stays in a file."""

    def __init__(self, items: Iterable[_Recorded], numbered: bool) -> None:
        """`numbered` says that the items have a sample number of their own; else those of a question count up."""
        import numpy as np

        self._kept, self._numbered = Spooled[_Fields](), numbered
        keys = array("Q")
        for one, place in ((item.completion, item.place) for item in items):
            fields = (one.question_id, one.sample, one.text, one.tokens, str(one.stop_reason), one.error, place)
            self._kept.add(fields)
            keys.append(key_of(one.question_id))
        found = np.frombuffer(keys, np.uint64)
        self._order = found.argsort(kind="stable")
        self._keys = found[self._order]

    def of(self, question_id: str) -> dict[int, Completion]:
        """The completions of a question by sample number. Raises InputError for one that is recorded twice."""
        import numpy as np

        key = np.uint64(key_of(question_id))
        first, end = np.searchsorted(self._keys, key), np.searchsorted(self._keys, key, "right")
        samples: dict[int, Completion] = {}
        for place in self._order[first:end].tolist():
            its_id, sample, text, tokens, reason, error, where = self._kept.read(place)
            if its_id == question_id:
                number = sample if self._numbered else len(samples)
                if number in samples:
                    raise InputError(f"{where}: sample {number} of question {its_id} is recorded twice")
                samples[number] = Completion(its_id, number, text, tokens, StopReason(reason), error)
        return samples


def _of_row(row: Row, fields: ReplayFields) -> Iterator[_Recorded]:
    """The completions of one row, in order."""
    question = row.question(fields.question) if fields.id is None else row.text(fields.id)
    if question is None:
        raise InputError(f"{row.place}: field {fields.id!r} is empty, a question id is needed there")
    identifier = question_id(question) if fields.id is None else question
    texts = row.get(fields.completion)
    several = isinstance(texts, list)
    sample = 0
    if fields.sample is not None:
        sample = _count(row, fields.sample, row.get(fields.sample))
        if several:
            raise InputError(f"{row.place}: a row with a sample number holds one completion, not a list")
    texts = texts if several else [texts]
    finishes = _beside(row, fields.finish, several, len(texts))
    counts = _beside(row, fields.tokens, several, len(texts))
    for text, finish, count in zip(texts, finishes, counts, strict=True):
        if text is not None and not isinstance(text, str):
            raise InputError(f"{row.place}: field {fields.completion!r} should hold text, not {type(text).__name__}")
        reason = _stop_reason(row, fields.finish, finish) if text is not None else StopReason.ERROR
        error = None
        if reason is StopReason.ERROR:
            error = "recorded without a text" if text is None else f"recorded as {finish!r}"
        tokens = 0 if count is None else _count(row, fields.tokens or "", count)
        yield _Recorded(Completion(identifier, sample, text or "", tokens, reason, error), row.place)


def _beside(row: Row, name: str | None, several: bool, length: int) -> list[Any]:
    """One value per completion of the row: a field's list, or its single value for each."""
    value = None if name is None else row.get(name)
    if several and isinstance(value, list):
        if len(value) != length:
            raise InputError(f"{row.place}: field {name!r} has {len(value)} entries for {length} completions")
        return value
    return [value] * length


def _stop_reason(row: Row, name: str | None, finish: Any) -> StopReason:
    return recorded_end(finish, f"{row.place}: field {name!r}")


def recorded_end(finish: Any, place: str) -> StopReason:
    """Why a recorded completion ended; null is a stop. Raises InputError, naming the place, for an unknown word."""
    if finish is None:
        return StopReason.STOP
    if not isinstance(finish, str) or finish.lower() not in _FINISHED:
        raise InputError(f"{place} is {finish!r}, not one of {', '.join(_FINISHED)}")
    return _FINISHED[finish.lower()]


def _count(row: Row, name: str, value: Any) -> int:
    """A whole number from 0; CSV has it as text."""
    if isinstance(value, str) and value.isdecimal():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InputError(f"{row.place}: field {name!r} should be a whole number from 0, it is {value!r}")
    return value


def _stopped(completion: Completion, stop: Sequence[str]) -> Completion:
    """The completion, cut before its first stop string; one that failed stays as it is."""
    text, found = cut_at_stop(completion.text, stop)
    if not found or completion.failed:
        return completion
    return replace(completion, text=text, stop_reason=StopReason.STOP)


def _absent(identifier: str, sample: int, path: str) -> Completion:
    reason = f"no recorded completion in {Path(path).name}"
    return Completion(identifier, sample, "", 0, StopReason.ERROR, reason)
