"""The frame of benchmarks: what a section of RESULTS.md holds, and when one is written."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.frame import HEAD, RESULTS, NotMeasured, Package, Row, argument_parser, read, report

ROW = Row("a stage", "a bare script", "s", 1.5, 2.0, 0.75, "losses equal")


def run(
    monkeypatch: pytest.MonkeyPatch, found: Iterator[Row | Package | str], *arguments: str, name: str = "startup"
) -> int:
    """What `python -m benchmarks.NAME ARGUMENTS` does with what is found."""
    monkeypatch.setattr("sys.argv", [f"/somewhere/benchmarks/{name}.py", *arguments])
    monkeypatch.setattr("benchmarks.frame.conditions", lambda: "2026-01-01, load 0.0, 0 % busy")
    parser = argument_parser("A benchmark.")
    parser.add_argument("--model")
    parser.add_argument("--device", default="cpu")
    return report(parser.parse_args(list(arguments)), found)


def test_a_section_has_command_date_load_machine_versions_and_rows(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for name in ("GOMP_SPINCOUNT", "CUDA_VISIBLE_DEVICES", "NSD_VLLM", "NSD_TOOLS_PYTHON"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("platform.node", lambda: "a-host")
    file = tmp_path / "R.md"
    found = iter([ROW, Package("vllm", "0.32.0"), "Drawn once."])
    assert run(monkeypatch, found, "--model", "/home/me/model", "--record", str(file)) == 0
    text = file.read_text()
    assert text.startswith(HEAD) and "a-host" not in text
    assert "\n    OMP_NUM_THREADS=1 python -m benchmarks.startup --model PATH/model\n" in text
    assert "- 2026-01-01, load 0.0, 0 % busy\n" in text
    assert re.search(r"^- .+, \d+ cores, \d+ GiB, no GPU used$", text, re.MULTILINE)
    assert f"- Python {platform.python_version()}, nsd " in text and ", vllm 0.32.0, " in text
    assert "| a stage | a bare script | 1.50 s | 2.00 s | 0.75 | losses equal |" in text
    assert text.endswith("\n\nDrawn once.\n")


def test_a_section_is_replaced_as_a_whole_and_the_others_stay(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "R.md"
    record = ("--record", str(file))
    run(monkeypatch, iter([Row("x", "y", "ms", 1, 2, 0.5)]), *record, name="votes")
    run(monkeypatch, iter([ROW, "A note of the first."]), *record)
    votes = read(file.read_text())[1]
    run(monkeypatch, iter([Row("another", "peer", "s", 3, 1, 3.0)]), *record)
    startup, after = read(file.read_text())
    assert (startup.name, startup.ratios) == ("startup", {"3.00"})
    assert "A note of the first." not in startup.text and "a stage" not in startup.text
    assert after == votes


def test_nothing_is_written_unless_it_is_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("benchmarks.frame.write", lambda *given: pytest.fail(f"wrote {given}"))
    assert run(monkeypatch, iter([ROW])) == 0


def test_record_alone_means_the_projects_own_file() -> None:
    assert argument_parser("").parse_args(["--record"]).record == RESULTS


def failing(error: BaseException) -> Iterator[Row]:
    """A row, and then an end."""
    yield ROW
    raise error


def test_a_failed_check_leaves_what_is_recorded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "R.md"
    run(monkeypatch, iter([Row("x", "y", "ms", 1, 2, 0.5)]), "--record", str(file))
    before = file.read_text()
    with pytest.raises(SystemExit, match="losses differ"):
        run(monkeypatch, failing(SystemExit("losses differ")), "--record", str(file))
    assert file.read_text() == before


def test_what_could_not_be_measured_leaves_what_is_recorded_and_says_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "R.md"
    assert run(monkeypatch, failing(NotMeasured("no vLLM here")), "--record", str(file)) == 0
    assert not file.exists() and "startup: not measured: no vLLM here" in capsys.readouterr().out


def test_a_gpus_section_stands_beside_that_of_the_processors(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("torch.cuda.get_device_name", lambda device: f"Card of {device}")
    file = tmp_path / "R.md"
    for device in ("cuda", "cpu"):
        run(monkeypatch, iter([ROW]), "--device", device, "--record", str(file), name="generation")
    run(monkeypatch, iter([ROW]), "--record", str(file), name="votes")
    sections = read(file.read_text())
    assert [one.name for one in sections] == ["generation", "generation on Card of cuda", "votes"]
    assert [one.benchmark for one in sections] == ["generation", "generation", "votes"]


@pytest.mark.parametrize(
    ("figure", "unit", "said"),
    [(1995.2, "tokens/s", "1,995 tokens/s"), (72.04, "ms", "72.0 ms"), (0.0112, "", "0.011"), (None, "s", "–")],
)
def test_figures_have_three_places_or_so(figure: float | None, unit: str, said: str) -> None:
    row = Row("x", "y", unit, figure, None, None)
    assert row.cells()[2] == said


def test_recorded_results_name_no_path() -> None:
    text = RESULTS.read_text(encoding="utf-8")
    assert not re.findall(r"(?<![\w.])[/~]\w+/", text)
