"""Files that docstrings and comments name are there, by the path or the name given."""

from __future__ import annotations

import io
import re
import tokenize
from pathlib import Path

import pytest

from support import REPOSITORY

ROOMS = ("nsd/__init__.py", "nsd/__main__.py", "benchmarks", "plugins", "reports", "runner")
PRODUCT = sorted(
    path for room in ROOMS for path in [REPOSITORY / room, *(REPOSITORY / room).rglob("*.py")] if path.suffix == ".py"
)
TESTS = [path for path in (REPOSITORY / "tests").rglob("*.py") if "stand_in" not in path.parts]
THEIRS = {"last_word.py", "my_verifier.py", "file.py"}  # a user's
NAMED = re.compile(r"(?<![\w./-])((?:[a-z_]\w*/)*[a-z_]\w*\.py)\b")


def named(text: str) -> set[str]:
    """Python files named in the comments and docstrings of a source, as they are written."""
    found: set[str] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT or (token.type == tokenize.STRING and token.string.startswith('"""')):
            found |= set(NAMED.findall(token.string))
    return found - THEIRS


def is_there(name: str, known: set[str]) -> bool:
    """Whether a file of this path, or with this end of its path, is among the known ones."""
    return any(path == name or path.endswith(f"/{name}") for path in known)


KNOWN = {path.relative_to(REPOSITORY).as_posix() for path in (*PRODUCT, *TESTS)}


@pytest.mark.parametrize("path", PRODUCT, ids=lambda path: path.relative_to(REPOSITORY).as_posix())
def test_every_file_named_in_a_docstring_is_there(path: Path) -> None:
    assert [name for name in sorted(named(path.read_text(encoding="utf-8"))) if not is_there(name, KNOWN)] == []


def test_a_file_that_moved_would_be_noticed() -> None:
    source = '"""Sweeps are in spec_sweep.py and runner/spec/sweep.py; `./my.py:Mine` is a user\'s."""\n# see plan.py\n'
    assert named(source) == {"spec_sweep.py", "runner/spec/sweep.py", "plan.py"}
    assert [name for name in sorted(named(source)) if not is_there(name, {"runner/spec/sweep.py"})] == [
        "plan.py",
        "spec_sweep.py",
    ]
