"""The difference that a spec states: where it may stand, what it changes, and what reads it."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from nsd.plugins.errors import InputError
from nsd.runner.cli.app import app
from nsd.runner.plan.build import build_plan
from nsd.runner.spec.load import load_spec
from support import REPOSITORY

SHIPPED = (REPOSITORY / "specs" / "quickstart.yaml").read_text()


def stating(folder: Path, detect: str) -> Path:
    """The quickstart with a stated difference."""
    assert SHIPPED.count("hypotheses:\n") == 1
    path = folder / "stated.yaml"
    path.write_text(SHIPPED.replace("hypotheses:\n", f"hypotheses:\n  detect: {detect}\n"))
    return path


def test_a_stated_difference_is_no_part_of_any_stage(tmp_path: Path) -> None:
    with_it, without = load_spec(stating(tmp_path, "0.03")), load_spec(REPOSITORY / "specs" / "quickstart.yaml")
    assert with_it.hypotheses is not None and without.hypotheses is not None
    assert with_it.hypotheses.to_json()["detect"] == 0.03 and "detect" not in without.hypotheses.to_json()
    assert set(build_plan(with_it).stages) == set(build_plan(without).stages)


@pytest.mark.parametrize("wrong", ["0", "1", "-0.1", "much"])
def test_a_difference_that_is_no_share_is_refused_with_its_place(tmp_path: Path, wrong: str) -> None:
    with pytest.raises(InputError, match="detect"):
        load_spec(stating(tmp_path, wrong))


def power(folder: Path, *arguments: str) -> Any:
    with contextlib.chdir(folder):
        done = CliRunner().invoke(app, ["power", *arguments, "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


@pytest.mark.slow
def test_power_asks_about_the_stated_difference_unless_told_otherwise(tmp_path: Path) -> None:
    path = str(stating(tmp_path, "0.03"))
    assert power(tmp_path, path)["detect"] == 0.03
    assert power(tmp_path, path, "--detect", "0.05")["detect"] == 0.05
    assert power(tmp_path, str(REPOSITORY / "specs" / "quickstart.yaml"))["detect"] == 0.02
