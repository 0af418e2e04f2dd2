"""Arguments and options that several commands share.

Files of commands do without `from __future__ import annotations`: typer would evaluate every annotation from its text,
of every command at every start, which took a quarter of `nsd --help`.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from nsd.runner.store.workspace import Workspace

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
RepeatOption = Annotated[
    int | None,
    typer.Option(
        "--repeat-eval",
        metavar="N",
        min=1,
        help="Also evaluate every run N more times with other sampling seeds: the noise under every comparison.",
    ),
]
RunFilesOption = Annotated[
    bool, typer.Option("--run-files", help="Also import plugins named as ./file.py:Name (this runs those files).")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
WideOption = Annotated[bool, typer.Option("--wide", help="Every column, however wide the table becomes.")]


def workspace_at(given: Path | None) -> "Workspace":
    """The workspace that a command works in."""
    from nsd.runner.store.workspace import Workspace

    return Workspace.locate(given)
