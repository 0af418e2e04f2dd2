"""What a launch adds to the work itself: wall time of `nsd launch` minus its stage times, by parts.

    python -m benchmarks.launch [--record]          # as root, on a machine with .venv-sky

Launches a small spec on the one-machine Slurm of tests/cluster, with an environment made beforehand on the node, and
reads the parts off the times at which lines appear. Limits: one launch; on a cloud, provisioning takes minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.frame import REPOSITORY, NotMeasured, Row, argument_parser, report

PYTHON = REPOSITORY / ".venv-sky/bin/python"
SPEC = """\
name: bench
question: What does a launch add?
model: builtin:wordmath-1m
data: {use: wordmath, split: {labeled: 64, unlabeled: 24, test: 100}}
trainer: {use: sft, epochs: 4, batch_size: 8}
conditions:
  base: {train_on: []}
  baseline: {train_on: [labeled]}
"""
# A line, and the part of a launch that it ends.
MARKS = (
    ("launch bench-", "choice (SkyPilot's version, clouds, prices)"),
    ("[1/", "machine (provision, copy, set up, start)"),
    ("nsd: waiting", "work"),
    ("fetched ", "results home (rsync)"),
    ("is gone", "machine down"),
)


def measured(root: Path) -> Row:
    """Bring the cluster up in `root` and launch."""
    sys.path.insert(0, str(REPOSITORY / "tests"))
    from cluster import environments
    from cluster.one_machine import client, slurm

    node = slurm.up(root, PYTHON.parent / "uv", os.getpid())
    try:
        here = client.Client(node.client_home, node.ports.api_server, PYTHON, root)
        here.prepare(client.SLURM_CONFIG.format(root=root))
        here.start()
        here.sky("check", "slurm")
        ready = environments.make(node.shared / "environment", node.user, PYTHON.parent / "uv")
        folder = root / "project"
        folder.mkdir()
        (folder / "spec.yaml").write_text(SPEC)
        caller = {**here.environment, "NSD_SKY": str(PYTHON.parents[1]), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        command = [sys.executable, "-m", "nsd.runner.cli", "launch", "spec.yaml", "--infra", "slurm/local", "--yes"]
        parts, last = {}, time.perf_counter()
        began, marks = last, list(MARKS)
        process = subprocess.Popen(
            [*command, "--environment", str(ready)],
            cwd=folder, env=caller, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        assert process.stdout is not None
        printed = []
        for line in process.stdout:
            printed.append(line)
            if marks and marks[0][0] in line:
                now = time.perf_counter()
                parts[marks.pop(0)[1]], last = now - last, now
        if process.wait() != 0 or marks:
            raise RuntimeError("the launch failed:\n" + "".join(printed))
        end = time.perf_counter()
        parts["answer (index, comparison)"] = end - last
        manifests = [json.loads(path.read_text()) for path in folder.glob("nsd-workspace/artifacts/*/manifest.json")]
        stages = sum(manifest["seconds"] for manifest in manifests)
        parts["nsd on the machine beside its stages"] = parts.pop("work") - stages
        return Row(
            f"a launch of {len(manifests)} stages, Slurm on the same machine, environment made beforehand",
            "the stages alone",
            "s",
            end - began,
            stages,
            (end - began) / stages,
            f"{end - began - stages:.0f} s more: " + ", ".join(f"{took:.0f} {part}" for part, took in parts.items()),
        )
    finally:
        slurm.down(root)


def measure(options: argparse.Namespace) -> Iterator[Row]:
    """One launch."""
    if not PYTHON.exists() or os.geteuid() != 0:
        raise NotMeasured("it needs root and .venv-sky (tests/cluster/make_environment.sh makes it)")
    with tempfile.TemporaryDirectory(prefix="nsd-bench-") as folder:
        root = Path(folder)
        root.chmod(0o755)
        yield measured(root / "slurm")


def main() -> int:
    """Measure, or say why not."""
    options = argument_parser(__doc__).parse_args()
    return report(options, measure(options))


if __name__ == "__main__":
    sys.exit(main())
