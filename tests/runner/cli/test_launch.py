"""`nsd launch` as a group: a spec, or a command with options of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from nsd.runner.cli.app import app
from nsd.runner.launch import follow, launching


def said(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["launch", *arguments])
    assert result.exit_code == code, result.output
    return result.output


def test_its_help_shows_the_options_for_a_spec_and_the_commands() -> None:
    text = said("--help")
    assert "Usage: nsd launch SPEC [OPTIONS] | COMMAND [LAUNCH]" in text
    assert "--max-usd" in text and "cancel" in text


def test_a_command_shows_its_own_options_alone() -> None:
    text = said("pull", "--help")
    assert "--weights" in text and "--max-usd" not in text


@pytest.mark.parametrize("words", [["-w", "DIR"], ["-wDIR"], ["--workspace", "DIR"], ["--workspace=DIR"]])
@pytest.mark.parametrize("command", ["status", "logs", "pull", "cancel"])
def test_a_workspace_stands_before_or_behind_a_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, words: list[str]
) -> None:
    place = [word.replace("DIR", str(tmp_path)) for word in words]
    given: list[Any] = []
    called = "cancel_launch" if command == "cancel" else command
    monkeypatch.setattr(follow, called, lambda workspace, name, *_: given.append((workspace.root, name)))
    said(*place, command, "one")
    said(command, "one", *place)
    said(command, *place, "one")
    assert given == [(tmp_path, "one")] * 3


def test_a_workspace_before_a_spec_is_that_of_the_launch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []
    monkeypatch.setattr(
        launching, "launch", lambda workspace, spec, *_: given.append((workspace.root.name, spec.name)) or 3
    )
    said("-w", str(tmp_path / "there"), "x.yaml", code=3)
    said("-w", str(tmp_path / "there"), "start", "x.yaml", code=3)
    assert given == [("there", "x.yaml")] * 2


def test_a_workspace_before_no_command_is_an_error_of_the_launch(tmp_path: Path) -> None:
    assert "Missing argument 'SPEC'" in said("-w", str(tmp_path), code=2)


def test_a_command_refuses_the_options_of_a_launch() -> None:
    assert "No such option: --gpus" in said("status", "--gpus", "L4:1", code=2)


@pytest.mark.parametrize("words", [["start", "x.yaml", "--smoke"], ["x.yaml", "--smoke"], ["--smoke", "x.yaml"]])
def test_what_names_no_command_is_a_spec(monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    given: list[Any] = []
    monkeypatch.setattr(launching, "launch", lambda _, spec, options, __: given.append((spec.name, options.smoke)) or 3)
    said(*words, code=3)
    assert given == [("x.yaml", True)]
