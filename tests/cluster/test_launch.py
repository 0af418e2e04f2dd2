"""`nsd launch` on the one-machine Slurm, all real: the same results as here, whatever happens to the machine."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pytest

from cluster.commands import CANARY, Command, environment, installed, nsd, own_project, project, results
from cluster.conftest import Cluster
from e2e import command_line
from e2e.command_line import TINY_SPEC
from support import PATIENCE, REPOSITORY, wait_until

ASKING = 5.0  # seconds between two questions to SkyPilot, of which each takes several of the processors' time
HERE = ("--infra", "slurm/local", "--yes")
BROKEN = """\
the machine nsd-LAUNCH is gone
the machine could not be set up: there is no /nowhere/bin/nsd on this machine
nothing ran; nsd launch logs LAUNCH has all that the setup printed
launched on Slurm local 2CPU--4GB: N min
"""
OURS = re.compile(r"\S*python[0-9.]* ((-P )?-m nsd\.runner\.|\S*sky_side\.py|\S*/bin/nsd )|rsync -az ")


@contextlib.contextmanager
def listing_processes() -> Iterator[set[str]]:
    """The command lines of all processes that come and go meanwhile."""
    found: set[str] = set()
    over = threading.Event()

    def look() -> None:
        looks: dict[str, int] = {}
        for turn in itertools.count():
            if over.wait(0.1):
                return
            # All of them every second; else those that have just come, for what each was started with.
            looks = {path.name: looks.get(path.name, 0) + 1 for path in Path("/proc").iterdir() if path.name.isdigit()}
            for process, times in looks.items():
                if times < 5 or turn % 10 == 0:
                    with contextlib.suppress(OSError):
                        line = Path(f"/proc/{process}/cmdline").read_bytes()
                        found.add(line.replace(b"\0", b" ").decode(errors="replace"))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()


def rows_of(workspace: Path) -> str:
    """Every row of every table of the index."""
    with duckdb.connect(str(workspace / "nsd.duckdb"), read_only=True) as connection:
        names = [name for (name,) in connection.execute("select table_name from duckdb_tables()").fetchall()]
        return "\n".join(str(connection.execute(f'select * from "{name}"').fetchall()) for name in names)


def holding(folder: Path, text: str) -> list[Path]:
    """Files under `folder` that hold `text`."""
    return [path for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


def there(slurm: Cluster, name: str) -> bool:
    """Whether Slurm or SkyPilot has a cluster whose name begins so."""
    return slurm.allocation_of(name) is not None or any(one.startswith(name) for one in slurm.client.clusters())


def gone(slurm: Cluster, name: str) -> bool:
    """Wait until neither has.

    Slurm lists an allocation until its last process has ended, and a managed job has succeeded before SkyPilot has
    taken its machine down.
    """
    return wait_until(lambda: not there(slurm, name), pause=0.5)


def manifests(workspace: Path, kind: str = "*") -> list[dict[str, Any]]:
    """Of the finished stages of a workspace."""
    return [json.loads(path.read_text()) for path in sorted(workspace.glob(f"artifacts/{kind}-*/manifest.json"))]


@dataclass(frozen=True)
class Launched:
    """A launch that ended well: its folder, what was printed, and the processes seen meanwhile."""

    folder: Path
    printed: str
    processes: set[str]

    @property
    def workspace(self) -> Path:
        return self.folder / "nsd-workspace"


@pytest.fixture(scope="module")
def launched(slurm: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Launched:
    """OWN_SPEC launched from a folder that has its files alone, by an nsd that was installed from a wheel."""
    place = tmp_path_factory.mktemp("launched")
    folder, python = own_project(place / "project"), installed(place)
    with listing_processes() as found:
        printed = nsd(folder, environment(slurm.client), "launch", "spec.yaml", *HERE, python=python)
    return Launched(folder, printed, found)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workspace of OWN_SPEC run on this machine."""
    folder = own_project(tmp_path_factory.mktemp("own") / "project")
    command_line.nsd(folder, "run", "spec.yaml")
    return folder / "nsd-workspace"


def test_a_launch_from_a_folder_of_ones_own_ends_like_a_local_run(
    slurm: Cluster, launched: Launched, own: Path
) -> None:
    workspace, printed, caller = launched.workspace, launched.printed, environment(slurm.client)
    assert results(workspace) == results(own) and not list(workspace.rglob("*.safetensors"))
    assert re.search(r"student > baseline +○ UNRESOLVED", printed) and "the machine nsd-tiny-" in printed
    assert gone(slurm, "nsd-tiny-")
    assert "[7/10]" in nsd(launched.folder, caller, "launch", "logs")  # kept here: the machine's are gone with it

    here, there = (json.loads(nsd(where.parent, caller, "runs", "--json")) for where in (own, workspace))
    scores = [[(run["run"], run["eval_digest"], run["mean"]) for run in found["runs"]] for found in (here, there)]
    assert scores[0] == scores[1] and len(scores[0]) == 3
    compared = [json.loads(nsd(at.parent, caller, "compare", "spec.yaml", "-f", "json")) for at in (own, workspace)]
    assert compared[0]["verdicts"] == compared[1]["verdicts"]


def test_what_the_spec_names_went_there_and_nothing_else(launched: Launched) -> None:
    (sent,) = launched.workspace.glob("launches/*/files")
    names = {path.relative_to(sent).as_posix() for path in sent.rglob("*") if path.is_file()}
    (wheel,) = (name for name in names if name.endswith(".whl"))
    alongside = {wheel, "nsd-sent/constraints.txt", ".skyignore"}
    assert names - alongside == {"spec.yaml", "rows.jsonl", "judge.py", "words.py"}


def test_a_machine_that_cannot_be_set_up_says_why_and_is_gone(slurm: Cluster, tmp_path: Path) -> None:
    folder, caller = project(tmp_path / "project", TINY_SPEC), environment(slurm.client)
    arguments = ("launch", "spec.yaml", *HERE, "--environment", "/nowhere")
    printed = nsd(folder, caller, *arguments, code=1)
    end = re.sub(r"tiny-[0-9-]+", "LAUNCH", printed[printed.rindex("the machine nsd-tiny-") :])
    assert re.sub(r"[0-9]+ min", "N min", end) == BROKEN
    assert gone(slurm, "nsd-tiny-")


def test_a_launch_shows_its_secrets_nowhere(launched: Launched) -> None:
    (saved,) = launched.workspace.glob("launches/*/sky.yaml")
    assert "HF_TOKEN" in saved.read_text()  # it is asked for by its name
    assert holding(launched.folder, CANARY) == [launched.folder / ".env"] and CANARY not in rows_of(launched.workspace)
    assert CANARY not in launched.printed
    # SkyPilot's own ssh commands hold the script of a job with its secrets, on the machine that launches; ours do not.
    ours = [line for line in launched.processes if OURS.match(line)]
    for what in ("sky_side.py", "rsync", "bin/nsd run", "nsd.runner.work.worker", "nsd.runner.cli launch"):
        assert any(what in line for line in ours), f"no process was seen: {what}"
    assert [line for line in ours if CANARY in line] == []


@dataclass(frozen=True)
class ByHand:
    """A machine with a GPU on which SkyPilot alone did the run twice: from which task -> the store of that run."""

    name: str
    stores: dict[str, str]


@pytest.fixture(scope="module")
def by_hand(slurm: Cluster, ready: Path, launched: Launched) -> ByHand:
    """From the task that a launch saved, and from the one at the top of the repository with its variables set.

    The second one goes to the machine of the first: what was sent and set up before is in nobody's way.
    """
    made = ByHand("nsd-by-hand", {})
    (saved,) = launched.workspace.glob("launches/*/sky.yaml")
    shutil.copy(REPOSITORY / "sky.yaml", launched.folder)
    variables = ["--env", "SPEC=spec.yaml", "--infra", "slurm/local"]
    for which, task, flags in ("saved", str(saved), []), ("top", "sky.yaml", variables):
        made.stores[which] = f"file://{slurm.node.shared}/store-{time.time_ns()}"
        flags = [*flags, "--env", f"NSD_STORE={made.stores[which]}", "--env", f"NSD_ENVIRONMENT={ready}"]
        words = " ".join(["sky launch -y --gpus H100:1 -c", made.name, *flags, task])
        slurm.client.run("bash", "-c", f"cd {launched.folder} && {words}")
    return made


@pytest.mark.parametrize("which", ["saved", "top"])
def test_skypilot_alone_does_the_same_run(
    slurm: Cluster, by_hand: ByHand, own: Path, tmp_path: Path, which: str
) -> None:
    home, caller = own_project(tmp_path / which), environment(slurm.client)
    outcome = json.loads(nsd(home, caller, "run", "spec.yaml", "--store", by_hand.stores[which], "--json"))
    assert (outcome["stages_run"], outcome["stages_cached"]) == (0, 10)
    assert results(home / "nsd-workspace") == results(own)


def test_a_task_of_skypilot_alone_has_its_gpu_and_its_machine_is_torn_down(slurm: Cluster, by_hand: ByHand) -> None:
    """What `nsd launch` is built on does work on this machine."""
    said = 'echo "cuda=$CUDA_VISIBLE_DEVICES rank=$SKYPILOT_NODE_RANK user=$(id -un)"'
    printed = slurm.client.sky("exec", by_hand.name, "--gpus", "H100:1", said).stdout
    assert f"cuda=0 rank=0 user={slurm.node.user}" in printed
    assert slurm.allocation_of(by_hand.name) is not None
    slurm.client.sky("down", "-y", by_hand.name)
    assert gone(slurm, by_hand.name)


def test_a_killed_launcher_loses_nothing(slurm: Cluster, ready: Path, tiny: Path, tmp_path: Path) -> None:
    folder, caller = project(tmp_path / "project", TINY_SPEC), environment(slurm.client)
    command = Command(folder, caller, "launch", "spec.yaml", *HERE, "--environment", str(ready))
    command.wait_for("[2/10]")
    command.kill()
    logs = Command(folder, caller, "launch", "logs")
    logs.wait_for("nsd: waiting for the results to be fetched")  # the machine does not go before they are
    logs.kill()
    assert "RUNNING" in nsd(folder, caller, "launch", "status")
    assert command.leaves_nothing() and logs.leaves_nothing()
    # What was launched comes home, whatever its spec says by now.
    (folder / "spec.yaml").write_text(TINY_SPEC.replace("epochs: 2", "epochs: 3"))
    assert "student > baseline" in nsd(folder, caller, "launch", "pull")
    assert results(folder / "nsd-workspace") == results(tiny)
    assert gone(slurm, "nsd-tiny-") and "SUCCEEDED" in nsd(folder, caller, "launch", "status")


def test_a_detached_launch_can_be_cancelled(slurm: Cluster, ready: Path, tmp_path: Path) -> None:
    long = TINY_SPEC.replace("epochs: 2", "epochs: 2000")
    folder, caller = project(tmp_path / "project", long), environment(slurm.client)
    printed = nsd(folder, caller, "launch", "spec.yaml", *HERE, "--environment", str(ready), "--detach")
    assert "detached; nsd launch status" in printed and there(slurm, "nsd-tiny-")
    printed = nsd(folder, caller, "launch", "cancel")
    assert "is cancelled" in printed and "fetched" in printed  # without a store it is the last chance
    assert gone(slurm, "nsd-tiny-")
    assert "CANCELLED" in nsd(folder, caller, "launch", "status")
    assert "is over already" in nsd(folder, caller, "launch", "cancel", code=1)


def test_a_detached_launch_is_pulled_from_its_store(slurm: Cluster, ready: Path, tiny: Path, tmp_path: Path) -> None:
    folder, caller = project(tmp_path / "project", TINY_SPEC), environment(slurm.client)
    store = f"file://{slurm.node.shared}/store-{time.time_ns()}"
    nsd(folder, caller, "launch", "spec.yaml", *HERE, "--environment", str(ready), "--store", store, "--detach")
    manifests_there = Path(store.removeprefix("file://")) / "manifests"
    wait_until(lambda: len(list(manifests_there.glob("*.json"))) == 10, 3 * PATIENCE)
    wait_until(lambda: "SUCCEEDED" in nsd(folder, caller, "launch", "status"), pause=ASKING)
    assert "student > baseline" in nsd(folder, caller, "launch", "pull")
    assert results(folder / "nsd-workspace") == results(tiny)
    assert gone(slurm, "nsd-tiny-")  # pulled is done with: it does not idle until it goes by itself


def test_who_stops_while_the_machine_is_made_can_still_cancel_it(slurm: Cluster, ready: Path, tmp_path: Path) -> None:
    folder, caller = project(tmp_path / "project", TINY_SPEC), environment(slurm.client)
    command = Command(folder, caller, "launch", "spec.yaml", *HERE, "--environment", str(ready))
    command.wait_for("launch tiny-")
    command.until(lambda: slurm.allocation_of("nsd-tiny-") is not None)
    command.process.send_signal(signal.SIGINT)
    assert "SkyPilot goes on making the machine ready" in command.end(75)
    assert "is cancelled" in nsd(folder, caller, "launch", "cancel")
    assert gone(slurm, "nsd-tiny-")
