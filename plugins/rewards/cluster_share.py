"""`cluster_share`: how many of a question's rollouts give the same answer, as a share of them all (EMPO).

    conditions: {empo: {train_on: [questions], trainer: {use: grpo, rewards: [cluster_share]}}}

Answers are the same by the verifier's classes (arXiv 2504.05812 calls them semantic clusters). A rollout without an
answer gets 0 and still counts among the K, as in a vote. A question on which no two rollouts agree, whose entropy over
classes is the largest there is (ln K), gives 0 to all: agreement by chance is none.
Limit: a model can raise it by giving one wrong answer everywhere. Watch a validation set.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from nsd.plugins.api import Reward, Rollout
from nsd.plugins.registry import plugin


@plugin("reward", "cluster_share")
class ClusterShare(Reward):
    """The share of the answer's class in its group."""

    needs_votes = True
    needs_group = True

    def rewards(self, rollouts: Sequence[Rollout]) -> list[float]:
        """From 0 to 1 for each rollout."""
        groups: dict[str, list[int]] = {}
        for place, rollout in enumerate(rollouts):
            groups.setdefault(rollout.question.id, []).append(place)
        found = [0.0] * len(rollouts)
        for places in groups.values():
            classes = self.verifier.group([rollouts[place].score.answer for place in places])
            sizes = Counter(one for one in classes if one is not None)
            if max(sizes.values(), default=0) < 2:
                continue
            for place, its_class in zip(places, classes, strict=True):
                found[place] = 0.0 if its_class is None else sizes[its_class] / len(places)
        return found
