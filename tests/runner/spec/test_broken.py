"""The corpus of broken specs: each has its exact error text beside it.

After a wanted change of a text:  NSD_UPDATE_GOLDEN=1 pytest tests/runner/spec/test_broken.py , then read the diff.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nsd.runner.spec.errors import SpecErrors
from nsd.runner.spec.load import load_spec

CORPUS = Path(__file__).parent / "broken_specs"
SPECS = sorted(path.name for path in CORPUS.glob("*.yaml"))


@pytest.mark.parametrize("name", SPECS)
def test_a_broken_spec_says_what_is_wrong(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CORPUS)
    with pytest.raises(SpecErrors) as caught:
        load_spec(Path(name), run_files=True)
    golden = Path(name).with_suffix(".txt")
    said = str(caught.value).replace(str(CORPUS), "FOLDER")
    if os.environ.get("NSD_UPDATE_GOLDEN"):
        golden.write_text(f"{said}\n", encoding="utf-8")
    assert f"{said}\n" == golden.read_text(encoding="utf-8")


def test_the_corpus_is_large_and_whole() -> None:
    assert len(SPECS) >= 40
    assert {Path(name).stem for name in SPECS} == {path.stem for path in CORPUS.glob("*.txt")}


@pytest.mark.parametrize("name", SPECS)
def test_every_error_points_into_its_file(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CORPUS)
    with pytest.raises(SpecErrors) as caught:
        load_spec(Path(name), run_files=True)
    for error in caught.value.errors:
        lines = Path(error.file).read_bytes().decode("utf-8", "replace").split("\n")
        assert 1 <= error.line <= len(lines)
        assert 1 <= error.column <= len(lines[error.line - 1]) + 1
        assert error.to_json()["message"] == error.message
