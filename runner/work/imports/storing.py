"""`nsd import`: recorded results of other tools become artifacts like nsd's own.

Reading and judging is done by reading.py; this module keeps the outcome: one artifact per imported
run, under the digest of its rows, so importing the same file twice changes nothing.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nsd.plugins.errors import InputError
from nsd.runner.store import provenance, tables
from nsd.runner.store.alike import unmistakable
from nsd.runner.store.index import Store
from nsd.runner.store.shapes import Manifest
from nsd.runner.store.workspace import Workspace, digest_of, now
from nsd.runner.work.imports.run import ImportedRun


class NameTaken(InputError):
    """A name that an import would take has a run already."""


def import_file(
    workspace: Workspace,
    file: Path,
    options: dict[str, Any],
    may_replace: Callable[[str], bool] = lambda _: False,
) -> list[str]:
    """Import every run of a file. Returns lines to print, the last of them on pairing.

    Where other imports have a run's name, `may_replace` is asked with a sentence on them, and what it replaces is
    deleted. Raises NameTaken where it may not, and for the name of a run of nsd's own; InputError before anything is
    kept.
    """
    from nsd.runner.work.imports.reading import read_import

    runs = read_import(file, **options)
    keyed = [(run, *_keyed(run)) for run in runs]
    old = _old(workspace, runs, {run.run: digest for run, _, digest in keyed})
    if old:
        names = list(dict.fromkeys(run.run for manifest in old for run in manifest.imported))
        how = "with other results" if {run.run for run in runs} >= set(names) else "under the same name"
        said = f"{', '.join(names[:5])}{', ...' if len(names) > 5 else ''}: imported before, {how}"
        if not may_replace(said):
            raise NameTaken(f"{said}. Give another --name, or --replace them")
    workspace.create()
    digests: list[tuple[str, str]] = []
    for run, key, digest in keyed:
        started = now()
        if not workspace.is_whole("import", digest):
            with workspace.lock("import", digest) as partial:
                staging = partial / "artifact"
                staging.mkdir(exist_ok=True)
                _write(staging, run)
                together = [one.run for one in runs] if len(runs) > 1 else None
                workspace.commit("import", digest, _manifest(run, key, digest, file, started, together))
        digests.append(("import", digest))
    # The old ones go last, so that a name is never without a run.
    for manifest in old:
        shutil.rmtree(manifest.folder)
    Store(workspace).index_imports(digests, old)
    paired = dict.fromkeys(line for run in runs if (line := run.paired()))
    return [*(run.describe() for run in runs), *_copies(workspace, runs), *paired]


def _copies(workspace: Workspace, runs: Sequence[ImportedRun]) -> list[str]:
    """A sentence for each run that has the results of another import: of one file twice, as a rule."""
    mine = {run.run: (run, _results(run)) for run in runs if _tells(run)}
    found = []
    for manifest in workspace.manifests("import") if mine else ():
        for other in manifest.imported:
            for run, results in mine.values():
                if other.run != run.run and other.results == results:
                    seeds = run.seed is not None and other.condition == run.condition
                    so = "A seed that changes nothing is no other observation" if seeds else "They count as one"
                    found.append(
                        f"{run.run} has the results of {other.run}, line for line: one file imported twice? {so}"
                    )
    return found


def _tells(run: ImportedRun) -> bool:
    """Whether equal results are a sign of one run."""
    scores = [sample["score"] for sample in run.samples]
    return run.seed is not None or unmistakable(len(scores), sum(one >= 0.5 for one in scores), len(set(scores)))


def _results(run: ImportedRun) -> str:
    return digest_of([run.values, run.samples, run.counts])


def _keyed(run: ImportedRun) -> tuple[dict[str, Any], str]:
    """What a run's digest is of, and the digest. What is not known is left out of it."""
    content: dict[str, Any] = {"run": run.run, "values": run.values, "samples": run.samples, "counts": run.counts}
    content |= {"texts": run.texts} if run.texts else {}
    key = {"kind": "import", "content": digest_of(content), "metadata": run.metadata}
    return key, digest_of(key)


def refuse_imported_name(workspace: Workspace, experiment: str) -> None:
    """Raises NameTaken where an import has a name that is to be one of an experiment."""
    for manifest in workspace.manifests("import"):
        for run in manifest.imported:
            if run.run == experiment or run.run.startswith(f"{experiment}/"):
                raise NameTaken(
                    f"{run.run} is the name of an import ({manifest.source_file}), and would stand among the runs of "
                    f"the experiment {experiment}: give the spec another `name`"
                )


def _old(workspace: Workspace, runs: Sequence[ImportedRun], digests: Mapping[str, str]) -> list[Manifest]:
    """Imports that these take the place of. Raises NameTaken for a name of nsd's own runs.

    Those under one of the names with another digest; under other names of the file that had one of them; and where one
    of both is an arm of several seeds and the other a single run of the same name.
    """
    for record in workspace.records():
        # A name below an experiment would stand before its own arm, or go when that seed is run.
        mine = [one for one in digests if one == record.experiment or one.startswith(f"{record.experiment}/")]
        if mine:
            raise NameTaken(f"{mine[0]} is a name of the experiment {record.experiment}: give another --name")
    arms = {run.condition for run in runs if run.seed is not None}
    return [
        held
        for held in workspace.manifests("import")
        for run in held.imported
        if digests.get(run.run, held.digest) != held.digest
        or (run.run not in digests and not digests.keys().isdisjoint(run.together or ()))
        or (run.seed is None and run.run in arms)
        or (run.seed is not None and run.condition in digests)
    ]


def _write(staging: Path, run: ImportedRun) -> None:
    if run.counts is not None:
        return
    values = [{"question_id": question, "value": value} for question, value in run.values]
    tables.write(staging / "values.parquet", tables.VALUES, values)
    tables.write(staging / "samples.parquet", tables.SCORED, run.samples)
    if run.texts:
        texts = [{"question_id": question, "text_hash": text} for question, text in run.texts.items()]
        tables.write(staging / "texts.parquet", tables.TEXTS, texts)


def _manifest(
    run: ImportedRun, key: dict[str, Any], digest: str, file: Path, started: str, together: list[str] | None
) -> Manifest:
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
            {
                "run": run.run,
                "eval_digest": None if run.counts else digest,
                "counts": run.counts and list(run.counts),
                **({} if run.seed is None else {"seed": run.seed, "condition": run.condition}),
                **({} if together is None else {"together": together}),
                **({"results": _results(run)} if _tells(run) else {}),
            }
        ],
    }
    if run.counts is None:
        manifest["eval"] = run.eval_info()
        manifest["data_hash"] = manifest["eval"]["data_hash"]
    return Manifest(**manifest)
