"""`nsd gc`: frees the space of weights that no unfinished run needs.

Only `model/` folders of finished train stages go; manifests, curves, labels and evaluations stay, so every
number is still there and every finished run stays finished. A later spec that needs such a model trains it
again, under the same digest.
"""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path

import typer

from nsd.plugins.errors import InputError
from nsd.runner.store.shapes import Manifest
from nsd.runner.store.workspace import WEIGHTS, Workspace


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def human_bytes(count: float) -> str:
    """Bytes for people."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def unneeded_weights(workspace: Workspace) -> list[tuple[Path, Manifest]]:
    """Model folders (and manifests) of train stages on which no unfinished recorded run or repeat depends.

    Raises InputError where a record was set aside as broken: nobody knows which models its runs still need.
    """
    records = workspace.records()
    if lost := workspace.records_set_aside():
        raise InputError(
            f"{lost[0]} is a broken record, so that its unfinished runs and the models they need are not known: run "
            "its spec again and delete that file, then free what is left"
        )
    needed: set[str] = set()
    for record in records:
        for run in record.runs:
            evaluations = [(run.eval_digest, run.needs), *((one.eval_digest, one.needs) for one in run.repeats)]
            for digest, needs in evaluations:
                if workspace.evaluation(digest) is None:
                    needed |= set(needs)
    return [
        (manifest.folder / WEIGHTS, manifest)
        for manifest in workspace.manifests("train")
        if manifest.digest not in needed and (manifest.folder / WEIGHTS).is_dir()
    ]


def collect(workspace: Workspace, yes: bool, partial: str | None) -> None:
    """Delete after asking; `partial` names a half-done stage to drop instead."""
    if partial is not None:
        held = sorted(workspace.partials.iterdir()) if workspace.partials.is_dir() else []
        held = [path for path in held if path.is_dir() and not path.name.startswith(".")]
        matches = [path for path in held if path.name.partition("-")[2].startswith(partial)]
        if len(matches) != 1:
            raise InputError(f"{len(matches)} half-done stages match {partial!r} in {workspace.partials}")
        targets = [(matches[0], f"half-done stage {matches[0].name}")]
    else:
        targets = [
            (folder, f"weights of {(manifest.used_by or ['?'])[0]} ({manifest.digest[:8]})")
            for folder, manifest in unneeded_weights(workspace)
        ]
    if not targets:
        print("nothing to delete: every model kept is still needed by an unfinished run, or there is none")
        return
    total = 0
    for folder, what in targets:
        size = folder_bytes(folder)
        total += size
        print(f"{human_bytes(size):>10}  {what}")
    if not yes and not typer.confirm(f"Delete {len(targets)} folders, {human_bytes(total)}?"):
        print("nothing deleted")
        return
    for folder, _ in targets:
        # One rename takes it away whole: half a model must not look like one.
        hidden = workspace.partials / f".removed-{uuid.uuid4().hex}"
        workspace.partials.mkdir(exist_ok=True)
        folder.rename(hidden)
        shutil.rmtree(hidden)
    print(f"deleted {len(targets)} folders, {human_bytes(total)}")
