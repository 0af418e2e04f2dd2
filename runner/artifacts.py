"""Artifacts on disk: the truth that everything else can be made from again.

    workspace/
      artifacts/KIND-DIGEST/   a finished stage: its files and manifest.json, renamed into place whole
      partial/KIND-DIGEST/     a stage under way: lock, job.json, log.txt, shards/, checkpoints/, artifact/
      data/HASH.parquet        the questions of a split, by content hash
      experiments/NAME/        one record for each version of a spec that was run
      notes.jsonl              what people wrote about runs (`nsd note`), one JSON object a line
      looks.jsonl              which pairs were judged when, on what evidence
      nsd.duckdb               an index over the above (`nsd db rebuild` makes it again)

A folder under artifacts/ with a manifest is a whole stage: the manifest is written after every other
file, and the rename is the last step. Limits: `lock` needs a file system with flock (local disks, NFSv4).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from plugins.errors import InputError

WORKSPACE_VARIABLE = "NSD_WORKSPACE"
DIGEST_LENGTH = 20  # hex digits: 80 bits, far from any collision among a person's stages


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spare blanks, so that equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest_of(value: Any) -> str:
    """The first 20 hex digits of the sha256 of `value` as canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode("utf-8", "surrogatepass")).hexdigest()[:DIGEST_LENGTH]


def now() -> str:
    """The time now as ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old text or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


class Workspace:
    """The folder a person's results live in. Creating the object touches nothing on disk."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.artifacts = self.root / "artifacts"
        self.partials = self.root / "partial"
        self.data = self.root / "data"
        self.experiments = self.root / "experiments"
        self.notes = self.root / "notes.jsonl"
        self.looks = self.root / "looks.jsonl"
        self.database = self.root / "nsd.duckdb"

    @classmethod
    def locate(cls, given: Path | None = None) -> Workspace:
        """The workspace named by flag, else by NSD_WORKSPACE, else ./nsd-workspace."""
        root = given or Path(os.environ.get(WORKSPACE_VARIABLE) or "nsd-workspace")
        if root.exists() and not root.is_dir():
            raise InputError(f"the workspace {root} is a file: name a folder with --workspace or {WORKSPACE_VARIABLE}")
        return cls(root)

    def create(self) -> None:
        """Make the folders. Raises InputError where the place cannot be written."""
        try:
            for folder in (self.artifacts, self.partials, self.data, self.experiments):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot write the workspace {self.root}: {error.strerror or error}") from error

    # ------------------------------------------------------------------ finished stages

    def folder(self, kind: str, digest: str) -> Path:
        """Where a finished stage lies."""
        return self.artifacts / f"{kind}-{digest}"

    def is_whole(self, kind: str, digest: str) -> bool:
        """Whether the stage is finished: its manifest is there."""
        return (self.folder(kind, digest) / "manifest.json").is_file()

    def has_weights(self, digest: str) -> bool:
        """Whether a finished train stage still has its model (`nsd gc` may have freed it)."""
        return (self.folder("train", digest) / "model").is_dir()

    def manifest(self, kind: str, digest: str) -> dict[str, Any]:
        """The manifest of a finished stage."""
        return read_manifest(self.folder(kind, digest))

    def manifests(self, kind: str | None = None) -> Iterator[dict[str, Any]]:
        """Every finished stage's manifest, oldest name first; `folder` is added to each."""
        if not self.artifacts.is_dir():
            return
        for folder in sorted(self.artifacts.iterdir()):
            if (kind is None or folder.name.startswith(f"{kind}-")) and (folder / "manifest.json").is_file():
                yield {**read_manifest(folder), "folder": str(folder)}

    # ------------------------------------------------------------------ stages under way

    def partial(self, kind: str, digest: str) -> Path:
        """Where a stage under way keeps what it has."""
        return self.partials / f"{kind}-{digest}"

    @contextlib.contextmanager
    def lock(self, kind: str, digest: str, on_wait: Any = None) -> Iterator[Path]:
        """Hold a stage against other processes; a dead holder's lock is free. Yields its partial folder."""
        import fcntl

        folder = self.partial(kind, digest)
        while True:
            folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(folder / "lock", os.O_CREAT | os.O_RDWR, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if on_wait is not None:
                    on_wait()
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            # The holder before us may have finished and removed the folder: then this lock guards nothing.
            try:
                current = (folder / "lock").stat()
            except FileNotFoundError:
                current = None
            if current is not None and current.st_ino == os.fstat(descriptor).st_ino:
                break
            os.close(descriptor)
        try:
            yield folder
        finally:
            os.close(descriptor)

    def commit(self, kind: str, digest: str, manifest: Mapping[str, Any]) -> Path:
        """Turn partial/.../artifact into the finished stage, manifest last. Call under `lock`."""
        staging = self.partial(kind, digest) / "artifact"
        files = {
            str(path.relative_to(staging)): path.stat().st_size
            for path in sorted(staging.rglob("*"))
            if path.is_file() and path.name != "manifest.json"
        }
        write_atomically(staging / "manifest.json", json.dumps({**manifest, "files": files}, indent=1))
        final = self.folder(kind, digest)
        if final.exists():  # without a manifest: a torn copy from elsewhere
            shutil.rmtree(final)
        final.parent.mkdir(parents=True, exist_ok=True)
        staging.rename(final)
        shutil.rmtree(self.partial(kind, digest), ignore_errors=True)
        return final

    # ------------------------------------------------------------------ experiment records

    def record_path(self, experiment: str, spec_digest: str) -> Path:
        """The record of one version of a spec."""
        return self.experiments / experiment / f"{spec_digest}.json"

    def records(self) -> list[dict[str, Any]]:
        """Every experiment record, in the order in which they were first written."""
        if not self.experiments.is_dir():
            return []
        found = [json.loads(path.read_text()) for path in self.experiments.glob("*/*.json")]
        return sorted(found, key=lambda record: (record["recorded_at"], record["spec_digest"]))


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read a stage folder's manifest.json."""
    manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    return manifest
