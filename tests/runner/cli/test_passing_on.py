"""Every flag of every command, and every argument of the Python face, as what stands behind them is given it."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import nsd as face
from nsd.plugins.errors import InputError, Interrupted, StageFailed
from nsd.runner.cli import app as cli
from nsd.runner.cli.app import app
from nsd.runner.cli.power_designs import Wanted
from nsd.runner.launch.launching import Options as LaunchOptions
from nsd.runner.store.index import Store
from nsd.runner.store.workspace import Workspace

nsd: Any = face  # what stands behind it gives notes, not results
Calls = list[tuple[str, dict[str, Any]]]
Noted = Callable[..., Calls]


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Noted:
    """Put notes in the place of functions: what each call was given, by parameter, with the workspace as its name."""
    monkeypatch.chdir(tmp_path)

    def plain(value: Any) -> Any:
        if isinstance(value, Workspace):
            return value.root.relative_to(tmp_path).as_posix()
        if callable(value):
            return value.__name__
        return list(value) if isinstance(value, tuple | list) else value

    def replace(**answers: Any) -> Calls:
        calls: Calls = []
        for target, answer in answers.items():
            module, _, name = target.replace("__", ".").rpartition(".")
            signature = inspect.signature(getattr(import_module(module), name))

            def note(*given: Any, _of: Any = (name, signature, answer), **named: Any) -> Any:
                bound = _of[1].bind(*given, **named)
                bound.apply_defaults()
                calls.append((_of[0], {key: plain(value) for key, value in bound.arguments.items()}))
                return _of[2]

            monkeypatch.setattr(f"{module}.{name}", note)
        return calls

    return replace


def command(*arguments: str, code: int = 0) -> None:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == code, (result.output, result.exception)


HERE = {"workspace": "nsd-workspace"}
COLLECTED = {**HERE, "more": "unneeded_copies"}
PLANNING: dict[str, Any] = {
    "nsd__runner__spec__load__load_spec": "a spec",
    "nsd__runner__plan__build__build_plan": "a plan",
}
PLANNED = {"experiment": "a spec", "only": [], "seeds": [], "smoke": False, "pin": False, "repeats": 0}
CHOSEN = {"only": ["a", "b"], "seeds": [1, 2], "smoke": True, "repeats": 3}
CHOICE = ("--only", "a", "--only", "b", "--seed", "1", "--seed", "2", "--smoke", "--repeat-eval", "3")


def test_run(noted: Noted) -> None:
    calls = noted(**PLANNING, nsd__runner__cli__run__run_plan=75)
    command("run", "x.yaml", code=75)
    flags = ("--stage", "ab", "--stage", "cd", "--store", "file:///s", "--json", "--wide", "-w", "there")
    command("run", "x.yaml", *CHOICE, *flags, code=75)
    ran: dict[str, Any] = {
        "plan": "a plan",
        "workspace": "nsd-workspace",
        "stages": [],
        "store": None,
        "as_json": False,
        "wide": False,
    }
    more = {"workspace": "there", "stages": ["ab", "cd"], "store": "file:///s", "as_json": True, "wide": True}
    load = ("load_spec", {"path": Path("x.yaml"), "run_files": True})
    assert calls == [
        *(load, ("build_plan", {**PLANNED, "pin": True}), ("run_plan", ran)),
        *(load, ("build_plan", {**PLANNED, **CHOSEN, "pin": True}), ("run_plan", {**ran, **more})),
    ]


def test_plan(noted: Noted) -> None:
    calls = noted(**PLANNING, nsd__runner__cli__show_plan__print_plan=None)
    command("plan", "x.yaml")
    command("plan", "x.yaml", *CHOICE, "--run-files", "--json", "-w", "there", "--gpus", "L4:1,H100:1")
    assert calls == [
        ("load_spec", {"path": Path("x.yaml"), "run_files": False}),
        ("build_plan", PLANNED),
        ("print_plan", {"plan": "a plan", "workspace": "nsd-workspace", "as_json": False, "gpus": None}),
        ("load_spec", {"path": Path("x.yaml"), "run_files": True}),
        ("build_plan", {**PLANNED, **CHOSEN}),
        ("print_plan", {"plan": "a plan", "workspace": "there", "as_json": True, "gpus": "L4:1,H100:1"}),
    ]


def test_launch(noted: Noted, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = noted(nsd__runner__launch__launching__launch=3)
    command("launch", "x.yaml", code=3)
    text = "--infra aws --gpus L4:1 --spot --max-usd 3 --max-hours 2 --store s3://b --environment /e --managed "
    text += "--parallel 4 --detach --dry-run --yes --weights --only a --seed 1 --smoke -w there"
    command("launch", "x.yaml", *text.split(), code=3)
    monkeypatch.setenv("NSD_STORE", "s3://set")
    command("launch", "x.yaml", "--no-spot", "--no-managed", code=3)
    full = {"infra": "aws", "gpus": "L4:1", "spot": True, "max_usd": 3.0, "max_hours": 2.0, "store": "s3://b"}
    full |= {"environment": "/e", "managed": True, "parallel": 4, "detach": True, "yes": True, "only": ("a",)}
    full |= {"seeds": (1,), "smoke": True, "weights": True, "dry_run": True}
    assert [call["options"] for _, call in calls] == [
        LaunchOptions(),
        LaunchOptions(**full),  # type: ignore[arg-type]
        LaunchOptions(spot=False, managed=False, store="s3://set"),
    ]
    assert [(call["workspace"], call["spec"]) for _, call in calls] == [
        *(("nsd-workspace", Path("x.yaml")), ("there", Path("x.yaml")), ("nsd-workspace", Path("x.yaml"))),
    ]


def test_what_is_done_to_a_launch(noted: Noted) -> None:
    follow = "nsd__runner__launch__follow__"
    calls = noted(
        **{follow + "status": None, follow + "logs": None, follow + "cancel_launch": None, follow + "pull": 1}
    )
    for word in ("status", "logs", "cancel"):
        command("launch", word, "l1", "-w", "there")
    command("launch", "pull", "l1", "--weights", code=1)
    command("launch", "pull", code=1)
    one = {"workspace": "there", "identity": "l1"}
    assert calls == [
        *((name, one) for name in ("status", "logs", "cancel_launch")),
        ("pull", {"workspace": "nsd-workspace", "identity": "l1", "weights": True, "answer": "print_outcome"}),
        ("pull", {"workspace": "nsd-workspace", "identity": None, "weights": False, "answer": "print_outcome"}),
    ]


def test_power(noted: Noted) -> None:
    calls = noted(nsd__runner__cli__show_power__print_power=None)
    command("power", "x.yaml")
    text = "--detect 0.1 --power 0.9 --alpha 0.01 --questions 5 --samples 6 --seeds 7 --discordance 0.2 --seed-sd 0.3"
    text += " --most-questions 8 --groups g --icc 0.4"
    command("power", *text.split(), "--run-files", "--json")
    one = {"workspace": "nsd-workspace", "name": "x.yaml", "wanted": Wanted(), "as_json": False, "run_files": False}
    stated = Wanted(0.1, 0.9, 0.01, 5, 6, 7, 0.2, 0.3, 8, "g", 0.4)
    two = {**one, "name": None, "wanted": stated, "as_json": True, "run_files": True}
    assert calls == [("print_power", one), ("print_power", two)]


@pytest.mark.parametrize(
    ("line", "target", "given"),
    [
        (
            "validate a.yaml b.yaml",
            "nsd__runner__cli__validate__validate_files",
            {"paths": [Path("a.yaml"), Path("b.yaml")], "gold": False, "run_files": False, "as_json": False},
        ),
        (
            "validate a.yaml --gold --run-files --json",
            "nsd__runner__cli__validate__validate_files",
            {"paths": [Path("a.yaml")], "gold": True, "run_files": True, "as_json": True},
        ),
        (
            "report a b --html x.html -f csv --baseline a --force --metric tokens --by level",
            "nsd__runner__cli__report__print_report",
            {
                **{"names": ["a", "b"], "html": Path("x.html"), "output": "csv", "baseline": "a"},
                **{"force": True, "metric": "tokens", "by": "level", "workspace": "nsd-workspace"},
            },
        ),
        (
            "compare a b --by level --metric tokens --alpha 0.1 -f json --wide --matrix --groups g.csv --test mcnemar",
            "nsd__runner__cli__by_field__print_by_field",
            {
                **{"names": ["a", "b"], "field": "level", "output": "json", "beside": {"matrix", "groups", "test"}},
                **{"metric": "tokens", "alpha": 0.1, "wide": True, "workspace": "nsd-workspace"},
            },
        ),
        (
            "samples a b --wrong --search x --page 2 --size 9",
            "nsd__runner__cli__samples__print_samples",
            {
                **{"names": ["a", "b"], "wrong": True, "right": False, "disagree": False, "search": "x", "page": 2},
                **{"size": 9, "as_json": False, "workspace": "nsd-workspace"},
            },
        ),
        (
            "samples a --right --disagree --json",
            "nsd__runner__cli__samples__print_samples",
            {
                **{"names": ["a"], "wrong": False, "right": True, "disagree": True, "search": None, "page": 1},
                **{"size": 5, "as_json": True, "workspace": "nsd-workspace"},
            },
        ),
        (
            "logs a -n 7 --stage train",
            "nsd__runner__cli__show_logs__print_logs",
            {**HERE, "name": "a", "lines": 7, "kind": "train"},
        ),
        (
            "revote a --k 2 --k 4 --threshold 0.5 --ties drop --resample 9 "
            "--weights tail --top 0.5 --stop-vote esc --json",
            "nsd__runner__cli__show_revote__print_revote",
            {
                **{"workspace": "nsd-workspace", "names": ["a"], "ks": [2, 4], "thresholds": [0.5], "ties": "drop"},
                **{"resamples": 9, "as_json": True, "weights": ["tail"], "top": 0.5, "stop_votes": ["esc"]},
            },
        ),
        (
            "log gsm* --limit 3 --html x.html --json",
            "nsd__runner__cli__show_log__print_log",
            {"workspace": "nsd-workspace", "pattern": "gsm*", "limit": 3, "html": Path("x.html"), "as_json": True},
        ),
        (
            "gc --yes --partial ab --store file:///s",
            "nsd__runner__store__gc__collect",
            {**COLLECTED, "yes": True, "partial": "ab", "store": "file:///s"},
        ),
        ("gc", "nsd__runner__store__gc__collect", {**COLLECTED, "yes": False, "partial": None, "store": None}),
        ("runs a* --json", "nsd__runner__cli__show_runs__print_runs", {**HERE, "pattern": "a*", "as_json": True}),
        ("show a --json", "nsd__runner__cli__show_run__print_run", {**HERE, "name": "a", "as_json": True}),
        ("labels a --json", "nsd__runner__cli__show_labels__print_labels", {**HERE, "names": ["a"], "as_json": True}),
    ],
)
def test_a_command_that_looks(noted: Noted, line: str, target: str, given: dict[str, Any]) -> None:
    calls = noted(**{target: 0})
    command(*line.split())
    assert calls == [(target.rpartition("__")[2], given)]


def test_import(noted: Noted) -> None:
    calls = noted(nsd__runner__cli__importing__print_import=None)
    text = "--name n --id i --correct c --answer a --gold g --verifier v --finish f --counts --id-is-text --from t"
    text += " --score s --sample e --samples 3 --seed 4 --text q --where a=1 --where b=2 --replace"
    command("import", "x.jsonl", *text.split())
    fields = {"name": "n", "id_field": "i", "correct": "c", "answer": "a", "gold": "g", "verifier": "v", "finish": "f"}
    fields |= {"source": "t", "score": "s", "sample": "e", "text": "q"}
    options = {**fields, "counts": True, "id_is_text": True, "samples": 3, "seed": 4}
    given = {"workspace": "nsd-workspace", "file": Path("x.jsonl"), "options": options}
    assert calls == [("print_import", {**given, "where": ["a=1", "b=2"], "replace": True})]


# --------------------------------------------------------------------------- comparisons

COMPARED: dict[str, Any] = {"connection": "open", "runs": ["a", "b"]}
ASKED = {"alpha": 0.01, "correction": "holm", "test": "mcnemar", "force": True, "claim": "recipe", "margin": 0.02}
ASKED |= {"baseline": "a", "metric": "tokens", "looks": "any"}
SPEC = "name: toy\nmodel: builtin:wordmath-1m\ndata: wordmath\nconditions: {a: {train_on: []}}\n"


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextlib.contextmanager
    def read(self: Store) -> Iterator[Any]:
        yield "open"

    monkeypatch.setattr(Store, "read", read)


@pytest.mark.usefixtures("opened")
def test_compare(noted: Noted, tmp_path: Path) -> None:
    calls = noted(
        nsd__reports__judge__compare__compare_runs=[],
        nsd__reports__text__render__render=None,
        nsd__reports__text__matrix__render_matrix=None,
    )
    (tmp_path / "g.csv").write_text("question_id,group\nq1,one\n")
    (tmp_path / "toy.yaml").write_text(SPEC)
    text = "--alpha 0.01 --correction holm --test mcnemar --force --claim recipe --margin 0.02 --baseline a --looks any"
    command("compare", "a", "b")
    command("compare", "a", "b", *text.split(), "--metric", "tokens", "--groups", "g.csv", "-f", "json", "--wide")
    command("compare", "toy.yaml", "--baseline", "a", "--matrix")
    compared = [call for name, call in calls if name == "compare_runs"]
    assert compared == [
        {**COMPARED, "options": {"groups": None}},
        {**COMPARED, "options": {**ASKED, "groups": {"q1": "one"}}},
        {**COMPARED, "runs": ["toy"], "options": {"baseline": "toy/a", "groups": None}},
    ]
    shown = [(name, call["output"], call.get("wide")) for name, call in calls if name != "compare_runs"]
    assert shown == [("render", "table", False), ("render", "json", True), ("render_matrix", "table", None)]


@pytest.mark.parametrize(
    "flags",
    [
        "--baseline a",
        "--alpha 0.1",
        "--correction none",
        "--margin 0.1",
        "--test mcnemar",
        "--matrix",
        "--force",
        "--looks any",
    ],
)
@pytest.mark.usefixtures("opened")
def test_a_question_about_pairs_is_not_answered_by_the_claims(noted: Noted, tmp_path: Path, flags: str) -> None:
    calls = noted(
        nsd__reports__judge__compare__compare_runs=[],
        nsd__reports__text__render__render=None,
        nsd__reports__text__matrix__render_matrix=None,
    )
    (tmp_path / "toy.yaml").write_text(SPEC)
    command("compare", "toy.yaml", *flags.split())
    assert calls[0][0] == "compare_runs"


@pytest.mark.usefixtures("opened")
def test_the_python_face_compares_alike(noted: Noted) -> None:
    calls = noted(nsd__reports__judge__compare__compare_runs=["found"], nsd__reports__judge__answer__answer="an answer")
    assert nsd.compare("a", "b") == ["found"]
    nsd.compare("a", "b", **ASKED)
    assert nsd.answer("toy") == "an answer"
    assert calls[:2] == [
        ("compare_runs", {**COMPARED, "options": {}}),
        ("compare_runs", {**COMPARED, "options": ASKED}),
    ]
    assert {**calls[2][1], "connection": ""}["experiment"] == "toy" and calls[2][1]["spec_digest"] is None


def test_the_python_face_runs_and_plans_alike(noted: Noted) -> None:
    calls = noted(**PLANNING, nsd__runner__work__execute__execute="an outcome")
    arguments: dict[str, Any] = {"only": ["a", "b"], "seeds": [1, 2], "smoke": True, "repeat_eval": 3}
    assert nsd.plan("x.yaml") == "a plan" and nsd.plan("x.yaml", **arguments, run_files=True) == "a plan"
    assert nsd.run("x.yaml") == "an outcome" and nsd.run("x.yaml", **arguments, workspace="there") == "an outcome"
    looks, runs = (
        ("load_spec", {"path": Path("x.yaml"), "run_files": False}),
        ("load_spec", {"path": Path("x.yaml"), "run_files": True}),
    )
    executed = {"plan": "a plan", "workspace": "nsd-workspace", "sync": None, "only": None, "ends_process": False}
    assert all(given.pop("settle") is not None for what, given in calls if what == "execute")
    assert calls == [
        *(looks, ("build_plan", PLANNED), runs, ("build_plan", {**PLANNED, **CHOSEN})),
        *(runs, ("build_plan", {**PLANNED, "pin": True}), ("execute", executed)),
        *(runs, ("build_plan", {**PLANNED, **CHOSEN, "pin": True}), ("execute", {**executed, "workspace": "there"})),
    ]


def test_the_python_face_lists_runs_of_its_workspace(noted: Noted, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = noted(nsd__reports__judge__rows__run_rows=[])
    nsd.load_results()
    monkeypatch.setenv("NSD_WORKSPACE", "set")
    nsd.load_results("toy/*")
    nsd.load_results("toy/*", workspace="there")
    assert [(call["workspace"], call["pattern"]) for _, call in calls] == [
        *(("nsd-workspace", "*"), ("set", "toy/*"), ("there", "toy/*")),
    ]


# --------------------------------------------------------------------------- how it ends


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (InputError("no such thing"), 2, "nsd: no such thing"),
        (StageFailed("no votes"), 1, "nsd: no votes"),
        (Interrupted("stopped"), 75, "nsd: stopped"),
        (RuntimeError("a bug"), 1, "nsd: internal error, RuntimeError: a bug"),
    ],
)
def test_every_kind_of_end_has_its_exit_code(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], error: Exception, code: int, words: str
) -> None:
    def ends(**_: object) -> None:
        raise error

    monkeypatch.setattr(cli, "app", ends)
    monkeypatch.delenv("NSD_DEBUG", raising=False)
    with pytest.raises(SystemExit) as end:
        cli.main()
    said = capfd.readouterr()
    assert end.value.code == code and said.err.startswith(words) and "Traceback" not in said.err
    if type(error) is RuntimeError:
        (details,) = [word for word in said.err.split() if word.startswith("/") and "nsd-error-" in word]
        path = Path(details.rstrip(";"))
        assert "RuntimeError: a bug" in path.read_text()
        path.unlink()
