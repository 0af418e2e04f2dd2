"""The README's spec and plugin work as they stand; test_documents.py holds the rest of its sentences."""

from __future__ import annotations

import re
from pathlib import Path

from nsd.plugins.api import Question
from nsd.plugins.registry import find
from nsd.runner.spec.load import load_spec
from support import REPOSITORY

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def block(language: str, containing: str) -> str:
    """The fenced block of this language that holds this text."""
    blocks = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    (found,) = [text for text in blocks if containing in text]
    return str(found)


def test_the_spec_of_the_readme_is_valid(tmp_path: Path) -> None:
    path = tmp_path / "my-study.yaml"
    path.write_text(block("yaml", "name: my-study"))
    assert list(load_spec(path).conditions) == ["base", "baseline", "noisy_student", "filtered", "oracle"]


def test_the_plugin_of_the_readme_works_and_is_short(tmp_path: Path) -> None:
    code = block("python", "class LastWord")
    assert len(code.splitlines()) < 40
    (tmp_path / "last_word.py").write_text(code)
    cls = find("verifier", "./last_word.py:LastWord", tmp_path)
    verifier = cls(cls.Config())
    question = Question(id="q", text="Capital of France?", answer="Paris")
    assert verifier.score("It is paris.", question).correct  # type: ignore[attr-defined]
    assert not verifier.score("It is Rome.", question).correct  # type: ignore[attr-defined]
