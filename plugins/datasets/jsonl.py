"""`jsonl`: any local file (JSON lines, JSON, CSV, Parquet) or hub dataset, with the names of its fields.

    data:
      use: jsonl
      train: data/my_train.jsonl                 # one file or a list of files
      test: data/my_test.csv
      fields: {question: prompt, answer: label.final, solution: worked}

    data: {use: jsonl, hub: owner/name, train: train, test: validation, fields: {question: q, answer: a}}

Dotted names reach into objects and lists (`messages.0.content`). `question` must be there in every row; `answer`
may be null or empty, NaN, or a word for nothing such as `NA` or `None` (all of them: `NO_ANSWER` in `sources.py`),
which is the same; `solution` is needed for supervised fine-tuning on labeled questions; `context` is privileged text
for a teacher; `id` is kept as `meta["id"]` (questions are identified by their content). A pseudo example keeps of
context and id what `shown` names: `shown: [context]` where the context does not give the answer away. Without `test`,
the test split is cut from train. Errors name file, line, and the fields that the row has.

    fields: {question: prompt, side_files: {tests: tests_file}}

What a verifier needs and is large has a file of its own: the row's `tests_file` is a path counted from the data file,
below whose folder it must lie, and the question has a SideFile (plugins/side_files.py) as `meta["tests"]`, or nothing
where the row names none. `shown` may name it too.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field, ValidationInfo, field_validator, model_validator

from nsd.plugins.api import Dataset, PluginConfig, Pools, Prompt, Question, Shown, SideFile, SpecPath, question_id
from nsd.plugins.datasets.gsm8k import Gsm8k
from nsd.plugins.datasets.sources import (
    Read,
    Row,
    SourceConfig,
    local_files,
    read,
    read_file,
    shown_of,
    to_questions,
    with_unlabeled,
)
from nsd.plugins.errors import InputError
from nsd.plugins.large import collected
from nsd.plugins.registry import plugin
from nsd.plugins.words import hint


class Fields(PluginConfig):
    """Which field of a row holds what; null for what the rows do not have."""

    question: str = Field(default="question", min_length=1)
    answer: str | None = Field(default="answer", min_length=1, description="The final answer, not a worked solution.")
    solution: str | None = Field(default=None, min_length=1, description="The worked solution to imitate.")
    context: str | None = Field(default=None, min_length=1, description="Privileged text that only a teacher sees.")
    id: str | None = Field(default=None, min_length=1)
    side_files: dict[str, str] = Field(
        default={}, description="Name in `meta` to the field with the path of a file, counted from the data file."
    )

    @field_validator("side_files")
    @classmethod
    def _other_than_id(cls, names: dict[str, str]) -> dict[str, str]:
        for name, column in names.items():
            if name in ("context", "id"):
                raise ValueError(f"the name {name!r} is taken: choose another, such as tests")
            if not name or not column:
                raise ValueError("needs a name in `meta`, and a field of the rows for it")
        return names


@plugin("dataset", "jsonl")
class Jsonl(Dataset):
    """Rows of your own files or of a hub dataset."""

    version = 2

    default_prompt: ClassVar[Prompt] = Gsm8k.default_prompt
    default_verifier: ClassVar[str] = "numeric"

    class Config(SourceConfig):
        hub: str | None = Field(default=None, description="Hub dataset; `train` and `test` are then its splits.")
        subset: str | None = Field(default=None, description="The hub dataset's configuration.")
        revision: str | None = Field(default=None, description="Commit or tag on the hub.")
        train: Annotated[str | list[str], SpecPath(unless="hub")] = Field(
            description="File or files; with `hub` a split."
        )
        test: Annotated[str | list[str] | None, SpecPath(unless="hub")] = Field(
            default=None, description="File or files; with `hub` a split."
        )
        unlabeled: Annotated[str | list[str] | None, SpecPath(unless="hub")] = Field(
            default=None, description="File or files whose rows are the unlabeled pool; with `hub` a split."
        )
        fields: Fields = Field(default=Fields(), description="Which field holds what.")
        shown: list[str] = Field(
            default=[],
            description="What a pseudo example keeps of its row; name only what does not give the answer away.",
        )

        @field_validator("shown")
        @classmethod
        def _there(cls, names: list[str], info: ValidationInfo) -> list[str]:
            if (fields := info.data.get("fields")) is not None:  # else it has errors of its own
                known = ("context", "id", *fields.side_files)
                if unknown := [name for name in names if name not in known]:
                    raise ValueError(f"{unknown[0]!r} is none of {', '.join(known)}{hint(unknown[0], known)}")
            return names

        @model_validator(mode="after")
        def _one_source(self) -> Jsonl.Config:
            if self.hub is None and (self.subset is not None or self.revision is not None):
                raise ValueError("`subset` and `revision` belong to a `hub` dataset, and none is named")
            if self.unlabeled is not None and self.unlabeled_from is not None:
                raise ValueError("give `unlabeled` or `unlabeled_from`, not both")
            if self.hub is not None and self.fields.side_files:
                raise ValueError("`fields.side_files` counts from a data file, and a `hub` dataset has none")
            return self

    config: Config

    def pools(self) -> Pools:
        """All rows of `train`, `test` and `unlabeled`."""
        config = self.config
        train, train_notes = self._questions(config.train)
        test, test_notes = (None, ()) if config.test is None else self._questions(config.test)
        unlabeled = None
        if config.unlabeled is not None:
            # Here a missing answer is the expected case, neither noted nor left out.
            unlabeled = collected(self._question(row, known=False) for row in self._rows(config.unlabeled))
        pools = Pools(train=train, test=test, unlabeled=unlabeled, notes=train_notes + test_notes)
        return with_unlabeled(pools, config)

    def shown(self) -> Shown:
        """What the config says."""
        kept = self.config.shown
        return shown_of(self.config, Shown("context" in kept, frozenset(kept) - {"context"}))

    def source_files(self) -> list[Path]:
        config = self.config
        if config.hub is not None:
            return []
        return [
            file
            for paths in (config.train, config.test, config.unlabeled)
            for path in _several(paths)
            for file in local_files(path, ("train",))
        ]

    def _questions(self, paths: str | list[str]) -> Read:
        return to_questions(self._rows(paths), self._question, self.config)

    def _rows(self, paths: str | list[str]) -> Iterator[Row]:
        config = self.config
        for path in _several(paths):
            if config.hub is not None:
                yield from read(config.hub, path, config.subset, config.revision)
            else:
                yield from read_file(Path(path).expanduser())

    def _question(self, row: Row, known: bool = True) -> Question:
        """One row as a question; rows that are not `known` need no answer and solution fields."""
        fields = self.config.fields
        text = row.question(fields.question)
        side = {name: self._side_file(row, column, known) for name, column in fields.side_files.items()}
        return Question(
            id=question_id(text),
            text=text,
            answer=row.known(fields.answer, known) if fields.answer else None,
            solution=row.known(fields.solution, known) if fields.solution else None,
            context=row.known(fields.context, known) if fields.context else None,
            meta={
                **({"id": row.text(fields.id)} if fields.id else {}),
                **{name: one for name, one in side.items() if one is not None},
            },
            place=row.place,
        )

    def _side_file(self, row: Row, column: str, known: bool) -> SideFile | None:
        name = row.known(column, known)
        if name is None:
            return None
        assert row.folder is not None  # only rows of the hub have none, and the config refuses those
        try:
            return SideFile.within(row.folder, name)
        except InputError as error:
            key = question_id(row.question(self.config.fields.question))
            raise InputError(
                f"{row.place}: question {key}: field {column!r} names {name!r}: {error}; put the file below "
                f"{row.folder.absolute()}, or correct the row"
            ) from None


def _several(paths: str | list[str] | None) -> list[str]:
    return [] if paths is None else [paths] if isinstance(paths, str) else paths
