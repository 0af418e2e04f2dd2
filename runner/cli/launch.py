"""`nsd launch`: a spec on a rented machine, and what can be done to a launch afterwards. Thin, as app.py."""

import os
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from nsd.runner.cli.options import OnlyOption, SeedOption, SmokeOption, SpecPath, WorkspaceOption, workspace_at

START = "start"
LaunchName = Annotated[str | None, typer.Argument(metavar="[LAUNCH]", help="Which launch [the last].")]
WeightsOption = Annotated[bool, typer.Option("--weights", help="Bring the trained models home too.")]


class SpecOrCommand(TyperGroup):
    """`nsd launch x.yaml` is `nsd launch start x.yaml`: what names no command of the group belongs to `start`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put `start` before a spec or an option of its, and a workspace behind the command that it stands before."""
        given = _words_of_workspace(args)
        if args[given : given + 1] and args[given] in self.commands:
            args = [args[given], *args[:given], *args[given + 1 :]]
        if args and args[0] not in {*self.commands, *ctx.help_option_names}:
            args = [START, *args]
        return super().parse_args(ctx, args)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Both ways to go on."""
        return ["SPEC [OPTIONS]", "|", "COMMAND [LAUNCH]"]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """What `start` can be given, then the commands."""
        self.commands[START].format_options(ctx, formatter)
        self.format_commands(ctx, formatter)


def _words_of_workspace(args: list[str]) -> int:
    """How many words at the front name the workspace: `-w DIR`, `-wDIR`, `--workspace DIR` or `--workspace=DIR`."""
    if args[:1] in (["-w"], ["--workspace"]):
        return 2
    return 1 if args and args[0].startswith(("-w", "--workspace=")) else 0


launch_app = typer.Typer(
    cls=SpecOrCommand,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Run a spec on a rented machine, through SkyPilot, and bring the results home.",
)


@launch_app.command(name=START)
def start(
    spec: SpecPath,
    infra: Annotated[str | None, typer.Option(help="aws, gcp/us-central1, kubernetes, slurm/NAME, ...")] = None,
    gpus: Annotated[str | None, typer.Option(help="Accelerators instead of the spec's, such as L4:1.")] = None,
    spot: Annotated[bool | None, typer.Option("--spot/--no-spot", help="Machines that may be taken away.")] = None,
    max_usd: Annotated[float | None, typer.Option(help="Refuse above, and stop before, this many dollars.")] = None,
    max_hours: Annotated[float | None, typer.Option(help="Stop after this many hours.")] = None,
    store: Annotated[
        str | None, typer.Option(metavar="URI", help="Where artifacts go: s3://..., gs://..., file:///shared.")
    ] = None,
    environment: Annotated[
        str | None, typer.Option(metavar="DIR", help="A ready environment on the machine, instead of making one.")
    ] = None,
    managed: Annotated[
        bool | None, typer.Option("--managed/--no-managed", help="Have SkyPilot bring jobs back after a preemption.")
    ] = None,
    parallel: Annotated[int, typer.Option(metavar="N", help="Spread the arms over this many jobs.")] = 1,
    detach: Annotated[bool, typer.Option("--detach", help="Do not stay; nsd launch pull takes the results.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show machines, times and prices; launch nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    weights: WeightsOption = False,
    only: OnlyOption = None,
    smoke: SmokeOption = False,
    send: Annotated[
        list[str] | None,
        typer.Option(metavar="PATH", help="Send this file or folder too; what the spec names goes anyway. Repeatable."),
    ] = None,
    seed: SeedOption = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Launch a spec; `nsd launch SPEC` is short for it."""
    from nsd.runner.cli.show_outcome import print_outcome
    from nsd.runner.launch import launching

    options = launching.Options(
        infra=infra,
        gpus=gpus,
        spot=spot,
        max_usd=max_usd,
        max_hours=max_hours,
        store=store or os.environ.get("NSD_STORE"),
        environment=environment,
        managed=managed,
        parallel=parallel,
        detach=detach,
        yes=yes,
        only=tuple(only or ()),
        seeds=tuple(seed or ()),
        smoke=smoke,
        send=tuple(send or ()),
        weights=weights,
        dry_run=dry_run,
    )
    raise typer.Exit(launching.launch(workspace_at(workspace), spec, options, print_outcome))


@launch_app.command()
def status(name: LaunchName = None, workspace: WorkspaceOption = None) -> None:
    """List the launches, or one, with its jobs, hours, and at most how many dollars."""
    from nsd.runner.launch import follow

    follow.status(workspace_at(workspace), name)


@launch_app.command()
def logs(name: LaunchName = None, workspace: WorkspaceOption = None) -> None:
    """Print what the jobs of a launch print, until they end."""
    from nsd.runner.launch import follow

    follow.logs(workspace_at(workspace), name)


@launch_app.command()
def pull(name: LaunchName = None, weights: WeightsOption = False, workspace: WorkspaceOption = None) -> None:
    """Take home what is finished; also starts jobs whose turn has come."""
    from nsd.runner.cli.show_outcome import print_outcome
    from nsd.runner.launch import follow

    raise typer.Exit(follow.pull(workspace_at(workspace), name, weights, print_outcome))


@launch_app.command()
def cancel(name: LaunchName = None, workspace: WorkspaceOption = None) -> None:
    """End a launch; without a store, what is finished is taken home first."""
    from nsd.runner.launch import follow

    follow.cancel_launch(workspace_at(workspace), name)
