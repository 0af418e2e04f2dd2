"""What becomes of a launch: nothing runs on unseen, nothing is paid for twice, nothing half-copied is taken."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nsd.plugins.errors import NsdError
from nsd.runner.cli.show_outcome import print_outcome
from nsd.runner.launch import follow, home
from nsd.runner.launch.bridge import SkyError, SkyPilot
from nsd.runner.launch.jobs import cancel, refresh, start_ready
from nsd.runner.launch.launches import Launch
from nsd.runner.launch.setup import reason_in
from nsd.runner.plan.build import build_plan
from nsd.runner.spec.load import load_spec
from nsd.runner.store.shapes import Manifest
from nsd.runner.store.workspace import Workspace
from nsd.runner.work.execute import execute
from sky_stand_in import World
from support import REPOSITORY, wait_until
from toy_launches import cluster, launch_of, managed, plan_of, row


def follow_on(world: World, found: Launch) -> int:
    return follow.follow(SkyPilot.find(), world.workspace, world.launches, found, plan_of(world), print_outcome)


# --------------------------------------------------------------------------- overdue


@pytest.mark.slow
def test_a_job_that_hangs_past_its_deadline_is_cancelled(world: World, capfd: pytest.CaptureFixture[str]) -> None:
    world.says({"jobs.queue_v2": [[row(4, "RUNNING"), row(5, "RUNNING")]]})
    found = launch_of(world, managed("a", 4), managed("b", 5), deadline=time.time() - 601)
    assert follow_on(world, found) == 1
    assert [call["jobs"] for call in world.asked("jobs.cancel")] == [[4], [5]]
    assert [job.status for job in world.last().jobs] == ["CANCELLED", "CANCELLED"] and world.last().stopped_at
    assert "past the deadline: cancelling" in capfd.readouterr().err


def test_its_own_timeout_has_ten_minutes_to_end_it(world: World) -> None:
    world.says({"jobs.queue_v2": [[row(4, "RUNNING")], [row(4, "SUCCEEDED")]]})
    found = launch_of(world, managed("a", 4), deadline=time.time() - 10)
    follow_on(world, found)
    assert world.asked("jobs.cancel") == [] and world.last().jobs[0].status == "SUCCEEDED"


# --------------------------------------------------------------------------- jobs that wait for others


@pytest.mark.slow
def test_a_job_starts_when_what_it_needs_has_succeeded_and_only_once(world: World) -> None:
    states = [[row(1, "RUNNING")], [row(1, "SUCCEEDED"), row(2, "PENDING"), row(3, "PENDING")]]
    states += [[row(number, "SUCCEEDED") for number in (1, 2, 3)]]
    world.says({"jobs.queue_v2": states})
    jobs = [managed("shared"), managed("x", after=("shared",)), managed("y", after=("shared",))]
    found = launch_of(world, *jobs)
    assert [job.name for job in start_ready(SkyPilot.find(), world.launches, found)] == ["shared"]
    follow_on(world, found)
    names = [call["name"].rsplit("-", 1)[-1] for call in world.asked("jobs.launch")]
    assert names == ["shared", "x", "y"] and [job.sky_job for job in world.last().jobs] == [1, 2, 3]


def test_after_a_failure_nothing_more_is_started(world: World, sky: SkyPilot) -> None:
    world.says({"jobs.queue_v2": [[row(1, "FAILED_SETUP", failure_reason="no disk")]]})
    found = launch_of(world, managed("shared", 1), managed("x", after=("shared",)))
    refresh(sky, world.launches, found)
    assert start_ready(sky, world.launches, found) == []
    first, second = world.last().jobs
    assert (first.status, first.reason) == ("FAILED", "no disk")
    assert (second.status, second.reason) == ("CANCELLED", "a job it needs failed")
    assert world.asked("jobs.launch") == [] and world.last().stopped_at


@pytest.mark.parametrize(("answer", "number"), [([7, 9, 8], 9), ([], None)])
def test_a_machine_that_was_asked_for_is_not_asked_for_again(
    world: World, sky: SkyPilot, answer: list[int], number: int | None
) -> None:
    """By a command that was interrupted before SkyPilot had said its number; the machine may still be in the making."""
    world.says({"queue": [answer]})
    found = launch_of(world, cluster(status="STARTING"))
    assert start_ready(sky, world.launches, found) == []
    assert world.machines() == 0 and world.last().jobs[0].sky_job == number


def test_one_that_never_came_to_be_is_asked_for_again(world: World, sky: SkyPilot) -> None:
    world.says({"queue": [{"raise": "ClusterDoesNotExist", "message": "no such"}]})
    found = launch_of(world, cluster(status="STARTING"))
    assert len(start_ready(sky, world.launches, found)) == 1 and len(world.asked("launch")) == 1


@pytest.mark.slow
def test_that_a_machine_is_asked_for_is_written_down_before(world: World, sky: SkyPilot) -> None:
    """The stand-in dies in the middle: whoever looks next knows that there may be a machine."""
    world.says({"launch": [{"hang": True}], "queue": [{"raise": "ClusterNotUpError", "message": "INIT"}]})
    found = launch_of(world, cluster())
    code = (
        "import sys; from pathlib import Path; from nsd.runner.store.workspace import Workspace\n"
        "from nsd.runner.launch.bridge import SkyPilot; from nsd.runner.launch.jobs import start_ready\n"
        "from nsd.runner.launch.launches import Launches\n"
        "launches = Launches(Workspace(Path(sys.argv[1]))); start_ready(SkyPilot.find(), launches, launches.find(None))"
    )
    path = os.environ["PYTHONPATH"] + os.pathsep + str(REPOSITORY)
    asking = subprocess.Popen(
        [sys.executable, "-c", code, str(world.workspace.root)], env={**os.environ, "PYTHONPATH": path}
    )
    wait_until(lambda: world.asked("launch"))
    side = world.side()
    assert world.last().jobs[0].asked
    asking.send_signal(signal.SIGKILL)
    asking.wait()
    wait_until(lambda: not side.exists())  # nobody is left behind that SkyPilot would answer
    cancel(sky, world.launches, replace(found, jobs=world.last().jobs))
    assert [call["cluster"] for call in world.asked("down")] == [f"nsd-{found.identity}"]


# --------------------------------------------------------------------------- what could not be started


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        ({"raise": "ClusterDoesNotExist", "message": "no"}, "FAILED"),
        ({"raise": "ClusterNotUpError", "message": "INIT"}, "STARTING"),  # its machine is there and costs money
        ([3], "STARTING"),
    ],
)
def test_a_launch_that_went_wrong_can_be_cancelled_while_its_machine_is_there(
    world: World, sky: SkyPilot, answer: Any, status: str
) -> None:
    world.says({"launch": [{"raise": "ValueError", "message": "setup failed"}], "queue": [answer]})
    found = launch_of(world, cluster())
    with pytest.raises(SkyError, match="setup failed"):
        start_ready(sky, world.launches, found)
    (job,) = world.last().jobs
    assert job.status == status and (job.reason is not None) == (status == "FAILED")
    if status == "STARTING":
        assert world.nsd("launch", "cancel") == 0
        assert len(world.asked("down")) == 1 and world.last().jobs[0].status == "CANCELLED"


def test_cancel_finds_a_managed_job_whose_number_nobody_wrote_down(world: World) -> None:
    found = launch_of(world, managed("all", status="STARTING"))
    name = f"nsd-{found.identity}"
    rows = [row(3, "RUNNING", job_name=name), row(5, "RUNNING", job_name=name)]
    world.says({"jobs.queue_v2": [[*rows, row(8, "RUNNING", job_name=f"{name}-other")]]})
    assert world.nsd("launch", "cancel") == 0
    assert [call["jobs"] for call in world.asked("jobs.cancel")] == [[5]]
    assert world.nsd("launch", "cancel") == 1  # over already
    assert len(world.asked("jobs.cancel")) == 1


def test_a_machine_that_will_not_go_down_is_not_called_cancelled(world: World, sky: SkyPilot) -> None:
    world.says({"down": [{"raise": "ValueError", "message": "the cloud refused"}]})
    found = launch_of(world, cluster(1, status="RUNNING"))
    with pytest.raises(SkyError, match="the cloud refused"):
        cancel(sky, world.launches, found)
    assert world.last().jobs[0].status == "RUNNING"


@pytest.mark.parametrize("said", ["cluster 'x' does not exist", "x not found"])
def test_a_machine_that_is_gone_already_is_down(world: World, sky: SkyPilot, said: str) -> None:
    world.says({"down": [{"raise": "ValueError", "message": said}]})
    assert sky.ask("down", cluster="x") == {}


# --------------------------------------------------------------------------- a machine of its own


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a spec of recorded completions, and `machine`, the workspace where it ran."""
    folder = tmp_path_factory.mktemp("made")
    rows = [{"question": f"{number} + 1?", "answer": str(number + 1)} for number in range(6)]
    (folder / "rows.jsonl").write_text(
        "".join(json.dumps(one | {"response": f"#### {one['answer']}"}) + "\n" for one in rows)
    )
    (folder / "spec.yaml").write_text("""\
name: tiny
data: {use: jsonl, train: rows.jsonl, test: rows.jsonl, fields: {question: question, answer: answer}}
engine: {use: replay, path: rows.jsonl, fields: {question: question, completion: response}}
eval: {use: accuracy}
conditions:
  base: {train_on: []}
""")
    here = Path.cwd()
    os.chdir(folder)
    try:
        assert execute(build_plan(load_spec(folder / "spec.yaml")), Workspace(folder / "machine")).exit_code == 0
    finally:
        os.chdir(here)
    return folder


def prepare(world: World, made: Path) -> None:
    """The project has the recorded spec, and the machine the workspace of its run."""
    for name in ("spec.yaml", "rows.jsonl"):
        (world.folder / name).write_bytes((made / name).read_bytes())
    subprocess.run(["cp", "-r", f"{made}/machine/.", str(world.state / "machine/nsd-workspace")], check=True)


SAYS_DONE = {"print": f"(nsd, pid=3) {follow.WAITING_LINE}", "give": 0}


@pytest.mark.slow
def test_results_come_home_and_then_the_machine_goes(
    world: World, made: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    prepare(world, made)
    (world.state / "machine/nsd-workspace/outcomes").mkdir(exist_ok=True)
    world.says({"tail_logs": [SAYS_DONE]})
    assert world.launch("--detach", store=False) == 0
    found = world.last()
    word = {"exit_code": 0, "failures": [], "stages_run": 1}
    (world.state / f"machine/nsd-workspace/outcomes/nsd-{found.identity}.json").write_text(json.dumps(word))
    assert follow_on(world, found) == 0
    assert (world.state / "machine/nsd-fetched").exists()
    assert [call["cluster"] for call in world.asked("down")] == [f"nsd-{found.identity}"]
    assert len(list(world.workspace.manifests("score"))) == 1 and world.last().ended_at
    assert "fetched 2 stages" in capfd.readouterr().err
    words = (world.state / "rsync.log").read_text().split()
    assert "/artifacts/*/model/" in words and "/partial/" in words


@pytest.mark.slow
def test_a_machine_whose_results_could_not_be_fetched_stays(
    world: World, made: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    prepare(world, made)
    monkeypatch.setattr("nsd.runner.launch.follow.time.sleep", lambda seconds: None)
    (world.state / "no-rsync").touch()
    world.says({"tail_logs": [SAYS_DONE], "job_status": ["RUNNING"]})
    assert world.launch(store=False) == 1
    assert world.asked("down") == [] and not (world.state / "machine/nsd-fetched").exists()
    assert len((world.state / "rsync.log").read_text().splitlines()) == follow.FETCH_ATTEMPTS
    assert "it stays a while: nsd launch pull" in capfd.readouterr().err
    (world.state / "no-rsync").unlink()
    (world.state / "machine/nsd-finished").write_text("0")
    assert world.nsd("launch", "pull") == 0
    assert len(world.asked("down")) == 1 and (world.state / "machine/nsd-fetched").exists()


@pytest.mark.slow
def test_a_pull_leaves_a_machine_that_is_still_at_work(world: World, made: Path) -> None:
    prepare(world, made)
    world.says({"job_status": ["RUNNING"]})
    assert world.launch("--detach", store=False) == 0
    assert world.nsd("launch", "pull") == 0  # the one stage is home already
    assert world.asked("down") == [] and not (world.state / "machine/nsd-fetched").exists()
    assert world.last().jobs[0].status == "RUNNING" and world.last().ended_at is None


@pytest.mark.slow
def test_a_pull_starts_the_jobs_whose_turn_has_come(world: World) -> None:
    world.says({"jobs.queue_v2": [[row(1, "RUNNING")]]})
    assert world.launch("--parallel", "2", "--detach") == 0 and len(world.asked("jobs.launch")) == 1
    world.nsd("launch", "pull")
    assert len(world.asked("jobs.launch")) == 1  # what they need is not made yet
    world.says({"jobs.queue_v2": [[row(1, "SUCCEEDED")]]})
    world.nsd("launch", "pull")
    assert len(world.asked("jobs.launch")) == 2


@pytest.mark.slow
def test_before_a_machine_without_a_store_is_cancelled_its_results_are_fetched(
    world: World, made: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    prepare(world, made)
    assert world.launch("--detach", store=False) == 0
    assert world.nsd("launch", "cancel") == 0
    assert "fetched 2 stages" in capfd.readouterr().out and len(list(world.workspace.manifests("score"))) == 1
    assert len(world.asked("down")) == 1 and world.last().jobs[0].status == "CANCELLED"


@pytest.mark.slow
@pytest.mark.parametrize(("state", "downs"), [("RUNNING", 0), ("SUCCEEDED", 1), ("FAILED", 1)])
def test_with_a_store_a_pull_takes_the_machine_down_when_its_job_is_over(world: World, state: str, downs: int) -> None:
    assert world.launch("--detach") == 0
    world.says({"job_status": [state]})
    world.nsd("launch", "pull")
    assert len(world.asked("down")) == downs


@pytest.mark.slow
def test_a_connection_that_ends_before_the_job_is_made_again(world: World) -> None:
    world.says({"job_status": ["RUNNING", "UNREACHABLE", "SUCCEEDED"]})
    world.launch()
    assert len(world.asked("tail_logs")) == 3 and len(world.asked("down")) == 1


@pytest.mark.slow
def test_who_stops_following_ends_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.says({"jobs.queue_v2": [[row(1, "RUNNING")]]})

    def enough(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("nsd.runner.launch.follow.time", SimpleNamespace(sleep=enough, time=time.time))
    assert world.launch("--managed") == 75
    assert not world.asked("jobs.cancel") and world.last().jobs[0].status == "RUNNING"
    assert world.last().stopped_at is None


@pytest.mark.parametrize(
    ("polls", "gives_up"),
    [
        ([False] * follow.SILENT_POLLS + [True], False),
        ([False] * (follow.SILENT_POLLS + 1) + [True], True),
        (([False] * follow.SILENT_POLLS + [True]) * 2, False),  # it was there in between
    ],
)
def test_a_server_that_is_away_for_a_while_is_asked_again(
    world: World, monkeypatch: pytest.MonkeyPatch, polls: list[bool], gives_up: bool
) -> None:
    def state_of(*_: object) -> None:
        if not polls.pop(0):
            raise SkyError("away")
        if not polls:
            found.jobs[0].status = "SUCCEEDED"

    monkeypatch.setattr(follow, "refresh", state_of)
    found = launch_of(world, managed("a", 4))
    if gives_up:
        with pytest.raises(SkyError, match="away"):
            follow_on(world, found)
    else:
        assert follow_on(world, found) == 1 and polls == []
    assert not world.asked("jobs.cancel")


# --------------------------------------------------------------------------- a machine that cannot be set up

BROKEN = """\
(setup pid=4242) nsd setup: installing torch
(setup pid=4242) ERROR: Could not find a version that satisfies the requirement torch==2.13.0
(setup pid=4242) ERROR: No matching distribution found for torch==2.13.0
(setup pid=4242) nsd: the setup failed: installing torch: ERROR: No matching distribution found for torch==2.13.0
ERROR: Job 1's setup failed with return code list: [1]"""
SEEN = """\
the machine could not be set up: installing torch: ERROR: No matching distribution found for torch==2.13.0
nothing ran; nsd launch logs LAUNCH has all that the setup printed
launched on Slurm here m1: 0 min, at most $0.00
"""


def seen(world: World, printed: str) -> str:
    """The end of what a person sees, after what goes to the log."""
    return printed[printed.index("the machine could not") :].replace(world.last().identity, "LAUNCH")


@pytest.mark.slow
@pytest.mark.parametrize("store", [True, False])
def test_a_setup_that_fails_says_so_in_a_sentence_and_the_machine_goes(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], store: bool
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    world.says({"tail_logs": [{"print": BROKEN, "give": 100}], "job_status": ["FAILED_SETUP"]})
    assert world.launch(store=store) == 1
    out, err = capsys.readouterr()
    assert seen(world, out) == SEEN
    assert [call["cluster"] for call in world.asked("down")] == [f"nsd-{world.last().identity}"]
    assert "Could not find a version" in err and "is gone" in err
    assert world.last().jobs[0].status == "FAILED" and world.last().ended_at
    world.nsd("launch", "logs")
    assert "Could not find a version" in capsys.readouterr().out


@pytest.mark.slow
def test_whoever_pulls_a_launch_whose_setup_failed_sees_the_same(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    world.says({"tail_logs": [{"print": BROKEN, "give": 100}], "job_status": ["FAILED_SETUP"]})
    assert world.launch("--detach", store=False) == 0
    capsys.readouterr()
    assert world.nsd("launch", "pull") == 1
    assert seen(world, capsys.readouterr().out) == SEEN and len(world.asked("down")) == 1
    assert world.nsd("launch", "pull") == 1
    assert seen(world, capsys.readouterr().out) == SEEN and len(world.asked("down")) == 1


def test_a_managed_job_whose_setup_failed_says_which_one_and_why(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    rows = [row(4, "FAILED_SETUP", failure_reason="see the logs"), row(5, "SUCCEEDED")]
    world.says({"jobs.queue_v2": [rows], "jobs.tail_logs": [{"print": BROKEN, "give": 100}]})
    assert follow_on(world, launch_of(world, managed("a", 4), managed("b", 5))) == 1
    out = capsys.readouterr().out
    assert "the machine of job a could not be set up: installing torch: ERROR: No matching distribution" in out
    assert "were finished already" not in out and "nothing ran" in out


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["nsd setup: x", "bash: line 3: pip: command not found", "bye"], "bash: line 3: pip: command not found"),
        (["one", "two", "", "srun: error: localhost: task 0: Exited with exit code 100"], "two"),
        ([], None),
    ],
)
def test_a_setup_without_a_sentence_is_known_by_its_last_telling_line(lines: list[str], reason: str | None) -> None:
    assert reason_in(lines) == reason


# --------------------------------------------------------------------------- what SkyPilot says of a job


@pytest.mark.parametrize(
    ("answers", "status"),
    [
        ({"job_status": ["FAILED_SETUP"]}, "FAILED"),
        ({"job_status": [None]}, "GONE"),
        ({"job_status": [{"raise": "ClusterDoesNotExist", "message": "no"}]}, "GONE"),
        ({"job_status": [{"raise": "ClusterNotUpError", "message": "x"}], "status": [["INIT"]]}, "UNREACHABLE"),
        ({"job_status": [{"raise": "ClusterNotUpError", "message": "x"}], "status": [["STOPPED"]]}, "GONE"),
        ({"job_status": [{"raise": "ClusterNotUpError", "message": "x"}], "status": [[]]}, "GONE"),
    ],
)
def test_a_machine_that_does_not_answer_is_not_gone(
    world: World, sky: SkyPilot, answers: dict[str, Any], status: str
) -> None:
    world.says(answers)
    found = launch_of(world, cluster(1, status="RUNNING"))
    refresh(sky, world.launches, found)
    assert world.last().jobs[0].status == status
    assert (world.last().stopped_at is None) == (status == "UNREACHABLE")


def test_a_managed_job_that_is_missing_from_an_answer_keeps_its_status(world: World, sky: SkyPilot) -> None:
    world.says({"jobs.queue_v2": [[row(4, "RECOVERING", recovery_count=2)]]})
    found = launch_of(world, managed("a", 4), managed("b", 5, status="RUNNING"))
    refresh(sky, world.launches, found)
    assert [(job.status, job.recoveries) for job in world.last().jobs] == [("RECOVERING", 2), ("RUNNING", 0)]
    assert world.last().stopped_at is None


def test_hours_and_dollars_are_those_of_every_job_that_was_asked_for(world: World) -> None:
    found = launch_of(world, managed("a", 1, status="SUCCEEDED"), managed("b", 2, status="RUNNING"), managed("c"))
    found = replace(found, started_at="2026-01-01T10:00:00+00:00", stopped_at="2026-01-01T12:30:00+00:00")
    found.ended_at = "2026-01-03T00:00:00+00:00"  # the results were fetched later
    assert (found.hours, found.usd) == (2.5, 2.0 * 2.5 * 2)


def test_two_launches_of_one_second_have_names_of_their_own(world: World) -> None:
    found = [launch_of(world, cluster()) for _ in range(3)]
    assert len({one.identity for one in found}) == len(world.launches.all()) == 3


# --------------------------------------------------------------------------- the side process


def test_who_has_heard_enough_ends_the_side_process(world: World, sky: SkyPilot) -> None:
    world.says({"tail_logs": [{"print": "a line", "hang": True}]})

    def enough(line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sky.ask("follow", on_line=enough, cluster="c", job=1)
    assert not world.side().exists()


def test_a_side_process_that_dies_is_an_error_and_no_answer(world: World, sky: SkyPilot) -> None:
    (world.state / "world.json").write_text("no json")
    with pytest.raises(NsdError):
        sky.ask("find", name="c")
    (world.folder.parent / "env/bin/python").write_text("#!/bin/sh\necho killed >&2\nexit 9\n")
    with pytest.raises(SkyError, match="ended without an answer: killed"):
        sky.ask("find", name="c")


# --------------------------------------------------------------------------- torn copies


def whole_stage(workspace: Workspace, kind: str = "train", digest: str = "d1") -> Path:
    with workspace.lock(kind, digest) as partial:
        for name in ("curves.parquet", "model/model.safetensors"):
            (partial / "artifact" / name).parent.mkdir(parents=True, exist_ok=True)
            (partial / "artifact" / name).write_text("0123456789")
        workspace.commit(kind, digest, Manifest(kind=kind, digest=digest))
    return workspace.folder(kind, digest)


@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize("torn", ["curves.parquet", "model/model.safetensors"])
@pytest.mark.parametrize("how", ["short", "long", "missing"])
def test_a_torn_copy_is_not_taken(world: World, tmp_path: Path, weights: bool, torn: str, how: str) -> None:
    there, here = Workspace(tmp_path / "there"), world.workspace
    here.create()
    path = whole_stage(there) / torn
    if how == "missing":
        path.unlink()
    else:
        path.write_text("01234" if how == "short" else "0123456789-")
    assert home.take_over(there, here, plan_of(world), weights) == []
    assert not here.is_whole("train", "d1")


def test_a_copy_without_its_manifest_is_not_taken(world: World, tmp_path: Path) -> None:
    there, here = Workspace(tmp_path / "there"), world.workspace
    here.create()
    (whole_stage(there) / "manifest.json").unlink()
    assert home.take_over(there, here, plan_of(world), True) == [] and not home.adopt(there, here, "train", "d1")


@pytest.mark.parametrize("model", [False, True])
def test_a_whole_copy_is_taken_with_its_model_or_without(world: World, tmp_path: Path, model: bool) -> None:
    there, here = Workspace(tmp_path / "there"), world.workspace
    here.create()
    folder = whole_stage(there)
    if not model:  # rsync was told to leave it
        (folder / "model/model.safetensors").unlink()
        (folder / "model").rmdir()
    assert home.take_over(there, here, plan_of(world), model) == ["train d1"]
    assert here.is_whole("train", "d1") and here.has_weights("d1") is model


def test_a_copy_that_broke_off_takes_nothing(world: World, made: Path) -> None:
    prepare(world, made)
    plan = plan_of(world)
    (world.state / "no-rsync").touch()
    world.workspace.create()
    with pytest.raises(home.FetchError, match="rsync: connection refused"):
        home.from_machine(world.workspace, plan, "nsd-x")
    assert not list(world.workspace.manifests())
    (world.state / "no-rsync").unlink()
    assert len(home.from_machine(world.workspace, plan, "nsd-x")) == 2
