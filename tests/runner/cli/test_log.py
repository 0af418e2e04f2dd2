"""The log: a dated entry for everything that was run, with what came out and what people wrote about it."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nsd.plugins.errors import InputError
from nsd.reports.judge.log import LogEntry, log_entries
from nsd.reports.text.log import lines_of
from nsd.runner.cli.app import app
from nsd.runner.cli.show_log import write_page
from nsd.runner.store.index import Store
from nsd.runner.store.looks import read_looks
from nsd.runner.store.notes import add_note
from nsd.runner.store.workspace import Workspace
from nsd.runner.work.imports.storing import import_file
from toy_workspace import finish, record

GOOD, BAD = [1.0] * 15 + [0.0] * 5, [1.0] * 3 + [0.0] * 17


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """One experiment: `good` beats `bad` on 20 questions, `same` equals it; all claims declared beforehand."""
    workspace = Workspace(tmp_path / "place")
    record(workspace, "toy", {}, claims=[("good", "bad"), ("same", "good")], recorded_at="2025-12-31T00:00:00+00:00")
    for name, values in (("good", GOOD), ("bad", BAD), ("same", GOOD)):
        finish(workspace, f"eval-{name}", values)
    _record(workspace)
    return workspace


def _record(workspace: Workspace, **more: object) -> None:
    evaluations = {name: f"eval-{name}" for name in ("bad", "good", "same")}
    claims = [("good", "bad"), ("same", "good")]
    fields: dict[str, object] = {"claims": claims, "recorded_at": "2025-12-31T00:00:00+00:00", **more}
    record(workspace, "toy", evaluations, **fields)  # type: ignore[arg-type]


def only(workspace: Workspace, pattern: str = "*") -> LogEntry:
    (entry,) = log_entries(workspace, pattern)
    return entry


def test_an_entry_has_date_question_result_verdicts_and_cost(workspace: Workspace) -> None:
    entry = only(workspace)
    assert entry.date == "2026-01-01T00:01:00+00:00" and entry.question == "Why?"
    assert entry.best is not None and (entry.best.condition, entry.best.mean, entry.best.n) == ("good", 0.75, 20)
    assert [(one.claim, one.holds) for one in entry.verdicts] == [("good > bad", True), ("same > good", None)]
    assert entry.cost is not None and entry.cost.seconds == 180
    text = "\n".join(lines_of(entry))
    assert text.startswith("2026-01-01 00:01  toy  aaaaaaaa  3 done  3 min 00 s")
    assert "holds: good > bad (+60.0 points" in text and "UNRESOLVED: same > good" in text


def test_the_result_names_the_best_of_all_arms_and_counts_the_claims(workspace: Workspace) -> None:
    said = "best of 3: good 0.7500 accuracy on 20 questions; 2 declared claims: 1 hold, 1 undecided"
    assert only(workspace).result() == said


def test_the_result_of_one_arm_has_no_others_to_count_and_leaves_another_evaluation_out(workspace: Workspace) -> None:
    entry = only(workspace)
    (good,) = (arm for arm in entry.arms if arm.condition == "good")
    beside = replace(good, condition="good@retention", mean=0.9, beside=True)
    alone = replace(entry, arms=[good, beside], verdicts=[], late=entry.verdicts[:1])
    assert alone.result() == "best: good 0.7500 accuracy on 20 questions; 1 late claim: 1 hold"


def test_a_refuted_claim_is_shown_like_any_other(workspace: Workspace) -> None:
    _record(workspace, claims=[("bad", "good")])
    assert "REFUTED: bad > good (-60.0 points" in "\n".join(lines_of(only(workspace)))


def test_a_claim_written_after_the_results_carries_its_mark(workspace: Workspace) -> None:
    _record(workspace, version="bbbbbbbbbbbb", claims=[("good", "same")], recorded_at="2026-02-01T00:00:00+00:00")
    late = log_entries(workspace)[-1]
    assert late.verdicts == [] and late.late[0].mark.startswith("EXPLORATORY")
    assert "[EXPLORATORY" in "\n".join(lines_of(late))


def test_each_version_is_judged_on_its_own_results(workspace: Workspace) -> None:
    finish(workspace, "eval-new", BAD)
    evaluations = {"bad": "eval-bad", "good": "eval-new", "same": "eval-same"}
    again = {"version": "bbbbbbbbbbbb", "recorded_at": "2026-02-01T00:00:00+00:00"}
    record(workspace, "toy", evaluations, ended_at="2026-02-01T00:02:00+00:00", **again)
    first, second = log_entries(workspace)
    assert [arm.mean for arm in first.arms] == [0.15, 0.75, 0.75]
    assert [arm.mean for arm in second.arms] == [0.15, 0.15, 0.75]
    assert first.verdicts[0].holds and first.verdicts[0].n == 20


def test_what_an_earlier_version_paid_for_is_not_spent_again(workspace: Workspace) -> None:
    _record(workspace, version="bbbbbbbbbbbb", recorded_at="2026-02-01T00:00:00+00:00")
    first, second = log_entries(workspace)
    assert first.spent is not None and second.spent is not None and second.cost is not None
    assert (first.spent.seconds, second.cost.seconds, second.spent.seconds) == (180, 180, 0)
    assert "nothing of it new here" in lines_of(second)[0]


def test_repeated_evaluations_are_in_the_cost(workspace: Workspace) -> None:
    finish(workspace, "eval-again", GOOD)
    _record(workspace, repeats={"good": ["eval-again"]})
    entry = only(workspace)
    assert entry.cost is not None and entry.cost.stages == 4 and len(entry.arms) == 3


def test_failures_and_pending_runs_are_visible(workspace: Workspace) -> None:
    evaluations = {"good": "eval-good", "broken": "none", "later": "none-yet"}
    record(workspace, "hard", evaluations, failed={"broken": "out of memory"})
    entry = only(workspace, "hard")
    assert entry.counts == {"done": 1, "failed": 1, "pending": 1}
    assert "    FAILED: hard/broken/seed1: out of memory" in lines_of(entry)


def test_an_experiment_without_any_result_is_in_the_log(workspace: Workspace) -> None:
    record(workspace, "started", {"base": "none"}, claims=[("a", "base")])
    entry = only(workspace, "started")
    assert entry.result() == "no result yet" and entry.cost is not None and entry.cost.stages == 0


def test_a_smoke_run_says_so(workspace: Workspace) -> None:
    record(workspace, "toy-smoke", {"good": "eval-good"}, resolved={"name": "toy"})
    assert "SMOKE" in lines_of(only(workspace, "toy-smoke"))[0] and "SMOKE" not in lines_of(only(workspace, "toy"))[0]


def test_an_import_has_an_entry(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "published.csv").write_text("condition,correct,n\nbase,30,100\noracle,45,100\n")
    import_file(workspace, tmp_path / "published.csv", {"counts": True})
    entry = only(workspace, "import*")
    assert entry.counts == {"imported": 2} and entry.best is not None and entry.best.mean == 0.45
    common = {"metric": "accuracy", "n": 100, "seeds": 1, "beside": False}
    assert entry.to_json()["arms"] == [
        {"condition": "base", "mean": 0.3, **common},
        {"condition": "oracle", "mean": 0.45, **common},
    ]


def test_only_what_is_shown_is_judged_and_what_is_older_is_counted(workspace: Workspace) -> None:
    """What is judged leaves a look."""
    record(workspace, "alpha", {"good": "eval-good"}, ended_at="2026-03-01T00:00:00+00:00")
    shown = CliRunner().invoke(app, ["log", "--limit", "1", "-w", str(workspace.root)])
    assert shown.output.splitlines()[0] == "1 older, which nsd log --limit 2 would show too"
    assert read_looks(workspace) == []
    CliRunner().invoke(app, ["log", "--limit", "2", "-w", str(workspace.root)])
    assert {look.experiment for look in read_looks(workspace)} == {"toy"}


def test_the_newest_is_last_and_limit_takes_the_end(workspace: Workspace) -> None:
    record(workspace, "alpha", {"good": "eval-good"}, ended_at="2026-03-01T00:00:00+00:00")
    assert [entry.experiment for entry in log_entries(workspace)] == ["toy", "alpha"]
    shown = CliRunner().invoke(app, ["log", "--limit", "1", "-w", str(workspace.root)])
    assert "alpha" in shown.output and "toy" not in shown.output


def test_a_pattern_that_fits_nothing_names_the_nearest(workspace: Workspace) -> None:
    with pytest.raises(InputError, match="did you mean 'toy'"):
        log_entries(workspace, "toi")


def test_an_empty_workspace_says_how_to_begin(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="run a spec first"):
        log_entries(Workspace(tmp_path))


def test_judging_in_the_log_is_a_look(workspace: Workspace) -> None:
    for _ in range(2):
        CliRunner().invoke(app, ["log", "-w", str(workspace.root)])
    assert [(one.a, one.b, one.command) for one in read_looks(workspace)] == [
        ("toy/bad", "toy/good", "log"),
        ("toy/good", "toy/same", "log"),
    ]


# --------------------------------------------------------------------------- notes


def test_a_note_is_kept_indexed_and_shown(workspace: Workspace) -> None:
    add_note(workspace, "toy/good/seed1", "ship it")
    workspace.database.unlink(missing_ok=True)
    assert lines_of(only(workspace))[-1].endswith("on toy/good/seed1: ship it")
    with Store(workspace).read() as connection:
        assert connection.execute("SELECT run, text FROM notes").fetchall() == [("toy/good/seed1", "ship it")]


def test_a_note_belongs_to_the_version_of_its_time(workspace: Workspace) -> None:
    _record(workspace, version="bbbbbbbbbbbb", recorded_at="2026-02-01T00:00:00+00:00")
    _record(workspace, version="cccccccccccc", recorded_at="2999-01-01T00:00:00+00:00")
    add_note(workspace, "toy", "before the year 2999")
    noted = [entry.spec_digest for entry in log_entries(workspace) if entry.notes]
    assert noted == ["bbbbbbbbbbbb"]


def test_a_note_outlives_its_record(workspace: Workspace) -> None:
    record(workspace, "short", {"good": "eval-good"})
    add_note(workspace, "short", "lesson learned")
    workspace.record_path("short", "aaaaaaaaaaaa").unlink()
    (entry,) = [one for one in log_entries(workspace) if one.kind == "note"]
    assert "lesson learned" in "\n".join(lines_of(entry))


@pytest.mark.parametrize("text", ["", "  \n\t "])
def test_an_empty_note_is_refused(workspace: Workspace, text: str) -> None:
    with pytest.raises(InputError, match="empty"):
        add_note(workspace, "toy", text)
    assert not workspace.notes.exists()


def test_a_note_on_an_unknown_run_names_the_nearest(workspace: Workspace) -> None:
    with pytest.raises(InputError, match="did you mean 'toy/good/seed1'"):
        add_note(workspace, "toy/god/seed1", "text")


def test_control_characters_are_shown_escaped(workspace: Workspace) -> None:
    add_note(workspace, "toy", "red \x1b[31m, bell \x07, turned \u202e, two\nlines, byte \udc80")
    shown = CliRunner().invoke(app, ["log", "-w", str(workspace.root)]).output
    assert r"red \x1b[31m, bell \x07, turned \u202e, two\nlines" in shown
    assert not {"\x1b", "\x07", "\u202e", "\udc80"} & set(shown)


def test_the_best_is_one_of_those_that_are_measured_like_the_first(workspace: Workspace) -> None:
    entry = only(workspace)
    bad, good, _ = entry.arms
    mixed = replace(entry, arms=[bad, replace(bad, condition="more", mean=0.2), replace(good, metric="score")])
    assert mixed.best is not None and mixed.best.condition == "more"


def test_what_is_no_experiment_says_nothing_where_it_has_no_result(workspace: Workspace) -> None:
    nothing = replace(only(workspace), arms=[])
    assert (nothing.result(), replace(nothing, kind="import").result()) == ("no result yet", "")


def test_entries_of_one_date_come_in_the_order_of_their_names(workspace: Workspace) -> None:
    record(workspace, "alpha", {"good": "eval-good"})
    assert [entry.experiment for entry in log_entries(workspace)] == ["alpha", "toy"]


def test_a_note_on_an_imported_run_is_in_the_imports_entry_and_a_pattern_leaves_both_out(
    workspace: Workspace, tmp_path: Path
) -> None:
    (tmp_path / "published.csv").write_text("condition,correct,n\nzero,45,100\nbase,30,100\n")
    import_file(workspace, tmp_path / "published.csv", {"counts": True})
    add_note(workspace, "zero", "from the paper")
    record(workspace, "short", {"good": "eval-good"})
    add_note(workspace, "short", "lost")
    workspace.record_path("short", "aaaaaaaaaaaa").unlink()
    said = [(entry.kind, [note.text for note in entry.notes]) for entry in log_entries(workspace)]
    assert said == [("experiment", []), ("import", ["from the paper"]), ("note", ["lost"])]
    assert only(workspace, "toy").kind == "experiment" and only(workspace, "short").notes[0].text == "lost"


# --------------------------------------------------------------------------- page


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_holds_everything_and_runs_nothing(workspace: Workspace, tmp_path: Path) -> None:
    record(
        workspace, "evil", {"good": "eval-good"}, question="<script>alert(1)</script> {{ 7 * 7 }} <img src=x onerror=y>"
    )
    add_note(workspace, "evil", "</td><script>alert(2)</script>")
    write_page(log_entries(workspace), tmp_path / "log.html")
    page = _Page()
    page.feed((tmp_path / "log.html").read_text())
    assert "script" not in page.tags and "img" not in page.tags and "link" not in page.tags
    assert not {"src", "href", "onerror"} & set(page.attributes)
    for part in ("<script>alert(1)</script> {{ 7 * 7 }}", "</td><script>alert(2)", "holds: good > bad", "3 min 00 s"):
        assert part in page.text


def test_a_page_that_cannot_be_written_is_bad_input(workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot write"):
        write_page(log_entries(workspace), tmp_path / "absent" / "log.html")
