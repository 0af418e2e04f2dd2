"""The `nsd` command. Thin: parse, call, print; every import that costs time stands inside its command.

Exit codes: 0 done, 1 the work failed, 2 bad input, 75 interrupted and resumable. An error of the user's
input is one message on standard error; only a bug of nsd itself has a traceback, kept in a file.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

# Start-up: pydantic looks through the metadata of every installed package for instrumentation plugins, and the
# cyclic collector by default runs many times over objects that all stay.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
gc.set_threshold(100_000, 50, 100)

import typer  # noqa: E402

from plugins.errors import NsdError  # noqa: E402

app = typer.Typer(
    name="nsd",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Declarative self-training experiments on language models: one YAML spec in, honest answers out.",
)
db_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="The DuckDB index over the artifacts.")
app.add_typer(db_app, name="db")

SpecPath = Annotated[Path, typer.Argument(metavar="SPEC", help="A spec file (YAML).")]
WorkspaceOption = Annotated[
    Path | None,
    typer.Option("--workspace", "-w", metavar="DIR", help="Where results live [NSD_WORKSPACE, else ./nsd-workspace]."),
]
OnlyOption = Annotated[
    list[str] | None, typer.Option("--only", metavar="COND", help="Only this condition and what it needs; repeatable.")
]
SeedOption = Annotated[
    list[int] | None, typer.Option("--seed", metavar="N", help="These seeds instead of the spec's; repeatable.")
]
SmokeOption = Annotated[
    bool, typer.Option("--smoke", help="Few questions and steps; everything that shapes quality stays as it is.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _workspace(given: Path | None) -> Any:
    from runner.artifacts import Workspace

    return Workspace.locate(given)


# --------------------------------------------------------------------------- the main loop


@app.command()
def run(
    spec: SpecPath,
    only: OnlyOption = None,
    smoke: SmokeOption = False,
    seed: SeedOption = None,
    as_json: JsonOption = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Run a spec: train, label and evaluate whatever is not finished yet, then print the answer."""
    from runner.execute import execute
    from runner.plan import build_plan
    from runner.spec import load_spec
    from runner.views import print_outcome

    place = _workspace(workspace)
    plan = build_plan(load_spec(spec), only or (), seed or (), smoke, pin=True)
    outcome = execute(plan, place)
    print_outcome(plan, place, outcome, as_json)
    raise typer.Exit(outcome.exit_code)


@app.command()
def validate(
    specs: Annotated[list[str], typer.Argument(metavar="SPEC...", help="Spec files, folders or patterns.")],
    gold: Annotated[
        bool, typer.Option("--gold", help="Also score every gold answer with the spec's verifier; reads the data.")
    ] = False,
    run_files: Annotated[
        bool, typer.Option("--run-files", help="Also import plugins named as ./file.py:Name (this runs those files).")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Check specs without running anything: every error at once, with its place and the way out."""
    from runner.validate import spec_files, validate_files

    raise typer.Exit(validate_files(spec_files(specs), gold=gold, run_files=run_files, as_json=as_json))


@app.command()
def plan(
    spec: SpecPath,
    only: OnlyOption = None,
    smoke: SmokeOption = False,
    seed: SeedOption = None,
    as_json: JsonOption = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Show the stages of a spec: what is finished already, and why the rest is not."""
    from runner.plan import build_plan
    from runner.spec import load_spec
    from runner.views import print_plan

    print_plan(build_plan(load_spec(spec), only or (), seed or (), smoke), _workspace(workspace), as_json)


@app.command()
def compare(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN...", help="Run names or patterns (experiment/*), or one spec file.")
    ],
    output: Annotated[str, typer.Option("--format", "-f", help="table, json, md or csv.")] = "table",
    alpha: Annotated[float, typer.Option(help="Level of the tests.")] = 0.05,
    test: Annotated[str | None, typer.Option(help="Use this test instead of the chosen one.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Compare runs on different data or verifiers.")] = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Say which of two or more runs is better: paired on shared questions, corrected for many looks."""
    from runner.views import print_comparison

    print_comparison(_workspace(workspace), runs, output, alpha, test, force)


# --------------------------------------------------------------------------- looking


@app.command()
def runs(
    pattern: Annotated[str, typer.Argument(metavar="[PATTERN]", help="Only these, e.g. 'quickstart/*'.")] = "*",
    as_json: JsonOption = False,
    workspace: WorkspaceOption = None,
) -> None:
    """List runs with their results."""
    from runner.views import print_runs

    print_runs(_workspace(workspace), pattern, as_json)


@app.command()
def show(
    name: Annotated[str, typer.Argument(metavar="RUN|DIGEST", help="A run, or the start of a stage's digest.")],
    as_json: JsonOption = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Everything known about a run or a stage: result, stages, configs, health, provenance."""
    from runner.views import print_run

    print_run(_workspace(workspace), name, as_json)


@app.command()
def samples(
    names: Annotated[list[str], typer.Argument(metavar="RUN [RUN]", help="One run, or two to see where they differ.")],
    wrong: Annotated[bool, typer.Option("--wrong", help="Only wrong completions.")] = False,
    right: Annotated[bool, typer.Option("--right", help="Only right completions.")] = False,
    disagree: Annotated[
        bool, typer.Option("--disagree", help="Only questions on which two runs differ, or samples of one run do.")
    ] = False,
    search: Annotated[str | None, typer.Option(help="Only where question or completion holds this text.")] = None,
    page: Annotated[int, typer.Option(min=1, help="Which page.")] = 1,
    size: Annotated[int, typer.Option(min=1, max=1000, help="Questions on a page.")] = 5,
    as_json: JsonOption = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Page through questions and completions."""
    from runner.samples import print_samples

    print_samples(_workspace(workspace), names, wrong, right, disagree, search, page, size, as_json)


@app.command()
def logs(
    name: Annotated[str, typer.Argument(metavar="RUN|DIGEST")],
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="How many lines from the end.")] = 100,
    kind: Annotated[str | None, typer.Option("--stage", help="train, sample, label or eval.")] = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Print what the stages of a run wrote while they ran, failed ones included."""
    from runner.views import print_logs

    print_logs(_workspace(workspace), name, lines, kind)


# --------------------------------------------------------------------------- help for writing specs


@app.command()
def plugins(
    kind: Annotated[str | None, typer.Argument(metavar="[KIND]", help="dataset, verifier, engine, ...")] = None,
    as_json: JsonOption = False,
) -> None:
    """List what a spec can name with `use:`, with every field and its default."""
    from runner.views import print_plugins

    print_plugins(kind, as_json)


@app.command()
def schema(
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write to a file instead.")] = None,
) -> None:
    """Print the JSON schema of the spec language, for completion in editors."""
    from runner.schema import json_schema

    text = json.dumps(json_schema(), indent=2)
    if out is None:
        print(text)
    else:
        out.write_text(text + "\n", encoding="utf-8")


@app.command()
def new(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write the new spec.")],
    start: Annotated[str, typer.Option("--from", metavar="NAME", help="wordmath or gsm8k.")] = "wordmath",
) -> None:
    """Write a commented starting spec."""
    from runner.new import write_new

    print(f"wrote {write_new(path, start)}; next: nsd validate {path} && nsd run {path} --smoke")


# --------------------------------------------------------------------------- upkeep


@app.command(name="import")
def import_results(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Per-sample JSONL, or a CSV of counts.")],
    name: Annotated[str | None, typer.Option(metavar="RUN", help="Name of the imported run.")] = None,
    id_field: Annotated[str | None, typer.Option("--id", metavar="FIELD", help="The question's id.")] = None,
    correct: Annotated[str | None, typer.Option(metavar="FIELD", help="0/1 or true/false.")] = None,
    answer: Annotated[str | None, typer.Option(metavar="FIELD", help="The answer given.")] = None,
    gold: Annotated[str | None, typer.Option(metavar="FIELD", help="The right answer.")] = None,
    verifier: Annotated[str | None, typer.Option(metavar="NAME", help="How answers are compared.")] = None,
    counts: Annotated[bool, typer.Option("--counts", help="A CSV with columns condition, correct, n.")] = False,
    id_is_text: Annotated[
        bool, typer.Option("--id-is-text", help="The id field holds the question's text: pair with nsd's own runs.")
    ] = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Bring in recorded results of other tools, to compare with or among."""
    from runner.imports import import_file

    options = {
        "name": name,
        "id_field": id_field,
        "correct": correct,
        "answer": answer,
        "gold": gold,
        "verifier": verifier,
        "counts": counts,
        "id_is_text": id_is_text,
    }
    for line in import_file(_workspace(workspace), file, options):
        print(line)


@app.command(name="gc")
def free_weights(
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    partial: Annotated[
        str | None, typer.Option(metavar="DIGEST", help="Instead drop what a half-done stage has so far.")
    ] = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Delete weights that no unfinished run needs; results, curves and provenance stay."""
    from runner.gc import collect

    collect(_workspace(workspace), yes, partial)


@db_app.command()
def rebuild(workspace: WorkspaceOption = None) -> None:
    """Make the DuckDB index again from the artifacts."""
    from runner.store import Store

    counts = Store(_workspace(workspace)).rebuild()
    print(f"indexed {counts['stages']} stages and {counts['experiments']} experiment records")


def main() -> None:
    """Entry point of the console command."""
    try:
        app(prog_name="nsd")
    except NsdError as error:
        print(f"nsd: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:  # `nsd runs | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        if os.environ.get("NSD_DEBUG"):
            raise
        sys.exit(_internal_error(error))


def _internal_error(error: Exception) -> int:
    import tempfile
    import traceback

    with tempfile.NamedTemporaryFile("w", prefix="nsd-error-", suffix=".txt", delete=False) as file:
        traceback.print_exception(error, file=file)
    kind = type(error).__name__
    print(
        f"nsd: internal error, {kind}: {error}\nThe details are in {file.name}; NSD_DEBUG=1 prints them.",
        file=sys.stderr,
    )
    return 1


if __name__ == "__main__":
    main()
