"""Artifacts on disk: the truth that everything else can be made from again.

    workspace/
      artifacts/KIND-DIGEST/   a finished stage: its files and manifest.json, renamed into place whole
      partial/KIND-DIGEST/     a stage under way: lock, job.json, log.txt, shards/, checkpoints/, artifact/
      data/HASH.parquet        the questions of a split, by content hash
      data/SHA256.side         what questions carry that is large (plugins/side_files.py)
      experiments/NAME/        one record for each version of a spec that was run
      notes.jsonl              what people wrote about runs (`nsd note`), one JSON object a line
      looks.jsonl              which pairs were judged when, on what evidence
      results.json             what `nsd log` has judged, so that it need not again (reports/judge/log_results.py)
      set-aside/               what was found broken: nothing reads it, nothing deletes it
      nsd.duckdb               an index over the above (`nsd db rebuild` makes it again)

A folder under artifacts/ with a manifest is a whole stage: the manifest is written after every other file, all of it
is flushed to the disk, and the rename is the last step. A stage whose manifest cannot be read, or that lacks a file of
its manifest, is named on standard error, set aside and owed again; so is a broken record. Model files are what
`nsd gc` may take: `has_weights` looks after those.

Limits: `lock` needs a file system with flock (local disks, NFSv4). Sizes are looked at whenever a stage is; contents
(sha256) where a stage is fetched or indexed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import stat
import sys
import uuid
from collections.abc import Collection, Container, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nsd.plugins.durable import flush, write_atomically, write_blocks_atomically
from nsd.plugins.errors import InputError
from nsd.plugins.paths import UnsafeName, inside, part
from nsd.plugins.side_files import SideFile
from nsd.runner.store.shapes import Broken, ExperimentRecord, Manifest, read_manifest, read_object

WORKSPACE_VARIABLE = "NSD_WORKSPACE"
DIGEST_LENGTH = 20  # hex digits: 80 bits, far from any collision among a person's stages
WEIGHTS = "model"  # the folder of a train stage that `nsd gc` may free
EVALUATIONS = ("score", "eval", "import")  # stages that hold results; `eval` drew and scored in one, up to scheme 1
TRUTH = "truth-"  # begins the name of what a training's rollouts are worth by the hidden truth (runner/work/truth.py)
TRACKERS = "trackers"  # what trackers wrote, links among it: no stage needs it
_told: set[Path] = set()  # broken files that were named already


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spare blanks, so that equal values give equal text."""
    return _CANONICAL(value)


def digest_of(value: Any) -> str:
    """The first 20 hex digits of the sha256 of `value` as canonical JSON."""
    return digest_of_text(canonical_json(value))


def digest_of_text(text: str) -> str:
    """`digest_of` of a value whose canonical JSON this is."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:DIGEST_LENGTH]


class ListDigest:
    """`digest_of` of a list that is told value by value."""

    def __init__(self) -> None:
        self._content = hashlib.sha256(b"[")
        self._empty = True

    def add(self, value: Any) -> None:
        """One more value at its end."""
        text = canonical_json(value)
        self._content.update((text if self._empty else f",{text}").encode("utf-8", "surrogatepass"))
        self._empty = False

    def digest(self) -> str:
        """That of the list so far."""
        whole = self._content.copy()
        whole.update(b"]")
        return whole.hexdigest()[:DIGEST_LENGTH]


def now() -> str:
    """The time now as ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def sha256_of(path: Path) -> str:
    """The sha256 of a file's content, as hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def side_name(sha256: str) -> str:
    """The name of a side file beside the questions that carry it."""
    return f"{part(sha256)}.side"


def files_of(folder: Path) -> dict[str, Path]:
    """Every file below a folder by its name there. Links are none: they may lead anywhere."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink() and path.resolve().is_relative_to(folder.resolve()):
            found[path.relative_to(folder).as_posix()] = path
    return found


def check_files(folder: Path, manifest: Manifest, weights: bool = False, contents: Collection[str] = ()) -> None:
    """Raise Broken where a file that the manifest names is not there as it was written.

    `weights` looks at the model alone, else the model is left out. The sha256 of the files in `contents` is compared,
    where the manifest has it.
    """
    for name, size in manifest.files.items():
        top = name.partition("/")[0]
        if (top == WEIGHTS) != weights or top == TRACKERS:
            continue
        try:
            path = inside(folder, name)
            found = path.stat().st_size
            if found != size:
                raise Broken(path, f"it has {found} bytes where {size} were written")
            expected = manifest.sha256.get(name)
            if name in contents and expected is not None and sha256_of(path) != expected:
                raise Broken(path, "its content is not what was written")
        except UnsafeName as error:
            raise Broken(folder / "manifest.json", str(error)) from error
        except OSError as error:
            raise Broken(folder / name, error.strerror or str(error)) from error


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
        self.results = self.root / "results.json"
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

    def data_file(self, content_hash: str) -> Path:
        """Where the questions of a split lie."""
        return self.data / f"{part(content_hash)}.parquet"

    def side_file(self, sha256: str) -> Path:
        """Where a side file of questions lies."""
        return self.data / side_name(sha256)

    def has_side_file(self, wanted: SideFile) -> bool:
        """Whether a side file is here with its size; what is there and is another is set aside."""
        path = self.side_file(wanted.sha256)
        if not os.path.lexists(path):
            return False
        status = path.lstat()
        if stat.S_ISREG(status.st_mode) and status.st_size == wanted.size:
            return True
        self.set_aside(path, Broken(path, f"it is no file of {wanted.size} bytes"), "it is written again")
        return False

    def keep_side_file(self, wanted: SideFile) -> None:
        """Copy a side file here. Raises BrokenSideFile where it holds something else by now.

        A hard link would cost nothing, but an edit in place would reach what was kept.
        """
        write_blocks_atomically(self.side_file(wanted.sha256), wanted.blocks())

    def outcome_path(self, job: str) -> Path:
        """Where a job of a launch leaves word of its end."""
        return self.root / "outcomes" / f"{part(job)}.json"

    def set_aside(self, path: Path, broken: Broken, loss: str) -> None:
        """Move what is broken to set-aside/, where that can be written, and name it once; `loss` says what follows."""
        place = self.root / "set-aside"
        name = path.relative_to(self.root).as_posix().removeprefix("artifacts/").replace("/", "-")
        target = place / name
        for number in range(2, 1000):
            if not os.path.lexists(target):
                break
            target = place / f"{name}.{number}"
        try:
            place.mkdir(exist_ok=True)
            path.rename(target)
            done = f"kept as {target}; {loss}"
        except FileNotFoundError:  # another process was faster
            return
        except OSError:
            done = f"passed over; {loss}"
        if broken.path not in _told:
            _told.add(broken.path)
            print(f"nsd: {broken}; {done}", file=sys.stderr)

    def records_set_aside(self) -> list[Path]:
        """Experiment records that were found broken."""
        return sorted((self.root / "set-aside").glob("experiments-*"))

    def set_aside_owner(self, broken: Broken) -> None:
        """Set aside the stage, or the questions, that a file found broken while it was read belongs to."""
        for place, loss in ((self.artifacts, "the stage is owed again"), (self.data, "the next `nsd run` writes it")):
            if broken.path.is_relative_to(place) and broken.path != place:
                self.set_aside(place / broken.path.relative_to(place).parts[0], broken, loss)

    # ------------------------------------------------------------------ finished stages

    def folder(self, kind: str, digest: str) -> Path:
        """Where a finished stage lies. Raises UnsafeName for what could be no stage's name."""
        return self.artifacts / part(f"{kind}-{digest}")

    def is_whole(self, kind: str, digest: str) -> bool:
        """Whether the stage is finished: its manifest is there, and every file that it names but a model's."""
        return self._usable(self.folder(kind, digest)) is not None

    def has_weights(self, digest: str) -> bool:
        """Whether a finished train stage still has its whole model (`nsd gc` may have freed it)."""
        folder = self.folder("train", digest)
        if not (folder / WEIGHTS).is_dir():
            return False
        try:
            check_files(folder, read_manifest(folder), weights=True)
        except Broken:  # a deletion that was cut short, or a model that lost a file: it is trained again
            return False
        return True

    def evaluation(self, digest: str) -> str | None:
        """Which kind of stage holds the results under this digest, None where they are not finished."""
        return next((kind for kind in EVALUATIONS if self.is_whole(kind, digest)), None)

    def manifest(self, kind: str, digest: str) -> Manifest:
        """The manifest of a finished stage. Raises Broken."""
        return read_manifest(self.folder(kind, digest))

    def manifests(self, kind: str | None = None, digest: str = "", newest: int | None = None) -> Iterator[Manifest]:
        """Every finished stage's manifest, by the name of its folder: those of a kind, whose digest begins so.

        `newest` reads only so many, those that were finished last.
        """
        if not self.artifacts.is_dir():
            return
        with os.scandir(self.artifacts) as found:
            folders = [
                one
                for one in found
                if (kind is None or one.name.startswith(f"{kind}-")) and one.name.partition("-")[2].startswith(digest)
            ]
        if newest is not None and len(folders) > newest:
            folders = sorted(folders, key=lambda one: one.stat().st_mtime_ns)[-newest:]
        for name in sorted(one.name for one in folders):
            manifest = self._usable(self.artifacts / name)
            if manifest is not None:
                yield manifest

    def finished(self, kind: str, digests: Iterable[str], names: Container[str] | None = None) -> Iterator[Manifest]:
        """The manifests of those of these stages that are whole.

        `names`, of `stage_names`, spares looking for each of many stages that are not there.
        """
        for digest in digests:
            if names is not None and f"{kind}-{digest}" not in names:
                continue
            if (manifest := self._usable(self.folder(kind, digest))) is not None:
                yield manifest

    def stage_names(self) -> frozenset[str]:
        """The names of the folders of all stages that are there just now."""
        if not self.artifacts.is_dir():
            return frozenset()
        with os.scandir(self.artifacts) as found:
            return frozenset(one.name for one in found)

    def _usable(self, folder: Path) -> Manifest | None:
        """The manifest of a whole stage, None for another; a broken one is set aside."""
        if not os.path.lexists(folder / "manifest.json"):
            return None
        try:
            manifest = read_manifest(folder)
            check_files(folder, manifest)
        except Broken as broken:
            if os.path.lexists(folder / "manifest.json"):  # else replaced or taken away meanwhile
                self.set_aside(folder, broken, "the stage is owed again")
            return None
        return manifest

    # ------------------------------------------------------------------ stages under way

    def partial(self, kind: str, digest: str) -> Path:
        """Where a stage under way keeps what it has."""
        return self.partials / part(f"{kind}-{digest}")

    @contextlib.contextmanager
    def lock(self, kind: str, digest: str, on_wait: Any = None) -> Iterator[Path]:
        """Hold a stage against other processes; a dead holder's lock is free. Yields its partial folder."""
        import fcntl

        folder = self.partial(kind, digest)
        while True:
            folder.mkdir(parents=True, exist_ok=True)
            try:
                descriptor = os.open(folder / "lock", os.O_CREAT | os.O_RDWR, 0o644)
            except FileNotFoundError:  # a holder that finished removed the folder just now
                continue
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

    def is_held(self, kind: str, digest: str) -> bool:
        """Whether another process works at a stage just now."""
        import fcntl

        try:
            with (self.partial(kind, digest) / "lock").open("rb+") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def commit(self, kind: str, digest: str, manifest: Manifest) -> Path:
        """Turn partial/.../artifact into the finished stage, manifest last. Call under `lock`."""
        partial = self.partial(kind, digest)
        staging = partial / "artifact"
        for left in staging.rglob(".*.tmp"):  # of an attempt that was killed while it wrote
            left.unlink()
        found = {name: path for name, path in files_of(staging).items() if name != "manifest.json"}
        for path in found.values():
            flush(path)
        facts = {
            "files": {name: path.stat().st_size for name, path in found.items()},
            "sha256": {name: sha256_of(path) for name, path in found.items()},
        }
        write_atomically(staging / "manifest.json", json.dumps({**manifest.to_json(), **facts}, indent=1))
        for folder in {path.parent for path in found.values()}:
            flush(folder)
        final = self.folder(kind, digest)
        final.parent.mkdir(parents=True, exist_ok=True)
        if final.exists():  # a torn copy from elsewhere, or a stage that comes again with its model
            final.rename(partial / f"replaced-{uuid.uuid4().hex}")
        staging.rename(final)
        flush(final.parent)
        self.discard_partial(kind, digest)
        return final

    def add_truth(self, kind: str, digest: str, name: str) -> None:
        """Have the manifest of a finished stage name a file that was written into its folder since, and no older one
        of its sort.

        A file that no manifest names is no part of a stage: a death before this is as if it had not been written.
        """
        folder, manifest = self.folder(kind, digest), self.manifest(kind, digest)
        old = [one for one in manifest.files if one.startswith(TRUTH) and one != name]
        files, sums = ({k: v for k, v in of.items() if k not in old} for of in (manifest.files, manifest.sha256))
        path = folder / part(name)
        changed = manifest.changed(files={**files, name: path.stat().st_size}, sha256={**sums, name: sha256_of(path)})
        write_atomically(folder / "manifest.json", json.dumps(changed.to_json(), indent=1))
        for one in old:
            inside(folder, one).unlink(missing_ok=True)

    def discard_partial(self, kind: str, digest: str) -> None:
        """Remove what a stage under way has. Call under `lock`.

        Who waits for the lock then makes a folder of its own, and nothing of that goes.
        """
        self.throw_away(self.partial(kind, digest))

    def throw_away(self, folder: Path) -> None:
        """Delete a folder of the workspace, if it is there. One rename takes it away whole: half a model must not look
        like one. What a killed deletion left goes with it.
        """
        self.partials.mkdir(exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            folder.rename(self.partials / f".removed-{uuid.uuid4().hex}")
        for left in self.partials.glob(".removed-*"):
            shutil.rmtree(left, ignore_errors=True)

    # ------------------------------------------------------------------ experiment records

    def record_path(self, experiment: str, spec_digest: str) -> Path:
        """The record of one version of a spec."""
        return self.experiments / part(experiment) / f"{part(spec_digest)}.json"

    def record(self, experiment: str, spec_digest: str) -> ExperimentRecord | None:
        """The record of one version of a spec, None where there is none; a broken one is set aside."""
        path = self.record_path(experiment, spec_digest)
        return self._read_record(path) if os.path.lexists(path) else None

    def _read_record(self, path: Path) -> ExperimentRecord | None:
        try:
            return ExperimentRecord.from_json(read_object(path), path)
        except Broken as broken:
            self.set_aside(path, broken, "the next `nsd run` of its spec writes it anew")
            return None

    def records(self) -> list[ExperimentRecord]:
        """Every experiment record, in the order in which they were first written."""
        if not self.experiments.is_dir():
            return []
        found = [self._read_record(path) for path in sorted(self.experiments.glob("*/*.json"))]
        kept = [record for record in found if record is not None]
        return sorted(kept, key=lambda record: (record.recorded_at, record.spec_digest))
