"""Jobs that an older nsd wrote down, with fewer fields."""

from __future__ import annotations

from typing import Any

import pytest

from nsd.plugins.api import Prompt, Sampling
from nsd.runner.plan.jobs import PluginJob, SourceJob, StageJob, ToSample
from nsd.runner.work.jobs import Job
from toy_jobs import MODEL, make_job, to_train

DRAWS = ToSample(
    questions="q",
    seed=7,
    engine=PluginJob("engine", "hf", {}),
    model=MODEL,
    prompt=Prompt(),
    sampling=Sampling(n=4, temperature=0.5, max_tokens=8),
    uses_every_gpu=False,
)
LATER: dict[str, Any] = {"generated_tokens": None, "asking": None, "least_rows": 1, "served": False}


@pytest.mark.parametrize(
    ("work", "later"), [(DRAWS, LATER), (to_train(SourceJob("labeled", "d")), {"validation": None})]
)
def test_a_job_without_later_fields_is_read_with_what_was_done_then(work: StageJob, later: dict[str, Any]) -> None:
    job = make_job(work)
    written = job.to_json()
    assert {name: written["work"].pop(name) for name in later} == later
    assert Job.from_json(written) == job
