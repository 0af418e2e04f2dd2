"""The answer as a terminal shows it, by the real commands over a small workspace, at 80 and 120 columns.

The texts are in tests/reports/text/screens/. After an intended change rewrite them and read the difference:

    NSD_REWRITE_SCREENS=1 python -m pytest tests/reports/text/test_answer_on_screen.py
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from nsd.plugins.screen import console
from nsd.reports.text.summary import print_summary
from nsd.runner.cli.app import app
from nsd.runner.store.index import Store
from nsd.runner.store.shapes import Hypotheses
from report_workspace import Written, better_and_worse

SCREENS = Path(__file__).with_name("screens")
LONG = "noisy_student_threshold_0.75_of_32_samples"
NAMES = {"short": {}, "wide": {"better": LONG, "same": f"{LONG}_with_the_same_compute"}}
SPEC = """\
name: toy
question: Do consensus pseudo-labels help a model that has seen only a hundred and twenty labeled problems of this kind?
model: builtin:wordmath-1m
data: {use: wordmath, split: {labeled: 8, test: 8}}
trainer: {use: sft}
conditions: {%s}
hypotheses: {claims: [%s]}
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """For each set of names a workspace, and a spec whose last claim was added after its results."""
    found = {}
    for kind, renamed in NAMES.items():
        folder = tmp_path_factory.mktemp(kind)
        arms = {renamed.get(name, name): right for name, right in better_and_worse().items()}
        better, same, worse = (renamed.get(name, name) for name in ("better", "same", "worse"))
        claims = [(better, "base"), (same, "base"), (worse, "base")]
        asks = re.search("question: (.*)", SPEC)
        assert asks is not None
        Written(folder, arms, claims=claims, trained=[better, worse, same], asks=asks[1])
        declared = ", ".join(f"{a} > {b}" for a, b in [*claims, (better, same)])
        conditions = ", ".join(f"{name}: {{train_on: {'[]' if name == 'base' else '[labeled]'}}}" for name in arms)
        (folder / "toy.yaml").write_text(SPEC % (conditions, declared))
        found[kind] = folder
    return found


def command(*arguments: str) -> Callable[[Path], None]:
    def run(folder: Path) -> None:
        given = [str(folder / one) if one.endswith(".yaml") else one for one in arguments]
        app([*given, "-w", str(folder / "workspace")], standalone_mode=False)

    return run


def end_of_run(folder: Path) -> None:
    """What `nsd run` prints once nothing is left to run."""
    from nsd.runner.spec.load import load_spec
    from nsd.runner.store.workspace import Workspace

    spec = load_spec(folder / "toy.yaml")
    assert spec.hypotheses is not None
    with Store(Workspace(folder / "workspace")).read() as connection:
        print_summary(connection, console(), "toy", None, Hypotheses(**spec.hypotheses.to_json()), spec.question)


PRINTED: dict[str, Callable[[Path], None]] = {
    "compare-spec": command("compare", "toy.yaml"),
    "compare-runs": command("compare", "toy/*"),
    "run": end_of_run,
}


def shown(name: str, folder: Path, width: int, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> str:
    monkeypatch.setenv("COLUMNS", str(width))
    capsys.readouterr()
    PRINTED[name](folder)
    text: str = capsys.readouterr().out
    return text


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("kind", list(NAMES))
@pytest.mark.parametrize("name", list(PRINTED))
def test_the_answer_is_what_the_file_says(
    name: str, kind: str, width: int, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    text = shown(name, folders[kind], width, monkeypatch, capsys)
    path = SCREENS / f"{name}-{kind}-{width}.txt"
    if os.environ.get("NSD_REWRITE_SCREENS"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("width", [60, 80, 100, 120, 200])
@pytest.mark.parametrize("kind", list(NAMES))
@pytest.mark.parametrize("name", list(PRINTED))
def test_no_line_is_too_long_and_nothing_is_broken(
    name: str, kind: str, width: int, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    text = shown(name, folders[kind], width, monkeypatch, capsys)
    assert max(map(cell_len, text.splitlines())) <= width and "\x1b" not in text
    words = text.split()
    for arm in ("base", *(NAMES[kind].get(one, one) for one in ("better", "same", "worse"))):
        assert len(arm) > width - 20 or any(
            word.removeprefix("toy/").rstrip(",;:)").removesuffix("/seed1") == arm for word in words
        ), arm
    assert re.search(r"[+-]0\.\d{4} \[[+-]0\.\d{4}, [+-]0\.\d{4}\]", text)
    assert not re.search(r"[+-]0\.\d{0,3}$|\[[+-]?0?\.?\d{0,3}$", text, re.MULTILINE)


def test_the_answer_comes_before_its_table_and_the_notes_after(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    for name in ("compare-spec", "run"):
        text = shown(name, folders["short"], 80, monkeypatch, capsys)
        places = [text.index(part) for part in ("Of 3 declared claims", "From 4 runs", "▲ BETTER", "- same > base:")]
        assert places == sorted(places)
    assert text.index("- same > base:") < text.index("truncated\n")


def test_everything_is_there_when_asked_for(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    command("compare", "toy.yaml", "--wide")(folders["wide"])
    text = capsys.readouterr().out
    head = next(line for line in text.splitlines() if "discordant" in line and "claim" in line)
    for column in ("claim", "verdict", "needs", "difference", "interval", "p", "adjusted", "n", "test", "about"):
        assert f" {column}" in head
    assert max(map(len, text.splitlines())) > 120 and "needs: finds is the true difference" in text


class Terminal:
    """Standard output that is a terminal."""

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self.text = getattr(self, "text", "") + text
        return len(text)

    def flush(self) -> None: ...


@pytest.mark.parametrize(("no_color", "coloured"), [(None, True), ("1", False)])
def test_colour_goes_to_terminals_that_want_it(
    no_color: str | None, coloured: bool, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_color is not None:
        monkeypatch.setenv("NO_COLOR", no_color)
    screen = Terminal()
    monkeypatch.setattr("sys.stdout", screen)
    end_of_run(folders["short"])
    assert ("\x1b[" in screen.text) is coloured and "▲ BETTER" in screen.text


def test_a_pipe_gets_no_colour_even_where_it_is_forced(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b" not in shown("run", folders["short"], 80, monkeypatch, capsys)
