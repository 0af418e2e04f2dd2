"""Runs that ask a served model: each sample once, dollars in the manifest, limits, kills, secrets."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nsd.reports.judge.cost import costs, total
from nsd.reports.judge.rows import run_rows
from nsd.reports.judge.versions import versions_of
from nsd.runner.plan.build import build_plan
from nsd.runner.plan.model import Plan
from nsd.runner.spec.errors import SpecErrors
from nsd.runner.spec.load import load_spec
from nsd.runner.store import tables
from nsd.runner.store.index import Store
from nsd.runner.store.shapes import Manifest
from nsd.runner.store.workspace import Workspace
from nsd.runner.work.asked import notes_on_served
from nsd.runner.work.execute import Outcome, execute
from nsd.runner.work.ready import make_ready
from served import Asked, Fault, Hang, Served, Status

pytest.importorskip("httpx2")

SPEC = """\
name: asking
model: builtin:wordmath-1m
data: {use: jsonl, train: train.jsonl, test: test.jsonl, fields: {question: q, answer: a}, split: {labeled: 1}}
prompt: {template: "{question}"}
verifier: numeric
engine: {use: openai, base_url: URL, model: toy, concurrency: 2, retries: 4, api_key_env: TOY_KEY,
  prices: {prompt: 10.0, completion: 20.0}, max_dollars: DOLLARS}
eval: {use: avg_at_k, k: 4, temperature: 1.0, max_tokens: 8}
conditions: {base: {train_on: []}, again: {train_on: [], eval: {k: 2, temperature: 0.5}}}
"""
QUESTIONS = [f"what is {number} and {number} ?" for number in range(6)]
EACH = (6 * 10 + 3 * 20) / 1e6  # "what is 3 and 3 ?" has six words, its answer "it is 6" three


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")
    monkeypatch.setenv("TOY_KEY", "sk-secret-1234")
    with Served(lambda prompt, seed: f"it is {2 * int(prompt.split()[2])}") as found:
        yield found


class Toy:
    def __init__(self, folder: Path, served: Served) -> None:
        self.folder, self.served, self.workspace = folder, served, Workspace(folder / "w")
        (folder / "train.jsonl").write_text(json.dumps({"q": "train?", "a": "1"}))
        rows = [json.dumps({"q": text, "a": str(2 * number)}) for number, text in enumerate(QUESTIONS)]
        (folder / "test.jsonl").write_text("\n".join(rows))

    def plan(self, dollars: float = 1.0, only: tuple[str, ...] = ()) -> Plan:
        text = SPEC.replace("URL", self.served.base_url).replace("DOLLARS", str(dollars))
        (self.folder / "toy.yaml").write_text(text)
        return build_plan(load_spec(self.folder / "toy.yaml"), only=only)

    def run(self, dollars: float = 1.0, only: tuple[str, ...] = ()) -> Outcome:
        return execute(self.plan(dollars, only), self.workspace)

    def manifests(self) -> list[Manifest]:
        return list(self.workspace.manifests("sample"))

    def drawn(self) -> Counter[int]:
        """How many finished completions each sample stage has."""
        return Counter(len(tables.read_completions(one.folder / "samples.parquet")) for one in self.manifests())


@pytest.fixture
def toy(tmp_path: Path, served: Served) -> Toy:
    return Toy(tmp_path, served)


def usd(manifest: Manifest) -> float:
    assert manifest.cost is not None and manifest.cost.usd is not None
    return manifest.cost.usd


@pytest.mark.slow
def test_a_run_asks_each_sample_once_and_records_what_it_cost(toy: Toy) -> None:
    assert toy.run().exit_code == 0
    places = Counter(asked.place for asked in toy.served.asked)
    assert (len(places), set(places.values())) == (6 * 4 + 6 * 2, {1})
    assert toy.drawn() == Counter({24: 1, 12: 1})
    assert sorted(usd(one) for one in toy.manifests()) == pytest.approx([12 * EACH, 24 * EACH])
    with Store(toy.workspace).read() as connection:
        assert total(costs(connection, "asking")).dollars == pytest.approx(36 * EACH)
    assert {row["condition"]: row["usd"] for row in run_rows(toy.workspace)} == {
        "base": pytest.approx(24 * EACH),
        "again": pytest.approx(12 * EACH),
    }
    assert {row["mean"] for row in run_rows(toy.workspace)} == {1.0}
    for manifest in toy.manifests():
        told = manifest.served
        assert told is not None
        assert (told.answered_by, told.reproducible, told.retries, told.unknown) == (["toy"], False, 0, 0)


@pytest.mark.slow
def test_the_key_stands_in_no_file_of_the_workspace(toy: Toy) -> None:
    toy.served.faults = lambda number, asked: Status(401, {}, {"error": {"message": "bad key sk-secret-1234"}})
    outcome = toy.run()
    assert outcome.exit_code == 1
    assert "refuses (401: bad key ***)" in outcome.failures[0].reason
    toy.served.faults = lambda number, asked: None
    assert toy.run().exit_code == 0
    files = [path for path in toy.folder.rglob("*") if path.is_file()]
    assert any(path.name == "manifest.json" for path in files)
    assert [path for path in files if b"sk-secret" in path.read_bytes()] == []


def test_a_missing_key_is_said_before_anything_runs(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOY_KEY")
    plan = toy.plan()
    with pytest.raises(ValueError, match="environment variable TOY_KEY"):
        make_ready(plan, plan.pending(toy.workspace))


@pytest.mark.slow
def test_the_limit_is_for_all_stages_of_the_spec_and_more_money_continues(toy: Toy) -> None:
    # 24 samples cost .00288 and the 12 of the other stage .00144; the dearest possible answer has 8 tokens.
    limit = 30 * EACH
    outcome = toy.run(dollars=limit)
    assert outcome.exit_code == 75
    assert outcome.stopped_by is not None and "raise max_dollars" in outcome.stopped_by
    paid = len(toy.served.asked)
    assert 24 < paid <= 30
    assert toy.run(dollars=limit).exit_code == 75
    assert len(toy.served.asked) == paid  # nothing more fits
    assert toy.run(dollars=1.0).exit_code == 0
    assert set(Counter(asked.place for asked in toy.served.asked).values()) == {1}
    assert sum(usd(one) for one in toy.manifests()) == pytest.approx(36 * EACH)


@pytest.mark.slow
def test_a_stopped_stage_of_another_k_gives_its_samples_and_its_dollars_count(toy: Toy) -> None:
    limit = 15 * EACH
    assert toy.run(dollars=limit, only=("base",)).exit_code == 75
    paid = len(toy.served.asked)
    assert 0 < paid <= 15

    def edited(dollars: float) -> Plan:
        toy.plan(dollars)
        path = toy.folder / "toy.yaml"
        path.write_text(path.read_text().replace("k: 4", "k: 6"))
        return build_plan(load_spec(path), only=("base",))

    outcome = execute(edited(limit), toy.workspace)
    assert outcome.exit_code == 75 and len(toy.served.asked) == paid  # nothing more fits
    assert execute(edited(1.0), toy.workspace).exit_code == 0
    asked = Counter(asked.place for asked in toy.served.asked)
    assert (len(asked), set(asked.values())) == (36, {1})
    with Store(toy.workspace).read() as connection:
        assert len({one.rest for one in versions_of(connection, "asking")}) == 2  # K 4 and 6, and no limit


@pytest.mark.slow
def test_more_samples_of_the_same_model_are_drawn_beside_those_that_are_there(toy: Toy) -> None:
    toy.run(only=("base",))
    before = len(toy.served.asked)
    text = (toy.folder / "toy.yaml").read_text().replace("k: 4", "k: 6")
    (toy.folder / "toy.yaml").write_text(text)
    assert execute(build_plan(load_spec(toy.folder / "toy.yaml"), only=("base",)), toy.workspace).exit_code == 0
    assert len(toy.served.asked) - before == 12
    assert set(Counter(asked.place for asked in toy.served.asked).values()) == {1}


def test_the_plan_says_what_the_stages_to_run_may_cost(toy: Toy) -> None:
    plan = toy.plan()
    # 17 characters are 8 tokens with what a template adds: 36 x 8 at $10 and as many at $20 a million.
    assert notes_on_served(plan, plan.pending(toy.workspace)) == [
        "toy (engine openai): 36 requests, about 288 prompt tokens and at most 288 generated ones: at most about "
        "$0.01; max_dollars stops it at $1.00"
    ]
    assert notes_on_served(plan, []) == []


def wait_for(state: Callable[[], Any]) -> None:
    until = time.monotonic() + 120
    while not state():
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.slow
def test_a_kill_loses_what_is_in_flight_and_no_money(toy: Toy) -> None:
    toy.plan(only=("base",))
    command = [sys.executable, "-P", "-m", "nsd.runner.cli", "run", "toy.yaml", "--only", "base"]
    environment = {**os.environ, "NSD_WORKSPACE": str(toy.workspace.root)}

    def hang(number: int, asked: Asked) -> Fault | None:
        return Hang() if number >= 10 else None

    toy.served.faults = hang
    process = subprocess.Popen(command, cwd=toy.folder, env=environment, start_new_session=True)
    try:
        wait_for(lambda: len(toy.served.asked) >= 11 and list(toy.folder.rglob("shards/*.parquet")))
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    toy.served.faults = lambda number, asked: None
    assert toy.run(only=("base",)).exit_code == 0
    asked = Counter(asked.place for asked in toy.served.asked)
    assert len(asked) == 24
    assert sum(asked.values()) == 24 + 2  # the two in flight alone were asked again
    (manifest,) = toy.manifests()
    assert usd(manifest) == pytest.approx(24 * EACH)


@pytest.mark.parametrize(
    ("conditions", "said"),
    [
        ("{base: {train_on: [labeled]}}", "trains, but its engine 'openai' loads no weights"),
        ("{base: {train_on: [], eval: {use: pass_at_k, temperature: 0}}}", "they are all the same"),
    ],
)
def test_what_a_served_model_cannot_do_is_an_error_of_the_spec(toy: Toy, conditions: str, said: str) -> None:
    toy.plan()
    path = toy.folder / "toy.yaml"
    text = path.read_text().partition("conditions:")[0]
    path.write_text(f"{text}trainer: sft\nconditions: {conditions}\n")
    with pytest.raises(SpecErrors, match=said):
        load_spec(path)
