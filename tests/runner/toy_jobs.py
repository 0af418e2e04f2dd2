"""Jobs of stages as a plan would make them, made by hand."""

from __future__ import annotations

from typing import Any

from nsd.plugins.api import Prompt, Sampling, TrainSeeds
from nsd.runner.plan.jobs import BudgetJob, ModelJob, PluginJob, SourceJob, StageJob, ToLabel, ToScore, ToTrain
from nsd.runner.work.jobs import Job

MODEL = ModelJob("toy/model", "c0ffee", "float32", None)
VERIFIER = PluginJob("verifier", "numeric", {})


def to_train(*sources: SourceJob, **changes: Any) -> ToTrain:
    """A training on these sources."""
    usual: dict[str, Any] = {
        "trainer": PluginJob("trainer", "sft", {}),
        "verifier": VERIFIER,
        "model": MODEL,
        "lora": None,
        "train_dtype": None,
        "prompt": Prompt(),
        "train_on": sources,
        "seeds": TrainSeeds(1, 2, 3),
        "seed": 7,
        "budget": BudgetJob(),
        "processes": 1,
        "track": (),
        "max_steps_cap": None,
    }
    return ToTrain(**{**usual, **changes})


def to_label(questions: str) -> ToLabel:
    """A labelling with the hidden truth."""
    return ToLabel(questions=questions, seed=7, labeler=PluginJob("labeler", "oracle", {}), verifier=VERIFIER)


def to_score(questions: str, seed: int = 7) -> ToScore:
    """Verdicts on one completion of each question."""
    protocol = PluginJob("protocol", "accuracy", {})
    sampling = Sampling(n=1, temperature=0.0, max_tokens=8)
    return ToScore(questions=questions, seed=seed, protocol=protocol, verifier=VERIFIER, sampling=sampling)


def make_job(work: StageJob, kind: str = "train", **changes: Any) -> Job:
    """The job of a stage that does this."""
    usual: dict[str, Any] = {
        "kind": kind,
        "digest": "e1",
        "key": {},
        "settings": {},
        "inputs": {},
        "used_by": ("base/seed7",),
        "experiment": "toy",
        "workspace": "nowhere",
        "device": None,
        "git_commit": "c0ffee",
    }
    return Job(work=work, **{**usual, **changes})
