"""What votes that stop early are expected to draw, by the votes of an earlier run or those that the labeler states."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from nsd.plugins.labelers.consensus import Consensus
from nsd.runner.plan.jobs import Asking, PluginJob, ToSample
from nsd.runner.plan.model import Stage
from nsd.runner.plan.saving import Saving, expected
from nsd.runner.store.shapes import Manifest

CONFIG: dict[str, Any] = {"k": 8, "threshold": 0.75, "stop_vote": "exact"}
EARLIER = "the votes of an earlier run here"
STATED = "the histogram of votes that the labeler states"


def stage() -> Stage:
    job = object.__new__(ToSample)
    asking = Asking(PluginJob("labeler", "consensus", CONFIG), PluginJob("verifier", "numeric", {}))
    object.__setattr__(job, "asking", asking)
    return cast("Stage", SimpleNamespace(title="samples of base", job=job))


def votes(day: int, bars: dict[str, int], verifier: str = "numeric", kind: str = "label", **labeler: Any) -> Manifest:
    found = {
        "kind": kind,
        "digest": f"d{day}",
        "key": {"verifier": {"use": verifier}, "labeler": {"config": labeler or {"k": 4}}},
        "ended_at": f"2026-01-0{day}T00:00:00+00:00",
        "labels": {"confidence_histogram": bars},
    }
    return Manifest.from_json(found, "there")


def share(histogram: dict[int, int] | None = None, of: int = 0) -> float:
    return Consensus(Consensus.Config.model_validate(CONFIG)).expected_share(histogram, of)


def test_the_newest_votes_with_the_same_verifier_say_it() -> None:
    old, new = votes(1, {"1.0": 9}), votes(2, {"0.25": 3, "0.75": 5})
    others = [votes(3, {"1.0": 9}, verifier="math"), votes(4, {"1.0": 9}, kind="train"), votes(5, {"1.0": 9}, z=1)]
    saving = expected(stage(), [old, new, *others])
    assert saving == Saving("samples of base", share({1: 3, 3: 5}, 4), EARLIER)
    assert saving is not None and saving.share not in (share({4: 9}, 4), share())


def test_without_earlier_votes_the_labeler_states_it() -> None:
    saving = expected(stage(), [votes(3, {"1.0": 9}, verifier="math")])
    assert saving == Saving("samples of base", share(), STATED)
    assert saving is not None and saving.share == pytest.approx(0.66, abs=0.02)


def test_an_expectation_is_said_in_a_sentence() -> None:
    assert Saving("samples of base", 0.724, EARLIER).sentence() == (
        "samples of base: its votes stop when they are decided; about 72% of the samples are expected to be asked for, "
        "by the votes of an earlier run here; what is stored is not drawn again"
    )
