"""What a condition trains on: where each source's questions come from, and whether its trainer can use them.

`questions` and `test_questions` have no answers. A trainer that copies texts has nothing to copy there, and a reward
that compares with an answer gives every completion the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from nsd.plugins import registry
from nsd.plugins.api import Dataset, NestedPlugin, PoolSizes, Reward, SplitConfig, Trainer, Verifier
from nsd.plugins.errors import InputError
from nsd.runner.spec.errors import Problems
from nsd.runner.spec.model import Block, ConditionConfig, UncheckedConfig, holds
from nsd.runner.spec.yaml import Item

# Each source of `train_on`, and the part of the split that its questions come from: of `pseudo` the condition's
# `label_on`.
_POOLS = {
    "labeled": "labeled",
    "pseudo": None,
    "unlabeled": "unlabeled",
    "questions": "unlabeled",
    "test_questions": "test",
}
WITHOUT_ANSWERS = ("questions", "test_questions")
_LABELS = {"labeled": "with true", "pseudo": "with guessed", "unlabeled": "with true", "questions": "without"}


def pool_of(source: str, label_on: str) -> str:
    """The part of the split that the questions of a source come from, in a condition with this `label_on`."""
    return _POOLS[source] or label_on


def check_same_questions(train_on: Item, label_on: str, problems: Problems) -> None:
    """The questions of a part are trained on in one way at most."""
    named = [source for source in _LABELS if any(item.value == source for item in train_on.items)]
    for place, first in enumerate(named):
        for second in named[place + 1 :]:
            if pool_of(first, label_on) == pool_of(second, label_on):
                problems.add(
                    train_on.position,
                    f"{first} and {second} are the same questions, once {_LABELS[first]} and once {_LABELS[second]} "
                    "labels",
                    "keep one of them",
                )
                return


def check_split(
    data: Block[Dataset], item: Item, train_on: Item, label_on: str, where: str, problems: Problems
) -> None:
    """No source, and no evaluation, takes its questions from a part of the split that is set to 0, or is not there."""
    split = getattr(data.config, "split", None)
    if not isinstance(split, SplitConfig):
        return
    check_asked(data, item, "data", problems)
    for source in _POOLS:
        pool = pool_of(source, label_on)
        element = next((inner for inner in train_on.items if inner.value == source), None)
        if element is not None and pool != "test" and getattr(split, pool) == 0:
            problems.add(
                element.position,
                f"{where} trains on {source}, but data.split.{pool} is 0",
                f"give data.split.{pool} a number of questions",
            )


def check_asked(data: Block[Dataset], item: Item, key: str, problems: Problems) -> None:
    """The data, which stand under `key`, have test questions, and no more is taken of them than they make."""
    split = getattr(data.config, "split", None)
    if not isinstance(split, SplitConfig):
        return
    written = item.mapping.get("split", item)
    if split.test == 0:
        place = written.mapping.get("test", written).position
        problems.add(place, f"{key}.split.test is 0: nothing could be measured", "null takes all there are")
    made = _sizes(data)
    if made is None:
        return
    if split.test is not None and split.test > made.test:
        place = written.mapping.get("test", written).position
        told = f"{key}.split.test takes {split.test:,} questions, and {data.use} makes {made.test:,}"
        problems.add(place, told, f"take fewer, or give {key}.test a larger number")
    if split.labeled + split.unlabeled > made.train:
        place = written.mapping.get("labeled", written.mapping.get("unlabeled", written)).position
        taken = f"{split.labeled:,} labeled and {split.unlabeled:,} unlabeled questions"
        told = f"{key}.split takes {taken}, and {data.use} makes {made.train:,} to train on"
        problems.add(place, told, f"take fewer, or give {key}.train a larger number")


def _sizes(data: Block[Dataset]) -> PoolSizes | None:
    if data.not_run is not None:
        return None
    try:
        return data.make().sizes()
    except InputError:  # it says so when it is read
        return None


def check_answerless(
    trainer: Block[Trainer], verifier: Block[Verifier] | None, train_on: Item, where: str, problems: Problems
) -> None:
    """What trains on questions without answers needs none. What a file's class says needs a run."""
    for element in train_on.items:
        if element.value not in WITHOUT_ANSWERS:
            continue
        trains = f"{where} trains on {element.value}, which have no answers"
        if trainer.cls.needs_targets:
            way_out = "use a trainer that learns from rewards, such as grpo"
            guessed = ", or pseudo, whose answers a labeler guesses" if element.value == "questions" else ""
            problems.add(
                element.position, f"{trains}, and the trainer {trainer.use!r} copies solutions", way_out + guessed
            )
        elif rewards := _rewards_for_answers(trainer, verifier):
            problems.add(
                element.position,
                f"{trains}, and every reward of the trainer {trainer.use!r} compares with one: {', '.join(rewards)}",
                "add a reward that needs no answer, such as finished, to trainer.rewards",
            )


def _rewards_for_answers(trainer: Block[Trainer], verifier: Block[Verifier] | None) -> list[str]:
    """The trainer's rewards where each compares with an answer; [] where one does not, or it is not known."""
    if verifier is None or isinstance(verifier.config, UncheckedConfig) or not verifier.cls.needs_answer:
        return []
    rewards = rewards_of(trainer)
    return list(rewards) if all(cls is not None and cls.needs_answer for cls in rewards.values()) else []


def rewards_of(trainer: Block[Trainer]) -> dict[str, type[Reward] | None]:
    """The rewards in a trainer's config, also those by default, by name; None for one whose file was not run."""
    found: dict[str, type[Reward] | None] = {}
    for name, info in type(trainer.config).model_fields.items():
        if not any(isinstance(mark, NestedPlugin) and mark.kind == "reward" for mark in _marks(info)):
            continue
        value = getattr(trainer.config, name)
        for number, block in enumerate(value if isinstance(value, list) else [value]):
            steps = (name, number) if isinstance(value, list) else (name,)
            nested = trainer.nested.get(steps)
            if nested is not None:
                found[nested.use] = nested.cls if nested.not_run is None and holds(nested, Reward) else None
            elif isinstance(block, Mapping):
                found[str(block.get("use"))] = _by_default(str(block.get("use")))
    return found


def _by_default(use: str) -> type[Reward] | None:
    try:
        cls = registry.find("reward", use)
    except Exception:  # a third party's default may be anything; its trainer says so when it runs
        return None
    return cls if issubclass(cls, Reward) else None


def _marks(info: Any) -> list[Any]:
    """What stands in the `Annotated` of a field and of its elements."""
    found, waiting = list(info.metadata), [info.annotation]
    while waiting:
        inner = get_args(waiting.pop())
        found += inner
        waiting += inner
    return found


assert set(_POOLS) == set(get_args(get_args(ConditionConfig.model_fields["train_on"].annotation)[0]))
