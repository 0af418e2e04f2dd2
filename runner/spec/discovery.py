"""Checks a condition whose evaluation looks for a solution of each question (a protocol's `search`).

Its parts must be able to serve it: the engine has the weights, the verifier has feedback for the turns, the trainer
draws rollouts of one question at a time, as many and in the way that the other ways do.
"""

from __future__ import annotations

from typing import Any

from nsd.plugins.api import Engine, Protocol, Search, Trainer, Verifier
from nsd.runner.spec.errors import Problems
from nsd.runner.spec.model import Block, holds
from nsd.runner.spec.sources import rewards_of
from nsd.runner.spec.yaml import Item

DRAWN_ALIKE = ("temperature", "top_p", "top_k", "max_tokens")  # of the protocol, and of a trainer inside it
ONE_QUESTION = ("prompts_per_step", "steps_per_generation")
SPEAKS = "use a verifier that does (`gives_feedback`), such as steps, or by: sampling"
CAN = "sdpo, grpo, rloo, ppo and ttrl can"


def searches(protocol: Block[Protocol] | None) -> Search | None:
    """The protocol's search, None where it has none or its files were not run."""
    return None if protocol is None or protocol.not_run is not None else protocol.make().search()


def check_search(
    protocol: Block[Protocol],
    search: Search,
    engine: Block[Engine] | None,
    verifier: Block[Verifier] | None,
    lora: bool,
    item: Item,
    where: str,
    problems: Problems,
    told_apart: bool = False,
) -> None:
    """Report what cannot serve; `verifier` is the one whose feedback an attempt is told.

    `told_apart` says that another one decides what is solved.
    """
    by = item.mapping.get("by", item)
    if search.by != "sampling" and engine is not None and engine.not_run is None and not engine.cls.needs_model:
        what = "asks anew with every turn" if search.by == "multi_turn" else "trains"
        problems.add(
            by.place,
            f"{where} looks for solutions by {search.by}, which {what}, and its engine {engine.use!r} loads no weights",
            "give it an engine that does, such as  engine: hf",
        )
    silent = verifier is not None and verifier.not_run is None and not verifier.cls.gives_feedback
    if search.by == "multi_turn" and verifier is not None and silent:
        problems.add(
            by.place,
            f"{where} puts the feedback on every attempt into the next prompt, and the verifier {verifier.use!r} gives "
            "none",
            SPEAKS,
        )
    trainer = protocol.nested.get(("trainer",))
    if search.by == "training" and trainer is not None and holds(trainer, Trainer):
        _check_trainer(protocol, search, trainer, lora, item, where, problems)
        if told_apart or verifier is None or not _learns_from_feedback_alone(trainer):
            return
        written = item.mapping.get("trainer", item)
        why = f"{where} ends at its first success, so that the trainer {trainer.use!r} can learn from feedback alone"
        if not _field(trainer, "include_environment_feedback"):
            told = f"{why}, and its include_environment_feedback is false"
            problems.add(_place(written, "include_environment_feedback"), told, "leave it out, or use by: sampling")
        elif silent:
            problems.add(written.place, f"{why}, and the verifier {verifier.use!r} gives none", SPEAKS)


def _check_trainer(
    protocol: Block[Protocol],
    search: Search,
    trainer: Block[Trainer],
    lora: bool,
    item: Item,
    where: str,
    problems: Problems,
) -> None:
    written = item.mapping.get("trainer", item)
    made = trainer.make()
    draws = made.rollouts_of_a_question()
    if draws is None:
        problems.add(
            written.place,
            f"{where}: the trainer {trainer.use!r} cannot look for a question's solution: it draws no rollouts, or "
            "learns from a solution, which may not be shown of a test question",
            CAN,
        )
        return
    if search.samples % draws:
        problems.add(
            written.place,
            f"{where}: samples {search.samples} is no multiple of the {draws} rollouts that the trainer "
            f"{trainer.use!r} draws at a time",
            f"such as  samples: {max(1, search.samples // draws) * draws}",
        )
    for name in ONE_QUESTION:
        if (value := getattr(trainer.config, name, 1)) != 1:
            told = f"{where}: the trainer has one question at a time, and its {name} is {value}"
            problems.add(_place(written, name), told, f"write  {name}: 1")
    for name in DRAWN_ALIKE:
        mine, theirs = _field(protocol, name), _field(trainer, name)
        if None not in (mine, theirs) and mine != theirs:
            problems.add(
                _place(written, name),
                f"{where}: {name} is {theirs} in the trainer and {mine} in eval: the ways to look for a solution would "
                "not draw alike",
                f"give both the same {name}",
            )
    if _field(protocol, "stop"):
        told = f"{where}: eval.stop has no effect on the rollouts of a trainer"
        problems.add(_place(item, "stop"), told, "remove it, so that the ways draw alike")
    if (reason := made.unfit(1, lora)) is not None:
        problems.add(written.place, f"{where}: {reason}")


def _learns_from_feedback_alone(trainer: Block[Trainer]) -> bool:
    """Whether a rollout without feedback teaches nothing where none succeeds: no reward is compared or partial."""
    config = trainer.config
    return (
        hasattr(config, "include_environment_feedback")
        and getattr(config, "distillation_weight", 1) == 1
        and getattr(config, "success_reward_threshold", 1) >= 1
        and set(rewards_of(trainer)) <= {"correct"}
    )


def _field(block: Block[Any], name: str) -> Any:
    return getattr(block.config, name, None)


def _place(item: Item, name: str) -> Any:
    return item.mapping.get(name, item).position
