"""What a training's kept rollouts are worth by the hidden truth: label_accuracy, reward_accuracy and what they rest on.

    told = hold_against_truth(stage, workspace)      # a sentence where it could not be done

For a training on questions without answers, or with guessed ones. Of the rollouts of each step, by the classes of
answers that the training's verifier makes, as TTRL has them (arXiv 2504.16084; PRIME-RL/TTRL, commit 3e2cc93):

    label_accuracy      share of questions whose majority answer is right; with no answer at all it is not
    reward_accuracy     share of rollouts for which agreeing with the majority is being right: where a reward for
                        agreement is the reward for being right
    majority_ratio      share of rollouts that agree with the majority
    ground_truth_ratio  share of rollouts that are right

The executor computes them when the worker has finished the stage: no process that trains is given a hidden answer.
They lie beside the curves, in `truth-DIGEST.parquet`, where DIGEST is of the answers and the verifier: a corrected
answer computes them again and trains nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from nsd.plugins.api import KeptRollout, Question, Verifier
from nsd.plugins.verifiers.voting import majority
from nsd.runner.plan.model import Stage, Truth
from nsd.runner.store import tables
from nsd.runner.store.workspace import Workspace
from nsd.runner.work.jobs import make_plugin

ROLLOUTS = "rollouts.parquet"


def against_truth(
    rollouts: Sequence[KeptRollout], truth: Mapping[str, Question], verifier: Verifier
) -> dict[str, float]:
    """The shares, each in [0, 1], over the rollouts of one step whose questions are in `truth`; {} where none is."""
    groups: dict[str, list[KeptRollout]] = {}
    for one in rollouts:
        if one.question_id in truth:
            groups.setdefault(one.question_id, []).append(one)
    labels: list[bool] = []
    agreeing: list[bool] = []
    right: list[bool] = []
    for key, group in groups.items():
        vote = majority([one.answer for one in group], verifier)
        verdicts = [score.correct for score in verifier.score_many([(one.text, truth[key]) for one in group])]
        named = (verdict for one, verdict in zip(group, verdicts, strict=True) if one.answer == vote.winner)
        labels.append(vote.winner is not None and next(named, False))
        chosen = set(vote.agreeing)
        agreeing += [index in chosen for index in range(len(group))]
        right += verdicts
    if not groups:
        return {}
    return {
        "label_accuracy": _share(labels),
        "reward_accuracy": _share([a == b for a, b in zip(agreeing, right, strict=True)]),
        "majority_ratio": _share(agreeing),
        "ground_truth_ratio": _share(right),
    }


def hold_against_truth(stage: Stage, workspace: Workspace) -> str | None:
    """Put the shares of every step beside a finished training's curves, where it kept rollouts and there is a truth.

    Returns why it could not be done; the training stands whatever becomes of this.
    """
    if not lacks_truth(stage, workspace):
        return None
    assert stage.truth is not None
    folder = workspace.folder(stage.kind, stage.digest)
    try:
        verifier = make_plugin(stage.truth.verifier, Verifier)
        among = {one.question_id for step in tables.read_rollouts(folder / ROLLOUTS) for one in step}
        truth = readable(stage.truth, verifier, among)
        rows = [
            {"step": step[0].step, "metric": name, "value": value}
            for step in tables.read_rollouts(folder / ROLLOUTS)
            for name, value in against_truth(step, truth, verifier).items()
        ]
    except Exception as error:  # a verifier of a third party may raise anything
        return f"{stage.title}: its rollouts were not held against the truth: {type(error).__name__}: {error}"
    tables.write(folder / name_of(stage.truth), tables.CURVES, rows)
    workspace.add_truth(stage.kind, stage.digest, name_of(stage.truth))
    return None


def lacks_truth(stage: Stage, workspace: Workspace) -> bool:
    """Whether a stage kept rollouts that were not held against this truth yet."""
    if stage.truth is None or not workspace.is_whole(stage.kind, stage.digest):
        return False
    files = workspace.manifest(stage.kind, stage.digest).files
    return ROLLOUTS in files and name_of(stage.truth) not in files


def name_of(truth: Truth) -> str:
    """The file with what rollouts are worth by it."""
    return f"truth-{truth.known_by}.parquet"


def readable(truth: Truth, verifier: Verifier, among: Collection[str]) -> dict[str, Question]:
    """The questions with these ids whose answer the verifier can read, by id."""
    known = ((one, one.answer) for one in truth.questions if one.id in among)
    return {one.id: one for one, answer in known if answer is not None and verifier.normalise(answer) is not None}


def _share(found: Sequence[bool]) -> float:
    return sum(found) / len(found)
