"""The `nsd` command. Thin: parse, call, print; every import that costs time stands inside its command.

Exit codes: 0 done, 1 the work failed, 2 bad input, 75 interrupted and resumable. An error of the user's
input is one message on standard error; only a bug of nsd itself has a traceback, kept in a file.
"""

import atexit
import gc
import os
import sys
from pathlib import Path
from typing import Annotated, Any

# Start-up and end: pydantic looks through the metadata of every installed package for instrumentation plugins, and the
# cyclic collector by default runs many times over objects that all stay, at the end once more over each of them.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
gc.set_threshold(100_000, 50, 100)
atexit.register(gc.freeze)

import typer  # noqa: E402

from nsd.plugins.errors import NsdError  # noqa: E402
from nsd.plugins.screen import guard  # noqa: E402
from nsd.runner.cli.launch import launch_app  # noqa: E402
from nsd.runner.cli.looking import add_commands  # noqa: E402
from nsd.runner.cli.options import (  # noqa: E402
    JsonOption,
    OnlyOption,
    RepeatOption,
    RunFilesOption,
    SeedOption,
    SmokeOption,
    SpecPath,
    WideOption,
    WorkspaceOption,
    workspace_at,
)

app = typer.Typer(
    name="nsd",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Declarative self-training experiments on language models: one YAML spec in, honest answers out.",
)


@app.callback()
def every_command() -> None:
    """Put the neutraliser before whatever the command prints."""
    guard()


# --------------------------------------------------------------------------- the main loop


@app.command()
def run(
    spec: SpecPath,
    only: OnlyOption = None,
    smoke: SmokeOption = False,
    seed: SeedOption = None,
    repeat_eval: RepeatOption = None,
    stage: Annotated[
        list[str] | None,
        typer.Option(metavar="DIGEST", help="Only these stages (as nsd plan shows them) and their causes; repeatable."),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            metavar="URI", help="Keep artifacts in a bucket too: s3://..., gs://..., file:///folder [NSD_STORE]."
        ),
    ] = None,
    as_json: JsonOption = False,
    wide: WideOption = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Run a spec: train, label and evaluate whatever is not finished yet, then print the answer."""
    from nsd.runner.cli.run import run_plan
    from nsd.runner.plan.build import build_plan
    from nsd.runner.spec.load import load_spec

    place = workspace_at(workspace)
    experiment = load_spec(spec, run_files=True)
    plan = build_plan(experiment, only or (), seed or (), smoke, pin=True, repeats=repeat_eval or 0)
    raise typer.Exit(run_plan(plan, place, stage or (), store, as_json, wide))


@app.command()
def validate(
    specs: Annotated[list[str], typer.Argument(metavar="SPEC...", help="Spec files, folders or patterns.")],
    gold: Annotated[
        bool, typer.Option("--gold", help="Also score every gold answer with the spec's verifier; reads the data.")
    ] = False,
    audit: Annotated[
        bool, typer.Option("--audit", help="Also try the spec's verifiers: what they must call right, wrong and equal.")
    ] = False,
    run_files: RunFilesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Check specs without running anything: every error at once, with its place and the way out."""
    from nsd.runner.cli.validate import spec_files, validate_files

    if audit:
        from nsd.runner.cli.audit import audit_specs

        raise typer.Exit(audit_specs(spec_files(specs), run_files=run_files, as_json=as_json))
    raise typer.Exit(validate_files(spec_files(specs), gold=gold, run_files=run_files, as_json=as_json))


@app.command()
def plan(
    spec: SpecPath,
    only: OnlyOption = None,
    smoke: SmokeOption = False,
    seed: SeedOption = None,
    repeat_eval: RepeatOption = None,
    gpus: Annotated[
        str | None, typer.Option(metavar="L4:1,H100:1", help="Accelerators to estimate for, instead of the spec's.")
    ] = None,
    run_files: RunFilesOption = False,
    as_json: JsonOption = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Show the stages of a spec: what is finished already, why the rest is not, and what it takes on a GPU."""
    from nsd.runner.cli.show_plan import print_plan
    from nsd.runner.plan.build import build_plan
    from nsd.runner.spec.load import load_spec

    print_plan(
        build_plan(load_spec(spec, run_files=run_files), only or (), seed or (), smoke, repeats=repeat_eval or 0),
        workspace_at(workspace),
        as_json,
        gpus,
    )


@app.command()
def power(
    name: Annotated[
        str | None, typer.Argument(metavar="[SPEC|EXPERIMENT]", help="A spec file, or an experiment that ran.")
    ] = None,
    detect: Annotated[
        float | None, typer.Option(help="The difference wanted, as a share [the spec's, else 0.02: two points].")
    ] = None,
    chance: Annotated[float, typer.Option("--power", help="With which chance it is to be found.")] = 0.8,
    alpha: Annotated[float | None, typer.Option(help="Level of the tests [the spec's, else 0.05].")] = None,
    questions: Annotated[
        int | None, typer.Option(min=1, max=10**9, metavar="N", help="Test questions instead.")
    ] = None,
    samples: Annotated[
        int | None, typer.Option(min=1, max=10**6, metavar="K", help="Samples per question instead.")
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, max=10**6, metavar="S", help="Training seeds per arm instead.")
    ] = None,
    discordance: Annotated[
        float | None, typer.Option(metavar="D", help="Share of questions on which two arms differ, instead of a guess.")
    ] = None,
    seed_sd: Annotated[float | None, typer.Option(metavar="S", help="SD over training seeds, as a share.")] = None,
    most: Annotated[
        int | None,
        typer.Option("--most-questions", min=1, max=10**9, metavar="N", help="As many questions can be had."),
    ] = None,
    groups: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|FIELD",
            help="Questions come in groups, as for compare: CSV of question_id,group, or a meta field; without a name "
            "how many groups.",
        ),
    ] = None,
    icc: Annotated[
        float | None,
        typer.Option(
            metavar="R", min=0, max=1, help="How the difference correlates inside a group, instead of a guess."
        ),
    ] = None,
    run_files: RunFilesOption = False,
    as_json: JsonOption = False,
    workspace: WorkspaceOption = None,
) -> None:
    """What difference a test set, samples and seeds can detect, and what a wanted one takes."""
    from nsd.runner.cli.power_designs import Wanted
    from nsd.runner.cli.show_power import print_power

    wanted = Wanted(detect, chance, alpha, questions, samples, seeds, discordance, seed_sd, most, groups, icc)
    print_power(workspace_at(workspace), name, wanted, as_json, run_files)


@app.command()
def compare(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN...", help="Run names or patterns (experiment/*), or one spec file.")
    ],
    output: Annotated[str, typer.Option("--format", "-f", help="table, json, md or csv.")] = "table",
    claim: Annotated[
        str | None,
        typer.Option(metavar="KIND", help="checkpoint (these weights, other questions) or recipe (train again)."),
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(metavar="RUN", help="Only pairs with this run; of a spec, with this condition.")
    ] = None,
    metric: Annotated[
        str | None, typer.Option(help="Another metric of the stored samples: pass@4, maj@8, tokens, truncated, ...")
    ] = None,
    matrix: Annotated[bool, typer.Option("--matrix", help="Differences of all pairs as a matrix.")] = False,
    alpha: Annotated[float | None, typer.Option(help="Level of the tests [0.05].")] = None,
    correction: Annotated[
        str | None, typer.Option(help="bh (default: these pairs were not declared), holm, bonferroni or none.")
    ] = None,
    margin: Annotated[
        float | None, typer.Option(help="Ask also whether pairs are equivalent within this, e.g. 0.02.")
    ] = None,
    test: Annotated[str | None, typer.Option(help="Use this test instead of the chosen one.")] = None,
    groups: Annotated[
        str | None,
        typer.Option(metavar="FILE|FIELD", help="Questions come in groups: CSV of question_id,group, or a meta field."),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(metavar="FIELD", help="Where the effect lives: by a meta field of the questions, or length."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Compare runs on different data or verifiers.")] = False,
    detect: Annotated[
        float | None, typer.Option(help="Say what a true difference of this size takes, e.g. 0.02 [the spec's].")
    ] = None,
    looks: Annotated[
        str | None,
        typer.Option(
            metavar="any", help="any: verdicts hold however often growing data are looked at; wider intervals."
        ),
    ] = None,
    intervals: Annotated[
        str | None,
        typer.Option(help="Level of the intervals: holm (what the correction leaves each), bonferroni, unadjusted."),
    ] = None,
    wide: WideOption = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Say which of two or more runs is better: paired on shared questions, corrected for many looks.

    Of a spec: its declared claims as one family, every other pair as another.
    """
    from nsd.runner.cli.compare import print_comparison

    asked: dict[str, Any] = {
        "claim": claim,
        "baseline": baseline,
        "metric": metric,
        "alpha": alpha,
        "correction": correction,
    }
    asked |= {"margin": margin, "test": test, "force": force or None, "looks": looks, "intervals": intervals}
    asked["detect"] = detect
    given = {name: value for name, value in asked.items() if value is not None}
    if by is not None:
        from nsd.runner.cli.by_field import print_by_field

        others = {*given} - {"metric", "alpha"}
        others |= {name for name, value in {"matrix": matrix, "groups": groups}.items() if value}
        print_by_field(workspace_at(workspace), runs, by, output, others, metric, alpha, wide)
        return
    print_comparison(workspace_at(workspace), runs, output, matrix=matrix, groups_from=groups, wide=wide, **given)


@app.command()
def report(
    names: Annotated[
        list[str], typer.Argument(metavar="SPEC|EXPERIMENT|RUN...", help="A spec file, an experiment, or runs.")
    ],
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write one self-contained page instead.")
    ] = None,
    output: Annotated[str | None, typer.Option("--format", "-f", help="md (the default), csv or json.")] = None,
    baseline: Annotated[
        str | None, typer.Option(metavar="RUN", help="For runs: the one to draw all others against [the best].")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Compare runs on different data or verifiers.")] = False,
    metric: Annotated[
        str | None, typer.Option(help="Another metric of the stored samples, as in nsd compare: pass@4, tokens, ...")
    ] = None,
    by: Annotated[
        str | None, typer.Option(metavar="FIELD", help="Show also where effects live, as nsd compare --by does.")
    ] = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Report an experiment, or runs: the answer first, then everything behind it, as a page or as text."""
    from nsd.runner.cli.report import print_report

    print_report(workspace_at(workspace), names, html, output, baseline, force, metric, by)


app.add_typer(launch_app, name="launch")
add_commands(app)


def main() -> None:
    """Entry point of the console command."""
    guard()
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
