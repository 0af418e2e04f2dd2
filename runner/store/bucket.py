"""Artifacts in a bucket: stages are put there as they are made, and fetched from there where they are missing.

    bucket = Bucket.open("s3://my-bucket/nsd")        # or gs://..., or file:///shared/folder
    bucket.push_stage(workspace, "train", digest)     # files first, manifest last
    bucket.fetch_stage(workspace, "train", digest)    # whole or not at all

Layout under the given address:

    manifests/KIND-DIGEST.json           a finished stage; names the upload that its files are in
    files/KIND-DIGEST/UPLOAD/...         the files of one upload, never written twice
    partial/KIND-DIGEST/state.json       the newest state of a stage under way; names its files, with sizes
    partial/KIND-DIGEST/files/...        shards, scores and checkpoints of it
    data/, experiments/, journals/       questions and their side files, experiment records, looks and notes

A manifest is one object, written after every file it names: an upload that was cut off leaves files nobody refers to,
never a stage that looks whole. Two machines that finish the same stage both upload under names of their own, and the
manifest written last is consistent with its own files. Fetched files are checked against the sizes in the manifest,
and against the sha256 where it has one.

A store's writers are not trusted with this machine: names in a store are data. No name leads out of the workspace or,
in a shared folder, out of the store, whether by `..` or by a link; links are never sent.

The file systems are pyarrow's. Credentials come from where the cloud's own tools take them (environment, profile,
instance role); an endpoint of one's own goes into AWS_ENDPOINT_URL. Limits: the files of a stage under way are checked
by size, not by content; nothing is ever deleted but states of stages that are finished or cannot be read, and one that
`nsd gc --partial` names.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from nsd.plugins.durable import replacing, write_atomically
from nsd.plugins.errors import InputError, NsdError
from nsd.plugins.paths import UnsafeName, checked, inside, is_part
from nsd.runner.store.shapes import Broken, ExperimentRecord, Manifest, Shape, parse_object
from nsd.runner.store.workspace import WEIGHTS, Workspace, files_of

SCHEMES = ("s3://", "gs://", "file://")
PAUSES = (1.0, 5.0, 15.0, 30.0, 60.0)  # seconds to give a store that does not answer
# Folders of a stage under way with files that are written once: completions, verdicts, rollouts.
SHARDS = ("shards", "scores", "taken", "rollouts")
GROWING = ("begun.json", "curves.jsonl")  # small files of a stage under way that change
Returned = TypeVar("Returned")
Read = TypeVar("Read", bound=Shape)


class BucketError(NsdError):
    """The bucket did not answer, or refused."""


class BrokenThere(BucketError):
    """A thing in the bucket cannot be used: waiting does not help."""


@dataclass(frozen=True)
class Bucket:
    """An address in an object store or a shared folder. Every method raises BucketError where it cannot be reached."""

    uri: str
    filesystem: Any
    root: str

    @classmethod
    def open(cls, uri: str) -> Bucket:
        """Raises InputError for an address of another kind."""
        if not uri.startswith(SCHEMES):
            raise InputError(f"store {uri!r}: write {', '.join(f'{scheme}...' for scheme in SCHEMES)}")
        from pyarrow import fs

        if uri.startswith("file://"):
            root = Path(uri.removeprefix("file://")).expanduser()
            if not root.is_absolute():
                raise InputError(f"store {uri!r}: a folder needs its whole path, file:///...")
            return cls(uri, fs.LocalFileSystem(), str(root))
        endpoint = os.environ.get("AWS_ENDPOINT_URL")
        if uri.startswith("s3://") and endpoint:
            scheme, _, host = endpoint.partition("://")
            return cls(
                uri, fs.S3FileSystem(endpoint_override=host, scheme=scheme), uri.removeprefix("s3://").strip("/")
            )
        try:
            filesystem, root = fs.FileSystem.from_uri(uri)
        except (OSError, ValueError) as error:
            raise InputError(f"store {uri!r}: {error}") from error
        return cls(uri, filesystem, root.rstrip("/"))

    # ------------------------------------------------------------------ finished stages

    def stages(self) -> list[tuple[str, str]]:
        """(kind, digest) of every finished stage in the bucket."""
        names = [PurePosixPath(path).stem for path in self._list("manifests")]
        parts = [name.partition("-") for name in names if is_part(name)]
        return [(kind, digest) for kind, _, digest in parts if kind and digest]

    def manifest(self, kind: str, digest: str) -> Manifest | None:
        """The manifest of a stage, None where the bucket has none. Raises BrokenThere for one that cannot be used."""
        name = f"manifests/{kind}-{digest}.json"
        found = self.read(name, Manifest)
        if found is None:
            return None
        if (found.kind, found.digest) != (kind, digest) or not is_part(found.upload):
            raise BrokenThere(f"{self.uri}/{name} is broken: it is of another stage, or names no upload")
        return found

    def push_stage(
        self, workspace: Workspace, kind: str, digest: str, weights: bool = True, replace: bool = False
    ) -> bool:
        """Put a finished stage there, unless it is there. Returns whether anything was sent.

        Without `weights` a train stage goes without its model, as after `nsd gc`. With `replace` it goes in any case.
        """
        try:
            held = self.manifest(kind, digest)
        except BrokenThere:  # it gives way
            held = None
        folder = workspace.folder(kind, digest)
        has_weights = weights and workspace.has_weights(digest)
        if held is not None and not replace and (held.has_weights or not has_weights):
            return False
        manifest = workspace.manifest(kind, digest)
        upload = uuid.uuid4().hex[:12]
        sizes = {}
        for name, path in files_of(folder).items():
            if name != "manifest.json" and (has_weights or not name.startswith(f"{WEIGHTS}/")):
                sizes[name] = path.stat().st_size
                self._upload(path, f"files/{kind}-{digest}/{upload}/{name}")
        self._write_json(f"manifests/{kind}-{digest}.json", manifest.changed(files=sizes, upload=upload).to_json())
        self.forget_partial(kind, digest)
        return True

    def fetch_stage(self, workspace: Workspace, kind: str, digest: str, weights: bool = True) -> bool:
        """Bring a finished stage into the workspace, whole or not at all; False where the bucket has none.

        Without `weights` a train stage comes without its model, as after `nsd gc`.
        """
        manifest = self.manifest(kind, digest)
        if manifest is None:
            return False
        with workspace.lock(kind, digest) as partial:
            held = workspace.is_whole(kind, digest)
            if held and (not weights or workspace.has_weights(digest) or not manifest.has_weights):
                _drop_if_idle(partial)
                return True
            staging = partial / "artifact"
            shutil.rmtree(staging, ignore_errors=True)
            staging.mkdir(parents=True)
            for name, size in manifest.files.items():
                if weights or PurePosixPath(name).parts[0] != WEIGHTS:
                    sha256 = manifest.sha256.get(name)
                    there = f"files/{kind}-{digest}/{manifest.upload}/{name}"
                    self._download(there, inside(staging, name), size, sha256)
            workspace.commit(kind, digest, manifest.without("upload"))
        return True

    def has_weights(self, digest: str) -> bool:
        """Whether the model of a finished training is there."""
        manifest = self.manifest("train", digest)
        return manifest is not None and manifest.has_weights

    # ------------------------------------------------------------------ stages under way

    def push_partial(self, workspace: Workspace, kind: str, digest: str) -> None:
        """Put the shards and the newest whole checkpoint of a stage under way there; its state file last.

        The state only goes forward: what was sent stays, whatever this machine lacks of it (it may have begun anew, or
        its files are being removed under it), until a later checkpoint is sent.
        """
        from nsd.plugins.trainers import _checkpoints

        partial = workspace.partial(kind, digest)
        # Checkpoints are looked at first: what a training kept until then lies there already.
        checkpoints, step = _checkpoints.whole(partial / "checkpoints"), -1
        wanted = [path for name in SHARDS for path in sorted((partial / name).glob("[0-9]*.parquet"))]
        if checkpoints:
            newest, marker = checkpoints[-1]
            step = marker.step
            wanted += [newest / name for name in sorted({*files_of(newest), *marker.files})]
        try:
            sent = self._state(kind, digest) or {"files": {}, "texts": {}}
        except (Broken, BrokenThere):
            sent = {"files": {}, "texts": {}}
        if step < max(map(_step, sent["files"]), default=-1):
            return
        sizes = {name: size for name, size in sent["files"].items() if _step(name) == -1}
        for path in wanted:  # written once, never changed
            name = path.relative_to(partial).as_posix()
            sizes[name] = path.stat().st_size
            if sent["files"].get(name) != sizes[name]:
                self._upload(path, f"partial/{kind}-{digest}/files/{name}")
        # What grows is inside the state itself: apart from it, a cut between the two would leave them at odds.
        texts = {name: (partial / name).read_text("utf-8") for name in GROWING if (partial / name).is_file()}
        state = {"files": sizes, "texts": {**sent["texts"], **texts}}
        if state != sent:
            self._write_json(f"partial/{kind}-{digest}/state.json", state)

    def fetch_partial(self, workspace: Workspace, kind: str, digest: str) -> bool:
        """Bring what a stage has so far, where nothing of it is here yet. Returns whether anything came."""
        state = self._state(kind, digest)
        if state is None:
            return False
        with workspace.lock(kind, digest) as partial:
            if any((partial / name).exists() for name in (*SHARDS, "checkpoints", "begun.json")):
                return False
            staging = partial / "fetched"
            shutil.rmtree(staging, ignore_errors=True)
            for name, size in state["files"].items():
                self._download(f"partial/{kind}-{digest}/files/{name}", inside(staging, name), size)
            for name, text in state["texts"].items():
                staging.mkdir(exist_ok=True)
                inside(staging, name).write_text(text, encoding="utf-8")
            for entry in sorted(staging.iterdir()) if staging.is_dir() else []:
                entry.rename(partial / entry.name)
            shutil.rmtree(staging, ignore_errors=True)
        return bool(state["files"] or state["texts"])

    def partials(self) -> dict[str, int]:
        """KIND-DIGEST of every stage under way that has anything there -> its bytes."""
        from pyarrow import fs

        folder, sizes = self._path("partial"), dict[str, int]()
        selector = fs.FileSelector(folder, allow_not_found=True, recursive=True)
        for info in self._try(lambda: self.filesystem.get_file_info(selector)):
            name = PurePosixPath(info.path).relative_to(folder).parts[0]
            if info.type == fs.FileType.File and is_part(name) and "-" in name:
                sizes[name] = sizes.get(name, 0) + info.size
        return sizes

    def forget_partial(self, kind: str, digest: str) -> None:
        """Delete what is there of a stage under way."""
        self._delete_folder(f"partial/{kind}-{digest}")

    def _state(self, kind: str, digest: str) -> dict[str, Any] | None:
        """What the bucket has of a stage under way. Raises Broken where that could be none of ours."""
        name = f"partial/{kind}-{digest}/state.json"
        state = self._read_json(name)
        if state is None:
            return None
        files, texts = state.get("files"), state.get("texts")
        if not isinstance(files, dict) or not isinstance(texts, dict):
            raise Broken(Path(f"{self.uri}/{name}"), "it is no state of a stage")
        known = all(PurePosixPath(checked(file)).parts[0] in (*SHARDS, "checkpoints") for file in files)
        if not known or not set(texts) <= set(GROWING) or not all(isinstance(text, str) for text in texts.values()):
            raise Broken(Path(f"{self.uri}/{name}"), "it names what no stage under way has")
        return state

    # ------------------------------------------------------------------ everything else

    def has(self, name: str) -> bool:
        """Whether there is a file of this name."""
        from pyarrow import fs

        return bool(self._try(lambda: self.filesystem.get_file_info(self._path(name)).type == fs.FileType.File))

    def push_file(self, path: Path, name: str) -> None:
        """Put a small file there as `name`, replacing it."""
        self._upload(path, name)

    def sizes(self, folder: str) -> dict[str, int]:
        """The bytes of every file right inside a folder, by name."""
        return {PurePosixPath(info.path).name: info.size for info in self._infos(folder)}

    def fetch_file(self, name: str, target: Path, size: int | None = None, sha256: str | None = None) -> bool:
        """Bring a file, replacing what is here; False where there is none. Raises BrokenThere for another content."""
        if not self.has(name):
            return False
        self._download(name, target, size, sha256)
        return True

    def record(self, experiment: str, spec_digest: str) -> ExperimentRecord | None:
        """The record of one version of a spec, None where there is none. Raises BrokenThere."""
        name = f"experiments/{experiment}/{spec_digest}.json"
        found = self.read(name, ExperimentRecord)
        if found is None:
            return None
        if (found.experiment, found.spec_digest) != (experiment, spec_digest):
            raise BrokenThere(f"{self.uri}/{name} is broken: it is of another spec")
        return found

    def fetch_records(self, workspace: Workspace, experiment: str, say: Callable[[str], None]) -> None:
        """Bring the records of an experiment that the workspace lacks; `say` is told of those that are broken."""
        for path in self._list(f"experiments/{experiment}"):
            name = PurePosixPath(path)
            if (
                name.suffix != ".json"
                or not is_part(name.stem)
                or workspace.record_path(experiment, name.stem).exists()
            ):
                continue
            try:
                record = self.record(experiment, name.stem)
            except BrokenThere as broken:
                say(f"passed over: {broken}")
                continue
            if record is not None:
                write_atomically(workspace.record_path(experiment, name.stem), json.dumps(record.to_json(), indent=1))

    def read(self, name: str, shape: type[Read]) -> Read | None:
        """A small JSON file of this shape, None where there is none. Raises BrokenThere for one of another."""
        found = self._read_json(name)
        try:
            return None if found is None else shape.from_json(found, f"{self.uri}/{name}")
        except Broken as broken:
            raise BrokenThere(str(broken)) from broken

    def _read_json(self, name: str) -> dict[str, Any] | None:
        """The object in a small JSON file, None where there is none. Raises BrokenThere for what is none."""

        def read() -> dict[str, Any] | None:
            try:
                with self.filesystem.open_input_stream(self._path(name)) as stream:
                    return parse_object(stream.read(), f"{self.uri}/{name}")
            except FileNotFoundError:
                return None

        try:
            return self._try(read)
        except Broken as broken:
            raise BrokenThere(str(broken)) from broken

    # ------------------------------------------------------------------ objects

    def _path(self, name: str) -> str:
        """Where an object is. Raises BrokenThere for a name that leads out of the store."""
        from pyarrow import fs

        try:
            if isinstance(self.filesystem, fs.LocalFileSystem):
                return str(inside(Path(self.root), name))
            return f"{self.root}/{checked(name)}"
        except UnsafeName as error:
            raise BrokenThere(f"store {self.uri}: {error}") from error

    def _list(self, folder: str) -> Iterator[str]:
        yield from (info.path for info in self._infos(folder))

    def _infos(self, folder: str) -> Iterator[Any]:
        from pyarrow import fs

        selector = fs.FileSelector(self._path(folder), allow_not_found=True)
        for info in self._try(lambda: self.filesystem.get_file_info(selector)):
            if info.type == fs.FileType.File and not PurePosixPath(info.path).name.startswith("."):
                yield info

    def _write_json(self, name: str, value: dict[str, Any]) -> None:
        self._put(name, json.dumps(value).encode())

    def _upload(self, path: Path, name: str) -> None:
        def send() -> None:
            self._make_parent(name)
            with path.open("rb") as source, self.filesystem.open_output_stream(self._path(name)) as target:
                shutil.copyfileobj(source, target, 8 << 20)

        self._try(send)

    def _put(self, name: str, content: bytes) -> None:
        from pyarrow import fs

        def write() -> None:
            self._make_parent(name)
            # An object store shows an object when it is complete; in a folder the rename does that.
            whole = isinstance(self.filesystem, fs.LocalFileSystem)
            hidden = self._path(str(PurePosixPath(name).with_name(f".{uuid.uuid4().hex}.tmp")))
            with self.filesystem.open_output_stream(hidden if whole else self._path(name)) as target:
                target.write(content)
            if whole:
                self.filesystem.move(hidden, self._path(name))

        self._try(write)

    def _make_parent(self, name: str) -> None:
        from pyarrow import fs

        if isinstance(self.filesystem, fs.LocalFileSystem):
            Path(self._path(name)).parent.mkdir(parents=True, exist_ok=True)

    def _download(self, name: str, target: Path, size: int | None, sha256: str | None = None) -> None:
        content = hashlib.sha256()
        with replacing(target) as temporary:

            def fetch() -> None:
                with self.filesystem.open_input_stream(self._path(name)) as source, temporary.open("wb") as file:
                    while block := source.read(8 << 20):
                        content.update(block)
                        file.write(block)

            self._try(fetch)
            got = temporary.stat().st_size
            if sha256 is not None and got == size and content.hexdigest() != sha256:
                raise BrokenThere(f"{self.uri}: {name} is not what was written (sha256); fetch again")
            if size is not None and got != size:
                raise BrokenThere(f"{self.uri}: {name} has {got} bytes where {size} were written; fetch again")

    def _delete_folder(self, name: str) -> None:
        from pyarrow import fs

        def delete() -> None:
            if self.filesystem.get_file_info(self._path(name)).type == fs.FileType.Directory:
                self.filesystem.delete_dir(self._path(name))

        self._try(delete)

    def _try(self, action: Callable[[], Returned]) -> Returned:
        try:
            return action()
        except OSError as error:
            raise BucketError(f"store {self.uri}: {error}") from error


def patiently(action: Callable[[], Returned], say: Callable[[str], None], pauses: Sequence[float] = PAUSES) -> Returned:
    """Do something with a store that may be away for a while: again after each of `pauses` seconds.

    Raises the last BucketError.
    """
    for pause in pauses:
        try:
            return action()
        except BrokenThere:
            raise
        except BucketError as error:
            say(f"{error}; again in {pause:g} s")
            time.sleep(pause)
    return action()


def _step(name: str) -> int:
    """The step of the checkpoint that a file of a stage under way belongs to, -1 for a file of none."""
    found = re.match(r"checkpoints/checkpoint-(\d+)/", name)
    return int(found[1]) if found else -1


def _drop_if_idle(partial: Path) -> None:
    """Remove the folder that taking the lock made, where nothing else is in it."""
    if {entry.name for entry in partial.iterdir()} <= {"lock"}:
        shutil.rmtree(partial, ignore_errors=True)
