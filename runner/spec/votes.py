"""Whether what counts a model's answers can: its verifier's answers can be voted on, and its samples differ."""

from __future__ import annotations

from typing import Any

from nsd.plugins.api import Engine, Trainer, Verifier
from nsd.runner.spec.errors import Problems
from nsd.runner.spec.model import Block, UncheckedConfig
from nsd.runner.spec.sources import rewards_of
from nsd.runner.spec.yaml import Item


def check_votes(
    block: Block[Any], verifier: Block[Verifier] | None, item: Item, way_out: str, problems: Problems
) -> None:
    """Whoever counts votes needs a verifier whose answers can be voted on. What a file's class says needs a run."""
    if getattr(block.cls, "needs_votes", False):
        _no_votes(f"{block.kind} {block.use!r}", verifier, item.mapping.get("use", item), way_out, problems)


def check_rounds(labeler: Block[Any], verifier: Block[Verifier] | None, item: Item, problems: Problems) -> None:
    """What a vote can still come to is known of the classes that nsd forms, and not of a verifier's own."""
    if labeler.not_run is not None or verifier is None or verifier.not_run is not None:
        return
    if getattr(labeler.config, "stop_vote", None) == "exact" and verifier.cls.group is not Verifier.group:
        problems.add(
            item.mapping.get("stop_vote", item).position,
            "stop_vote: exact needs classes that follow from comparing answers in pairs, and verifier "
            f"{verifier.use!r} forms its own (it replaces `group`)",
            "leave stop_vote out, or take adaptive or esc, which are approximate",
        )


def check_reward_votes(
    trainer: Block[Trainer], verifier: Block[Verifier] | None, item: Item, problems: Problems
) -> None:
    """The same of the rewards of a trainer."""
    for name, cls in rewards_of(trainer).items():
        if cls is not None and cls.needs_votes:
            place = item.mapping.get("rewards", item)
            _no_votes(f"reward {name!r}", verifier, place, "use another reward", problems)


def _no_votes(who: str, verifier: Block[Verifier] | None, place: Item, way_out: str, problems: Problems) -> None:
    if verifier is not None and not getattr(verifier.cls, "votes", True):
        problems.add(
            place.position,
            f"{who} votes over answers, and those of verifier {verifier.use!r} cannot be voted on",
            f"{way_out}, or a verifier whose answers are equal or not, such as numeric",
        )


def check_samples_differ(block: Block[Any], engine: Block[Engine] | None, item: Item, problems: Problems) -> None:
    """A vote over several greedy samples is one sample's answer, and pass@k of them is accuracy.

    Recorded completions are what they are, whatever the settings say.
    """
    if block.not_run is not None or isinstance(block.config, UncheckedConfig) or not block.cls.needs_different_samples:
        return
    if engine is None or engine.not_run is not None or not (engine.cls.needs_model or engine.cls.served):
        return
    sampling = block.make().sampling()
    if sampling is None or sampling.n == 1 or not sampling.greedy:
        return
    field, value = ("temperature", "0") if sampling.temperature == 0 else ("top_k", "1")
    place = item.mapping.get(field, item)
    problems.add(
        place.position,
        f"{block.kind} {block.use!r} draws {sampling.n} samples of each question, and at {field} {value} they are all "
        "the same",
        f"give {field} another value, such as 0.7" if field == "temperature" else "leave top_k out",
    )
