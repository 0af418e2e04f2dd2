"""What the log keeps of its verdicts: the same words as judged anew, and anew where anything behind them changed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from nsd.reports.judge import log_results
from nsd.reports.judge.log import Log, newest_entries
from nsd.reports.judge.log_results import LogClaim, keep_results
from nsd.runner.cli.app import app
from nsd.runner.spec.model import Claim
from nsd.runner.store.index import Store
from nsd.runner.store.looks import read_looks, record_looks
from nsd.runner.store.shapes import Look, Sides
from nsd.runner.store.workspace import Workspace
from toy_workspace import finish, record

GOOD, BAD = [1.0] * 15 + [0.0] * 5, [1.0] * 3 + [0.0] * 17
EARLY = {"recorded_at": "2025-12-31T00:00:00+00:00"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`good` beats `bad`, as was claimed; `same` is as good, as was claimed late. All of it is kept."""
    workspace = Workspace(tmp_path_factory.mktemp("judged") / "place")
    record(workspace, "toy", {}, claims=[("good", "bad")], **EARLY)
    for name, values in (("good", GOOD), ("bad", BAD), ("same", GOOD)):
        finish(workspace, f"eval-{name}", values)
    _record(workspace)
    _keep(workspace)
    return workspace.root


@pytest.fixture
def workspace(made: Path, tmp_path: Path) -> Workspace:
    """A copy of it."""
    return Workspace(shutil.copytree(made, tmp_path / "place"))


def _record(workspace: Workspace, **more: Any) -> None:
    evaluations = {name: f"eval-{name}" for name in ("bad", "good", "same")}
    record(workspace, "toy", evaluations, **{"claims": [("good", "bad"), ("same", "bad")], **EARLY, **more})
    Store(workspace).rebuild()


def _log(workspace: Workspace) -> Log:
    return newest_entries(workspace, "*", None)


def _keep(workspace: Workspace) -> None:
    found = _log(workspace)
    keep_results(workspace, found.judged, found.causes)


def _said(log: Log) -> list[dict[str, Any]]:
    return [entry.to_json() for entry in log.entries]


def test_what_is_kept_says_what_judging_says(workspace: Workspace) -> None:
    kept = _log(workspace)
    workspace.results.unlink()
    anew = _log(workspace)
    assert kept.judged == {} and list(anew.judged) == [("toy", "aaaaaaaaaaaa")]
    assert _said(kept) == _said(anew) and len(kept.entries[0].arms) == 3
    claims = [(one.claim, one.holds, one.line()) for one in kept.entries[0].verdicts]
    assert claims == [(one.claim, one.holds, one.line()) for one in anew.entries[0].verdicts]
    assert [one[:2] for one in claims] == [("good > bad", True), ("same > bad", True)]


def _other_claim(workspace: Workspace) -> None:
    _record(workspace, claims=[("good", "bad")])


def _other_version(workspace: Workspace) -> None:
    record(workspace, "toy", {}, version="bbbbbbbbbbbb", claims=[("bad", "same")], **EARLY)
    Store(workspace).rebuild()


def _another_evaluation(workspace: Workspace) -> None:
    finish(workspace, "eval-new", BAD)
    evaluations = {"bad": "eval-bad", "good": "eval-new", "same": "eval-same"}
    record(workspace, "toy", evaluations, claims=[("good", "bad"), ("same", "bad")], **EARLY)
    Store(workspace).rebuild()


def _one_more_repeat(workspace: Workspace) -> None:
    finish(workspace, "eval-again", BAD)
    _record(workspace, repeats={"good": ["eval-again"]})


def _another_end(workspace: Workspace) -> None:
    with Store(workspace).write() as connection:
        connection.execute("UPDATE stages SET ended_at = ended_at - INTERVAL 2 DAYS WHERE digest = 'eval-good'")


def _another_measurement(workspace: Workspace) -> None:
    with Store(workspace).write() as connection:
        connection.execute("UPDATE eval_info SET verifier_hash = 'w' WHERE eval_digest = 'eval-good'")


def _a_look(workspace: Workspace) -> None:
    evidence = Sides(a=["eval-bad"], b=["eval-less"])
    look = Look(experiment="toy", a="toy/bad", b="toy/good", metric="accuracy", evidence=evidence, n=10)
    record_looks(workspace, "compare", [look])


@pytest.mark.parametrize(
    "change",
    [
        _other_claim,
        _other_version,
        _another_evaluation,
        _one_more_repeat,
        _another_end,
        _another_measurement,
        _a_look,
    ],
)
def test_a_change_behind_a_verdict_asks_for_another(workspace: Workspace, change: Callable[[Workspace], None]) -> None:
    change(workspace)
    found = _log(workspace)
    assert ("toy", "aaaaaaaaaaaa") in found.judged
    workspace.results.unlink()
    assert _said(found) == _said(_log(workspace))


def test_another_program_judges_anew(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "room").symlink_to(tmp_path / "room")  # as a checkout has its rooms
    (tmp_path / "room").mkdir()
    (tmp_path / "room" / "judging.py").write_text("")
    monkeypatch.setattr(log_results, "_PACKAGE", tmp_path / "package")
    log_results._program.cache_clear()
    try:
        _keep(workspace)
        assert _log(workspace).judged == {}
        os.utime(tmp_path / "room" / "judging.py", (1, 1))
        log_results._program.cache_clear()
        assert _log(workspace).judged
    finally:
        log_results._program.cache_clear()


def test_the_program_is_all_of_nsd() -> None:
    found = {name for name, *_ in (one for one in log_results._program() if isinstance(one, list))}
    assert {"reports/judge/answer.py", "reports/stats/limits.py", "plugins/api.py", "runner/store/index.py"} <= found


def test_another_experiment_changes_nothing(workspace: Workspace) -> None:
    finish(workspace, "eval-other", GOOD)
    record(workspace, "other", {"a": "eval-other"})
    Store(workspace).rebuild()
    assert list(_log(workspace).judged) == [("other", "aaaaaaaaaaaa")]


def test_what_no_longer_holds_goes_when_more_is_kept(workspace: Workspace) -> None:
    kept = json.loads(workspace.results.read_text())
    workspace.results.write_text(json.dumps(kept | {"toy gone": {"causes": "then"}, "other x": {"causes": "now"}}))
    _a_look(workspace)
    _keep(workspace)
    assert set(json.loads(workspace.results.read_text())) == {"toy aaaaaaaaaaaa", "other x"}


def test_what_the_command_shows_it_keeps_after_its_own_look(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "place")
    for name, values in (("good", GOOD), ("bad", BAD)):
        finish(workspace, f"eval-{name}", values)
    record(workspace, "toy", {"good": "eval-good", "bad": "eval-bad"}, claims=[("good", "bad")])
    shown = [CliRunner().invoke(app, ["log", "--workspace", str(workspace.root)]) for _ in range(2)]
    assert shown[0].exit_code == 0 and shown[0].output == shown[1].output and "good > bad" in shown[0].output
    assert _log(workspace).judged == {}


def test_who_reads_the_first_lines_alone_has_looked(workspace: Workspace) -> None:
    workspace.results.unlink()
    command = [sys.executable, "-m", "nsd.runner.cli", "log", "--workspace", str(workspace.root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        process.stdout.close()  # as `head` does, only sooner
        process.wait(60)
    assert len(read_looks(workspace)) == 2


def test_what_cannot_be_judged_is_not_kept(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "place")
    record(workspace, "toy", {"good": "eval-none"}, claims=[("good", "bad")])
    finish(workspace, "eval-other", GOOD)
    _keep(workspace)
    with Store(workspace).write() as connection:
        connection.execute("DELETE FROM experiments")
        connection.execute("DELETE FROM runs")
    found = _log(workspace)
    assert found.entries[0].remarks and found.judged == {}


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"toy aaaaaaaaaaaa": 3}', '{"toy aaaaaaaaaaaa": {"causes": "0", "said": {}}}', "[" * 200_000],
    ids=["empty", "cut", "list", "number", "other causes", "deep"],
)
def test_a_file_that_says_something_else_is_no_file(workspace: Workspace, text: str) -> None:
    workspace.results.write_text(text)
    found = _log(workspace)
    assert found.judged
    keep_results(workspace, found.judged, found.causes)
    assert _log(workspace).judged == {} and json.loads(workspace.results.read_text())


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("arms", 0, "colour"), "red"),
        (("arms", 0, "mean"), "much"),
        (("arms", 0, "condition"), None),
        (("arms",), ""),
        (("verdicts", 0, "holds"), "no"),
        (("verdicts", 0, "p_adjusted"), "small"),
        (("verdicts", 0, "n"), {}),
    ],
)
def test_a_result_of_another_form_is_judged_anew(
    workspace: Workspace, place: tuple[str | int, ...], value: object
) -> None:
    kept = json.loads(workspace.results.read_text())
    held = kept["toy aaaaaaaaaaaa"]["said"]
    for name in place[:-1]:
        held = held[name]
    held[place[-1]] = value
    workspace.results.write_text(json.dumps(kept))
    assert _log(workspace).judged


def test_a_pipe_in_the_place_of_the_file_is_not_waited_for(workspace: Workspace) -> None:
    workspace.results.unlink()
    os.mkfifo(workspace.results)
    _keep(workspace)
    assert workspace.results.is_file() and _log(workspace).judged == {}


def test_a_look_recorded_by_the_log_itself_asks_for_another_verdict(tmp_path: Path) -> None:
    """A killed run of one seed, then two seeds: a log looks at both, and its look at the first marks the second."""
    workspace = Workspace(tmp_path / "place")
    for name, values in (("good", GOOD), ("bad", BAD), ("good2", GOOD), ("bad2", BAD)):
        finish(workspace, f"eval-{name}", values)
    first, second = ({name: f"eval-{name}{more}" for name in ("good", "bad")} for more in ("", 2))
    for version, evaluations in (("aaaaaaaaaaaa", second), ("bbbbbbbbbbbb", first)):
        record(workspace, "toy", evaluations, version=version, claims=[("good", "bad")], **EARLY)
    one, two = (json.loads(workspace.record_path("toy", name * 12).read_text()) for name in "ab")
    again = [{**run, "run": run["run"].replace("seed1", "seed2"), "seed": 2} for run in one["runs"]]
    both = {"claims": [("good", "bad")], "runs": [*two["runs"], *again], **EARLY}
    record(workspace, "toy", first, version="aaaaaaaaaaaa", claims=[("good", "bad")], **EARLY)
    record(workspace, "toy", first, version="bbbbbbbbbbbb", **both)
    Store(workspace).rebuild()
    command = ["log", "--workspace", str(workspace.root)]
    shown = [CliRunner().invoke(app, command).output for _ in range(3)]
    workspace.results.unlink()
    assert shown[1:] == [CliRunner().invoke(app, command).output] * 2
    assert "look 2 at growing data" in " ".join(shown[2].split())


def test_what_changes_between_judging_and_keeping_is_not_vouched_for(workspace: Workspace) -> None:
    workspace.results.unlink()
    found = _log(workspace)
    _other_claim(workspace)
    keep_results(workspace, found.judged, found.causes)
    assert ("toy", "aaaaaaaaaaaa") in _log(workspace).judged


def test_nothing_is_kept_where_any_version_claims_something_of_groups(workspace: Workspace) -> None:
    """Even a dropped claim about groups takes part in the family, and is judged from the questions' file."""
    claim = Claim("good against bad differs by level", "interaction", "good", "bad", by="level")
    claims = {"alpha": 0.05, "correction": "holm", "claims": [claim.to_json()]}
    record(workspace, "toy", {}, version="bbbbbbbbbbbb", hypotheses=claims, **EARLY)
    Store(workspace).rebuild()
    found = _log(workspace)
    assert found.judged == {} and sum(len(entry.verdicts) for entry in found.entries) == 3


@pytest.mark.parametrize(
    ("claim", "line"),
    [
        (LogClaim("a > b", "UNRESOLVED", None, "", ""), "UNRESOLVED: a > b"),
        (LogClaim("a > b", "UNRESOLVED", None, "", "b has no result yet"), "UNRESOLVED: a > b (b has no result yet)"),
        (LogClaim("a > b", "UNRESOLVED", None, "LATE", ""), "UNRESOLVED: a > b [LATE]"),
        (
            LogClaim("a > b", "BETTER", True, "LATE", "by hand", "accuracy", 0.125, 0.03, 40),
            "holds: a > b (+12.5 points, adjusted p = 0.030, n = 40) [LATE]",
        ),
        (
            LogClaim("a > b", "WORSE", False, "", "", "tokens", -3.0, 0.03, 40),
            "REFUTED: a > b (-3.0 tokens, adjusted p = 0.030, n = 40)",
        ),
    ],
)
def test_a_line_of_a_verdict_has_its_numbers_or_why_there_are_none(claim: LogClaim, line: str) -> None:
    assert claim.line() == line
