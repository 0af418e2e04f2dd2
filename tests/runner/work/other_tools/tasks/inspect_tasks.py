"""The same questions as inspect tasks: one greedy answer read by two scorers, and three drawn ones scored by parts."""

from __future__ import annotations

import json
from pathlib import Path

from inspect_ai import Epochs, Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import GenerateConfig
from inspect_ai.scorer import Score, Scorer, Target, accuracy, match, mean, pattern, scorer
from inspect_ai.solver import TaskState, generate

QUESTIONS = Path(__file__).parents[1] / "questions.jsonl"


def questions() -> MemoryDataset:
    """Of memory, since a dataset of a file names its folder in the log."""
    rows = map(json.loads, QUESTIONS.read_text(encoding="utf-8").splitlines())
    samples = [Sample(id=row["id"], input=row["question"], target=row["answer"]) for row in rows]
    return MemoryDataset(samples, name="questions")


@scorer(metrics={"right": [mean()], "formed": [mean()]})
def parts() -> Scorer:
    async def score(state: TaskState, target: Target) -> Score:
        said = state.output.completion.rpartition("####")
        right = said[2].strip() == target.text
        return Score(value={"right": float(right), "formed": 1.0 if said[1] else 0.5}, answer=said[2].strip())

    return score


@scorer(metrics=[accuracy()])
def graded() -> Scorer:
    """Right, half right (the number stands somewhere), no answer, wrong: C, P, N, I."""

    async def score(state: TaskState, target: Target) -> Score:
        text = state.output.completion
        if "####" not in text:
            return Score(value="N")
        if text.rpartition("####")[2].strip() == target.text:
            return Score(value="C")
        return Score(value="P" if target.text in text else "I")

    return score


@task
def words() -> Task:
    return Task(
        dataset=questions(),
        solver=generate(),
        scorer=[match(numeric=True), pattern(r"#### (-?[0-9.,]+)")],
        config=GenerateConfig(top_k=1, max_tokens=64),  # greedy: temperature 0 is an error of its hf provider
    )


@task
def epochs() -> Task:
    return Task(
        dataset=questions()[:12],
        solver=generate(),
        scorer=[graded(), parts()],
        epochs=Epochs(3, "mean"),
        config=GenerateConfig(temperature=0.7, max_tokens=64),
    )
