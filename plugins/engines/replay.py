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
Token counts are 0 unless `fields.tokens` has them. The file is read whole.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
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
from nsd.plugins.registry import plugin

SHARD = 4096  # completions per yielded batch

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
        recorded = self._recorded()
        if self.config.missing == "error":
            self._check(requests, sampling.n, recorded)
        rows = [
            recorded.get(request.question_id, {}).get(sample) or _absent(request.question_id, sample, self.config.path)
            for request in requests
            for sample in range(sampling.n)
        ]
        for start in range(0, len(rows), SHARD):
            shard = [
                _stopped(row, sampling.stop)
                for row in rows[start : start + SHARD]
                if (row.question_id, row.sample) not in done
            ]
            if shard:
                yield shard

    def _file(self) -> Path:
        return Path(self.config.path).expanduser()

    def _recorded(self) -> dict[str, dict[int, Completion]]:
        """Completions by question id and sample number."""
        found: dict[str, dict[int, Completion]] = {}
        for row in read_file(self._file()):
            for item in _of_row(row, self.config.fields):
                samples = found.setdefault(item.completion.question_id, {})
                number = len(samples) if self.config.fields.sample is None else item.completion.sample
                if number in samples:
                    raise InputError(
                        f"{item.place}: sample {number} of question {item.completion.question_id} is recorded twice"
                    )
                samples[number] = replace(item.completion, sample=number)
        return found

    def _check(self, requests: Sequence[Request], n: int, recorded: dict[str, dict[int, Completion]]) -> None:
        short = [
            (request, count)
            for request in requests
            if (count := sum(sample in recorded.get(request.question_id, {}) for sample in range(n))) < n
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
