"""What votes that stop early are expected to draw, and by whose votes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nsd.plugins.labelers.consensus import Consensus
from nsd.runner.plan.jobs import ToSample
from nsd.runner.plan.model import Stage
from nsd.runner.plan.saving import expected
from nsd.runner.store.shapes import Manifest
from toy_plan import SPEC, plan_of

STATED, EARLIER = "the histogram of votes that the labeler states", "the votes of an earlier run here"


@pytest.fixture
def stages(tmp_path: Path) -> dict[str, Stage]:
    """The sampling whose votes stop early, and one that draws all."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    for name, count in (("train", 20), ("test", 5)):
        rows = [{"q": f"{name} {i}?", "a": str(i), "s": f"it is #### {i}"} for i in range(count)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = SPEC.replace("verifier: numeric\n", "").replace("k: 4, ", "k: 8, stop_vote: exact, ")
    found = [one for one in plan_of(tmp_path, text).stages.values() if one.kind == "sample"]
    return {
        "early": next(one for one in found if "rounds" in one.key),
        "all": next(s for s in found if "rounds" not in s.key),
    }


def labels(
    bars: Any, ended_at: str = "2026-01-01T00:00:00", kind: str = "label", verifier: str = "numeric", k: int = 8
) -> Manifest:
    """A stage of eight samples a question; `bars`: the winner's share of the votes -> questions."""
    made = {"labeler": {"use": "consensus", "config": {"k": k}}, "verifier": {"use": verifier}}
    facts = {"confidence_histogram": bars}
    return Manifest(kind=kind, digest="d", settings=made, labels=facts, ended_at=ended_at)


AGREED, SPLIT = {"1.000": 10}, {"0.250": 10}


def test_a_stage_that_draws_all_its_samples_saves_nothing(stages: dict[str, Stage]) -> None:
    assert expected(stages["all"], []) is None


def test_without_earlier_votes_the_labelers_own_histogram_says_it(stages: dict[str, Stage]) -> None:
    found = expected(stages["early"], [])
    assert found is not None and 0 < found.share < 1
    assert found.sentence() == (
        f"{stages['early'].title}: its votes stop when they are decided; about {found.share:.0%} of the samples are "
        f"expected to be asked for, by {STATED}; what is stored is not drawn again"
    )


def test_votes_that_agreed_leave_less_to_draw_and_the_newest_count(stages: dict[str, Stage]) -> None:
    old, new = "2026-01-01T00:00:00", "2026-02-01T00:00:00"
    both = [labels(AGREED, old), labels(SPLIT, new)], [labels(AGREED, new), labels(SPLIT, old)]
    split, agreed = (expected(stages["early"], held) for held in both)
    assert split is not None and agreed is not None and agreed.share < split.share <= 1
    assert agreed.source == split.source == EARLIER


def test_the_share_is_the_labelers_for_votes_that_fell_so(stages: dict[str, Stage]) -> None:
    job = stages["early"].job
    assert isinstance(job, ToSample) and job.asking is not None
    labeler = Consensus(Consensus.Config.model_validate(job.asking.labeler.config))
    found = expected(stages["early"], [labels({"0.250": 3, "0.750": 5})])
    assert found is not None and found.share == labeler.expected_share({2: 3, 6: 5}, 8)
    assert found.share != labeler.expected_share()


@pytest.mark.parametrize(
    "other",
    [
        labels(AGREED, verifier="math"),
        labels(AGREED, kind="score"),
        labels(None),
        labels({"much": 3}),
        Manifest(kind="label", digest="d", settings={"labeler": {}}, labels={"confidence_histogram": AGREED}),
        Manifest(kind="label", digest="d", settings={"labeler": {"config": {"k": 8}}}, labels=None),
    ],
    ids=["another verifier", "no labels", "stopped early", "no shares", "another labeler", "nothing said"],
)
def test_votes_of_another_kind_say_nothing(stages: dict[str, Stage], other: Manifest) -> None:
    found = expected(stages["early"], [other])
    assert found is not None and found.source == STATED
