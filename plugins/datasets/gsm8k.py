"""`gsm8k`: 7,473 train and 1,319 test grade-school word problems (arXiv 2110.14168).

    data: {use: gsm8k, split: {labeled: 1000, unlabeled: 4000, test: 500, seed: 42}}
    data: {use: gsm8k, path: data/gsm8k}          # a folder with train.jsonl and test.jsonl

The gold answer is what follows `#### `, the gold solution the whole `answer` field, which is also the privileged
context for a teacher. With seed 42 the split above is row for row that of the noisy-student study, and the
default prompt is the study's.

Limit: solutions keep the calculator annotations (`<<48/2=24>>`), as in the study.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from nsd.plugins.api import Dataset, Pools, Prompt, Question, Shown, SpecPath, question_id
from nsd.plugins.datasets.sources import (
    Row,
    SourceConfig,
    known,
    local_files,
    read,
    shown_of,
    to_questions,
    train_and_test,
)
from nsd.plugins.registry import plugin


@plugin("dataset", "gsm8k")
class Gsm8k(Dataset):
    """Grade School Math 8K, from the hub or a local folder."""

    version = 2

    default_prompt: ClassVar[Prompt] = Prompt(
        template=(
            "Solve this math problem step by step. End with #### followed by the numerical answer.\n\n"
            "Problem: {question}\n\nSolution:"
        )
    )
    default_verifier: ClassVar[str] = "numeric"

    class Config(SourceConfig):
        path: Annotated[str, SpecPath(hub=True)] = Field(
            default="openai/gsm8k", description="Hub dataset, or a folder with train and test files."
        )
        subset: str | None = Field(default="main", description="The hub dataset's configuration.")
        revision: str | None = Field(default=None, description="Commit or tag on the hub.")

    config: Config

    def pools(self) -> Pools:
        """All train and test rows."""
        config = self.config
        return train_and_test(
            config,
            lambda split: read(config.path, split, config.subset, config.revision),
            lambda rows: to_questions(rows, _question, config),
        )

    def shown(self) -> Shown:
        """Nothing: the context is the gold solution."""
        return shown_of(self.config, Shown())

    def source_files(self) -> list[Path]:
        return local_files(self.config.path, ("train", "test"), self.config.subset)


def _question(row: Row) -> Question:
    text = row.question("question")
    solution = row.known("answer")
    _, marker, answer = (solution or "").rpartition("####")
    return Question(
        id=question_id(text),
        text=text,
        answer=known(answer.strip()) if marker else None,
        solution=solution,
        context=solution,
    )
