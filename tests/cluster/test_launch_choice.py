"""Before anything starts: which machine `nsd launch` takes, and what it refuses, in a sentence and with code 2."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from cluster.commands import Command, environment, nsd, project
from cluster.conftest import Cluster
from cluster.one_machine.client import Client
from e2e.command_line import TINY_SPEC
from nsd.runner.launch.bridge import SkyPilot
from nsd.runner.launch.task import Wanted, task_for
from nsd.runner.spec.model import Resources


def asking(resources: str) -> str:
    """TINY_SPEC with `resources`."""
    return TINY_SPEC + f"resources: {resources}\n"


def refusal(folder: Path, caller: dict[str, str], *flags: str) -> str:
    """The one line that a refused launch prints after what it shows; nothing may have been started."""
    command = Command(folder, caller, "launch", "spec.yaml", "--yes", *flags)
    printed = command.end(code=2)
    last = printed.splitlines()[-1]
    assert last.startswith("nsd: ") and sum(line.startswith("nsd: ") for line in printed.splitlines()) == 1, printed
    assert not list(folder.glob("nsd-workspace/launches/*")) and command.leaves_nothing()
    return last


# --------------------------------------------------------------------------- three clouds, invented prices


@pytest.mark.parametrize(
    ("resources", "flags", "chosen", "candidates"),
    [
        ("{accelerators: 'L4:1'}", (), "GCP us-central1 g2-standard-8", ["AWS", "1.00", "GCP", "0.80"]),
        ("{accelerators: ['H100:1', 'L4:1']}", (), "GCP us-central1 g2-standard-8", ["Lambda", "3.00", "0.80"]),
        ("{accelerators: 'L4:1', infra: aws}", (), "AWS us-east-1 g6.2xlarge", ["1.00"]),
        ("{accelerators: 'L4:1'}", ("--gpus", "H100:1"), "Lambda us-east-1 gpu_1x_h100_pcie", ["AWS", "6.00"]),
    ],
)
def test_a_dry_run_takes_the_cheapest_that_is_allowed(
    three_clouds: Client, tmp_path: Path, resources: str, flags: tuple[str, ...], chosen: str, candidates: list[str]
) -> None:
    folder = project(tmp_path / "project", asking(resources))
    printed = nsd(folder, environment(three_clouds), "launch", "spec.yaml", "--dry-run", *flags)
    assert f"1 job on {chosen}: about" in printed and "dry run: nothing was launched" in printed
    assert all(word in printed for word in candidates)
    (starred,) = [line for line in printed.splitlines() if line.lstrip().startswith("*")]
    assert all(word in starred for word in chosen.split())
    assert not list(folder.glob("nsd-workspace/launches/*"))


@pytest.mark.parametrize(
    ("flags", "cloud", "price"),
    [(("--gpus", "A100-80GB:8"), "AWS", "36.00"), (("--use-spot", "--gpus", "H100:1"), "AWS", "")],
)
def test_a_dry_run_of_skypilot_alone_takes_the_cheapest(
    three_clouds: Client, flags: tuple[str, ...], cloud: str, price: str
) -> None:
    # On demand Lambda is the cheapest for an H100; it has no spot, so spot goes to AWS.
    printed = three_clouds.sky("launch", "--dryrun", "-y", *flags, "echo").stdout
    (chosen,) = [line for line in printed.splitlines() if "✔" in line]
    assert cloud in chosen and price in chosen


def test_a_budget_below_the_estimate_refuses(three_clouds: Client, tmp_path: Path) -> None:
    folder = project(tmp_path / "project", asking("{accelerators: 'L4:1'}"))
    sentence = refusal(folder, environment(three_clouds), "--max-usd", "0.05")
    assert "is above max_usd 0.05: raise it" in sentence and "nothing was launched" in sentence


def test_under_a_dollar_cap_skypilot_may_take_no_dearer_machine(
    three_clouds: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The deadline was computed for the cheapest; where that is out of stock, SkyPilot looks for another."""
    for name, value in environment(three_clouds).items():
        monkeypatch.setenv(name, value)
    capped = Wanted(Resources(accelerators=["H100:1", "L4:1"]), usd_per_hour=0.8)
    found = SkyPilot.find().ask("offers", task=task_for(capped, "capped", "spec.yaml", tmp_path, {}))
    assert {(offer["cloud"], offer["usd_per_hour"]) for offer in found["offers"]} == {("GCP", 0.8)}


def test_an_unknown_price_refuses_a_dollar_cap(slurm: Cluster, tmp_path: Path) -> None:
    folder = project(tmp_path / "project", TINY_SPEC)
    sentence = refusal(folder, environment(slurm.client), "--infra", "slurm/local", "--max-usd", "5")
    assert "SkyPilot knows no price of this place, so a dollar cap cannot be kept" in sentence
    assert slurm.allocation_of("nsd-") is None


# --------------------------------------------------------------------------- no way to a machine


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A folder with TINY_SPEC."""
    return project(tmp_path / "project", TINY_SPEC)


def test_without_skypilot_it_says_what_to_install(slurm: Cluster, tiny: Path) -> None:
    caller = environment(slurm.client, PATH="/usr/bin:/bin")
    del caller["NSD_SKY"]
    assert "needs SkyPilot, in a Python of its own: python -m venv sky-env" in refusal(tiny, caller)


def test_a_place_without_skypilot_is_named(slurm: Cluster, tiny: Path) -> None:
    assert "/nowhere: there is no Python there" in refusal(tiny, environment(slurm.client, NSD_SKY="/nowhere"))
    caller = environment(slurm.client, NSD_SKY=sys.prefix)  # the environment of these tests has none
    assert "has no SkyPilot (No module named 'sky')" in refusal(tiny, caller)


def test_another_version_is_refused(slurm: Cluster, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "old/sky").mkdir(parents=True)
    (tmp_path / "old/sky/__init__.py").write_text('__version__ = "0.9.0"\n')
    caller = environment(slurm.client, NSD_SKY=sys.executable, PYTHONPATH=str(tmp_path / "old"))
    assert "has version 0.9.0; nsd launch is made for 0.14: pip install" in refusal(tiny, caller)


def test_without_an_enabled_cloud_it_says_so(sky_home: Client, tiny: Path) -> None:
    assert "SkyPilot can use no cloud here" in refusal(tiny, environment(sky_home))


def test_an_impossible_machine_is_refused(slurm: Cluster, tiny: Path) -> None:
    sentence = refusal(tiny, environment(slurm.client), "--infra", "slurm/local", "--gpus", "H100:64")
    assert "no machine fits" in sentence and "H100" in sentence


def test_a_server_that_is_down_is_named(slurm: Cluster, tiny: Path) -> None:
    with socket.socket() as probe:  # bound and not listening: nobody answers there
        probe.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{probe.getsockname()[1]}"
        sentence = refusal(tiny, environment(slurm.client, SKYPILOT_API_SERVER_ENDPOINT=endpoint))
    assert "SkyPilot's API server does not answer" in sentence and endpoint in sentence
