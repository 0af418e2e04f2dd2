"""Brings results home: from the store, or from a machine that has none, and into the index.

    fetched = from_store(bucket, workspace, plan)                    # what is new, whole stages only
    fetched = from_machine(workspace, plan, "nsd-quickstart-x")      # the same by rsync over SkyPilot's ssh

Models stay where they are unless asked for: results, labels and curves are what comparisons need. A stage that is
whole here already is not fetched again; one half-written there is left there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from nsd.plugins.errors import NsdError
from nsd.plugins.paths import is_part
from nsd.runner.launch.unplanned import learn, learn_from
from nsd.runner.plan.model import Plan, Stage
from nsd.runner.store.bucket import BrokenThere, Bucket
from nsd.runner.store.index import Store
from nsd.runner.store.shapes import Broken, Manifest, Word, WordFailure, read_manifest
from nsd.runner.store.workspace import WEIGHTS, Workspace, check_files, files_of, side_name
from nsd.runner.work.jobs import write_data
from nsd.runner.work.record import Record
from nsd.runner.work.sync import fetch_finished, read_words


class FetchError(NsdError):
    """The machine could not be reached."""


def from_store(bucket: Bucket, workspace: Workspace, plan: Plan, weights: bool = False) -> list[str]:
    """Fetch finished stages of the plan that are not here. Returns their titles."""
    if not plan.known:
        learn(plan, bucket.record(plan.name, plan.spec_digest), lambda kind, one: _usable(bucket, kind, one))
    models = plan.stages if weights else ()
    found = fetch_finished(bucket, workspace, plan, set(bucket.stages()), models, _say_broken)
    if not plan.known:  # a plan made here has its questions
        hashes = {workspace.manifest(stage.kind, stage.digest).data_hash for stage in found}
        for content_hash in sorted(filter(None, hashes)):
            bucket.fetch_file(f"data/{content_hash}.parquet", workspace.data_file(content_hash))
    return [stage.title for stage in found]


def push_finished(bucket: Bucket, workspace: Workspace, plan: Plan) -> int:
    """Put there what is finished here, so that no machine makes it again; models where a pending stage needs them.

    Returns how many stages were sent.
    """
    pending = plan.pending(workspace)
    needed = {digest for stage in pending for digest in stage.inputs.values()}
    finished = [stage for stage in plan.stages.values() if stage not in pending]
    return sum(bucket.push_stage(workspace, one.kind, one.digest, weights=one.digest in needed) for one in finished)


def words_from_store(bucket: Bucket, workspace: Workspace, jobs: list[str]) -> list[Word]:
    """The last word of each job: how it ended."""
    for job in jobs:
        bucket.fetch_file(f"outcomes/{job}.json", workspace.outcome_path(job))
    return read_words(workspace, jobs)


def _usable(bucket: Bucket, kind: str, digest: str) -> Manifest | None:
    try:
        return bucket.manifest(kind, digest)
    except BrokenThere:  # it is told of where the stage is fetched
        return None


def _say_broken(stage: Stage, error: NsdError) -> None:
    print(f"nsd: not fetched: {error}", file=sys.stderr)


def ssh_command(cluster: str) -> list[str]:
    """ssh as SkyPilot sets it up for a cluster of the current user."""
    home = Path(os.environ.get("HOME", "~")).expanduser()
    command = ["ssh", "-F", str(home / ".ssh" / "config"), "-o", "LogLevel=ERROR", "-o", "ConnectTimeout=20"]
    key = home / ".sky" / "generated" / "ssh-keys" / f"{cluster}.key"
    return [*command, "-i", str(key)] if key.exists() else command


def on_machine(cluster: str, command: str) -> subprocess.CompletedProcess[str]:
    """Run a shell command on a cluster's head node."""
    return subprocess.run([*ssh_command(cluster), cluster, command], capture_output=True, text=True, timeout=120)


def from_machine(workspace: Workspace, plan: Plan, cluster: str, weights: bool = False) -> list[str]:
    """Copy what the machine has and take over the whole stages. Returns their titles. Raises FetchError."""
    staging = workspace.root / "launches" / f".{cluster}"
    staging.mkdir(parents=True, exist_ok=True)
    leave = [] if weights else ["--exclude", f"/artifacts/*/{WEIGHTS}/"]
    leave += ["--exclude", f"/data/{side_name('*')}"]  # what verifiers need there, and nobody here
    # The machine is somebody else's: a link in what it sends could lead to any file here.
    command = ["rsync", "-az", "--no-links", "--partial", *leave, "--exclude", "/partial/", "--exclude", "/nsd.duckdb*"]
    shell = " ".join(ssh_command(cluster))
    try:
        done = subprocess.run(
            [*command, "-e", shell, f"{cluster}:nsd-workspace/", f"{staging}/"],
            capture_output=True,
            text=True,
            timeout=3600,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise FetchError(f"cannot copy from {cluster}: {error}") from error
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or ["no reason was given"]
        raise FetchError(f"cannot copy from {cluster}: {last[0]}")
    copied = Workspace(staging)
    learn_from(plan, copied)
    found = take_over(copied, workspace, plan, weights)
    for name in ("outcomes", "data"):
        for file, path in files_of(staging / name).items():
            target = workspace.root / name / file
            if is_part(file) and not (name == "data" and target.exists()):  # the questions that are here stay
                target.parent.mkdir(exist_ok=True)
                shutil.copy2(path, target)
    shutil.rmtree(staging, ignore_errors=True)
    return found


def take_over(copied: Workspace, workspace: Workspace, plan: Plan, weights: bool) -> list[str]:
    """Move every whole stage that is not here out of a copied workspace. Returns their titles.

    Also what this plan does not name: the machine that it came from goes away.
    """
    found = []
    for kind, digest in sorted((manifest.kind, manifest.digest) for manifest in copied.manifests()):
        lacking = not workspace.is_whole(kind, digest)
        lacking |= weights and kind == "train" and not workspace.has_weights(digest)
        if lacking and adopt(copied, workspace, kind, digest):
            found.append(plan.stages[digest].title if digest in plan.stages else f"{kind} {digest}")
    return found


def adopt(there: Workspace, here: Workspace, kind: str, digest: str) -> bool:
    """Move a whole stage over from a copied workspace; False where it is not whole there.

    A model may have been left out of the copy altogether, never in part.
    """
    folder = there.folder(kind, digest)
    if not there.is_whole(kind, digest):
        return False
    manifest = read_manifest(folder)
    try:
        check_files(folder, manifest, contents=list(manifest.files))
        if (folder / WEIGHTS).is_dir():
            check_files(folder, manifest, weights=True, contents=list(manifest.files))
    except Broken as broken:
        print(f"nsd: not taken over: {broken}", file=sys.stderr)
        return False
    with here.lock(kind, digest) as partial:
        shutil.rmtree(partial / "artifact", ignore_errors=True)
        shutil.move(str(folder), str(partial / "artifact"))
        here.commit(kind, digest, manifest)
    return True


def index(workspace: Workspace, plan: Plan, failures: Sequence[WordFailure]) -> None:
    """Bring the experiment's record and the database up to date with what is here."""
    write_data(plan, workspace)
    store = Store(workspace)
    whole = [(s.kind, s.digest) for s in plan.stages.values() if workspace.is_whole(s.kind, s.digest)]
    if missing := store.missing(whole):
        store.index_stages(missing)
    record = Record(plan, workspace, store)
    reasons = {user: one.reason for one in failures for user in one.used_by}
    record.save(reasons)
