"""`nsd import`: recorded results of other tools become artifacts like nsd's own.

Reading and judging is done by `nsd.runner.work.importing`; this module keeps the outcome: one artifact per imported
run, under the digest of its rows, so importing the same file twice changes nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nsd.runner.store import provenance, tables
from nsd.runner.store.index import Store
from nsd.runner.store.shapes import Manifest
from nsd.runner.store.workspace import Workspace, digest_of, now


def import_file(workspace: Workspace, file: Path, options: dict[str, Any]) -> list[str]:
    """Import every run of a file. Returns a line for each. Raises InputError before anything is kept."""
    from nsd.runner.work.importing import read_import

    runs = read_import(file, **options)
    workspace.create()
    lines: list[str] = []
    digests: list[tuple[str, str]] = []
    for run in runs:
        started = now()
        content = {"run": run.run, "values": run.values, "samples": run.samples, "counts": run.counts}
        key = {"kind": "import", "content": digest_of(content), "metadata": run.metadata}
        digest = digest_of(key)
        if not workspace.is_whole("import", digest):
            with workspace.lock("import", digest) as partial:
                staging = partial / "artifact"
                staging.mkdir(exist_ok=True)
                _write(staging, run)
                workspace.commit("import", digest, _manifest(run, key, digest, file, started))
        digests.append(("import", digest))
        lines.append(run.describe())
    Store(workspace).index_stages(digests)
    return lines


def _write(staging: Path, run: Any) -> None:
    if run.counts is not None:
        return
    values = [{"question_id": question, "value": value} for question, value in run.values]
    tables.write(staging / "values.parquet", tables.VALUES, values)
    tables.write(staging / "samples.parquet", tables.SCORED, run.samples)


def _manifest(run: Any, key: dict[str, Any], digest: str, file: Path, started: str) -> Manifest:
    manifest: dict[str, Any] = {
        "kind": "import",
        "digest": digest,
        "plugin": None,
        "key": key,
        "inputs": {},
        "seed": None,
        "used_by": [run.run],
        "started_at": started,
        "ended_at": now(),
        "seconds": 0.0,
        "gpu_seconds": 0.0,
        "packages": provenance.packages(),
        "machine": provenance.machine(),
        "git_commit": provenance.git_state()["commit"],
        "source_file": file.name,
        "imported": [
            {"run": run.run, "eval_digest": None if run.counts else digest, "counts": run.counts and list(run.counts)}
        ],
    }
    if run.counts is None:
        manifest["eval"] = run.eval_info()
        manifest["data_hash"] = manifest["eval"]["data_hash"]
    return Manifest(**manifest)
