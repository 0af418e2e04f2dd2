"""The main loop through the real command: run, cache, extend, fail, interrupt, index."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from e2e.command_line import EVERY_KIND, TINY_SPEC, asked_json, environment, finished_run, nsd, nsd_json, results, start
from support import PATIENCE

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the tiny spec has run."""
    return shutil.copytree(finished_run(tmp_path_factory), tmp_path_factory.mktemp("finished") / "here")


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    """A copy of that folder to change."""
    return shutil.copytree(finished, tmp_path / "copy")


def test_every_condition_has_a_result(finished: Path) -> None:
    rows = asked_json(finished, "runs", "--json")["runs"]
    assert {row["run"] for row in rows} == {f"tiny/{name}/seed7" for name in ("base", "baseline", "student")}
    assert all(row["status"] == "done" and row["n"] == 24 for row in rows)


def test_weights_are_safetensors_and_nothing_is_pickled(finished: Path) -> None:
    files = [path for path in (finished / "nsd-workspace").rglob("*") if path.is_file()]
    assert sum(path.suffix == ".safetensors" for path in files) == 2
    assert not [path for path in files if path.suffix in (".bin", ".pt", ".pth", ".pkl")]
    assert not any((finished / "nsd-workspace" / "partial").iterdir())


def test_a_second_run_trains_nothing_and_loads_no_torch(finished: Path) -> None:
    code = (
        "import sys; sys.argv = ['nsd', 'run', 'tiny.yaml', '--json']\n"
        "from nsd.runner.cli.app import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=finished, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["stages_run"] == 0 and summary["stages_cached"] > 0


# Arms that a finished folder has not: one that succeeds, one that cannot, and one after it.
ADDED = """\
  filtered: {train_on: [labeled, pseudo], label_with: baseline, labeler: {threshold: 0.5}}
  none: {train_on: [pseudo], label_with: base, labeler: {max_tokens: 1, threshold: 1.0}}
  after: {train_on: [labeled], trainer: {epochs: 1}}
"""


@dataclass
class Added:
    folder: Path
    planned: list[dict[str, Any]]  # before the run
    summary: dict[str, Any]


@pytest.fixture(scope="module")
def added(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Added:
    """A copy of the finished folder in which more.yaml, the spec with these arms, was planned and ran."""
    folder = shutil.copytree(finished, tmp_path_factory.mktemp("added") / "copy")
    more = TINY_SPEC.replace("hypotheses:", ADDED + "hypotheses:").replace("name: tiny", "name: more")
    (folder / "more.yaml").write_text(more)
    planned = asked_json(folder, "plan", "more.yaml", "--json")["stages"]
    return Added(folder, planned, nsd_json(folder, "run", "more.yaml", "--json", code=1))


def test_more_conditions_run_only_their_own_stages(added: Added) -> None:
    waiting = [(stage["condition"], stage["kind"]) for stage in added.planned if not stage["cached"]]
    trained = ("train", "sample", "score")
    assert waiting == [
        *(("filtered", kind) for kind in ("label", *trained)),
        *(("none", kind) for kind in ("sample", "label", *trained)),
        *(("after", kind) for kind in trained),
    ]
    assert added.summary["stages_run"] == len(waiting) - 3  # `none` has nothing to train on


def test_plan_names_the_field_that_changed(copy: Path) -> None:
    (copy / "warm.yaml").write_text(TINY_SPEC.replace("learning_rate: 5e-4", "learning_rate: 1e-4"))
    stages = asked_json(copy, "plan", "warm.yaml", "--json")["stages"]
    changed = next(stage["changed_since_nearest"] for stage in stages if stage["kind"] == "train")
    assert changed == ["trainer.config.learning_rate: 0.0005 -> 0.0001"]


def test_the_index_is_the_same_after_deletion_and_rebuild(copy: Path) -> None:
    names = ["tiny/base/seed7", "tiny/baseline/seed7", "tiny/student/seed7"]
    before = asked_json(copy, "compare", *names, "--format", "json")
    rows = asked_json(copy, "runs", "--json")
    (copy / "nsd-workspace" / "nsd.duckdb").unlink()
    nsd(copy, "db", "rebuild")
    assert asked_json(copy, "compare", *names, "--format", "json") == before
    assert asked_json(copy, "runs", "--json") == rows


def test_a_stage_that_fails_does_not_stop_the_other_arms(added: Added) -> None:
    (failure,) = added.summary["failures"]
    assert failure["used_by"] == ["none/seed7"] and "nothing to train on" in failure["reason"]
    assert Path(failure["log"]).read_text()
    status = {row["run"]: row["status"] for row in nsd_json(added.folder, "runs", "more/*", "--json")["runs"]}
    assert status["more/filtered/seed7"] == status["more/after/seed7"] == "done"
    assert status["more/none/seed7"] == "failed"
    assert "nothing to train on" in nsd(added.folder, "logs", "more/none/seed7")


def test_two_specs_at_once_in_one_workspace_both_finish(tmp_path: Path) -> None:
    own = "  {0}: {{train_on: [], prompt: {{template: '{0}: {{question}}'}}}}\n"
    for name in ("one", "two"):
        # They share base and baseline, so that both want the same stages at the same time.
        shared = TINY_SPEC.partition("  student:")[0].replace("name: tiny", f"name: {name}")
        (tmp_path / f"{name}.yaml").write_text(shared + own.format(name))
    processes = [start(tmp_path, "run", name) for name in ("one.yaml", "two.yaml")]
    for process in processes:
        out, err = process.communicate(timeout=2 * PATIENCE)
        assert process.returncode == 0, out + err
    rows = asked_json(tmp_path, "runs", "--json")["runs"]
    assert len(rows) == 6 and all(row["status"] == "done" for row in rows)
    shared = {row["eval_digest"] for row in rows if row["condition"] in ("base", "baseline")}
    assert len(shared) == 2


def test_gc_frees_weights_and_a_later_spec_trains_them_again(copy: Path) -> None:
    before = results(copy / "nsd-workspace")
    assert "deleted 2 folders" in nsd(copy, "gc", "--yes")
    assert nsd_json(copy, "run", "tiny.yaml", "--json")["stages_run"] == 0
    freed = before.keys() - results(copy / "nsd-workspace").keys()
    (copy / "longer.yaml").write_text(TINY_SPEC.replace("temperature: 0.1", "temperature: 0.2"))
    nsd(copy, "run", "longer.yaml", "--only", "baseline")
    after = results(copy / "nsd-workspace")
    assert len(freed) == 2 and len(freed & after.keys()) == 1, "of the two arms, one was wanted again"
    assert all(after[name] == value for name, value in before.items() if name in after)


def test_samples_and_show_read_what_was_written(finished: Path) -> None:
    page = asked_json(finished, "samples", "tiny/base/seed7", "--json", "--size", "3")
    assert page["total"] == 24 and len(page["questions"]) == 3
    stages = asked_json(finished, "show", "tiny/student/seed7", "--json")["stages"]
    assert [stage["kind"] for stage in stages] == ["train", "sample", "label", "train", "sample", "score"]
    assert stages[-1]["packages"]["torch"]


def test_grpo_arm_keeps_its_curves(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = finished_run(tmp_path_factory, EVERY_KIND)
    train = next(s for s in asked_json(folder, "show", "tiny/rl/seed7", "--json")["stages"] if s["kind"] == "train")
    import pyarrow.parquet

    metrics = pyarrow.parquet.read_table(Path(train["folder"]) / "curves.parquet")["metric"].to_pylist()
    assert {"reward", "reward_std", "frac_reward_zero_std", "completions/clipped_ratio"} <= set(metrics)
