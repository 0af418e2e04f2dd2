"""Nothing that is printed drives the terminal, whichever field it came in and whichever command prints it."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from nsd.plugins import screen
from nsd.plugins.errors import NsdError
from nsd.plugins.screen import Guarded, console, table
from nsd.plugins.untrusted import safe_json
from nsd.runner.cli.app import app
from nsd.runner.store import tables
from nsd.runner.store.shapes import Manifest
from nsd.runner.store.workspace import Workspace
from nsd.runner.work.events import Event, Told
from support import REPOSITORY
from toy_workspace import finish, record

# Colours, a cursor move, a title (OSC), a C1 introducer, a bell, a backspace, a bare return, reordering, hiding.
HOSTILE = (
    "\x1b[31mred\x1b[2J",
    "\x1b]0;title\x07",
    "\x9b31m",
    "\x9d0;x\x9c",
    "bell\x07\x08\x7f",
    "over\rwritten",
    "\u202eright to left\u2066",
    "zero\u200bwidth\u2028",
    "[red]markup[/red][link=http://x]l[/link]",
)
ALL = " ".join(HOSTILE)
DRIVES = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")


def neutral(text: str) -> bool:
    return DRIVES.search(text.replace("\r\n", "\n")) is None


@pytest.mark.parametrize("text", HOSTILE)
def test_a_console_writes_it_out_in_every_kind_of_renderable(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    from rich.panel import Panel
    from rich.text import Text

    screen = console()
    shown = table(text, "b", title=text)
    shown.add_row(text, Text(text))
    for renderable in (text, Text(text), shown, Panel(text, title=text)):
        screen.print(renderable)
    screen.rule(text)
    out = capsys.readouterr().out
    assert neutral(out) and "red]markup" not in out.replace("[red]markup", "")


@given(st.lists(st.tuples(*[st.text("a1é漢 \x1b[", max_size=6)] * 3), min_size=1, max_size=5), st.booleans())
def test_a_long_table_is_laid_out_as_a_short_one(rows: list[tuple[str, str, str]], narrow: bool) -> None:
    def laid(longest: int) -> str:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(screen, "LONG", longest)
            patch.setenv("COLUMNS", "20" if narrow else "200")
            shown = table("run", "value", "what ended", right=("value",))
            for row in rows:
                shown.add_row(*row)
            made = console()
            with made.capture() as written:
                made.print(shown)
            return str(written.get())

    assert laid(0) == laid(100)


def test_colours_of_our_own_still_reach_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.text import Text

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    raw = Terminal()
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys, "stdout", Guarded(raw))
    console().print(Text("BETTER", style="bold"), Text("\x1b[31mdata"))
    print("\x1b[31mprinted")
    assert raw.getvalue() == "\x1b[1mBETTER\x1b[0m \\x1b[31mdata\n\\x1b[31mprinted\n"


def test_a_guarded_stream_takes_a_line_end_apart_only_where_it_is_none() -> None:
    raw = io.StringIO()
    guarded = Guarded(raw)
    for text in ("a\r", "\nb\r", "c\n", "d\r"):
        guarded.write(text)
    guarded.flush()
    assert raw.getvalue() == "a\nb\\x0dc\nd\\x0d"


def test_json_says_it_another_way_and_reads_back_the_same() -> None:
    written = safe_json({ALL: [ALL]})
    assert neutral(written) and json.loads(written) == {ALL: [ALL]}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The hostile text in every field that can come from outside."""
    workspace = Workspace(tmp_path_factory.mktemp("hostile"))
    more = {"plugin": ALL, "used_by": [ALL], "key": {ALL: ALL, "x": [ALL]}, "packages": {ALL: ALL}, "git_commit": ALL}
    more |= {"machine": {"host": ALL, "gpus": [ALL], "cpus": ALL}, "generation": {ALL: ALL}, "source_file": ALL}
    more |= {"events": [{"step": 1, "text": ALL, "field": ALL}]}
    for digest, values in (("good", [1.0, 1.0, 0.0]), ("evil", [0.0, 1.0, 1.0])):
        finish(workspace, digest, values, **more)
        folder = workspace.folder("eval", digest)
        rows = tables.read(folder / "samples.parquet")
        for row in rows:
            row |= {"text": ALL, "answer": ALL, "question_id": f"{row['question_id']}{ALL}", "stop_reason": ALL}
        values_ = [{"question_id": row["question_id"], "value": row["score"]} for row in rows]
        with workspace.lock("eval", digest) as partial:
            (partial / "artifact").mkdir()
            tables.write(partial / "artifact" / "samples.parquet", tables.SCORED, rows)
            tables.write(partial / "artifact" / "values.parquet", tables.VALUES, values_)
            (partial / "artifact" / "log.txt").write_text(f"log {ALL}\n")
            workspace.commit("eval", digest, Manifest(**json.loads((folder / "manifest.json").read_text())))
    runs = {f"good{ALL}": "good", f"evil{ALL}": "evil", f"gone{ALL}": "gone"}
    claims = [(f"good{ALL}", f"evil{ALL}")]
    failed = {f"gone{ALL}": f"reason {ALL}"}
    record(workspace, "toy", runs, claims=claims, failed=failed, question=f"Why {ALL}?", spec_yaml=f"# {ALL}")
    notes = [{"run": "toy", "written_at": "2026-01-01T00:00:00+00:00", "text": f"note {ALL}"}]
    (workspace.root / "notes.jsonl").write_text("".join(json.dumps(note) + "\n" for note in notes))
    partial = workspace.partial("train", "beef")
    partial.mkdir()
    (partial / "log.txt").write_text(f"under way {ALL}\n")
    (partial / "job.json").write_text(json.dumps({"experiment": "toy", "used_by": [ALL]}))
    (workspace.root / "import.jsonl").write_text(json.dumps({"id": ALL, "ok": 1, "answer": ALL}) + "\n")
    (workspace.root / "spec.yaml").write_text(f"name: x\nmodel: {json.dumps(ALL)}\nnonsense: {json.dumps(ALL)}\n")
    return workspace


GOOD, EVIL, GONE = f"toy/good{ALL}/seed1", f"toy/evil{ALL}/seed1", f"toy/gone{ALL}/seed1"
COMMANDS = (
    ["runs"],
    ["runs", "--json"],
    ["show", GOOD],
    ["show", GOOD, "--json"],
    ["show", GONE],
    ["samples", GOOD],
    ["samples", GOOD, EVIL, "--disagree", "--json"],
    ["logs", GOOD],
    ["logs", "beef"],
    ["compare", GOOD, EVIL],
    ["compare", GOOD, EVIL, "-f", "json"],
    ["compare", GOOD, EVIL, "-f", "csv"],
    ["compare", GOOD, EVIL, "-f", "md"],
    ["compare", GOOD, EVIL, "--matrix"],
    ["compare", GOOD, EVIL, "--matrix", "-f", "csv"],
    ["compare", GOOD, EVIL, "--matrix", "-f", "json"],
    ["report", "toy"],
    ["report", "toy", "-f", "csv"],
    ["report", "toy", "-f", "json"],
    ["log"],
    ["log", "--json"],
    ["power", "toy"],
    ["power", "toy", "--json"],
    ["labels", "toy"],
    ["revote", "toy"],
    ["note", f"nobody{ALL}", "text"],
    ["note", GOOD, f"text {ALL}"],
    ["validate", "SPEC"],
    ["validate", "SPEC", "--json"],
    ["plan", "SPEC"],
    ["show", f"nothing{ALL}"],
    ["import", "FILE", "--id", "id", "--correct", "ok", "--answer", "answer", "--name", f"imported{ALL}"],
    ["gc", "--yes"],
    ["db", "rebuild"],
)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command[:1] + command[2:])[:30])
def test_no_command_passes_it_on(workspace: Workspace, command: list[str]) -> None:
    files = {"SPEC": workspace.root / "spec.yaml", "FILE": workspace.root / "import.jsonl"}
    arguments = [str(files.get(one, one)) for one in command]
    if command[0] not in ("validate",):
        arguments += ["-w", str(workspace.root)]
    result = CliRunner().invoke(app, arguments)
    assert result.exception is None or isinstance(result.exception, (SystemExit, NsdError)), result.exception
    assert neutral(result.stdout) and neutral(result.stderr)
    if "--json" in command or "json" in command:
        assert json.loads(result.stdout)


@pytest.mark.slow
def test_an_error_of_the_real_command_does_not_pass_it_on(workspace: Workspace) -> None:
    for arguments in (["show", f"no{ALL}"], ["runs"], ["validate", str(workspace.root / "spec.yaml")], [f"--no{ALL}"]):
        more = [] if arguments[0] in ("validate", f"--no{ALL}") else ["-w", str(workspace.root)]
        command = [sys.executable, "-m", "nsd.runner.cli", *arguments, *more]
        done = subprocess.run(command, capture_output=True, cwd=REPOSITORY, check=False)
        assert neutral(done.stdout.decode()) and neutral(done.stderr.decode()), arguments
        assert done.stdout or done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("command", [["report", "toy"], ["log"]])
def test_a_page_holds_nothing_that_hides(workspace: Workspace, command: list[str], tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    result = CliRunner().invoke(app, [*command, "--html", str(page), "-w", str(workspace.root)])
    assert result.exit_code == 0 and neutral(page.read_text(encoding="utf-8"))


def test_progress_is_one_neutral_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    from nsd.runner.work.progress import LiveReporter, PlainReporter, reporter

    text = f"{ALL}\nFAILED"
    with reporter() as plain:
        assert isinstance(plain, PlainReporter)
        plain.start(text, text, 1, 2)
        plain.message(text)
        plain.end(text)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3 and all(neutral(line) for line in lines)
    from rich.progress import Progress, TextColumn

    screen = console(stderr=True)
    columns = (TextColumn("{task.description}", markup=False), TextColumn("{task.fields[detail]}", markup=False))
    with Progress(*columns, console=screen) as progress:
        live = LiveReporter(progress)
        live.start(text, text, 1, 2)
        live.update(Event(Told.PROGRESS, done=1, total=2, unit=text))
        live.message(text)
        live.end(text)
    assert neutral(capsys.readouterr().err)
