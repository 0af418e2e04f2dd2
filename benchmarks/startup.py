"""How long commands take to start, against importing the packages any such command line needs.

    python -m benchmarks.startup [--rounds N] [--record]

Runs the peer and each command in turn, many times, and prints medians and the ratio of pairs. The last rows are the
floor of `nsd validate`: a command that takes a list and a flag by typer and does nothing, and one that also reads the
spec as YAML and checks one field of it by a pydantic model. The aim is 0.8 of the peer for `nsd --help` and 2 for
`nsd validate`; this judges nothing.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterator

from benchmarks.clocks import median_ratio, of_environment, run
from benchmarks.frame import Row, argument_parser, report

CLOCKS = ("seconds", "processor")
PEER = [sys.executable, "-c", "import typer, pydantic, yaml, rich"]
NOTHING = """
import typer, pydantic, yaml, rich
app = typer.Typer()
@app.command()
def nothing(files: list[str], flag: bool = False): pass
app(["spec.yaml"])
"""
ONE_FIELD = """
import typer, pydantic, yaml, rich
class Spec(pydantic.BaseModel):
    name: str
app = typer.Typer()
@app.command()
def validate(files: list[str], flag: bool = False):
    node = yaml.compose(open(files[0]))
    Spec.model_validate({key.value: value.value for key, value in node.value if key.value == "name"})
app(["specs/quickstart.yaml"])
"""


def measure(options: argparse.Namespace) -> Iterator[Row]:
    """A row for each command."""
    nsd = of_environment("nsd")
    commands = {
        "`nsd --help`": [nsd, "--help"],
        "`nsd validate specs/quickstart.yaml`": [nsd, "validate", "specs/quickstart.yaml"],
        "a typer command that does nothing": [sys.executable, "-c", NOTHING],
        "one that checks one field of a spec": [sys.executable, "-c", ONE_FIELD],
    }
    for command in (PEER, *commands.values()):
        run(command)  # warm the file cache and the byte code
    for name, command in commands.items():
        pairs = [(run(command), run(PEER)) for _ in range(options.rounds)]
        walls, processors = ([[getattr(ran, clock) for ran in pair] for pair in pairs] for clock in CLOCKS)
        own, peer = (statistics.median(side) * 1000 for side in zip(*walls, strict=True))
        ratio, processor = (median_ratio(*zip(*side, strict=True)) for side in (walls, processors))
        yield Row(name, "importing typer, pydantic, yaml, rich", "ms", own, peer, ratio, processor=processor)


def main() -> int:
    """Measure and print."""
    parser = argument_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    return report(options, measure(options))


if __name__ == "__main__":
    sys.exit(main())
