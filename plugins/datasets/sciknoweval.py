"""`sciknoweval`: multiple-choice questions of biology, chemistry, materials and physics (arXiv 2406.09098).

    data: {use: sciknoweval, path: data/sciknoweval/chemistry, split: {labeled: 1890}}
    data: {use: sciknoweval, subject: chemistry, split: {labeled: 1000, test: 200}}      # from the hub

Rows come in two forms. The prepared one of SDPO's study (arXiv 2601.20802) has `prompt` (question, options and a
request for steps), `answer` (a letter) and one file per split. The published one has `question`, `choices`, `answerKey`
and `details.level`; of it the multiple-choice rows of the wanted levels are taken and put into the same words, and the
test split is cut from them. The default prompt is the study's: a chat with its system text. Nothing but the letter is
known, so `sft` cannot learn from the labeled questions.

Fault of the prepared files: one question of `material` stands in both splits; it is left out of training.
Limit: the published form has been read from local files of its columns alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from nsd.plugins.api import Dataset, Pools, Prompt, Question, Shown, SpecPath, question_id
from nsd.plugins.datasets.sources import (
    Read,
    Row,
    SourceConfig,
    is_local,
    local_files,
    read,
    shown_of,
    split_files,
    to_questions,
    train_and_test,
)
from nsd.plugins.errors import InputError
from nsd.plugins.registry import plugin

SYSTEM = (
    "\nGiven a question and four options, please select the right answer. Respond in the following format:\n"
    "<reasoning>\n...\n</reasoning>\n<answer>\n...\n</answer>\n\n"
    "For the answer, only output the letter corresponding to the correct option (A, B, C, or D), and nothing else. "
    'Do not restate the answer text. For example, if the answer is "A", just output:\n<answer>\nA\n</answer>\n'
)
GOT_FROM = (
    "the prepared files come with the code of SDPO's study (lasgroup/SDPO); without a path, and with a subject, the "
    "published rows are read from the hub"
)
STEPS = "Please reason step by step."


@plugin("dataset", "sciknoweval")
class SciKnowEval(Dataset):
    """SciKnowEval, from the hub or a local folder."""

    default_prompt: ClassVar[Prompt] = Prompt(chat=True, system=SYSTEM)
    default_verifier: ClassVar[str] = "choice"

    class Config(SourceConfig):
        path: Annotated[str, SpecPath(hub=True)] = Field(
            default="hicai-zju/SciKnowEval", description="Hub dataset, or a folder with train and test files."
        )
        subject: Literal["biology", "chemistry", "material", "physics"] | None = Field(
            default=None, description="The hub dataset's subject."
        )
        levels: list[str] = Field(default=["L3"], min_length=1, description="Levels of published rows to keep.")
        revision: str | None = Field(default=None, description="Commit or tag on the hub.")

    config: Config

    def pools(self) -> Pools:
        """Train and test rows where the place has both; else the test rows alone, from which both splits are cut."""
        config, local = self.config, is_local(self.config.path)
        if not local and config.subject is None:
            raise InputError("subject: name one of biology, chemistry, material, physics for a dataset of the hub")
        subset = None if config.subject is None else config.subject.capitalize()
        return train_and_test(
            config,
            lambda split: read(config.path, split, subset, config.revision),
            self._questions,
            train=local and bool(split_files(config.path, "train", subset, GOT_FROM)),
        )

    def shown(self) -> Shown:
        """Nothing: there is nothing but question and letter."""
        return shown_of(self.config, Shown())

    def source_files(self) -> list[Path]:
        subset = None if self.config.subject is None else self.config.subject.capitalize()
        return local_files(self.config.path, ("train", "test"), subset)

    def _questions(self, rows: Iterable[Row]) -> Read:
        return to_questions((row for row in rows if not _published(row) or self._wanted(row)), _question, self.config)

    def _wanted(self, row: Row) -> bool:
        """Whether a published row is a multiple-choice question of a wanted level."""
        return row.text("details.level") in self.config.levels and row.known("answerKey") is not None


def _published(row: Row) -> bool:
    return "answerKey" in row.values


def _question(row: Row) -> Question:
    if _published(row):
        labels, texts = row.get("choices.label"), row.get("choices.text")
        if not (isinstance(labels, list) and isinstance(texts, list) and len(labels) == len(texts)):
            raise InputError(f"{row.place}: choices should have as many texts as labels, in two lists")
        options = "\n".join(f"{label}: {text}" for label, text in zip(labels, texts, strict=True))
        text, answer = f"{row.question('question')}\n\n{options}\n{STEPS}", row.known("answerKey")
    else:
        text, answer = row.question("prompt"), row.known("answer")
    return Question(id=question_id(text), text=text, answer=answer)
