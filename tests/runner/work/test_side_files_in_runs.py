"""Side files in a run: copied once, read by workers alone, the very content that the digest was made of."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

import nsd
from nsd.plugins.api import Question, SideFile
from nsd.plugins.errors import InputError
from nsd.plugins.side_files import BrokenSideFile
from nsd.runner.cli.app import app
from nsd.runner.cli.compare import read_groups
from nsd.runner.cli.run import run_plan
from nsd.runner.plan.build import build_plan
from nsd.runner.plan.jobs import SourceJob
from nsd.runner.plan.model import Plan
from nsd.runner.spec.load import load_spec
from nsd.runner.store import tables
from nsd.runner.store import workspace as artifacts
from nsd.runner.store.bucket import Bucket
from nsd.runner.store.gc import collect
from nsd.runner.store.index import Store
from nsd.runner.store.shapes import Broken
from nsd.runner.store.workspace import Workspace
from nsd.runner.work.execute import Outcome, execute
from nsd.runner.work.jobs import write_data, write_side_files
from nsd.runner.work.stages import Context, examples_of, run_label
from nsd.runner.work.sync import Sync
from support import REPOSITORY
from toy_jobs import to_label, to_train

# A third party's file: it knows of nothing but `import nsd`.
MINE = '''
from pathlib import Path
from typing import Annotated

from nsd import (
    Completion, Dataset, DatasetConfig, Engine, Pools, Question, Score, SideFile, SpecPath, StopReason, Verifier,
    question_id,
)

HERE = Path(__file__).parent


class Tested(Dataset):
    """A question for each file of a folder, which holds its tests."""

    class Config(DatasetConfig):
        folder: Annotated[str, SpecPath()]

    def pools(self):
        def question(path):
            text = f"{path.stem}?"
            return Question(question_id(text), text, answer="any", meta={"tests": SideFile.of(path)})

        train, *test = [question(path) for path in sorted(Path(self.config.folder).glob("*.json"))]
        return Pools(train=[train], test=test)


class Passes(Verifier):
    """A completion is right where it is among those that the tests accept. It raises on nothing, as it must."""

    votes = False

    def extract(self, completion):
        return completion

    def score(self, completion, question):
        try:
            tests = question.meta["tests"]
            with (HERE / "read").open("a") as log:
                log.write(f"{tests.path}\\n")
            right = completion in tests.json()["accepted"]
        except Exception:
            right = False
        return Score(float(right), right, completion)


class Voice(Engine):
    needs_model = False

    def generate(self, model, requests, sampling, seed, done=frozenset()):
        with (HERE / "drawn").open("a") as log:
            log.write("drawn\\n")
        for one in requests:
            for sample in range(sampling.n):
                yield [Completion(one.question_id, sample, str(sample), 1, StopReason.STOP)]
'''
SPEC = """\
name: toy
model: builtin:wordmath-1m
data: {use: "./mine.py:Tested", folder: tests}
engine: ./mine.py:Voice
verifier: ./mine.py:Passes
eval: {use: avg_at_k, k: 2}
conditions: {base: {train_on: []}}
"""
OTHER_METRIC = SPEC.replace("avg_at_k", "pass_at_k")
MARK = uuid.uuid4().hex  # in every file of tests, and not in this source, whose changes a record may hold
LONG_AGO = 10**18  # nanoseconds: a file of 2001


class Toy:
    """Four questions with tests, of which the first is to train on; the engine says 0, then 1."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.workspace = folder, Workspace(folder / "w")
        (folder / "mine.py").write_text(MINE)
        for name, accepted in (("a", "x"), ("b", "01"), ("c", "1y"), ("d", "zz")):
            self.tests(name, accepted)

    def tests(self, name: str, accepted: str, mtime: int = LONG_AGO) -> Path:
        path = self.folder / "tests" / f"{name}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"accepted": list(accepted), "mark": MARK}))
        os.utime(path, ns=(mtime, mtime))
        return path

    def plan(self, text: str = SPEC) -> Plan:
        (self.folder / "toy.yaml").write_text(text)
        return build_plan(load_spec(self.folder / "toy.yaml", run_files=True))

    def run(self, text: str = SPEC) -> Outcome:
        return execute(self.plan(text), self.workspace)

    def lines(self, name: str) -> list[str]:
        path = self.folder / name
        return path.read_text().splitlines() if path.exists() else []

    def mean(self, plan: Plan) -> float:
        return float(self.workspace.manifest("score", plan.runs[0].eval_digest).to_json()["eval"]["mean"])

    def kept(self, name: str) -> Path:
        """Where the workspace has the tests of a question."""
        return self.workspace.side_file(
            hashlib.sha256((self.folder / "tests" / f"{name}.json").read_bytes()).hexdigest()
        )


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Toy:
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(artifacts, "_told", set())
    return Toy(tmp_path)


# --------------------------------------------------------------------------- the whole way


@pytest.mark.slow
def test_a_third_partys_dataset_and_verifier_use_them_through_nsd_run(toy: Toy) -> None:
    (toy.folder / "toy.yaml").write_text(SPEC)
    words = ["run", str(toy.folder / "toy.yaml"), "--workspace", str(toy.workspace.root)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    (row,) = nsd.load_results("toy/*", workspace=toy.workspace.root)
    assert row["mean"] == pytest.approx((2 / 2 + 1 / 2 + 0 / 2) / 3)
    assert set(toy.lines("read")) == {str(toy.kept(name)) for name in "bcd"}


@pytest.mark.slow
def test_each_content_lies_in_the_workspace_once_under_its_sha256(toy: Toy) -> None:
    toy.tests("c", "01")  # what b has
    toy.run()
    assert sorted(toy.workspace.data.glob("*.side")) == sorted({toy.kept(name) for name in "bcd"})
    assert toy.kept("b") == toy.kept("c") and toy.kept("b").read_bytes() == (toy.folder / "tests/b.json").read_bytes()


@pytest.mark.slow
def test_no_file_of_questions_and_no_stage_holds_their_content_or_place(toy: Toy) -> None:
    toy.run()
    others = [path for path in toy.workspace.root.rglob("*") if path.is_file() and path.suffix != ".side"]
    read = [str(tables.read(one)) if one.suffix == ".parquet" else one.read_bytes().decode("latin-1") for one in others]
    place = str(toy.folder / "tests" / "b.json")
    assert len(read) > 5 and not [text for text in read if MARK in text or place in text]


def test_read_again_a_question_has_its_side_file_where_the_workspace_keeps_it(toy: Toy) -> None:
    plan = toy.plan()
    write_data(plan, toy.workspace)
    ((content_hash, planned),) = plan.data.items()
    held = tables.read_questions(toy.workspace.data_file(content_hash))
    assert held == planned
    assert {one.text: one.meta["tests"].path for one in held} == {f"{name}?": toy.kept(name) for name in "bcd"}


@pytest.mark.slow
def test_tests_at_another_place_are_the_same_tests(toy: Toy) -> None:
    toy.run()
    (toy.folder / "tests").rename(toy.folder / "moved")
    assert toy.plan(SPEC.replace("folder: tests", "folder: moved")).pending(toy.workspace) == []


@pytest.mark.slow
def test_corrected_tests_draw_nothing_and_are_scored_against(toy: Toy) -> None:
    toy.run()
    toy.tests("d", "00", LONG_AGO + 1)
    plan = toy.plan()
    assert [stage.kind for stage in plan.pending(toy.workspace)] == ["score"]
    execute(plan, toy.workspace)
    assert toy.lines("drawn") == ["drawn"] and toy.mean(plan) == pytest.approx((2 / 2 + 1 / 2 + 1 / 2) / 3)


PLAN = """
import sys
opened = []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
from nsd.runner.cli.app import app
app([*sys.argv[1:]], standalone_mode=False)
print("OPENED", sum(name.endswith((".side", ".json")) and "/tests/" in name for name in opened), file=sys.stderr)
"""


@pytest.mark.slow
@pytest.mark.parametrize("command", ["plan", "validate"])
def test_a_second_plan_opens_no_side_file(toy: Toy, command: str) -> None:
    (toy.folder / "toy.yaml").write_text(SPEC)

    def opened() -> int:
        words = [command, str(toy.folder / "toy.yaml"), "--run-files"]
        words += ["--workspace", str(toy.workspace.root)] if command == "plan" else []
        done = subprocess.run([sys.executable, "-c", PLAN, *words], capture_output=True, text=True, cwd=toy.folder)
        assert done.returncode == 0, done.stderr
        return int(done.stderr.rpartition("OPENED ")[2])

    assert opened() == (4 if command == "plan" else 0)
    assert opened() == 0


def test_a_data_file_that_names_no_file_ends_a_plan_with_exit_code_2(toy: Toy) -> None:
    (toy.folder / "rows.jsonl").write_text(json.dumps({"question": "How many?", "answer": "3", "t": "../x"}))
    data = "{use: jsonl, train: rows.jsonl, fields: {side_files: {tests: t}}, split: {test: 1}}"
    (toy.folder / "toy.yaml").write_text(SPEC.replace('{use: "./mine.py:Tested", folder: tests}', data))
    words = [sys.executable, "-m", "nsd", "plan", str(toy.folder / "toy.yaml"), "--run-files"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=toy.folder)
    assert done.returncode == 2 and "rows.jsonl:1" in done.stderr and "'../x'" in done.stderr


# --------------------------------------------------------------------------- files that change or break


@pytest.mark.slow
def test_a_file_that_changed_since_the_plan_is_named_and_nothing_of_it_is_kept(toy: Toy) -> None:
    plan = toy.plan()
    toy.tests("c", "1yz")
    with pytest.raises(InputError, match=r"tests/c\.json has changed since this run was planned .*run the spec again"):
        execute(plan, toy.workspace)
    held = [path.name for path in toy.workspace.data.iterdir() if "parquet" not in path.name]
    assert all(name.endswith(".side") and not name.startswith(".") for name in held)
    assert toy.kept("c").name not in held
    assert toy.run().exit_code == 0


@pytest.mark.slow
def test_a_change_that_no_time_tells_is_found_by_the_run_and_planned_with_by_the_next(toy: Toy) -> None:
    toy.plan()
    toy.tests("c", "01")  # of the same size and time
    plan = toy.plan()
    with pytest.raises(InputError, match="has changed since this run was planned"):
        execute(plan, toy.workspace)
    again = toy.plan()
    assert execute(again, toy.workspace).exit_code == 0
    assert toy.mean(again) == pytest.approx((2 / 2 + 2 / 2 + 0 / 2) / 3)


@pytest.mark.slow
def test_an_edit_in_place_does_not_reach_what_the_workspace_keeps(toy: Toy) -> None:
    toy.run()
    kept = toy.kept("c")
    content = kept.read_bytes()
    with (toy.folder / "tests" / "c.json").open("r+b") as file:
        file.write(b"X")
    assert kept.read_bytes() == content


@pytest.mark.slow
def test_a_kept_file_of_another_content_fails_the_stage_and_is_written_again_by_the_next_run(toy: Toy) -> None:
    toy.run()
    (toy.folder / "read").unlink()
    kept = toy.kept("c")
    content = kept.read_bytes()
    kept.write_bytes(b"x" * len(content))
    outcome = toy.run(OTHER_METRIC)
    (failure,) = outcome.failures
    assert str(kept) in failure.reason and "content" in failure.reason
    assert toy.lines("read") == [], "no verdict may be given on other tests"
    assert (toy.workspace.root / "set-aside" / f"data-{kept.name}").exists() and not kept.exists()
    plan = toy.plan(OTHER_METRIC)
    assert execute(plan, toy.workspace).exit_code == 0
    assert kept.read_bytes() == content and toy.mean(plan) == pytest.approx(2 / 3)


def torn(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def a_link(path: Path) -> None:
    target = path.with_name("elsewhere")
    path.rename(target)
    path.symlink_to(target)


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.slow
@pytest.mark.parametrize("breaks", [torn, a_link, a_folder, a_pipe])
def test_what_is_no_such_file_is_named_set_aside_and_written_again(
    toy: Toy, breaks: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    toy.run()
    kept = toy.kept("c")
    content = kept.read_bytes()
    breaks(kept)
    assert toy.run(OTHER_METRIC).exit_code == 0
    assert kept.read_bytes() == content and not kept.is_symlink()
    assert f"{kept} is broken" in capsys.readouterr().err
    assert os.path.lexists(toy.workspace.root / "set-aside" / f"data-{kept.name}")


@pytest.mark.slow
def test_a_kept_file_that_is_gone_is_written_again(toy: Toy) -> None:
    toy.run()
    toy.kept("c").unlink()
    assert toy.run(OTHER_METRIC).exit_code == 0 and toy.kept("c").is_file()


@pytest.mark.parametrize(
    "said",
    [
        '{"tests": ["../../x", 3]}',
        '{"tests": ["x", 3]}',
        '{"tests": 7}',
        "[1]",
        "{",
        '{"tests": ["%s", "3"]}' % ("a" * 64),
    ],
)
def test_a_file_of_questions_that_names_no_side_file_is_broken(tmp_path: Path, said: str) -> None:
    row = {"id": "q", "text": "How many?", "meta": "{}", "side_files": said}
    tables.write(tmp_path / "x.parquet", tables.QUESTIONS, [row])
    with pytest.raises(Broken):
        tables.read_questions(tmp_path / "x.parquet")


def test_a_file_of_questions_of_before_is_read(tmp_path: Path) -> None:
    before = {name: kind for name, kind in tables.QUESTIONS.items() if name != "side_files"}
    tables.write(tmp_path / "x.parquet", before, [{"id": "q", "text": "How many?", "meta": '{"level": 3}'}])
    assert tables.read_questions(tmp_path / "x.parquet") == [Question("q", "How many?", meta={"level": 3})]


# --------------------------------------------------------------------------- who needs them


def test_drawing_needs_none(toy: Toy) -> None:
    plan = toy.plan()
    write_side_files(plan, [stage for stage in plan.stages.values() if stage.kind == "sample"], toy.workspace)
    assert not toy.workspace.data.exists()


def test_the_questions_of_a_training_come_with_theirs(toy: Toy) -> None:
    trained = "{train_on: [labeled], trainer: sft}"
    text = SPEC.replace("{train_on: []}", trained).replace("engine: ./mine.py:Voice\n", "")
    plan = toy.plan(text.replace("folder: tests", "folder: tests, split: {labeled: 1}"))
    write_side_files(plan, [stage for stage in plan.stages.values() if stage.kind == "train"], toy.workspace)
    assert list(toy.workspace.data.iterdir()) == [toy.kept("a")]


def test_a_training_and_a_labelling_see_the_right_content_or_fail_before(toy: Toy) -> None:
    toy.workspace.create()
    side = SideFile.of(toy.folder / "tests" / "b.json")
    toy.workspace.keep_side_file(side)
    kept = toy.workspace.side_file(side.sha256)
    tables.write_questions(toy.workspace.data_file("dada"), [Question("q", "b?", "any", meta={"tests": side})])
    context = Context(toy.workspace, toy.folder, lambda event: None, lambda: False)
    train = to_train(SourceJob("labeled", "dada"))
    (example,) = examples_of(train, context)
    assert example.question.meta["tests"].path == kept
    kept.write_bytes(b"x" * side.size)
    for does in (lambda: examples_of(train, context), lambda: run_label(to_label("dada"), None, context)):
        with pytest.raises(BrokenSideFile, match=str(kept)):
            does()


@pytest.mark.slow
def test_questions_are_not_grouped_by_them(toy: Toy) -> None:
    toy.run()
    with Store(toy.workspace).read() as index, pytest.raises(InputError, match="no question has a field 'tests'"):
        read_groups(toy.workspace, index, "tests")


@pytest.mark.slow
def test_gc_leaves_them_where_they_are(toy: Toy) -> None:
    toy.run()
    collect(toy.workspace, yes=True, partial=None)
    assert all(toy.kept(name).is_file() for name in "bcd")


# --------------------------------------------------------------------------- in a store


@pytest.fixture
def synced(toy: Toy) -> Path:
    """The folder of a store that a whole run was pushed to."""
    assert run_plan(toy.plan(), toy.workspace, (), f"file://{toy.folder / 'store'}", as_json=False) == 0
    return toy.folder / "store"


@pytest.mark.slow
def test_a_store_has_each_once_beside_the_questions(toy: Toy, synced: Path) -> None:
    assert {path.name for path in (synced / "data").glob("*.side")} == {toy.kept(name).name for name in "bcd"}
    before = {path: path.stat().st_mtime_ns for path in (synced / "data").iterdir()}
    assert run_plan(toy.plan(OTHER_METRIC), toy.workspace, (), f"file://{synced}", as_json=False) == 0
    assert {path: path.stat().st_mtime_ns for path in (synced / "data").iterdir()} == before


@pytest.mark.slow
def test_one_that_was_cut_off_on_its_way_is_sent_again(toy: Toy, synced: Path) -> None:
    torn(synced / "data" / toy.kept("c").name)
    assert run_plan(toy.plan(OTHER_METRIC), toy.workspace, (), f"file://{synced}", as_json=False) == 0
    assert (synced / "data" / toy.kept("c").name).read_bytes() == toy.kept("c").read_bytes()


def elsewhere(toy: Toy, store: Path) -> tuple[Plan, Sync]:
    """Another machine, where the file of c changed after the plan was made; what is finished in the store is not."""
    plan = toy.plan(OTHER_METRIC)
    (toy.folder / "tests" / "c.json").write_bytes(b"x")
    return plan, Sync(Bucket.open(f"file://{store}"), Workspace(toy.folder / "there"), plan)


@pytest.mark.slow
def test_what_is_no_longer_here_comes_from_the_store(toy: Toy, synced: Path) -> None:
    kept = toy.kept("c")
    plan, sync = elsewhere(toy, synced)
    assert execute(plan, sync.workspace, sync).exit_code == 0
    assert (sync.workspace.data / kept.name).read_bytes() == kept.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("broken", [b"", b"other"])
def test_what_the_store_has_broken_is_not_taken(toy: Toy, synced: Path, broken: bytes) -> None:
    name = toy.kept("c").name
    there = synced / "data" / name
    there.write_bytes(broken or b"x" * there.stat().st_size)
    plan, sync = elsewhere(toy, synced)
    with pytest.raises(InputError, match="has changed since this run was planned"):
        execute(plan, sync.workspace, sync)
    assert not (sync.workspace.data / name).exists()


@pytest.mark.slow
def test_results_come_from_a_store_without_them(toy: Toy, synced: Path) -> None:
    plan = toy.plan()
    there = Workspace(toy.folder / "there")
    there.create()
    assert Sync(Bucket.open(f"file://{synced}"), there, plan).fetch() == 2
    write_data(plan, there)
    assert not list(there.data.glob("*.side"))
