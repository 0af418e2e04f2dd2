"""What the commands that look show of runs, stages, logs, samples and progress."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nsd.reports.judge.rows import run_rows
from nsd.runner.cli.app import app
from nsd.runner.cli.samples import collect_samples
from nsd.runner.cli.show_run import stage_chain
from nsd.runner.cli.show_runs import print_runs
from nsd.runner.store import tables
from nsd.runner.store.gc import unneeded_weights
from nsd.runner.store.shapes import Manifest
from nsd.runner.store.workspace import Workspace
from nsd.runner.work import progress
from nsd.runner.work.events import Event, Told
from nsd.runner.work.progress import PlainReporter
from toy_workspace import finish, record

RUN = "toy/base/seed1"


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A run with two samples of each of four questions: right twice, once, once (the other), never."""
    workspace = Workspace(tmp_path)
    finish(workspace, "e", [1.0, 0.5, 0.5, 0.0])
    folder = workspace.folder("eval", "e")
    manifest = json.loads((folder / "manifest.json").read_text())
    common = {"text": "text", "tokens": 1, "stop_reason": "stop", "answer": "1", "error": None, "feedback": None}
    rows = [
        {**common, "question_id": f"q{question}", "sample": sample, "correct": right, "score": float(right)}
        for question, verdicts in enumerate([(True, True), (True, False), (False, True), (False, False)])
        for sample, right in enumerate(verdicts)
    ]
    with workspace.lock("eval", "e") as partial:
        (partial / "artifact").mkdir()
        tables.write(partial / "artifact" / "samples.parquet", tables.SCORED, rows)
        (partial / "artifact" / "log.txt").write_text("first line\nmiddle\nlast line\n")
        workspace.commit("eval", "e", Manifest(**manifest))
    record(workspace, "toy", {"base": "e"}, repeats={"base": ["again"]})
    return workspace


@pytest.mark.parametrize(
    ("wrong", "right", "shown"),
    [(False, False, "0123"), (True, False, "123"), (False, True, "012"), (True, True, "12")],
)
def test_samples_are_filtered_by_what_any_of_them_is(
    workspace: Workspace, wrong: bool, right: bool, shown: str
) -> None:
    found = collect_samples(workspace, [RUN], wrong, right, False, None)
    assert [one.question.id for one in found] == [f"q{number}" for number in shown]


def test_pages_follow_one_another(workspace: Workspace) -> None:
    pages = []
    for page in ("1", "2", "3", "4"):
        arguments = ["samples", RUN, "--size", "1", "--page", page, "--json", "-w", str(workspace.root)]
        pages.append(json.loads(CliRunner().invoke(app, arguments).stdout))
    assert [page["questions"][0]["id"] for page in pages] == ["q0", "q1", "q2", "q3"]
    assert all(page["pages"] == 4 and page["total"] == 4 for page in pages)


def test_logs_end_with_the_last_lines(workspace: Workspace) -> None:
    result = CliRunner().invoke(app, ["logs", RUN, "-n", "1", "-w", str(workspace.root)])
    assert "last line" in result.stdout and "first line" not in result.stdout


def test_a_chain_has_its_causes_first_however_far_back() -> None:
    inputs: dict[str, dict[str, str]] = {"a": {}, "b": {"model": "a"}, "c": {"samples": "b"}}
    manifests = {digest: {"digest": digest, "inputs": wanted} for digest, wanted in inputs.items()}
    assert [one["digest"] for one in stage_chain(manifests.get, "c")] == ["a", "b", "c"]
    assert stage_chain(manifests.get, "gone") == stage_chain(manifests.get, None) == []


def test_a_rate_leaves_out_what_an_earlier_attempt_had(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    reporter = PlainReporter()
    reporter.start("title", "size", 1, 1)
    reporter.update(Event(Told.PROGRESS, done=40, total=100, unit="completions", resumed=40))
    clock[0] = 20.0
    reporter.update(Event(Told.PROGRESS, done=60, total=100, unit="completions"))
    clock[0] = 25.0  # too soon after the last line
    reporter.update(Event(Told.PROGRESS, done=61, total=100, unit="completions"))
    assert capsys.readouterr().err.splitlines() == ["[1/1] title: size", "    60/100 completions, 1.0/s, 40 s left"]


def test_gc_keeps_a_model_until_the_last_repeat_that_needs_it_is_done(workspace: Workspace) -> None:
    with workspace.lock("train", "t") as partial:
        (partial / "artifact" / "model").mkdir(parents=True)
        (partial / "artifact" / "model" / "weights").write_text("weights")
        workspace.commit("train", "t", Manifest(kind="train", digest="t"))
    path = workspace.record_path("toy", "aaaaaaaaaaaa")
    content = json.loads(path.read_text())
    content["runs"][0]["repeats"][0]["needs"] = ["t"]
    path.write_text(json.dumps(content))
    assert unneeded_weights(workspace) == []
    finish(workspace, "again", [1.0])
    assert [manifest.digest for _, manifest in unneeded_weights(workspace)] == ["t"]


def test_runs_are_named_as_everywhere_by_experiment_condition_or_pattern(workspace: Workspace) -> None:
    for name in ("toy", "toy/base", RUN, "toy/*", "*"):
        assert [row["run"] for row in run_rows(workspace, name)] == [RUN], name
    assert run_rows(workspace, "toy/other") == []


def test_a_list_of_runs_breaks_no_word_on_a_narrow_terminal(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = {}
    for width in (200, 50, 40):
        monkeypatch.setenv("COLUMNS", str(width))
        print_runs(workspace, "*", as_json=False)
        printed[width] = capsys.readouterr().out
        assert max(map(len, printed[width].splitlines())) <= width
    words = set(printed[200].rpartition("─")[2].split())  # without the header
    assert RUN in words and words <= set(printed[50].split()) and words <= set(printed[40].split())
