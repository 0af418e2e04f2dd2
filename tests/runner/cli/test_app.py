"""The command line on bad input: one clear sentence, the right exit code, never a traceback, nothing lost."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from nsd.plugins.api import KINDS
from nsd.plugins.registry import BUILT_IN, all_plugins
from nsd.runner.cli.app import main
from nsd.runner.store.workspace import Workspace

SPEC = """\
name: toy
model: builtin:wordmath-1m
data: {use: wordmath, split: {labeled: 4, unlabeled: 4, test: 4}}
conditions:
  base: {train_on: []}
"""


def run(monkeypatch: pytest.MonkeyPatch, folder: Path, *arguments: str) -> int:
    """Call the console command's entry point in `folder`; returns the exit code."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["nsd", *arguments])
    monkeypatch.delenv("NSD_DEBUG", raising=False)
    with pytest.raises(SystemExit) as end:
        main()
        sys.exit(0)
    return int(end.value.code or 0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "absent.yaml"], "there is no file absent.yaml"),
        (["run", "folder"], "folder"),
        (["run", "binary.yaml"], "binary.yaml"),
        (["run", "toy.yaml", "--only", "nope"], "no condition 'nope'"),
        (["plan", "toy.yaml", "--workspace", "toy.yaml"], "is a file"),
        (["validate", "empty-folder"], "no spec"),
        (["validate", "*.nothing"], "no file matches"),
        (["compare", "a", "b"], "no results"),
        (["compare", "a", "b", "--format", "xml"], "no format 'xml'"),
        (["runs"], "run a spec first"),
        (["show", "x"], "run a spec first"),
        (["samples", "x"], "run a spec first"),
        (["logs", "x"], "run a spec first"),
        (["plugins", "wizard"], "no kind of plugin 'wizard'"),
        (["new", "toy.yaml"], "exists already"),
        (["new", "toy.txt"], "ends in .yaml"),
        (["new", "n.yaml", "--from", "moon"], "no starting spec 'moon'"),
        (["new", "toy.yaml/n.yaml"], "cannot write toy.yaml/n.yaml"),
        (["schema", "--out", "folder"], "cannot write folder"),
        (["schema", "--out", "absent/x.json"], "cannot write absent/x.json"),
        (["gc", "--partial", "abcd"], "0 half-done stages match"),
        (["gc", "--store", "file:///s"], "--store goes with --partial"),
        (["import", "absent.jsonl", "--name", "x", "--id", "id", "--correct", "ok"], "absent.jsonl"),
        (["import", "bad.jsonl", "--name", "x", "--id", "id", "--correct", "ok"], "bad.jsonl"),
        (["frobnicate"], "No such command"),
        (["run"], "Missing argument"),
        (["run", "toy.yaml", "--seed", "many"], "'--seed'"),
    ],
)
def test_bad_input_is_a_sentence_and_exit_code_2(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty-folder").mkdir()
    (tmp_path / "toy.yaml").write_text(SPEC)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x01")
    (tmp_path / "bad.jsonl").write_text('{"id": 1, "ok": 1}\nnot json\n')
    assert run(monkeypatch, tmp_path, *arguments) == 2
    _, err = capfd.readouterr()
    assert words in err
    assert "Traceback" not in err


def test_a_broken_index_is_made_again_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "nsd-workspace").mkdir()
    (tmp_path / "nsd-workspace" / "nsd.duckdb").write_text("this is no database")
    assert run(monkeypatch, tmp_path, "runs") == 2
    err = capfd.readouterr().err
    assert "nsd.duckdb cannot be read" in err and "made again" in err and "no results in" in err


def test_rebuild_replaces_a_broken_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nsd-workspace").mkdir()
    (tmp_path / "nsd-workspace" / "nsd.duckdb").write_text("this is no database")
    assert run(monkeypatch, tmp_path, "db", "rebuild") == 0
    assert Workspace(tmp_path / "nsd-workspace").database.stat().st_size > 1000


def test_a_workspace_that_cannot_be_written_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert run(monkeypatch, tmp_path, "db", "rebuild", "--workspace", "file/below") == 2
    assert "cannot write the workspace" in capfd.readouterr().err


def test_validate_json_lists_file_line_column_message_suggestion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "toy.yaml").write_text(SPEC.replace("conditions:", "conditons:"))
    assert run(monkeypatch, tmp_path, "validate", "toy.yaml", "--json") == 2
    (error, *_) = json.loads(capfd.readouterr().out)["errors"]
    assert error["line"] == 4 and error["column"] == 1
    assert error["file"] == "toy.yaml" and error["message"]
    assert "conditions" in error["suggestion"]


def test_a_new_spec_is_valid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("wordmath", "gsm8k"):
        assert run(monkeypatch, tmp_path, "new", f"{name}.yaml", "--from", name) == 0
        assert run(monkeypatch, tmp_path, "validate", f"{name}.yaml") == 0


def test_light_commands_load_nothing_heavy(tmp_path: Path) -> None:
    import subprocess

    (tmp_path / "toy.yaml").write_text(SPEC)
    # A plan says what it can detect, for which it needs the quantiles of scipy.special, and no more of scipy.
    for arguments in (["--help"], ["validate", "toy.yaml"], ["plan", "toy.yaml"]):
        scipy = "scipy.stats" if arguments[0] == "plan" else "scipy"
        code = (
            f"import sys; sys.argv = {['nsd', *arguments]!r}\n"
            "from nsd.runner.cli.app import main\n"
            "try: main()\n"
            "except SystemExit as end: assert not end.code\n"
            f"heavy = {{{scipy!r}, 'torch', 'transformers', 'trl', 'peft'}}\n"
            "heavy |= {'datasets', 'statsmodels', 'pandas', 'sky'}\n"
            "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        )
        subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True)


def test_every_built_in_plugin_is_registered_under_its_listed_name() -> None:
    listed = {(kind, name) for kind in KINDS for name in BUILT_IN[kind]}
    found = {(kind, name): cls for kind, name, cls in all_plugins()}
    assert listed <= set(found)
    assert all((cls.kind, cls.name) == key for key, cls in found.items())
    assert all(cls.__doc__ for cls in found.values())
