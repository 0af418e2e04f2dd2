"""The commands that look at what there is, help to write specs, and keep the workspace in order. Thin, as app.py."""

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from nsd.runner.cli.options import JsonOption, SpecPath, WorkspaceOption, workspace_at

looking = typer.Typer(rich_markup_mode=None)
db_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="The DuckDB index over the artifacts.")


def add_commands(app: typer.Typer) -> None:
    """Give `app` these commands."""
    app.add_typer(looking)
    app.add_typer(db_app, name="db")


@looking.command(hidden=True)
def ready(spec: SpecPath) -> None:
    """Say whether this machine fits a spec. The setup of a launch asks; it runs the files that the spec names."""
    from nsd.runner.spec.load import load_spec
    from nsd.runner.work.ready import compiler_note, machine_for

    decision = machine_for(load_spec(spec, run_files=True))
    print("ready: nothing computes here" if decision is None else f"ready: {decision.device}, {decision.why}")
    if (note := compiler_note(decision)) is not None:
        print(f"note: {note}")


# --------------------------------------------------------------------------- looking


@looking.command()
def doctor(
    spec: Annotated[Path | None, typer.Argument(metavar="[SPEC]", help="Look for what this spec needs.")] = None,
    store: Annotated[str | None, typer.Option(metavar="URI", help="Also ask this store [NSD_STORE].")] = None,
    as_json: JsonOption = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Say what works on this machine, what is missing, and how to get it."""
    from nsd.runner.cli.doctor import print_doctor
    from nsd.runner.spec.load import load_spec

    experiment = None if spec is None else load_spec(spec)
    uri = store or os.environ.get("NSD_STORE")
    raise typer.Exit(print_doctor(workspace_at(workspace), experiment, uri, as_json))


@looking.command()
def runs(
    pattern: Annotated[str, typer.Argument(metavar="[PATTERN]", help="Only these, e.g. 'quickstart/*'.")] = "*",
    as_json: JsonOption = False,
    workspace: WorkspaceOption = None,
) -> None:
    """List runs with their results."""
    from nsd.runner.cli.show_runs import print_runs

    print_runs(workspace_at(workspace), pattern, as_json)


@looking.command()
def show(
    name: Annotated[str, typer.Argument(metavar="RUN|DIGEST", help="A run, or the start of a stage's digest.")],
    as_json: JsonOption = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Everything known about a run or a stage: result, stages, configs, health, provenance."""
    from nsd.runner.cli.show_run import print_run

    print_run(workspace_at(workspace), name, as_json)


@looking.command()
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
    from nsd.runner.cli.samples import print_samples

    print_samples(workspace_at(workspace), names, wrong, right, disagree, search, page, size, as_json)


@looking.command()
def rollouts(
    name: Annotated[str, typer.Argument(metavar="RUN", help="A run whose trainer learns from its own rollouts.")],
    step: Annotated[int | None, typer.Option(min=0, help="Only those drawn after so many optimizer steps.")] = None,
    question: Annotated[str | None, typer.Option(metavar="ID", help="Only those of a question.")] = None,
    masked: Annotated[
        bool | None, typer.Option("--masked/--unmasked", help="Only those without, or with, a teacher's lesson.")
    ] = None,
    search: Annotated[str | None, typer.Option(help="Only where rollout or teacher's input holds this text.")] = None,
    teacher: Annotated[bool, typer.Option("--teacher", help="Also what the teacher read.")] = False,
    page: Annotated[int, typer.Option(min=1, help="Which page.")] = 1,
    size: Annotated[int, typer.Option(min=1, max=1000, help="Rollouts on a page.")] = 8,
    as_json: JsonOption = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Page through what a training drew: rewards, and what a self-distillation's teacher read."""
    from nsd.runner.cli.rollouts import Wanted, print_rollouts

    wanted = Wanted(step, question, masked, search)
    print_rollouts(workspace_at(workspace), name, wanted, teacher, page, size, as_json)


@looking.command()
def logs(
    name: Annotated[str, typer.Argument(metavar="RUN|DIGEST")],
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="How many lines from the end.")] = 100,
    kind: Annotated[str | None, typer.Option("--stage", help="train, sample, label or score.")] = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Print what the stages of a run wrote while they ran, failed ones included."""
    from nsd.runner.cli.show_logs import print_logs

    print_logs(workspace_at(workspace), name, lines, kind)


@looking.command()
def labels(
    names: Annotated[
        list[str], typer.Argument(metavar="RUN|EXPERIMENT|SPEC...", help="Runs, patterns, experiments or a spec file.")
    ],
    as_json: JsonOption = False,
    workspace: WorkspaceOption = None,
) -> None:
    """What pseudo-labels were like: accuracy and coverage by confidence, calibration, agreement of labelers."""
    from nsd.runner.cli.show_labels import print_labels

    print_labels(workspace_at(workspace), names, as_json)


@looking.command()
def revote(
    names: Annotated[
        list[str], typer.Argument(metavar="RUN|EXPERIMENT|SPEC...", help="Runs, patterns, experiments or a spec file.")
    ],
    k: Annotated[
        list[int] | None, typer.Option("--k", metavar="N", help="Vote of the first N samples; repeatable.")
    ] = None,
    threshold: Annotated[
        list[float] | None, typer.Option("--threshold", metavar="T", help="Least share that agrees; repeatable.")
    ] = None,
    ties: Annotated[
        str, typer.Option("--ties", metavar="RULE", help="first: the labeler's own rule; drop: keep no tied label.")
    ] = "first",
    resample: Annotated[
        int, typer.Option("--resample", metavar="B", min=0, help="Also B random choices of N samples, for a spread.")
    ] = 0,
    weights: Annotated[
        list[str] | None,
        typer.Option("--weights", metavar="BY", help="Also weighted by a confidence: mean, tail, ...; repeatable."),
    ] = None,
    top: Annotated[float, typer.Option("--top", metavar="SHARE", help="Of weighted votes the surest samples.")] = 1.0,
    stop_vote: Annotated[
        list[str] | None,
        typer.Option("--stop-vote", metavar="RULE", help="Also stopped early: exact, adaptive or esc; repeatable."),
    ] = None,
    as_json: JsonOption = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Vote again over stored samples with another K, threshold or rule; generates and writes nothing."""
    from nsd.runner.cli.show_revote import print_revote

    where, asked = workspace_at(workspace), (k or (), threshold or (), ties, resample)
    print_revote(where, names, *asked, as_json, weights=weights or (), top=top, stop_votes=stop_vote or ())


@looking.command()
def log(
    pattern: Annotated[str, typer.Argument(metavar="[PATTERN]", help="Only these experiments, e.g. 'gsm8k-*'.")] = "*",
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Only the last N; on a screen 20 without it.")
    ] = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write one self-contained page instead.")] = None,
    as_json: JsonOption = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Every experiment run here, oldest first: question, result, verdicts, cost and notes, negative results too."""
    from nsd.runner.cli.show_log import print_log

    print_log(workspace_at(workspace), pattern, limit, html, as_json)


@looking.command()
def note(
    name: Annotated[str, typer.Argument(metavar="RUN|EXPERIMENT")],
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What was decided or learned.")],
    workspace: WorkspaceOption = None,
) -> None:
    """Attach a dated note to a run or an experiment; nsd log shows it."""
    from nsd.runner.store.notes import add_note

    written = add_note(workspace_at(workspace), name, text)
    print(f"noted on {written.run}, {written.written_at}")


# --------------------------------------------------------------------------- help for writing specs


@looking.command()
def plugins(
    kind: Annotated[str | None, typer.Argument(metavar="[KIND]", help="dataset, verifier, engine, ...")] = None,
    as_json: JsonOption = False,
) -> None:
    """List what a spec can name with `use:`, with every field and its default."""
    from nsd.runner.cli.show_plugins import print_plugins

    print_plugins(kind, as_json)


@looking.command()
def schema(
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write to a file instead.")] = None,
) -> None:
    """Print the JSON schema of the spec language, for completion in editors."""
    from nsd.runner.cli.report import write_file
    from nsd.runner.spec.schema import json_schema

    text = json.dumps(json_schema(), indent=2)
    if out is None:
        print(text)
    else:
        write_file(out, f"{text}\n".encode())


@looking.command()
def new(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write the new spec.")],
    start: Annotated[str, typer.Option("--from", metavar="NAME", help="wordmath or gsm8k.")] = "wordmath",
) -> None:
    """Write a commented starting spec."""
    from nsd.runner.cli.new import write_new

    print(f"wrote {write_new(path, start)}; next: nsd validate {path} && nsd run {path} --smoke")


# --------------------------------------------------------------------------- upkeep


@looking.command(name="import")
def import_results(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Per-sample JSON lines, JSON or CSV, or a log of another tool.")
    ],
    name: Annotated[str | None, typer.Option(metavar="RUN", help="Name of the imported run.")] = None,
    source: Annotated[
        str | None, typer.Option("--from", metavar="TOOL", help="lm-eval, inspect or openai-evals; seen where plain.")
    ] = None,
    id_field: Annotated[str | None, typer.Option("--id", metavar="FIELD", help="The question's id.")] = None,
    correct: Annotated[str | None, typer.Option(metavar="FIELD", help="0/1 or true/false.")] = None,
    score: Annotated[
        str | None, typer.Option(metavar="FIELD", help="A score from 0 to 1; of a tool's file, the scorer or metric.")
    ] = None,
    answer: Annotated[str | None, typer.Option(metavar="FIELD", help="The answer given.")] = None,
    gold: Annotated[str | None, typer.Option(metavar="FIELD", help="The right answer.")] = None,
    verifier: Annotated[str | None, typer.Option(metavar="NAME", help="How answers are compared.")] = None,
    finish: Annotated[
        str | None, typer.Option(metavar="FIELD", help="Why the completion ended: stop, length, error, ...")
    ] = None,
    where: Annotated[
        list[str] | None, typer.Option(metavar="FIELD=VALUE", help="Only these lines; repeatable.")
    ] = None,
    sample: Annotated[
        str | None, typer.Option(metavar="FIELD", help="Which sample of its question a line is: epoch, attempt, ...")
    ] = None,
    samples: Annotated[
        int | None, typer.Option(metavar="K", help="Samples of every question; one that is not there is wrong.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(metavar="N", help="The run's training seed: RUN/seedN is one of several of RUN.")
    ] = None,
    text: Annotated[
        str | None, typer.Option(metavar="FIELD", help="The question's text beside its id, checked before pairing.")
    ] = None,
    counts: Annotated[bool, typer.Option("--counts", help="A CSV with columns condition, correct, n.")] = False,
    id_is_text: Annotated[
        bool, typer.Option("--id-is-text", help="The id field holds the question's text: pair with nsd's own runs.")
    ] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Put it in place of what has its name.")] = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Bring in recorded results of other tools, to compare with or among."""
    from nsd.runner.cli.importing import print_import

    options = {
        "name": name,
        "source": source,
        "id_field": id_field,
        "correct": correct,
        "score": score,
        "finish": finish,
        "answer": answer,
        "gold": gold,
        "verifier": verifier,
        "sample": sample,
        "samples": samples,
        "seed": seed,
        "text": text,
        "counts": counts,
        "id_is_text": id_is_text,
    }
    print_import(workspace_at(workspace), file, options, where or (), replace)


@looking.command(name="gc")
def free_weights(
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    partial: Annotated[
        str | None, typer.Option(metavar="DIGEST", help="Instead drop what a half-done stage has so far.")
    ] = None,
    store: Annotated[
        str | None, typer.Option(metavar="URI", help="With --partial: drop it in this store too [NSD_STORE].")
    ] = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Delete weights that no unfinished run needs and copies sent with launches that are over; results stay."""
    from nsd.plugins.errors import InputError
    from nsd.runner.launch.launches import unneeded_copies
    from nsd.runner.store.gc import collect

    if store is not None and partial is None:
        raise InputError("--store goes with --partial: nothing else is deleted in a store")
    collect(workspace_at(workspace), yes, partial, store or os.environ.get("NSD_STORE"), unneeded_copies)


@db_app.command()
def rebuild(workspace: WorkspaceOption = None) -> None:
    """Make the DuckDB index again from the artifacts."""
    from nsd.runner.store.index import Store

    counts = Store(workspace_at(workspace)).rebuild()
    print(f"indexed {counts['stages']} stages and {counts['experiments']} experiment records")
