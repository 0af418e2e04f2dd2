"""`tooluse`: requests to be answered by calls of described tools, as SDPO's study prepared them (arXiv 2601.20802).

    data: {use: tooluse, path: data/tooluse, split: {labeled: 1000}}      # a folder with train and test files

A row has `prompt` (the tools, the format and the request) and `answer`, a JSON list of calls (plugins/verifiers/
tool_calls.py). The rows come from ToolAlpaca (arXiv 2306.05301). Where the folder has no train file, all splits are cut
from the test rows.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from nsd.plugins.api import Dataset, Pools, Prompt, Question, Shown, SpecPath, question_id
from nsd.plugins.datasets.sources import (
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
from nsd.plugins.registry import plugin

GOT_FROM = "the prepared files come with the code of SDPO's study (lasgroup/SDPO)"


@plugin("dataset", "tooluse")
class ToolUse(Dataset):
    """Tool calls, from a local folder or a hub dataset with the same columns."""

    default_prompt: ClassVar[Prompt] = Prompt(chat=True)
    default_verifier: ClassVar[str] = "tool_calls"

    class Config(SourceConfig):
        path: Annotated[str, SpecPath(hub=True)] = Field(
            description="A folder with train and test files, or a hub dataset."
        )
        revision: str | None = Field(default=None, description="Commit or tag on the hub.")

    config: Config

    def pools(self) -> Pools:
        """Train and test rows; the test rows alone where there are no others."""
        config = self.config
        return train_and_test(
            config,
            lambda split: read(config.path, split, None, config.revision),
            lambda rows: to_questions(rows, _question, config),
            train=not is_local(config.path) or bool(split_files(config.path, "train", None, GOT_FROM)),
        )

    def shown(self) -> Shown:
        """Nothing: there is nothing but request and calls."""
        return shown_of(self.config, Shown())

    def source_files(self) -> list[Path]:
        return local_files(self.config.path, ("train", "test"))


def _question(row: Row) -> Question:
    text, answer = row.question("prompt"), row.get("answer")
    gold = answer if isinstance(answer, str) or answer is None else json.dumps(answer)
    return Question(id=question_id(text), text=text, answer=gold)
