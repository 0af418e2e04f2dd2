"""`nsd launch` as a group: a spec, or a command with options of its own."""

from __future__ import annotations

from typing import Any

import pytest
from typer.testing import CliRunner

from nsd.runner.cli.app import app
from nsd.runner.launch import launching


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


def test_a_command_refuses_the_options_of_a_launch() -> None:
    assert "No such option: --gpus" in said("status", "--gpus", "L4:1", code=2)


@pytest.mark.parametrize("words", [["start", "x.yaml", "--smoke"], ["x.yaml", "--smoke"], ["--smoke", "x.yaml"]])
def test_what_names_no_command_is_a_spec(monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    given: list[Any] = []
    monkeypatch.setattr(launching, "launch", lambda _, spec, options, __: given.append((spec.name, options.smoke)) or 3)
    said(*words, code=3)
    assert given == [("x.yaml", True)]
