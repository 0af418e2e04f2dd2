"""What a launch decides before anything starts: machines, jobs, budgets, times. No SkyPilot is needed here."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from nsd.plugins.errors import InputError
from nsd.runner.launch import estimate, launching
from nsd.runner.launch.follow import clean
from nsd.runner.launch.jobs import word_of
from nsd.runner.launch.launches import Job, Launches, job_name
from nsd.runner.launch.task import TEMPLATE, Wanted, resources_of, task_for, write
from nsd.runner.plan.build import build_plan
from nsd.runner.plan.model import Plan
from nsd.runner.spec.load import load_spec
from nsd.runner.spec.model import Resources
from nsd.runner.store.workspace import Workspace

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def plan() -> Plan:
    """The quickstart with its further arms: two of them learn from one vote."""
    return build_plan(load_spec(ROOT / "specs" / "grpo_quickstart.yaml"))


# --------------------------------------------------------------------------- the task


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({}, {"cpus": "2+", "memory": "4+"}),
        ({"accelerators": "L4:1"}, {"accelerators": "L4:1"}),
        # A mapping is "the cheapest of these" to SkyPilot; a list would be "in this order".
        ({"accelerators": ["L4:1", "A10G"]}, {"accelerators": {"L4": 1, "A10G": 1}}),
        (
            {"use_spot": True, "infra": "aws", "regions": ["us-east-1"], "accelerators": "L4"},
            {"accelerators": "L4", "use_spot": True, "infra": "aws/us-east-1"},
        ),
        (
            {"infra": "gcp", "regions": ["us-east1", "us-west1"], "accelerators": "L4"},
            {"accelerators": "L4", "any_of": [{"infra": "gcp/us-east1"}, {"infra": "gcp/us-west1"}]},
        ),
        ({"use_spot": True, "infra": "slurm/local", "cpus": 8}, {"cpus": 8, "memory": "4+", "infra": "slurm/local"}),
        (
            {"disk_size": 200, "image_id": "docker:x"},
            {"cpus": "2+", "memory": "4+", "disk_size": 200, "image_id": "docker:x"},
        ),
    ],
)
def test_resources_become_skypilots(asked: dict[str, object], found: dict[str, object]) -> None:
    assert resources_of(Wanted.of(Resources.model_validate(asked))) == found


@pytest.mark.parametrize(
    ("asked", "need", "memory"),
    [
        ({"accelerators": "L4"}, 36, "36+"),
        ({"accelerators": "L4"}, 16, None),  # what every machine with a GPU has
        ({"accelerators": "L4", "memory": "32+"}, 36, "32+"),  # the spec's word
        ({}, 36, "36+"),
        ({}, 3, "4+"),
    ],
)
def test_a_machine_has_the_main_memory_that_loading_takes(
    asked: dict[str, object], need: int, memory: str | None
) -> None:
    found = resources_of(Wanted(Resources.model_validate(asked), main_memory=need))
    assert found.get("memory") == memory


def test_no_dearer_machine_than_the_budget_was_made_for() -> None:
    found = resources_of(Wanted(Resources(accelerators=["L4:1", "H100:1"]), usd_per_hour=0.8049))
    assert found["max_hourly_cost"] == 0.81 and "max_hourly_cost" not in resources_of(Wanted.of(Resources()))


def test_regions_beside_a_place_are_an_error() -> None:
    with pytest.raises(InputError, match="names a place already"):
        resources_of(Wanted.of(Resources(infra="aws/us-east-1", regions=["us-west-2"])))


def test_the_template_is_the_file_at_the_top_and_runs_the_quickstart_by_itself() -> None:
    assert TEMPLATE.resolve() == ROOT / "sky.yaml"
    task = yaml.safe_load((ROOT / "sky.yaml").read_text())
    assert (ROOT / task["envs"]["SPEC"]).is_file() and task["workdir"] == "."


def test_the_saved_task_says_the_same_and_holds_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "canary-7b1e")
    task = task_for(Wanted.of(Resources(accelerators="L4:1")), "job", "spec.yaml", tmp_path, {"NSD_FLAGS": "--seed 1"})
    write(task, tmp_path / "sky.yaml")
    text = (tmp_path / "sky.yaml").read_text()
    assert yaml.safe_load(text) == task and "canary-7b1e" not in text
    assert "--secret HF_TOKEN" in text.splitlines()[0] and "run: |" in text


def test_a_variable_that_the_template_does_not_know_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no variable NSD_TYPO"):
        task_for(Wanted.of(Resources()), "job", "spec.yaml", tmp_path, {"NSD_TYPO": "1"})


# --------------------------------------------------------------------------- jobs


def jobs_of(plan: Plan, workspace: Workspace, parallel: int) -> list[Job]:
    pending = [stage.digest for stage in plan.pending(workspace)]
    return launching._jobs(plan, pending, parallel, estimate.Estimator(plan, workspace).on("L4:1"))


def test_shared_stages_go_first_and_arms_side_by_side(plan: Plan, tmp_path: Path) -> None:
    shared, *arms = jobs_of(plan, Workspace(tmp_path), 3)
    assert shared.name == "shared" and len(arms) == 3 and all(job.after == ["shared"] for job in arms)
    first = plan.with_causes(shared.stages)
    each = [plan.with_causes(job.stages) - first for job in arms]
    assert set.union(first, *each) == set(plan.stages)
    assert not (each[0] & each[1] or each[0] & each[2] or each[1] & each[2])
    kinds = sorted(plan.stages[digest].kind for digest in first)
    assert kinds == ["label", "sample", "train"]  # the teacher, its samples, and the one vote that two arms share


def test_work_is_spread_evenly(plan: Plan, tmp_path: Path) -> None:
    guess = {stage.digest: stage.seconds for stage in estimate.Estimator(plan, Workspace(tmp_path)).on("L4:1").stages}
    shared, *arms = jobs_of(plan, Workspace(tmp_path), 3)
    first = plan.with_causes(shared.stages)
    loads = [sum(guess[digest] for digest in plan.with_causes(job.stages) - first) for job in arms]
    assert max(loads) < 1.6 * min(loads)


def test_there_are_never_more_jobs_than_arms(plan: Plan, tmp_path: Path) -> None:
    assert len([job for job in jobs_of(plan, Workspace(tmp_path), 50) if job.after]) == len(plan.runs)


# --------------------------------------------------------------------------- budget


def wanted(**resources: object) -> Wanted:
    return Wanted.of(Resources.model_validate(resources))


def test_the_deadline_is_the_tighter_of_dollars_and_hours() -> None:
    assert launching._budget(wanted(max_usd=2.0, max_hours=9), 0.5, 1.0, 0.5, 1) == pytest.approx(4 * 3600)
    assert launching._budget(wanted(max_usd=2.0, max_hours=3), 0.5, 1.0, 0.5, 1) == pytest.approx(3 * 3600)
    assert launching._budget(wanted(max_usd=2.0), 0.5, 1.0, 0.5, 4) == pytest.approx(
        3600
    )  # four machines spend together
    assert launching._budget(wanted(), 0.5, 1.0, 0.5, 1) is None


@pytest.mark.parametrize(
    ("resources", "price", "hours", "dollars", "sentence"),
    [
        ({"max_usd": 1}, None, 1.0, None, "knows no price of this place, so a dollar cap cannot be kept"),
        ({"max_usd": 1}, 2.0, 1.0, 2.0, r"the estimate of \$2.00 is above max_usd 1: raise it"),
        ({"max_hours": 1}, 2.0, 1.5, 3.0, "the estimate of 1.5 h is above max_hours 1: raise it"),
    ],
)
def test_a_budget_that_cannot_be_kept_refuses(
    resources: dict[str, float], price: float | None, hours: float, dollars: float | None, sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        launching._budget(wanted(**resources), price, hours, dollars, 1)


def test_every_job_pays_for_its_start_and_the_arms_run_beside_each_other(plan: Plan, tmp_path: Path) -> None:
    guess = estimate.Estimator(plan, Workspace(tmp_path)).on("L4:1")
    work, start = guess.hours - estimate.OVERHEAD_HOURS, estimate.OVERHEAD_HOURS
    one, several = jobs_of(plan, Workspace(tmp_path), 1), jobs_of(plan, Workspace(tmp_path), 3)
    assert launching._totals(one, guess, 2.0) == pytest.approx((work + start, 2 * (work + start)))
    assert launching._totals(several, guess, 2.0) == pytest.approx((work / 3 + 2 * start, 2 * (work + 4 * start)))
    assert launching._totals(one, guess, None)[1] is None


@pytest.mark.parametrize(
    ("options", "resources", "jobs", "why"),
    [
        (launching.Options(managed=True), {}, 1, "a managed job"),
        (launching.Options(), {"use_spot": True}, 1, "spot machines"),
        (launching.Options(parallel=3), {}, 4, "--parallel"),
    ],
)
def test_what_may_lose_its_disk_needs_a_store(
    options: launching.Options, resources: dict[str, bool], jobs: int, why: str
) -> None:
    with pytest.raises(InputError, match=f"{re.escape(why)}: a machine that is taken away takes its disk along"):
        launching._managed(options, wanted(**resources), 1.0, False, jobs)


def test_a_folder_is_no_store_for_a_cloud() -> None:
    launching.check_store("file:///shared", "Slurm")
    launching.check_store("s3://bucket", "AWS")
    with pytest.raises(InputError, match="a machine of AWS does not see this folder"):
        launching.check_store("file:///shared", "AWS")


def test_long_work_with_a_store_is_managed_and_short_work_is_not() -> None:
    assert launching._managed(launching.Options(), wanted(), 5.0, True, 1)
    assert not launching._managed(launching.Options(), wanted(), 1.0, True, 1)
    assert not launching._managed(launching.Options(managed=False), wanted(), 5.0, True, 1)


# --------------------------------------------------------------------------- what is written down


def test_a_launch_is_found_by_its_beginning_and_the_last_one_by_nothing(tmp_path: Path) -> None:
    launches = Launches(Workspace(tmp_path))
    with pytest.raises(InputError, match="nothing was launched from this workspace"):
        launches.find(None)
    facts = {
        "spec": "s.yaml",
        "spec_digest": "d",
        "options": launching.Options(),
        "store": None,
        "place": "here",
        "usd_per_hour": 2.0,
        "max_usd": None,
        "deadline": None,
    }
    found = launches.create("study", **facts, jobs=[Job("all", "cluster", "sky.yaml", sky_job=1)])
    launches.save(found)
    assert launches.find(None) == launches.find("study") == found
    found.started_at, found.ended_at = "2026-01-01T10:00:00+00:00", "2026-01-01T11:30:00+00:00"
    assert (found.hours, found.usd) == (1.5, 3.0)
    with pytest.raises(InputError, match="0 launches are named other"):
        launches.find("other")
    assert re.fullmatch(r"nsd-study-\d{4}-\d{6}", job_name(found, found.jobs[0]))


def test_a_line_of_a_job_is_shown_as_it_was_printed() -> None:
    assert clean("\x1b[36m(nsd-quickstart, pid=123)\x1b[0m [1/18] eval base\n") == "[1/18] eval base"
    assert clean("(head, rank=0, pid=9) x") == "x" and clean("plain (pid=3)") == "plain (pid=3)"


@pytest.mark.parametrize(("said", "word"), [(None, "GONE"), ("FAILED_SETUP", "FAILED"), ("RECOVERING", "RECOVERING")])
def test_every_kind_of_failure_is_a_failure(said: str | None, word: str) -> None:
    assert word_of(said) == word
