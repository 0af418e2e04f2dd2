"""Word problems of `wordmath`, drawn from a seed: one story each, with its solution line by line."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from nsd.plugins.data import Question, question_id
from nsd.plugins.datasets.wordmath_stories import FAMILIES, Draw, Story, UnfitError


def problem(draw: Draw, family: str, steps: int) -> Question:
    """One problem of a family with exactly `steps` steps (an average has at least two)."""
    while True:
        story = Story(draw)
        story.people()
        try:
            FAMILIES[family](story, steps)
        except UnfitError:
            continue
        text = " ".join(story.sentences)
        return Question(
            id=question_id(text),
            text=text,
            answer=str(story.result),
            solution="\n".join([*story.lines, f"#### {story.result}"]),
            meta={"family": family, "steps": len(story.lines)},
        )


def generate(
    seed: int,
    count: int,
    mixes: Mapping[tuple[str, int], float],
    exclude: Collection[str] = (),
) -> list[Question]:
    """`count` distinct problems drawn by the weights in `mixes`, (family, steps) -> weight.

    Ids in `exclude` are left out. The first m of a longer list are the list of m.
    """
    draw = Draw(seed)
    seen = set(exclude)
    questions: list[Question] = []
    while len(questions) < count:
        question = problem(draw, *draw.weighted(mixes))
        if question.id not in seen:
            seen.add(question.id)
            questions.append(question)
    return questions


def even_mix(steps: Sequence[float]) -> dict[tuple[str, int], float]:
    """Every family with the same weight within a number of steps, `steps[s - 1]` being that of s steps."""
    mixes: dict[tuple[str, int], float] = {}
    for number, weight in enumerate(steps, start=1):
        able = [family for family in FAMILIES if family != "average" or number > 1]
        mixes |= {(family, number): weight / len(able) for family in able if weight > 0}
    return mixes
