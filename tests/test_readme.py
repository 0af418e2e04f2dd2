"""The README's spec and plugin work as they stand; test_documents.py holds the rest of its sentences."""

from __future__ import annotations

import re
from pathlib import Path

from nsd.plugins.api import Question, Rollout, Score, StopReason
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


def test_the_reward_of_the_readme_works(tmp_path: Path) -> None:
    (tmp_path / "brief.py").write_text(block("python", "class Brief"))
    cls = find("reward", "./brief.py:Brief", tmp_path)
    question = Question(id="q", text="q", answer="5")
    tokens = [(1,) * 1000, (1,) * 250, (1,)]
    scores = [Score(1.0, True, "5"), Score(1.0, True, "5"), Score(0.0, False, None)]
    rollouts = [Rollout(question, 0, "", ids, StopReason.STOP, one) for ids, one in zip(tokens, scores, strict=True)]
    assert cls(cls.Config()).rewards(rollouts) == [0.5, 0.8, 0.0]  # type: ignore[attr-defined]


def test_the_plugin_of_the_readme_works_and_is_short(tmp_path: Path) -> None:
    code = block("python", "class LastWord")
    assert len(code.splitlines()) < 40
    (tmp_path / "last_word.py").write_text(code)
    cls = find("verifier", "./last_word.py:LastWord", tmp_path)
    verifier = cls(cls.Config())
    question = Question(id="q", text="Capital of France?", answer="Paris")
    assert verifier.score("It is paris.", question).correct  # type: ignore[attr-defined]
    assert not verifier.score("It is Rome.", question).correct  # type: ignore[attr-defined]
