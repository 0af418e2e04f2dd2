"""`nsd gc`: frees the space of weights that no unfinished run needs, and of what was sent with launches that are over.

Of results only `model/` folders of finished train stages go; manifests, curves, labels and evaluations stay, so every
number is still there and every finished run stays finished. A later spec that needs such a model trains it
again, under the same digest.

`--partial DIGEST` drops what a half-done stage has so far instead: here, and in a store, for a run would bring it back
from there.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import typer

from nsd.plugins.errors import InputError
from nsd.runner.store.bucket import Bucket
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


@dataclass(frozen=True)
class _Target:
    """Something to delete: in words, its bytes, and what deletes it."""

    what: str
    size: int
    delete: Callable[[], None]


def _no_more(_: Workspace) -> list[tuple[Path, str]]:
    return []


def collect(
    workspace: Workspace,
    yes: bool,
    partial: str | None,
    store: str | None = None,
    more: Callable[[Workspace], list[tuple[Path, str]]] = _no_more,
) -> None:
    """Delete after asking; `partial` names a half-done stage to drop instead, here and in the `store`.

    `more` tells of further folders that nobody needs, each with words for it.
    """
    if partial is not None:
        targets = _half_done(workspace, partial, store)
    else:
        targets = [
            _folder(workspace, folder, f"weights of {(manifest.used_by or ['?'])[0]} ({manifest.digest[:8]})")
            for folder, manifest in unneeded_weights(workspace)
        ]
        targets += [_folder(workspace, folder, what) for folder, what in more(workspace)]
    if not targets:
        print("nothing to delete: every model kept is still needed by an unfinished run, or there is none")
        return
    for target in targets:
        print(f"{human_bytes(target.size):>10}  {target.what}")
    total = human_bytes(sum(target.size for target in targets))
    if not yes and not typer.confirm(f"Delete {len(targets)} folders, {total}?"):
        print("nothing deleted")
        return
    for target in targets:
        target.delete()
    print(f"deleted {len(targets)} folders, {total}")


def _half_done(workspace: Workspace, meant: str, store: str | None) -> list[_Target]:
    """The one half-done stage whose digest begins so; a run would bring back what only the workspace has lost.

    Raises InputError where it is none or several.
    """
    bucket = None if store is None else Bucket.open(store)
    held = workspace.partials.iterdir() if workspace.partials.is_dir() else ()
    here = {path.name: path for path in held if path.is_dir() and not path.name.startswith(".")}
    there = {} if bucket is None else bucket.partials()
    matches = [name for name in {**here, **there} if name.partition("-")[2].startswith(meant)]
    if len(matches) != 1:
        places = f"{workspace.partials}{'' if store is None else f' and {store}'}"
        raise InputError(f"{len(matches)} half-done stages match {meant!r} in {places}")
    (name,) = matches
    targets = []
    if bucket is not None and name in there:
        kind, _, digest = name.partition("-")
        forget = functools.partial(bucket.forget_partial, kind, digest)
        targets.append(_Target(f"half-done stage {name} in {store}", there[name], forget))
    if name in here:
        targets.append(_folder(workspace, here[name], f"half-done stage {name}"))
    return targets


def _folder(workspace: Workspace, folder: Path, what: str) -> _Target:
    return _Target(what, folder_bytes(folder), functools.partial(workspace.throw_away, folder))
