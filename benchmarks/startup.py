"""How long commands take to start, against importing the packages any such command line needs.

    python -m benchmarks.startup

Runs the peer and each command in turn, many times, and prints medians and the ratio of pairs. The last rows are the
floor of `nsd validate`: a command that takes a list and a flag by typer and does nothing, and one that also reads the
spec as YAML and checks one field of it by a pydantic model. The aim is 0.8 of the peer for `nsd --help` and 2 for
`nsd validate`; this prints, it does not judge.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROUNDS = 15
REPOSITORY = Path(__file__).resolve().parents[1]
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
NSD = str(Path(sys.executable).with_name("nsd"))


def seconds(command: list[str]) -> float:
    """Wall time of one whole process."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # whoever uses nsd has its byte code at hand
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, cwd=REPOSITORY, env=environment)
    return time.perf_counter() - started


def main() -> None:
    """Measure and print."""
    commands = {
        "nsd --help": [NSD, "--help"],
        "nsd validate specs/quickstart.yaml": [NSD, "validate", "specs/quickstart.yaml"],
        "a typer command that does nothing": [sys.executable, "-c", NOTHING],
        "one that checks one field of a spec": [sys.executable, "-c", ONE_FIELD],
    }
    for command in (PEER, *commands.values()):
        seconds(command)  # warm the file cache and the byte code
    print(f"start-up, {ROUNDS} rounds in turn; peer: python -c 'import typer, pydantic, yaml, rich'")
    for name, command in commands.items():
        pairs = [(seconds(PEER), seconds(command)) for _ in range(ROUNDS)]
        peer, own = (statistics.median(side) for side in zip(*pairs, strict=True))
        ratio = statistics.median(own / peer for peer, own in pairs)
        print(f"  {name:<36} {own * 1000:6.0f} ms   peer {peer * 1000:6.0f} ms   ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
