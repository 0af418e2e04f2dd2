"""A broken file is named, set aside and owed again, and takes nothing else down."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nsd.plugins.errors import NsdError
from nsd.runner.cli.app import app
from nsd.runner.store import tables
from nsd.runner.store import workspace as artifacts
from nsd.runner.store.index import Store
from nsd.runner.store.shapes import Manifest
from nsd.runner.store.workspace import Workspace
from thinned import thinned
from toy_workspace import finish, record

SPEC = """\
name: toy
model: builtin:wordmath-1m
data: {use: wordmath, split: {labeled: 16, unlabeled: 8, test: 8}}
eval: {use: accuracy, max_tokens: 16}
conditions:
  base: {train_on: []}
"""


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """Two runs, `good` and `bad`, of one experiment."""
    monkeypatch.setattr(artifacts, "_told", set())
    workspace = Workspace(tmp_path / "ws")
    finish(workspace, "good", [1.0, 0.0])
    finish(workspace, "bad", [0.0, 0.0])
    record(workspace, "toy", {"good": "good", "bad": "bad"})
    (tmp_path / "toy.yaml").write_text(SPEC)
    return workspace


def manifest_of(workspace: Workspace) -> Path:
    return workspace.folder("eval", "bad") / "manifest.json"


def with_fields(**fields: object) -> Callable[[Workspace], Path]:
    def breaks(workspace: Workspace) -> Path:
        path = manifest_of(workspace)
        path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
        return path

    return breaks


def manifest_is(content: bytes) -> Callable[[Workspace], Path]:
    def breaks(workspace: Workspace) -> Path:
        manifest_of(workspace).write_bytes(content)
        return manifest_of(workspace)

    return breaks


def manifest_is_a_folder(workspace: Workspace) -> Path:
    manifest_of(workspace).unlink()
    manifest_of(workspace).mkdir()
    return manifest_of(workspace)


def values_are(content: bytes | None) -> Callable[[Workspace], Path]:
    def breaks(workspace: Workspace) -> Path:
        path = workspace.folder("eval", "bad") / "values.parquet"
        path.unlink()
        if content is not None:
            path.write_bytes(content)
        return path

    return breaks


def values_are_a_circle(workspace: Workspace) -> Path:
    path = values_are(None)(workspace)
    path.symlink_to(path.name)
    return path


def values_are_a_folder(workspace: Workspace) -> Path:
    path = values_are(None)(workspace)
    path.mkdir()
    return path


def values_of_the_same_size(workspace: Workspace) -> Path:
    path = workspace.folder("eval", "bad") / "values.parquet"
    path.write_bytes(b"x" * path.stat().st_size)
    return path


def values_torn_before_there_were_sums(workspace: Workspace) -> Path:
    path = values_of_the_same_size(workspace)
    with_fields(sha256={})(workspace)
    return path


BREAKS: dict[str, Callable[[Workspace], Path]] = {
    "empty manifest": manifest_is(b""),
    "manifest of zeros": manifest_is(b"\0" * 500),
    "torn manifest": manifest_is(b'{"kind": "eval", "dig'),
    "manifest is a list": manifest_is(b"[]"),
    "manifest is a number": manifest_is(b"7"),
    "manifest is empty object": manifest_is(b"{}"),
    "manifest is no text": manifest_is(b"\xff\xfe\xfd"),
    "manifest is too deep": manifest_is(b"[" * 100_000),
    "manifest is a folder": manifest_is_a_folder,
    "manifest of another stage": with_fields(digest="other"),
    "manifest that names a file outside": with_fields(files={"../../x": 1}),
    "seconds are text": with_fields(seconds="soon"),
    "events are text": with_fields(events=["hot"]),
    "key is a list": with_fields(key=[]),
    "a time that is none": with_fields(ended_at="yesterday"),
    "a seed beyond the index": with_fields(seed=2**70),
    "eval without its fields": with_fields(eval={"metric": "accuracy"}),
    "a price that is text": with_fields(cost={"usd_per_hour": "x"}),
    "a GPU that is none": with_fields(machine={"gpus": [{}]}),
    "tokens that are text": with_fields(generation={"tokens": "x"}),
    "a temperature that is text": with_fields(key={"sampling": {"temperature": "hot"}}),
    "counts that are none": with_fields(imported=[{"run": "z", "counts": [5, 3]}]),
    "missing file": values_are(None),
    "a link to itself": values_are_a_circle,
    "a folder for a file": values_are_a_folder,
    "empty file": values_are(b""),
    "torn file": values_are(b"PAR1 and no more"),
    "changed content": values_of_the_same_size,
    "changed content, no sums": values_torn_before_there_were_sums,
    "readable and not what was written": with_fields(sha256={"values.parquet": "0" * 64}),
}


def run(workspace: Workspace, *arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [*arguments, "-w", str(workspace.root)])
    if isinstance(result.exception, NsdError):  # `main` says it in a line
        return result.exception.exit_code, result.stdout, f"{result.stderr}{result.exception}"
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", thinned(BREAKS))
def test_rebuild_names_it_sets_it_aside_and_goes_on(workspace: Workspace, name: str) -> None:
    broken = BREAKS[name](workspace)
    code, out, err = run(workspace, "db", "rebuild")
    assert code == 0 and "indexed 1 stages and 1 experiment records" in out
    assert err.count("\n") == 1 and str(broken.parent) in err and "owed again" in err
    assert not workspace.is_whole("eval", "bad") and workspace.is_whole("eval", "good")
    assert (workspace.root / "set-aside" / "eval-bad").is_dir()  # kept, not deleted
    finish(workspace, "bad", [1.0, 1.0])  # the stage can be made again
    assert run(workspace, "db", "rebuild")[1].startswith("indexed 2 stages")


COMMANDS = (["runs"], ["show", "toy/good/seed1"], ["samples", "toy/good/seed1"], ["log"], ["logs", "toy/good/seed1"])
COMMANDS += (["compare", "toy/good/seed1", "toy/bad/seed1"], ["report", "toy"], ["gc", "--yes"], ["power", "toy"])


@pytest.mark.parametrize("name", ["empty manifest", "changed content"])
@pytest.mark.parametrize("command", thinned(COMMANDS), ids=lambda command: command[0])
def test_no_command_is_stopped_by_it(workspace: Workspace, command: list[str], name: str) -> None:
    BREAKS[name](workspace)
    code, _, err = run(workspace, *command)
    # Where the index must be made again the run has no values any more: too little to compare is an answer.
    assert code == 0 or (command[0] in ("compare", "report", "power") and code == 2), err
    assert err.count("set-aside") <= 1


@pytest.mark.slow
def test_plan_owes_a_broken_stage_again(workspace: Workspace, tmp_path: Path) -> None:
    from nsd.runner.plan.build import build_plan
    from nsd.runner.spec.load import load_spec

    plan = build_plan(load_spec(tmp_path / "toy.yaml"))
    drawing, stage = plan.stages.values()
    finish(workspace, drawing.digest, [1.0] * 8, "sample")
    finish(workspace, stage.digest, [1.0] * 8, "score")
    assert plan.pending(workspace) == []
    (workspace.folder("score", stage.digest) / "manifest.json").write_text("")
    code, out, err = run(workspace, "plan", str(tmp_path / "toy.yaml"))
    assert code == 0 and "1 to run" in out and "it is empty" in err and stage.digest in err
    assert plan.pending(workspace) == [stage]


def test_a_broken_stage_is_named_once_by_a_command_that_meets_it_often(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    BREAKS["empty manifest"](workspace)

    def refuse(*_: object) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr(Path, "rename", refuse)  # a workspace that cannot be written, as root
    for _ in range(3):
        assert not workspace.is_whole("eval", "bad")
        assert [one.digest for one in workspace.manifests()] == ["good"]
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "passed over" in err


OUTSIDE = b'{"experiment": "toy", "spec_digest": "../../y"}'
RECORDS = (b"", b"{}", b"[]", b'{"experiment": "toy", "runs"', b"\xff", OUTSIDE)


@pytest.mark.parametrize("content", thinned(RECORDS))
def test_a_broken_record_is_named_and_set_aside(workspace: Workspace, content: bytes) -> None:
    record(workspace, "other", {"good": "good"}, version="b" * 12)
    path = workspace.record_path("toy", "aaaaaaaaaaaa")
    path.write_bytes(content)
    code, out, err = run(workspace, "db", "rebuild")
    assert code == 0 and "indexed 2 stages and 1 experiment records" in out and str(path) in err
    assert (workspace.root / "set-aside" / "experiments-toy-aaaaaaaaaaaa.json").read_bytes() == content
    assert run(workspace, "log")[0] == 0


@pytest.mark.parametrize("field", ["eval_digest", "train_digest", "label_digest"])
def test_a_record_names_no_stage_outside(workspace: Workspace, field: str) -> None:
    path = workspace.record_path("toy", "aaaaaaaaaaaa")
    content = json.loads(path.read_text())
    content["runs"][0][field] = "../../x"
    path.write_text(json.dumps(content))
    assert workspace.records() == [] and not path.exists()


def test_what_the_index_cannot_take_is_left_out_and_stays(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from nsd.runner.store import index as store

    real = store.insert_stage

    def insert(connection: object, folder: Path) -> None:
        if folder.name == "eval-bad":
            raise KeyError("of a later version")
        real(connection, folder)  # type: ignore[arg-type]

    monkeypatch.setattr(store, "insert_stage", insert)
    assert Store(workspace).rebuild() == {"stages": 1, "experiments": 1}
    assert "eval-bad is left out of the index" in capsys.readouterr().err
    assert workspace.is_whole("eval", "bad")


def test_a_full_disk_sets_nothing_aside(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    import duckdb

    from nsd.runner.store import index as store

    def insert(*_: object) -> None:
        raise duckdb.IOException("no space left on device")

    monkeypatch.setattr(store, "insert_stage", insert)
    with pytest.raises(duckdb.IOException):
        Store(workspace).rebuild()
    assert workspace.is_whole("eval", "bad") and workspace.is_whole("eval", "good")


@pytest.mark.slow
@pytest.mark.parametrize("number", thinned(["NaN", "Infinity", "-Infinity", "1e999"]))
def test_a_number_that_is_none_counts_as_unknown(workspace: Workspace, number: str) -> None:
    path = manifest_of(workspace)
    unknown = {"seconds": "NUMBER", "gpu_seconds": "NUMBER", "cost": {"usd_per_hour": "NUMBER"}}
    path.write_text(json.dumps({**json.loads(path.read_text()), **unknown}).replace('"NUMBER"', number))
    assert run(workspace, "db", "rebuild")[1].startswith("indexed 2 stages")
    for command in (["log"], ["show", "toy/bad/seed1"], ["runs"]):
        assert run(workspace, *command)[0] == 0


@pytest.mark.parametrize(
    "fields",
    [
        {"hypotheses": {"claims": 7}},
        {"hypotheses": {"claims": [7]}},
        {"hypotheses": {"alpha": "x", "claims": []}},
        {"hypotheses": {"alpha": 0.05, "claims": [{"text": "a", "kind": "nope", "better": "good", "worse": "bad"}]}},
        {"hypotheses": {"alpha": 0.05, "claims": [{"text": "a", "kind": "better", "better": "good"}]}},
        {"resolved": {"conditions": 7}},
        {"run_at": 7},
        {"run_at": "soon"},
    ],
    ids=str,
)
def test_a_record_of_another_shape_takes_nothing_down(workspace: Workspace, fields: dict[str, object]) -> None:
    path = workspace.record_path("toy", "aaaaaaaaaaaa")
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
    code, out, err = run(workspace, "db", "rebuild")
    assert code == 0 and "indexed 2 stages and 0 experiment records" in out and str(path) in err


@pytest.mark.slow
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_value_that_is_no_number_is_left_out_and_named(workspace: Workspace, value: float) -> None:
    path = workspace.folder("eval", "bad") / "values.parquet"
    tables.write(path, tables.VALUES, [{"question_id": "q0", "value": value}])
    with_fields(files={"values.parquet": path.stat().st_size}, sha256={})(workspace)
    code, out, err = run(workspace, "db", "rebuild")
    assert code == 0 and "indexed 1 stages" in out and str(path) in err
    assert run(workspace, "log")[0] == 0


@pytest.mark.slow
@pytest.mark.parametrize("evidence", ["NaN", "7", "[]", '{"a": ["x"]}', '{"a": 7, "b": []}', '{"a": [[]], "b": []}'])
def test_a_look_without_both_sides_is_passed_over(workspace: Workspace, evidence: str) -> None:
    look = {"looked_at": "2026-01-01", "experiment": "toy", "a": "toy/good", "b": "toy/bad", "metric": "accuracy"}
    look |= {"n": 2, "p": 0.25, "verdict": "UNRESOLVED", "command": "compare", "evidence": "EVIDENCE"}
    workspace.looks.write_text(json.dumps(look).replace('"EVIDENCE"', evidence) + "\n")
    assert run(workspace, "compare", "toy/good/seed1", "toy/bad/seed1")[0] == 0
    with Store(workspace).read() as connection:
        assert connection.execute("SELECT count(*) FROM looks WHERE p = 0.25").fetchone() == (0,)


@pytest.mark.slow
def test_stages_that_name_each_other_as_causes_stop_nothing(workspace: Workspace) -> None:
    with_fields(inputs={"model": "bad", "samples": "good"})(workspace)
    assert run(workspace, "db", "rebuild")[1].startswith("indexed 2 stages")
    for command in (["log"], ["show", "toy/bad/seed1"]):
        assert run(workspace, *command)[0] == 0


def test_a_stage_with_the_digest_of_another_does_not_take_its_place(workspace: Workspace) -> None:
    folder = workspace.folder("train", "good")
    folder.mkdir()
    (folder / "manifest.json").write_text('{"kind": "train", "digest": "good"}')
    code, out, err = run(workspace, "db", "rebuild")
    assert code == 0 and "indexed 3 stages" not in out and "train-good" in err and "has the same digest" in err
    assert "0.5000" in run(workspace, "runs")[1]


GARBAGE = (b"garbage\n", b"\xff\xfe\n", b"[1]\n7\nnull\n", b"[" * 100_000 + b"\n", b'{"run": 7}\n', b'{"torn')


@pytest.mark.slow
@pytest.mark.parametrize("name", ["notes.jsonl", "looks.jsonl"])
def test_garbage_in_a_journal_is_passed_over(workspace: Workspace, name: str) -> None:
    from nsd.runner.store.notes import add_note

    (workspace.root / name).write_bytes(b"".join(GARBAGE))
    add_note(workspace, "toy", "kept")
    code, out, _ = run(workspace, "log")
    assert code == 0 and "kept" in out
    assert run(workspace, "db", "rebuild")[0] == 0
    assert run(workspace, "compare", "toy/good/seed1", "toy/bad/seed1")[0] == 0


@pytest.mark.slow
def test_a_journal_that_cannot_be_read_is_named(workspace: Workspace) -> None:
    workspace.looks.mkdir()
    code, _, err = run(workspace, "log")
    assert code == 0 and str(workspace.looks) in err


@pytest.mark.slow
@pytest.mark.parametrize("content", [b"", b"PAR1", b"garbage" * 100, None])
def test_broken_questions_are_written_again(workspace: Workspace, tmp_path: Path, content: bytes | None) -> None:
    from nsd.runner.plan.build import build_plan
    from nsd.runner.spec.load import load_spec
    from nsd.runner.work.jobs import write_data

    plan = build_plan(load_spec(tmp_path / "toy.yaml"))
    write_data(plan, workspace)
    (path,) = workspace.data.glob("*.parquet")
    held = tables.read_questions(path)
    if content is None:
        path.unlink()
        path.mkdir()
    else:
        path.write_bytes(content)
    assert tables.held_questions(workspace, path.stem) == []
    write_data(plan, workspace)
    assert tables.read_questions(path) == held


def test_logs_go_on_past_a_torn_job(workspace: Workspace) -> None:
    for digest, content in (("torn", '{"used'), ("list", "[]")):
        partial = workspace.partial("eval", digest)
        partial.mkdir(parents=True)
        (partial / "log.txt").write_text(f"log of {digest}")
        (partial / "job.json").write_text(content)
    code, out, _ = run(workspace, "logs", "torn")
    assert code == 0 and "log of torn" in out


def test_launches_go_on_past_a_broken_one(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    from nsd.runner.launch.launches import Launches

    launches = Launches(workspace)
    facts = {"spec": "s", "spec_digest": "d", "options": {}, "store": None, "place": "p", "usd_per_hour": None}
    made = launches.create("toy", **facts, max_usd=None, deadline=None, jobs=[])
    launches.save(made)
    for name, content in (("empty", ""), ("list", "[]"), ("fields", '{"jobs": [], "nonsense": 1}')):
        (launches.folder / name).mkdir()
        (launches.folder / name / "launch.json").write_text(content)
    assert [launch.identity for launch in launches.all()] == [made.identity]
    assert capsys.readouterr().err.count("is broken") == 3


@pytest.mark.parametrize("content", [None, "", "short", "longer than it was", "was link"])
def test_a_file_of_another_size_is_no_part_of_a_whole_stage(
    workspace: Workspace, tmp_path: Path, content: str | None
) -> None:
    with workspace.lock("label", "l") as partial:
        (partial / "artifact" / "trackers").mkdir(parents=True)
        (partial / "artifact" / "extra").write_text("as it was")
        (partial / "artifact" / "trackers" / "events").write_text("as it was")
        workspace.commit("label", "l", Manifest(kind="label", digest="l"))
    (workspace.folder("label", "l") / "trackers" / "events").write_text("gone on")  # what no stage needs
    assert workspace.is_whole("label", "l")
    path = workspace.folder("label", "l") / "extra"
    path.unlink()
    if content == "was link":  # of the same size, and somebody else's
        (tmp_path / "elsewhere").write_text("as it was")
        path.symlink_to(tmp_path / "elsewhere")
    elif content is not None:
        path.write_text(content)
    assert not workspace.is_whole("label", "l") and not workspace.folder("label", "l").exists()


def test_half_a_model_is_none(workspace: Workspace) -> None:
    with workspace.lock("train", "t") as partial:
        (partial / "artifact" / "model").mkdir(parents=True)
        for name in ("a", "b"):
            (partial / "artifact" / "model" / name).write_text("weights")
        workspace.commit("train", "t", Manifest(kind="train", digest="t"))
    assert workspace.has_weights("t")
    (workspace.folder("train", "t") / "model" / "a").unlink()
    assert not workspace.has_weights("t") and workspace.is_whole("train", "t")
