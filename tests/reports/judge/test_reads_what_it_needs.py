"""What is asked of one experiment reads nothing of the others' stages, however many a workspace holds.

The stages of the other experiment are made such that nobody can read them: whoever looks at one fails.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nsd.reports.judge import values
from nsd.reports.judge.answer import answer
from nsd.reports.judge.cost import costs
from nsd.reports.judge.log import LogEntry, log_entries, newest_entries
from nsd.reports.judge.power import Claimed, Design, Power, power_of
from nsd.reports.judge.runs import Arm, all_runs
from nsd.reports.judge.values import load_values
from nsd.runner.store.index import Store
from nsd.runner.store.workspace import Workspace
from toy_workspace import finish, record

GOOD, BAD = [1.0] * 15 + [0.0] * 5, [1.0] * 3 + [0.0] * 17
UNREADABLE = json.dumps({"settings": {"sampling": {"temperature": "warm"}}, "generation": "none", "inputs": {}})


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """`toy`, the newer of two experiments, and `other`, which asks other questions."""
    workspace = Workspace(tmp_path / "place")
    for experiment, day in (("other", "01"), ("toy", "02")):
        evaluations = {name: f"{experiment}-{name}" for name in ("good", "bad")}
        for name, scores in (("good", GOOD), ("bad", BAD)):
            finish(workspace, f"{experiment}-{name}", scores)
        when = {"recorded_at": f"2025-12-{day}T00:00:00+00:00", "ended_at": f"2026-01-{day}T00:01:00+00:00"}
        record(workspace, experiment, evaluations, claims=[("good", "bad")], **when)
    Store(workspace).rebuild()
    with Store(workspace).write() as connection:
        connection.execute("UPDATE eval_info SET data_hash = 'others' WHERE starts_with(eval_digest, 'other-')")
    return workspace


def _spoil(workspace: Workspace) -> None:
    with Store(workspace).write() as connection:
        connection.execute("UPDATE stages SET manifest = ? WHERE starts_with(digest, 'other-')", [UNREADABLE])


def _power(workspace: Workspace) -> Power:
    claimed = Claimed(
        "good > bad", better="good", worse="bad", design=Design(20, data_hash="d", trained=(False, False))
    )
    with Store(workspace).read() as connection:
        return power_of([claimed], connection=connection, experiment="toy")


def _entry(workspace: Workspace) -> LogEntry:
    (entry,) = log_entries(workspace, "toy")
    return entry


def test_whoever_reads_a_spoiled_stage_fails(workspace: Workspace) -> None:
    _spoil(workspace)
    with Store(workspace).read() as connection:
        with pytest.raises(ValueError, match="warm"):
            all_runs(connection)
        with pytest.raises(AttributeError):
            costs(connection, "other")


def test_the_power_of_a_plan_reads_runs_of_its_experiment_and_on_its_questions(workspace: Workspace) -> None:
    before = _power(workspace)
    _spoil(workspace)
    assert _power(workspace) == before and before.claims[0].spread.source.startswith("earlier runs of bad and good")


def test_runs_of_another_experiment_on_the_same_questions_are_read(workspace: Workspace) -> None:
    with Store(workspace).write() as connection:
        connection.execute("UPDATE eval_info SET data_hash = 'd'")
    design = Design(20, data_hash="d", trained=(False, False))
    with Store(workspace).read() as connection:
        found = power_of([], design=design, connection=connection, experiment="new")
    assert found.overall.spread.source.startswith("other runs on the same questions: ")


def test_an_entry_of_the_log_reads_its_own_stages(workspace: Workspace) -> None:
    before = _entry(workspace)
    _spoil(workspace)
    assert _entry(workspace).to_json() == before.to_json()
    assert [(one.claim, one.holds) for one in before.verdicts] == [("good > bad", True)]


def test_the_newest_entries_read_nothing_of_the_older_ones(workspace: Workspace) -> None:
    _spoil(workspace)
    found = newest_entries(workspace, "*", 1)
    assert [entry.experiment for entry in found.entries] == ["toy"] and found.older == 1


def test_what_an_entry_not_shown_has_spent_is_not_spent_again(workspace: Workspace) -> None:
    record(workspace, "toy", {"good": "other-good", "bad": "toy-bad"}, claims=[("good", "bad")])
    entry = newest_entries(workspace, "*", 1).entries[0]
    assert entry.cost is not None and entry.spent is not None
    assert (entry.cost.stages, entry.spent.stages) == (2, 1)


def test_verdicts_alone_are_those_of_the_whole_answer(workspace: Workspace) -> None:
    late = {"recorded_at": "2026-02-01T00:00:00+00:00", "ended_at": "2026-01-01T00:01:00+00:00"}
    finish(workspace, "toy-third", GOOD[:10] + BAD[:10])
    evaluations = {name: f"toy-{name}" for name in ("good", "bad", "third")}
    record(workspace, "toy", evaluations, version="bbbbbbbbbbbb", claims=[("third", "bad")], **late)
    Store(workspace).rebuild()
    with Store(workspace).read() as connection:
        whole = answer(connection, "toy", "bbbbbbbbbbbb")
        alone = answer(connection, "toy", "bbbbbbbbbbbb", pairs=False, alone=True)
    assert alone.late == whole.late != [] and alone.verdicts == whole.verdicts
    assert whole.exploratory and whole.exploratory_family == alone.exploratory_family
    assert alone.exploratory == alone.notes == []


def test_values_fetched_together_are_those_fetched_one_by_one(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store(workspace).read() as connection:
        arms = [Arm(name, (run,)) for name, run in all_runs(connection)[0].items()]
        together = load_values(connection, arms)
        monkeypatch.setattr(values, "AT_ONCE", 1)
        alone = load_values(connection, arms)
    assert together.row == alone.row and len(alone.row) == 4
    assert together.matrix.tolist() == alone.matrix.tolist() == [BAD, GOOD, BAD, GOOD]
