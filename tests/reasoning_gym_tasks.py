"""reasoning-gym's generated tasks as a dataset and a verifier in a file, as somebody writes them in an afternoon.

data: {use: "./reasoning_gym_tasks.py:Tasks", task: chain_sum}
verifier: {use: "./reasoning_gym_tasks.py:TaskVerifier"}
"""

from __future__ import annotations

from typing import Any

import reasoning_gym

from nsd import Dataset, DatasetConfig, Pools, Question, Score, Verifier, question_id


class Tasks(Dataset):
    """Items of one task; with `test_seed` the test questions are drawn apart, by that seed."""

    class Config(DatasetConfig):
        task: str
        size: int = 12
        seed: int = 42
        test_seed: int | None = None

    def pools(self) -> Pools:
        config = self.config
        test = None if config.test_seed is None else self._items(config.test_seed)
        return Pools(train=self._items(config.seed), test=test)

    def _items(self, seed: int) -> list[Question]:
        items = list(reasoning_gym.create_dataset(self.config.task, seed=seed, size=self.config.size))
        return [_question(self.config.task, item) for item in items]


def _question(task: str, item: dict[str, Any]) -> Question:
    return Question(question_id(item["question"]), item["question"], item["answer"], meta={"task": task, "item": item})


class TaskVerifier(Verifier):
    """The task's own score of the whole completion; right is a score of 1."""

    def extract(self, completion: str) -> str | None:
        return completion.strip() or None

    def score(self, completion: str, question: Question) -> Score:
        found = float(reasoning_gym.get_score_answer_fn(question.meta["task"])(completion, question.meta["item"]))
        return Score(found, found == 1.0, self.extract(completion))


class Unanswered(TaskVerifier):
    """For tasks whose items have no answer."""

    needs_answer = False
    votes = False
