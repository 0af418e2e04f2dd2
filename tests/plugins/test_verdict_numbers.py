"""Further numbers of verdicts: in the curves of every on-policy trainer under their own names, and in no reward."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nsd.plugins.api import Question, Score
from on_policy_tools import Noise, training
from tiny_model import make_tiny_model


class Shares(Noise):
    """A number of its own: the share of a text's characters that are letters."""

    def score(self, completion: str, question: Question) -> Score:
        right = len(completion) % 3 == 0
        return Score(float(right), right, None, None, {"share_passed": share(completion)})


def share(text: str) -> float:
    return sum(map(str.isalpha, text)) / max(1, len(text))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "more"), [("grpo", {}), ("rloo", {}), ("sdpo", {"alpha": 0.5})])
def test_the_curve_is_the_mean_over_the_steps_rollouts(
    kind: str, more: dict[str, Any], model: Path, tmp_path: Path
) -> None:
    events, kept = training(kind, more, tmp_path, model, verifier=Shares())
    assert events.curve("share_passed") == [pytest.approx(sum(share(one.text) for one in kept) / len(kept), abs=1e-6)]
    assert all(one.score in (0.0, 1.0) and one.reward == one.score for one in kept)


@pytest.mark.slow
def test_without_such_numbers_there_is_no_such_curve(model: Path, tmp_path: Path) -> None:
    events, _ = training("rloo", {}, tmp_path, model)
    assert events.curve("share_passed") == []
