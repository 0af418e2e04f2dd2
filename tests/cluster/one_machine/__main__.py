"""Command line of the one-machine Slurm; see README.md beside it.

python tests/cluster/one_machine up ROOT [--owner PID]   bring it up, print how to use it
python tests/cluster/one_machine env ROOT                lines for `eval`, that point a shell at it
python tests/cluster/one_machine down ROOT               end every process of it
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from cluster.one_machine import client, processes, slurm

REPOSITORY = Path(__file__).resolve().parents[3]
PYTHON = REPOSITORY / ".venv-sky/bin/python"


def slurm_client(node: slurm.Node) -> client.Client:
    """The client that belongs to a node."""
    return client.Client(node.client_home, node.ports.api_server, PYTHON, node.root)


def environment_lines(node: slurm.Node) -> str:
    """`export` lines that point a shell at the cluster."""
    here = slurm_client(node).environment
    names = ("HOME", "PATH", "PYTHONPATH", "SKYPILOT_DISABLE_USAGE_COLLECTION", "SKYPILOT_API_SERVER_LOCAL_PORT")
    return "\n".join(f"export {name}={shlex.quote(here[name])}" for name in (*names, processes.MARK))


def main() -> int:
    """Run one command; exit code 2 where it cannot be done, with one sentence."""
    parser = argparse.ArgumentParser(prog="one_machine", description="A real one-node Slurm for SkyPilot.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("up", "env", "down", "watch"):
        one = commands.add_parser(name)
        one.add_argument("root", type=Path)
        if name == "up":
            one.add_argument("--owner", type=int, default=None, help="go down when this process ends")
        if name == "watch":
            one.add_argument("owner", type=int)
    chosen = parser.parse_args()
    root = chosen.root.resolve()
    try:
        if chosen.command == "up":
            node = slurm.up(root, PYTHON.parent / "uv", chosen.owner)
            here = slurm_client(node)
            here.prepare(client.SLURM_CONFIG.format(root=root))
            here.start()
            here.sky("check", "slurm")
            print(
                f'up: eval "$(python {sys.argv[0]} env {root})" and then, for example, sky launch --infra slurm/local'
            )
        elif chosen.command == "env":
            known = slurm.load(root)
            if known is None:
                raise RuntimeError(f"{root}: no cluster is up there")
            print(environment_lines(known))
        elif chosen.command == "watch":
            processes.wait_for_end_of(chosen.owner, root)
            slurm.down(root)
        else:
            slurm.down(root)
    except RuntimeError as error:
        print(f"one_machine: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
