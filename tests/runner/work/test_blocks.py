"""A stage of many questions, block by block: what one block gives, and the memory of a block."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nsd.plugins import large
from nsd.plugins.api import Completion, Question, StopReason
from nsd.plugins.errors import Interrupted, StageFailed
from nsd.plugins.large import keys_of
from nsd.runner.plan.build import build_plan
from nsd.runner.plan.model import Plan, Stage
from nsd.runner.spec.load import load_spec
from nsd.runner.store import stored, tables
from nsd.runner.store.workspace import Workspace
from nsd.runner.work import blocks
from nsd.runner.work.blocks import Finding, Taking, Texts
from nsd.runner.work.context import Context
from nsd.runner.work.drawing import Shards
from nsd.runner.work.events import Event
from nsd.runner.work.jobs import job_of, write_data
from nsd.runner.work.stages import run_stage
from stage_here import do

K = 3
SPEC = """\
name: many
model: builtin:wordmath-1m
data: {{use: jsonl, train: train.jsonl, test: train.jsonl, unlabeled: unlabeled.jsonl,
  split: {{labeled: 0, unlabeled: {count}, test: 1}}}}
engine: {{use: replay, path: recorded.jsonl}}
labeler: {{use: consensus, k: {k}}}
trainer: sft
seeds: [1]
conditions:
  recorded: {{train_on: []}}
  student: {{engine: hf, train_on: [pseudo], label_with: recorded}}
"""


def plan_of(folder: Path, count: int, size: int = 0, k: int = K) -> Plan:
    def text(number: int) -> str:
        return f"How much is {number}?" + "x" * size

    def lines(name: str, rows: Iterator[dict[str, Any]]) -> None:
        with (folder / name).open("w") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)

    lines("train.jsonl", iter([{"question": "train", "answer": "1"}]))
    lines("unlabeled.jsonl", ({"question": text(number)} for number in range(count)))
    said = ([f"#### {number % (2 + sample)}" + "y" * size for sample in range(2 * K)] for number in range(count))
    lines("recorded.jsonl", ({"question": text(n), "completion": texts} for n, texts in enumerate(said)))
    (folder / "spec.yaml").write_text(SPEC.format(count=count, k=k))
    return build_plan(load_spec(folder / "spec.yaml"))


def stage_of(plan: Plan, kind: str) -> Stage:
    return next(one for one in plan.stages.values() if one.kind == kind and one.used_by == ["student/seed1"])


def run(plan: Plan, kind: str, workspace: Workspace, shards: int | None = None) -> dict[str, Any]:
    """Do a stage in this process; `shards`: it is stopped after so many."""
    left = iter(range(10**9 if shards is None else shards - 1))
    return dict(do(plan, stage_of(plan, kind), workspace, lambda: next(left, None) is None))


def rows_of(plan: Plan, kind: str, workspace: Workspace) -> list[dict[str, Any]]:
    name = {"sample": "samples.parquet", "label": "labels.parquet"}[kind]
    return tables.read(workspace.folder(kind, stage_of(plan, kind).digest) / name)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of ten questions, and nothing that holds more than some."""
    for module in (large, stored, blocks):
        monkeypatch.setattr(module, "HELD", 10)
    monkeypatch.setattr(blocks, "LEAST", 10)
    monkeypatch.setattr(blocks, "ROWS", 10)
    monkeypatch.setattr(tables, "GROUP", 16)
    monkeypatch.setattr(tables, "BATCH", 8)


def whole(tmp_path: Path, count: int) -> tuple[Plan, Workspace]:
    """Sampled and labelled in one block."""
    plan, workspace = plan_of(tmp_path, count), Workspace(tmp_path / "whole")
    for kind in ("sample", "label"):
        run(plan, kind, workspace)
    return plan, workspace


@pytest.mark.parametrize("count", [9, 10, 11, 37])
def test_blocks_give_what_one_block_gives(tmp_path: Path, count: int, request: pytest.FixtureRequest) -> None:
    plan, reference = whole(tmp_path, count)
    request.getfixturevalue("small")
    again, here = plan_of(tmp_path, count), Workspace(tmp_path / "blocks")
    assert list(again.stages) == list(plan.stages), "how many are held is in no digest"
    for kind in ("sample", "label"):
        facts = run(again, kind, here)
        assert rows_of(again, kind, here) == rows_of(plan, kind, reference)
        held = reference.manifest(kind, stage_of(plan, kind).digest).to_json()
        assert {name: held[name] for name in facts} == json.loads(json.dumps(facts))


def test_a_stopped_stage_goes_on_with_the_blocks_that_are_left(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    plan, reference = whole(tmp_path, 37)
    request.getfixturevalue("small")
    here = Workspace(tmp_path / "blocks")
    with pytest.raises(Interrupted):
        run(plan, "sample", here, shards=2)
    shards = here.partial("sample", stage_of(plan, "sample").digest) / "shards"
    before = {path.name: path.stat().st_mtime_ns for path in shards.iterdir()}
    assert len(before) == 2
    with pytest.raises(Interrupted):
        run(plan, "sample", here, shards=1)
    assert {path.name: path.stat().st_mtime_ns for path in shards.iterdir()}.items() > before.items()
    assert sum(tables.count(path) for path in shards.iterdir()) == 3 * 10 * K, "nothing twice"
    run(plan, "sample", here)
    assert rows_of(plan, "sample", here) == rows_of(plan, "sample", reference)


def test_samples_of_another_stage_are_taken_block_by_block(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    request.getfixturevalue("small")
    here = Workspace(tmp_path / "ws")
    run(plan_of(tmp_path, 37), "sample", here)
    more = plan_of(tmp_path, 37, k=K + 2)
    facts = run(more, "sample", here)
    assert sum(facts["shared"].values()) == 37 * K and facts["generation"]["completions"] == 37 * 2
    assert [(row["sample"]) for row in rows_of(more, "sample", here)] == [*range(K + 2)] * 37


def test_of_another_stage_only_the_same_texts_are_taken_once() -> None:
    mine = [Question("a", "A"), Question("b", "B"), Question("c", "C")]
    theirs = [Question("b", "other"), Question("a", "A"), Question("d", "D")]
    drawn = [Completion(one.id, sample, "", 1, StopReason.STOP) for one in theirs for sample in range(3)]
    failed = replace(drawn[3], stop_reason=StopReason.ERROR)
    taking = Taking(mine, 2)
    first = [one for part in taking.of([failed, *drawn[4:]], Texts(theirs)) for one in part]
    assert [(one.question_id, one.sample) for one in first] == [("a", 1)]
    second = [one for part in taking.of(drawn, None) for one in part]
    assert [(one.question_id, one.sample) for one in second] == [("b", 0), ("b", 1), ("a", 0)]


def test_questions_are_found_by_their_keys() -> None:
    questions = [Question(name, name) for name in "cab"]
    keys = keys_of([Question(name, name) for name in "abxc"])
    assert Finding(keys_of(questions)).places(keys).tolist() == [1, 2, -1, 0]
    assert Finding(np.array([], np.uint64)).places(keys).tolist() == [-1] * 4


def test_samples_out_of_order_are_not_voted_on_in_parts(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    request.getfixturevalue("small")
    plan, here = plan_of(tmp_path, 37), Workspace(tmp_path / "ws")
    run(plan, "sample", here)
    path = here.folder("sample", stage_of(plan, "sample").digest) / "samples.parquet"
    rows = tables.read(path)
    tables.write(path, tables.COMPLETIONS, rows[60:] + rows[:60])
    with pytest.raises(StageFailed, match="not in the order"):
        run(plan, "label", here)


def test_labels_are_told_with_each_block_of_so_many_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    request.getfixturevalue("small")
    monkeypatch.setattr(blocks, "LEAST", 1)
    monkeypatch.setattr(blocks, "ROWS", 4 * K)
    plan, here = plan_of(tmp_path, 9), Workspace(tmp_path / "ws")
    run(plan, "sample", here)
    told: list[Event] = []
    stage = stage_of(plan, "label")
    with here.lock("label", stage.digest) as partial:
        run_stage(job_of(plan, stage, here), Context(here, partial, told.append, lambda: False))
    assert [(one.done, one.total, one.unit) for one in told] == [(4, 9, "labels"), (8, 9, "labels"), (9, 9, "labels")]


@pytest.mark.slow
def test_a_stage_holds_a_block(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Twice the questions take some numbers more each, where a question and its samples take over 4,000 bytes."""
    request.getfixturevalue("small")

    def peak(count: int) -> int:
        folder = tmp_path / str(count)
        folder.mkdir()
        plan, workspace = plan_of(folder, count, size=1000), Workspace(folder / "ws")
        write_data(plan, workspace)
        tracemalloc.start()
        try:
            for kind in ("sample", "label"):
                run(plan, kind, workspace)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(20)  # what is imported and kept once
    assert peak(800) - peak(400) < 400 * 1000


def test_what_was_drawn_is_told_with_each_file_and_numbers_go_on(tmp_path: Path) -> None:
    def some(*samples: int) -> list[Completion]:
        return [Completion("q", sample, "text", 4, StopReason.STOP) for sample in samples]

    told: list[tuple[int, int]] = []
    context = Context(Workspace(tmp_path / "w"), tmp_path, lambda event: None, lambda: False)
    for turn in (0, 1):
        shards = Shards(context, lambda who, drawn, rate: told.append((who, drawn)))
        shards.add(some(3 * turn, 3 * turn + 1))
        shards.add(some(3 * turn + 2))
    assert told == [(0, 2), (0, 3)] * 2
    assert sorted(path.name for path in (tmp_path / "shards").iterdir()) == [f"{n:06d}.parquet" for n in range(4)]
