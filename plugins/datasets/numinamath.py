"""`numinamath`: 860,000 problems from many sources (AI-MO/NuminaMath-CoT), meant as unlabeled data.

    data:                                   # labeled and test questions from GSM8K, unlabeled ones from here
      use: gsm8k
      split: {labeled: 1000, unlabeled: 4000, test: 500, seed: 42}
      unlabeled_from: {use: numinamath, sources: [orca_math], answers: number}

The gold answer is the content of the last box of the solution, None where there is none (a proof). It stays
hidden from training; where it is known, the accuracy of the pseudo-labels can be told. `answers: number` keeps
the problems whose answer is a plain number, which is what the `numeric` verifier can judge; `answers: known`
those that have an answer at all. What a filter leaves out is counted in the notes.

Used on its own it has no test rows: the test split is cut from its train rows.

Limit: the sources overlap GSM8K and MATH. The split leaves out rows that are word for word in the test rows and
cannot see a reworded copy. So avoid sources that are made from the benchmark measured (`gsm8k`, `math`,
`synthetic_math`, `synthetic_amc`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from nsd.plugins.api import Dataset, Pools, Prompt, Question, SpecPath, question_id
from nsd.plugins.datasets.math import MathProblems
from nsd.plugins.datasets.sources import Row, SourceConfig, known, local_files, read, to_questions, with_unlabeled
from nsd.plugins.errors import InputError
from nsd.plugins.registry import plugin
from nsd.plugins.verifiers.boxed import last_boxed
from nsd.plugins.verifiers.numeric import bare_number


@plugin("dataset", "numinamath")
class NuminaMath(Dataset):
    """NuminaMath-CoT, from the hub or a local file or folder."""

    version = 2

    default_prompt: ClassVar[Prompt] = MathProblems.default_prompt
    default_verifier: ClassVar[str] = "math"

    class Config(SourceConfig):
        path: Annotated[str, SpecPath(hub=True)] = Field(
            default="AI-MO/NuminaMath-CoT", description="Hub dataset, or a local file or folder."
        )
        revision: str | None = Field(default=None, description="Commit or tag on the hub.")
        sources: list[str] | None = Field(
            default=None, min_length=1, description="Values of the `source` column to keep, e.g. orca_math, cn_k12."
        )
        answers: Literal["any", "known", "number"] = Field(
            default="any", description="Keep every problem, those with a gold answer, or with a plain number as answer."
        )

    config: Config

    def pools(self) -> Pools:
        """The wanted rows as train pool."""
        config = self.config
        if config.sources is not None:
            there = Counter(row.text("source") for row in self._rows())
            for source in config.sources:
                if source not in there:
                    exist = ", ".join(f"{name} ({count:,})" for name, count in there.most_common())
                    raise InputError(f"sources: no row has the source {source!r}, there are: {exist}")
        left_out = 0

        def wanted(question: Question) -> bool:
            nonlocal left_out
            is_wanted = self._answer_wanted(question.answer)
            left_out += not is_wanted
            return is_wanted

        rows = (row for row in self._rows() if config.sources is None or row.text("source") in config.sources)
        kept, notes = to_questions(rows, _question, config, wanted)
        if left_out:
            notes += (f"answers: {config.answers} left out {left_out:,} of {len(kept) + left_out:,} rows",)
        return with_unlabeled(Pools(train=kept, test=None, notes=notes), config)

    def _rows(self) -> Iterator[Row]:
        return read(self.config.path, "train", revision=self.config.revision)

    def source_files(self) -> list[Path]:
        return local_files(self.config.path, ("train",))

    def _answer_wanted(self, answer: str | None) -> bool:
        if self.config.answers == "any":
            return True
        if answer is None or self.config.answers == "known":
            return answer is not None
        return bare_number(answer) is not None


def _question(row: Row) -> Question:
    text = row.question("problem")
    solution = row.known("solution", required=False)
    return Question(
        id=question_id(text),
        text=text,
        answer=known(last_boxed(solution or "")),
        solution=solution,
        context=solution,
        meta={"source": row.text("source", required=False)},
    )
