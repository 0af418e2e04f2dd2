"""A spec whose completions are programs: run in a sandbox, which its stages name, with the share of tests beside."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nsd.plugins import sandbox
from nsd.plugins.api import Score
from nsd.plugins.errors import InputError
from nsd.plugins.sandbox import choice
from nsd.runner.cli.app import app
from nsd.runner.plan.build import build_plan
from nsd.runner.spec.load import load_spec
from nsd.runner.store import tables
from nsd.runner.store.workspace import Workspace
from nsd.runner.work.stages import sandbox_facts

PLUGINS = """
from nsd import Completion, Dataset, Engine, Pools, Question, StopReason

PROGRAMS = ("print(int(input()) + 1)", "print(2)", "print(")


class Successors(Dataset):
    def pools(self):
        tests = [{"kind": "stdin", "input": str(n), "output": str(n + 1), "public": n == 1} for n in range(4)]
        made = [Question(f"q{n}", f"Add one, {n}.", meta={"tests": tests}) for n in range(6)]
        return Pools(train=made[:3], test=made[3:])


class Programmer(Engine):
    needs_model = False

    def generate(self, model, requests, sampling, seed, done=frozenset()):
        for place, one in enumerate(requests):
            text = f"```python\\n{PROGRAMS[place % 3]}\\n```"
            yield [Completion(one.question_id, 0, text, 4, StopReason.STOP)]
"""
SPEC = """\
name: programs
model: builtin:wordmath-1m
data: {use: ./mine.py:Successors}
engine: ./mine.py:Programmer
verifier: {use: code, seconds: 5}
conditions: {base: {train_on: []}}
"""


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(PLUGINS)
    path = tmp_path / "programs.yaml"
    path.write_text(SPEC)
    return path


def nsd(*arguments: object) -> str:
    done = CliRunner().invoke(app, [str(one) for one in arguments])
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.slow
def test_a_run_says_in_what_its_programs_ran_and_keeps_the_share_apart(spec: Path, tmp_path: Path) -> None:
    where = tmp_path / "w"
    nsd("run", spec, "-w", where)
    (manifest,) = Workspace(where).manifests("score")
    found = manifest.to_json()
    assert found["sandbox"]["kind"] == sandbox.chosen()
    assert set(found["sandbox"]["guarantees"]) == sandbox.guarantees()
    assert found["eval"]["mean"] == pytest.approx(1 / 3)
    assert found["eval"]["numbers"] == {"share_passed": pytest.approx((1 + 1 / 4 + 0) / 3)}
    rows = tables.read(manifest.folder / "samples.parquet")
    assert [json.loads(row["numbers"])["share_passed"] for row in rows] == [1.0, 0.25, 0.0]
    assert [row["score"] for row in rows] == [1.0, 0.0, 0.0]
    assert "cannot be compiled" in rows[2]["feedback"]

    said = " ".join(nsd("compare", spec, "-w", where).split())
    assert f"programs ran in {sandbox.chosen()}, which held: network, files" in said
    assert "share_passed, which is not the score: base 41.7%" in said
    page = tmp_path / "page.html"
    nsd("report", spec, "-w", where, "--html", page)
    assert f"programs ran in {sandbox.chosen()}" in page.read_text()


def test_a_machine_with_weaker_walls_plans_the_same_digests(spec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def digests() -> set[str]:
        return {stage.digest for stage in build_plan(load_spec(spec, run_files=True)).stages.values()}

    before = digests()
    monkeypatch.setattr(choice, "_found", {"bubblewrap": "none here", "landlock": "none here"})
    assert digests() == before
    spec.write_text(SPEC.replace("seconds: 5", "seconds: 5, sandbox: process"))
    assert digests() == before


def test_a_run_is_refused_before_it_begins_where_there_are_no_walls(
    spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "_found", {"bubblewrap": "none here", "landlock": "none either"})
    done = CliRunner().invoke(app, ["run", str(spec), "-w", str(tmp_path / "w")])
    assert isinstance(done.exception, InputError) and done.exception.exit_code == 2
    assert "none here" in str(done.exception) and "sandbox: process" in str(done.exception)
    assert not list(Workspace(tmp_path / "w").manifests("sample")), "nothing was drawn"


def test_verdicts_keep_their_numbers_on_disk(tmp_path: Path) -> None:
    scores = {("q", 0): Score(0.0, False, "x", "no", {"share_passed": 0.5}), ("q", 1): Score(1.0, True, None)}
    tables.write_scores(tmp_path / "s.parquet", scores)
    assert tables.read_scores(tmp_path / "s.parquet") == scores


def test_what_two_verifiers_guarantee_together_is_what_both_do(monkeypatch: pytest.MonkeyPatch) -> None:
    from nsd.plugins.data import Sandboxed
    from nsd.plugins.verifiers.code import Code
    from nsd.plugins.verifiers.numeric import Numeric

    strong, weak = Code(), Code(Code.Config(sandbox="process"))
    held = {"auto": Sandboxed("bubblewrap", ("network", "time")), "process": Sandboxed("process", ("time",))}
    monkeypatch.setattr(Code, "sandboxed", lambda self: held[self.config.sandbox])
    assert sandbox_facts(Numeric()) == {}
    assert sandbox_facts(strong, weak, Numeric()) == {
        "sandbox": {"kind": "bubblewrap, process", "guarantees": ["time"]}
    }
