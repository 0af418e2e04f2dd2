"""The main loop through the real command: run, cache, extend, fail, interrupt, index."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from e2e.command_line import GRPO_ARM, TINY_SPEC, environment, finished_run, nsd, nsd_json, results, start
from support import PATIENCE, wait_until

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
    rows = nsd_json(finished, "runs", "--json")["runs"]
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


def test_one_more_condition_runs_only_its_own_stages(copy: Path) -> None:
    more = TINY_SPEC.replace(
        "hypotheses:",
        "  filtered: {train_on: [labeled, pseudo], label_with: baseline, labeler: {threshold: 0.5}}\nhypotheses:",
    ).replace("name: tiny", "name: more")
    (copy / "more.yaml").write_text(more)
    planned = nsd_json(copy, "plan", "more.yaml", "--json")["stages"]
    waiting = [(stage["condition"], stage["kind"]) for stage in planned if not stage["cached"]]
    assert waiting == [("filtered", "label"), ("filtered", "train"), ("filtered", "sample"), ("filtered", "score")]
    assert nsd_json(copy, "run", "more.yaml", "--json")["stages_run"] == 4


def test_plan_names_the_field_that_changed(copy: Path) -> None:
    (copy / "warm.yaml").write_text(TINY_SPEC.replace("learning_rate: 5e-4", "learning_rate: 1e-4"))
    stages = nsd_json(copy, "plan", "warm.yaml", "--json")["stages"]
    changed = next(stage["changed_since_nearest"] for stage in stages if stage["kind"] == "train")
    assert changed == ["trainer.config.learning_rate: 0.0005 -> 0.0001"]


def test_the_index_is_the_same_after_deletion_and_rebuild(copy: Path) -> None:
    names = ["tiny/base/seed7", "tiny/baseline/seed7", "tiny/student/seed7"]
    before = nsd_json(copy, "compare", *names, "--format", "json")
    rows = nsd_json(copy, "runs", "--json")
    (copy / "nsd-workspace" / "nsd.duckdb").unlink()
    nsd(copy, "db", "rebuild")
    assert nsd_json(copy, "compare", *names, "--format", "json") == before
    assert nsd_json(copy, "runs", "--json") == rows


def test_a_stage_that_fails_does_not_stop_the_other_arms(copy: Path) -> None:
    spec = TINY_SPEC.replace("name: tiny", "name: failing").replace(
        "hypotheses:",
        "  none: {train_on: [pseudo], label_with: base, labeler: {max_tokens: 1, threshold: 1.0}}\n"
        "  after: {train_on: [labeled], trainer: {epochs: 1}}\nhypotheses:",
    )
    (copy / "failing.yaml").write_text(spec)
    summary = nsd_json(copy, "run", "failing.yaml", "--json", code=1)
    assert [failure["used_by"] for failure in summary["failures"]] == [["none/seed7"]]
    assert "nothing to train on" in summary["failures"][0]["reason"]
    assert Path(summary["failures"][0]["log"]).read_text()
    status = {row["run"]: row["status"] for row in nsd_json(copy, "runs", "failing/*", "--json")["runs"]}
    assert status["failing/after/seed7"] == "done" and status["failing/none/seed7"] == "failed"
    assert "nothing to train on" in nsd(copy, "logs", "failing/none/seed7")


def test_sigterm_saves_exits_75_and_the_same_command_continues(tmp_path: Path, finished: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY_SPEC)
    process = start(tmp_path, "run", "tiny.yaml")
    wait_until(lambda: list((tmp_path / "nsd-workspace" / "artifacts").glob("score-*")) or process.poll() is not None)
    assert process.poll() is None, process.communicate()
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == 75
    assert nsd_json(tmp_path, "run", "tiny.yaml", "--json")["stages_cached"] >= 1
    assert results(tmp_path / "nsd-workspace") == results(finished / "nsd-workspace")


def test_two_specs_at_once_in_one_workspace_both_finish(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text(TINY_SPEC.replace("name: tiny", "name: one"))
    # Shares base and baseline with the first, so that both want the same stages at the same time.
    (tmp_path / "two.yaml").write_text(TINY_SPEC.replace("name: tiny", "name: two").replace("k: 4", "k: 2"))
    processes = [start(tmp_path, "run", name) for name in ("one.yaml", "two.yaml")]
    for process in processes:
        out, err = process.communicate(timeout=2 * PATIENCE)
        assert process.returncode == 0, out + err
    rows = nsd_json(tmp_path, "runs", "--json")["runs"]
    assert len(rows) == 6 and all(row["status"] == "done" for row in rows)
    shared = {row["eval_digest"] for row in rows if row["condition"] in ("base", "baseline")}
    assert len(shared) == 2


def test_gc_frees_weights_and_a_later_spec_trains_them_again(copy: Path) -> None:
    before = results(copy / "nsd-workspace")
    assert "deleted 2 folders" in nsd(copy, "gc", "--yes")
    assert nsd_json(copy, "run", "tiny.yaml", "--json")["stages_run"] == 0
    (copy / "longer.yaml").write_text(TINY_SPEC.replace("temperature: 0.1", "temperature: 0.2"))
    nsd(copy, "run", "longer.yaml")
    after = results(copy / "nsd-workspace")
    assert all(after[name] == value for name, value in before.items())


def test_samples_and_show_read_what_was_written(finished: Path) -> None:
    page = nsd_json(finished, "samples", "tiny/base/seed7", "--json", "--size", "3")
    assert page["total"] == 24 and len(page["questions"]) == 3
    stages = nsd_json(finished, "show", "tiny/student/seed7", "--json")["stages"]
    assert [stage["kind"] for stage in stages] == ["train", "sample", "label", "train", "sample", "score"]
    assert stages[-1]["packages"]["torch"]


def test_grpo_arm_runs_and_keeps_its_curves(copy: Path) -> None:
    (copy / "rl.yaml").write_text(TINY_SPEC.replace("hypotheses:", GRPO_ARM + "hypotheses:"))
    summary = nsd_json(copy, "run", "rl.yaml", "--json")
    assert summary["failures"] == []
    train = next(s for s in nsd_json(copy, "show", "tiny/rl/seed7", "--json")["stages"] if s["kind"] == "train")
    import pyarrow.parquet

    metrics = pyarrow.parquet.read_table(Path(train["folder"]) / "curves.parquet")["metric"].to_pylist()
    assert {"reward", "reward_std", "frac_reward_zero_std", "completions/clipped_ratio"} <= set(metrics)
