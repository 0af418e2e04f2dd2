"""Changing what was claimed after the results are in shows, with the real command."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from e2e.command_line import TINY_SPEC, asked, asked_json, finished_run, nsd, start
from support import PATIENCE

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where TINY_SPEC has run."""
    folder = shutil.copytree(finished_run(tmp_path_factory), tmp_path_factory.mktemp("edited") / "here")
    out = (folder / "printed.txt").read_text()
    assert "EXPLORATORY" not in out and "declared claims: a family of 1;" in out
    return folder


def test_a_claim_added_after_the_run_is_exploratory_before_and_after_running_again(finished: Path) -> None:
    edited = TINY_SPEC.replace("[student > baseline]", "[student > baseline, baseline > base]")
    (finished / "more.yaml").write_text(edited)
    assert "EXPLORATORY: on no record" in asked(finished, "compare", "more.yaml")
    again = nsd(finished, "run", "more.yaml")
    assert "late claims, EXPLORATORY: a family of 2" in again and "after its results existed" in again
    facts = asked_json(finished, "compare", "more.yaml", "--format", "json")
    assert [one["claim"] for one in facts["verdicts"]] == ["student > baseline"]
    assert [one["claim"] for one in facts["late"]] == ["baseline > base"]
    assert facts["primary_family"] == 2


def test_looking_is_recorded_once_for_the_same_data(finished: Path) -> None:
    asked(finished, "compare", "tiny.yaml")
    looks = (finished / "nsd-workspace" / "looks.jsonl").read_text().splitlines()
    asked(finished, "compare", "tiny.yaml")
    assert (finished / "nsd-workspace" / "looks.jsonl").read_text().splitlines() == looks and looks


def test_a_recipe_claim_with_one_seed_is_refused(finished: Path) -> None:
    process = start(finished, "compare", "tiny.yaml", "--claim", "recipe")
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2
    assert (
        "a claim about a recipe needs training seeds in each trained arm, at least two" in err
        and "9 seeds per arm" in err
    )


def test_a_second_seed_after_the_first_look_is_a_look_at_growing_data(finished: Path) -> None:
    (finished / "grown.yaml").write_text(TINY_SPEC.replace("seeds: [7]", "seeds: [7, 8]"))
    out = nsd(finished, "run", "grown.yaml")
    assert "EXPLORATORY: look 2 at growing data, and none was planned" in out
