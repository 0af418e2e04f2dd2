"""What `nsd launch` sends out, and what it sends out never: deadline, price cap, machines, secrets, refusals."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import signal
import threading
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml

from nsd.plugins.errors import NsdError
from nsd.plugins.extras import requirements
from nsd.runner.launch.bridge import INSTALL, WANTED, SkyPilot
from sky_stand_in import CANARY, NOW, World
from support import wait_until


def sent(world: World) -> dict[str, Any]:
    """The one task that went out; what was saved is the same."""
    (call,) = world.asked("launch") + world.asked("jobs.launch")
    (path,) = world.workspace.root.glob("launches/*/sky.yaml")
    assert yaml.safe_load(path.read_text()) == call["task"]
    return dict(call["task"])


def hours_given(world: World, task: dict[str, Any]) -> float:
    """From the launch to the deadline that its machine was told, which is the one that is written down."""
    deadline = int(task["envs"]["NSD_DEADLINE"])
    recorded = world.last().deadline
    assert recorded is not None and int(recorded) == deadline
    return (deadline - NOW) / 3600


# --------------------------------------------------------------------------- money


@pytest.mark.slow
@pytest.mark.parametrize(
    ("resources", "flags", "price", "hours"),
    [
        ("{max_usd: 3}", (), 1.0, 3.0),
        ("{max_usd: 3, max_hours: 2}", (), 1.0, 2.0),
        ("{max_usd: 30}", ("--max-usd", "4"), 2.0, 2.0),
        ("{max_usd: 8, nodes: 2}", (), 2.0, 2.0),  # two machines spend together
    ],
)
def test_the_machine_is_told_its_deadline(
    world: World, resources: str, flags: tuple[str, ...], price: float, hours: float
) -> None:
    world.spec(resources)
    world.says(price=price)
    assert world.launch("--detach", *flags) == 0
    task = sent(world)
    assert hours_given(world, task) == hours
    assert '\ntimeout --foreground --signal=TERM --kill-after=300 "$LIMIT" nsd run' in task["run"]
    assert task["resources"]["max_hourly_cost"] == price  # of one machine


@pytest.mark.slow
def test_arms_side_by_side_share_the_dollars(world: World) -> None:
    world.spec("{max_usd: 30}")
    assert world.launch("--parallel", "2", "--detach") == 0
    (call,) = world.asked("jobs.launch")
    jobs = len(world.last().jobs)
    assert jobs == 3  # shared stages and two piles of arms
    assert hours_given(world, call["task"]) == 30 / 1.0 / jobs


@pytest.mark.slow
def test_without_a_cap_there_is_no_deadline_and_any_machine_will_do(world: World) -> None:
    assert world.launch("--detach") == 0
    task = sent(world)
    assert task["envs"]["NSD_DEADLINE"] == "" and world.last().deadline is None
    assert "max_hourly_cost" not in task["resources"] and "num_nodes" not in task


def test_nodes_times_price(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.spec("{nodes: 3}")
    world.says(price=2.0)
    assert world.launch("--detach") == 0
    task = sent(world)
    assert task["num_nodes"] == 3 and task["envs"]["NSD_USD_PER_HOUR"] == "6"
    assert world.last().usd_per_hour == 6.0 and "at $6.00 an hour" in "".join(capsys.readouterr())


def test_a_machine_goes_down_by_itself_whoever_looks(world: World) -> None:
    assert world.launch("--detach") == 0
    (call,) = world.asked("launch")
    assert (call["down"], call["idle_minutes_to_autostop"]) == (True, 5)
    (job,) = world.last().jobs
    assert call["cluster"] == call["task"]["envs"]["NSD_JOB"] and job.sky_job == 1


@pytest.mark.slow
def test_a_machine_without_a_store_waits_a_fifth_of_its_time_for_its_results(world: World) -> None:
    world.spec("{max_hours: 5}")
    assert world.launch("--detach", store=False) == 0
    task = sent(world)
    assert task["envs"]["NSD_KEEP_SECONDS"] == "3600"
    assert hours_given(world, task) == 4.0


def test_it_waits_two_hours_at_most_and_not_at_all_with_a_store(world: World) -> None:
    world.spec("{max_hours: 50}")
    assert world.launch("--detach", store=False) == 0
    assert sent(world)["envs"]["NSD_KEEP_SECONDS"] == "7200"


def test_with_a_store_nothing_waits(world: World) -> None:
    assert world.launch("--detach") == 0
    envs = sent(world)["envs"]
    assert envs["NSD_KEEP_SECONDS"] == "" and envs["NSD_STORE"] == world.store


def test_a_managed_job_is_brought_back_elsewhere(world: World) -> None:
    assert world.launch("--managed", "--detach") == 0
    task = sent(world)
    (call,) = world.asked("jobs.launch")
    assert task["resources"]["job_recovery"] == {"strategy": "FAILOVER"} and call["name"] == task["name"]
    assert not world.asked("launch") and world.last().jobs[0].kind == "managed"


# --------------------------------------------------------------------------- what it runs


def test_what_was_asked_for_is_what_runs_there(world: World) -> None:
    flags = ("--only", "baseline", "--seed", "3", "--smoke", "--environment", "/opt/nsd")
    assert world.launch("--detach", *flags) == 0
    task = sent(world)
    assert task["envs"]["NSD_FLAGS"] == "--only baseline --seed 3 --smoke"
    assert task["envs"]["SPEC"] == "spec.yaml" and task["workdir"] == str(world.launches.path(world.last()) / "files")
    assert task["envs"]["NSD_ENVIRONMENT"] == "/opt/nsd" and task["envs"]["NSD_WHEEL"] == ""


@pytest.mark.slow
def test_nsd_itself_goes_along_and_is_known_by_its_digest(world: World) -> None:
    assert world.launch("--detach") == 0
    task = sent(world)
    wheel = Path(task["workdir"]) / task["envs"]["NSD_WHEEL"]
    assert hashlib.sha256(wheel.read_bytes()).hexdigest() == task["envs"]["NSD_SHA256"]
    assert "trl==" in wheel.with_name("constraints.txt").read_text()


def test_an_nsd_that_was_not_installed_launches_only_where_there_is_one(
    world: World, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def nothing(name: str) -> metadata.Distribution:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", nothing)
    assert world.launch("--detach") == 2
    assert "this nsd was not installed" in "".join(capfd.readouterr()) and world.machines() == 0
    assert world.launch("--detach", "--environment", "/opt/nsd") == 0


@pytest.mark.slow
def test_what_the_spec_names_goes_and_nothing_else(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    for name in (".env", "notes.txt", "tables.csv", ".git/config"):
        (world.folder / name).parent.mkdir(exist_ok=True)
        (world.folder / name).write_text(CANARY)
    assert world.launch("--detach", "--send", "tables.csv") == 0
    there = Path(sent(world)["workdir"])
    names = {path.relative_to(there).as_posix() for path in there.rglob("*") if path.is_file()}
    assert {name for name in names if not name.startswith("nsd-sent/")} == {".skyignore", "spec.yaml", "tables.csv"}
    assert "sent to the machine: spec.yaml, tables.csv (1 kB); nsd itself goes along" in "".join(capsys.readouterr())


@pytest.mark.slow
def test_a_spec_elsewhere_is_launched_and_found_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    (world.folder / "inside").mkdir()
    monkeypatch.chdir(world.folder / "inside")
    assert world.nsd("launch", "../spec.yaml", "--yes", "--detach", "-w", str(world.workspace.root)) == 0
    assert sent(world)["envs"]["SPEC"] == "spec.yaml"
    assert Path(world.last().spec).resolve() == world.folder / "spec.yaml"


@pytest.mark.slow
def test_a_job_of_several_runs_its_own_stages(world: World) -> None:
    assert world.launch("--parallel", "2", "--detach") == 0
    shared, *arms = world.last().jobs
    (call,) = world.asked("jobs.launch")
    assert call["task"]["envs"]["NSD_FLAGS"] == " ".join(f"--stage {digest}" for digest in shared.stages)
    for job in arms:
        task = yaml.safe_load((world.launches.path(world.last()) / job.task_file).read_text())
        assert task["envs"]["NSD_FLAGS"] == " ".join(f"--stage {digest}" for digest in job.stages) != ""


@pytest.mark.slow
def test_claims_are_on_record_before_a_machine_is_asked_for(world: World) -> None:
    world.says({"launch": [{"raise": "ResourcesUnavailableError", "message": "none left"}]})
    assert world.launch() == 2
    (record,) = [one.to_json() for one in world.workspace.records()]
    assert record["experiment"] == "tiny" and "student > baseline" in json.dumps(record["hypotheses"])


# --------------------------------------------------------------------------- secrets


@pytest.mark.slow
def test_a_secret_goes_by_its_name_and_its_value_by_no_file(world: World, capfd: pytest.CaptureFixture[str]) -> None:
    assert world.launch("--detach") == 0
    (call,) = world.asked("launch")
    assert call["secrets"] == {"HF_TOKEN": CANARY}
    assert call["task"]["secrets"] == {"HF_TOKEN": "", "WANDB_API_KEY": ""} and CANARY not in json.dumps(call["task"])
    (saved,) = world.workspace.root.glob("launches/*/sky.yaml")
    assert saved.read_text().startswith("#") and "--secret HF_TOKEN\n" in saved.read_text()
    files = [path for path in world.folder.rglob("*") if path.is_file()]
    assert files and [path for path in files if CANARY.encode() in path.read_bytes()] == []
    assert CANARY not in "".join(capfd.readouterr())


def test_a_secret_is_on_no_command_line(world: World) -> None:
    world.says({"launch": [{"hang": True}]})

    def ask() -> None:
        with contextlib.suppress(NsdError):  # killed below
            SkyPilot.find().ask(
                "launch", task={"resources": {}}, cluster="c", idle_minutes=5, secrets={"HF_TOKEN": CANARY}
            )

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    wait_until(lambda: world.asked("launch"))
    line = (world.side() / "cmdline").read_bytes()
    os.kill(int(world.side().name), signal.SIGKILL)
    asking.join()
    assert b"sky_side.py" in line and CANARY.encode() not in line


# --------------------------------------------------------------------------- refused, and nothing asked for


@pytest.mark.parametrize(
    ("resources", "flags", "world_is", "sentence"),
    [
        ("{max_usd: 0.01}", (), {}, "is above max_usd 0.01"),
        ("{max_hours: 0.01}", (), {}, "is above max_hours 0.01"),
        ("{max_usd: 5}", (), {"price": 0.0}, "knows no price of this place"),
        ("", ("--max-usd", "0"), {}, "--max-usd 0: a number above 0"),
        ("", ("--max-usd", "nan"), {}, "--max-usd nan: a number above 0"),
        ("", ("--max-hours", "-1"), {}, "--max-hours -1: a number above 0"),
        ("", ("--parallel", "0"), {}, "--parallel 0: one job or more"),
        ("", ("--parallel", "2", "--no-managed"), {}, "--parallel needs managed jobs"),
        ("", (), {"clouds": []}, "SkyPilot can use no cloud here"),
        ("", (), {"version": "0.9.0"}, "has version 0.9.0; nsd launch is made for 0.14"),
        ("", (), {"server": "0.15.0"}, "the SkyPilot server has version 0.15.0"),
        ("", (), {"offers": []}, "no machine fits: nothing fits"),
    ],
)
def test_a_refused_launch_asks_for_nothing(
    world: World,
    capfd: pytest.CaptureFixture[str],
    resources: str,
    flags: tuple[str, ...],
    world_is: dict[str, Any],
    sentence: str,
) -> None:
    world.spec(resources)
    world.says(**world_is)
    assert world.launch(*flags) == 2
    assert sentence in "".join(capfd.readouterr())
    assert world.machines() == 0 and not list(world.workspace.root.glob("launches/*"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cloud", "code"),
    [("AWS", 2), ("Slurm", 0)],  # a cluster may share its folders with this machine
)
def test_an_absolute_path_is_for_machines_that_share_it(
    world: World, capfd: pytest.CaptureFixture[str], cloud: str, code: int
) -> None:
    (world.folder / "rows.jsonl").write_text('{"question": "1?", "answer": "1"}\n{"question": "2?", "answer": "2"}\n')
    data = f"{{use: jsonl, train: {world.folder}/rows.jsonl, split: {{test: 1}}}}"
    spec = f"name: tiny\nmodel: builtin:wordmath-1m\ndata: {data}\nconditions: {{base: {{train_on: []}}}}\n"
    (world.folder / "spec.yaml").write_text(spec)
    offer = {"cloud": cloud, "region": "r", "machine": "m", "accelerators": None, "spot": False, "usd_per_hour": 1.0}
    world.says(offers=[offer])
    assert world.launch("--detach", store=False) == code
    printed, file = "".join(capfd.readouterr()), f"{world.folder}/rows.jsonl"
    said = f"{file} is named by an absolute path" if code else f"; looked for there: {file}"
    assert said in printed.replace("\n", "") and world.machines() == (0 if code else 1)


@pytest.mark.parametrize(
    ("resources", "flags", "sentence"),
    [
        ("{nodes: 2}", (), "2 machines need a store that all can reach"),
        ("{use_spot: true}", (), "spot machines: a machine that is taken away"),
        ("", ("--managed",), "a managed job: a machine that is taken away"),
        ("", ("--parallel", "2"), "--parallel: a machine that is taken away"),
        ("{max_hours: 0.21}", (), "leaves too little of the budget for fetching the results"),
    ],
)
def test_without_a_store_it_is_refused(
    world: World, capfd: pytest.CaptureFixture[str], resources: str, flags: tuple[str, ...], sentence: str
) -> None:
    world.spec(resources)
    assert world.launch(*flags, store=False) == 2
    assert sentence in "".join(capfd.readouterr()) and world.machines() == 0


def test_a_folder_is_no_store_for_a_cloud_and_nothing_is_asked_for(
    world: World, capfd: pytest.CaptureFixture[str]
) -> None:
    offer = {"cloud": "AWS", "region": "r", "machine": "m", "accelerators": None, "spot": False, "usd_per_hour": 1.0}
    world.says(offers=[offer])
    assert world.launch() == 2
    assert "a machine of AWS does not see this folder" in "".join(capfd.readouterr()) and world.machines() == 0


def test_nobody_to_ask_means_no(world: World, capfd: pytest.CaptureFixture[str]) -> None:
    assert world.nsd("launch", "spec.yaml", "--store", world.store) == 2
    assert "say --yes where nobody can be asked" in "".join(capfd.readouterr()) and world.machines() == 0


def test_skypilot_is_asked_for_as_the_extra_has_it() -> None:
    (extra,) = requirements("sky")
    parts = re.fullmatch(r"skypilot([<>=0-9.]+),([<>=0-9.]+)", extra.replace(" ", ""))
    assert parts is not None and {*WANTED.removeprefix("skypilot").split(",")} == {*parts.groups()}
    assert "nsd[" not in INSTALL


def test_a_dry_run_shows_and_asks_for_nothing(world: World, capfd: pytest.CaptureFixture[str]) -> None:
    assert world.launch("--dry-run") == 0
    assert "dry run: nothing was launched" in "".join(capfd.readouterr())
    assert world.machines() == 0 and not list(world.workspace.root.glob("launches/*"))


@pytest.mark.slow
def test_under_a_dollar_cap_a_dearer_machine_is_no_offer(world: World) -> None:
    """The cheapest was in stock when the deadline was computed and is not any more: SkyPilot may take no other."""
    world.spec("{max_usd: 5}")
    assert world.launch("--detach") == 0
    task = sent(world)
    world.says(offers=[{**offer} for offer in json.loads((world.state / "world.json").read_text())["offers"][:1]])
    with pytest.raises(NsdError, match="no machine fits"):
        SkyPilot.find().ask("offers", task=task)
