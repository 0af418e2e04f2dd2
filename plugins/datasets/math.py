"""`math`: 7,500 train and 5,000 test competition problems with LaTeX answers (MATH, arXiv 2103.03874).

    data: {use: math, levels: [1, 2, 3], split: {labeled: 1000, unlabeled: 4000, test: 500}}
    data: {use: math, path: data/math, test: math500}      # a folder with train, test and math500 files

The gold answer is the content of the last box of the gold solution. `test: math500` takes the 500 test problems
of arXiv 2305.20050 instead of all 5,000; any other value is a file of problems.

Faults of the published files: two train rows (5341, 5343) have an empty box, so no gold answer; two have
`Level ?`; train row 959 repeats 925; train row 2948 is also in the test rows, and the split leaves it out.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from nsd.plugins.api import Dataset, Pools, Prompt, Question, Shown, SpecPath, question_id
from nsd.plugins.datasets.sources import (
    Read,
    Row,
    SourceConfig,
    is_local,
    known,
    local_files,
    read,
    shown_of,
    to_questions,
    with_unlabeled,
)
from nsd.plugins.errors import InputError
from nsd.plugins.registry import plugin
from nsd.plugins.verifiers.boxed import last_boxed

HUB_SUBSETS = (
    "algebra",
    "counting_and_probability",
    "geometry",
    "intermediate_algebra",
    "number_theory",
    "prealgebra",
    "precalculus",
)
MATH500_HUB = "HuggingFaceH4/MATH-500"


@plugin("dataset", "math")
class MathProblems(Dataset):
    """MATH, from the hub or a local folder, all of it or some levels and types."""

    version = 2

    default_prompt: ClassVar[Prompt] = Prompt(
        template=(
            "Solve this math problem step by step. Put the final answer in \\boxed{}.\n\n"
            "Problem: {question}\n\nSolution:"
        )
    )
    default_verifier: ClassVar[str] = "math"

    class Config(SourceConfig):
        path: Annotated[str, SpecPath(hub=True)] = Field(
            default="EleutherAI/hendrycks_math", description="Hub dataset, or a folder with train and test files."
        )
        revision: str | None = Field(default=None, description="Commit or tag on the hub.")
        test: Annotated[str, SpecPath(hub=True)] = Field(
            default="full", description='"full", "math500", or a file of problems.'
        )
        levels: list[int] | None = Field(default=None, min_length=1, description="Difficulties to keep, 1 to 5.")
        types: list[str] | None = Field(default=None, min_length=1, description='Subjects to keep, e.g. "Algebra".')

    config: Config

    def pools(self) -> Pools:
        """Train and test problems of the wanted levels and types."""
        train, train_notes = self._wanted(self._rows("train"))
        test, test_notes = self._wanted(self._test_rows())
        return with_unlabeled(Pools(train=train, test=test, notes=train_notes + test_notes), self.config)

    def shown(self) -> Shown:
        """Level and type; the context is the gold solution."""
        return shown_of(self.config, Shown(meta=frozenset(("level", "type"))))

    def source_files(self) -> list[Path]:
        config = self.config
        if not is_local(config.path):
            return []
        if config.test in ("full", "math500"):
            return local_files(config.path, ("train", "test" if config.test == "full" else "math500"))
        return local_files(config.path, ("train",)) + local_files(config.test, ("test",))

    def _rows(self, split: str) -> list[Row]:
        config = self.config
        if is_local(config.path):
            return list(read(config.path, split))
        return [row for subset in HUB_SUBSETS for row in read(config.path, split, subset, config.revision)]

    def _test_rows(self) -> list[Row]:
        if self.config.test == "full":
            return self._rows("test")
        if self.config.test == "math500":
            return self._rows("math500") if is_local(self.config.path) else list(read(MATH500_HUB, "test"))
        return list(read(self.config.test, "test"))

    def _wanted(self, rows: list[Row]) -> Read:
        config = self.config
        questions = {row.place: _question(row) for row in rows}
        for field_name, wanted in (("level", config.levels), ("type", config.types)):
            if wanted is None:
                continue
            there = Counter(question.meta[field_name] for question in questions.values())
            unknown = [value for value in wanted if value not in there]
            if unknown and rows:
                exist = ", ".join(str(value) for value in sorted(there, key=str))
                raise InputError(f"{field_name}s: no problem of {field_name} {unknown[0]!r}, there are: {exist}")
            rows = [row for row in rows if questions[row.place].meta[field_name] in wanted]
        return to_questions(rows, lambda row: questions[row.place], config)


def _question(row: Row) -> Question:
    text = row.question("problem")
    solution = row.known("solution")
    level = re.search(r"[1-5]", row.text("level", required=False) or "")
    return Question(
        id=question_id(text),
        text=text,
        answer=known(last_boxed(solution or "")),
        solution=solution,
        context=solution,
        meta={
            "level": int(level[0]) if level else None,
            # The 500-problem file calls its column `subject`.
            "type": row.text("type", required=False) or row.text("subject", required=False),
        },
    )
