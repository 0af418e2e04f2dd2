"""Runs and stages that cost something."""

from __future__ import annotations

import json
from typing import Any

from toy_results import Results


def stage(results: Results, digest: str, kind: str, seconds: float, gpu: float = 0.0, **manifest: Any) -> None:
    results.connection.execute(
        "INSERT INTO stages(digest, kind, seconds, gpu_seconds, manifest) VALUES (?,?,?,?,?)",
        [digest, kind, seconds, gpu, json.dumps({"inputs": {}, "machine": {}, **manifest})],
    )


def run(results: Results, name: str, train: str | None, label: str | None, evaluation: str) -> None:
    experiment, condition, seed = name.split("/")
    results.connection.execute(
        "INSERT INTO runs VALUES (?,?,?,?,'spec',?,?,?,'done',NULL,NULL,NULL,NULL,NULL,false)",
        [name, experiment, condition, int(seed.removeprefix("seed")), evaluation, train, label],
    )
