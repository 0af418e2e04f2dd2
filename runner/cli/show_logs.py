"""`nsd logs`: what the stages of a run wrote while they ran."""

from __future__ import annotations

from pathlib import Path

from nsd.plugins.errors import InputError
from nsd.runner.cli.show_run import find_stages
from nsd.runner.store.shapes import Broken, read_object
from nsd.runner.store.workspace import Workspace


def print_logs(workspace: Workspace, name: str, lines: int, kind: str | None) -> None:
    """The last lines of the logs of a run's stages, of those under way or failed too."""
    paths: dict[str, Path] = {}
    for partial in sorted(workspace.partials.glob("[!.]*/log.txt")):
        users = _users_of(partial.with_name("job.json"))
        if name in users or (len(name) >= 4 and partial.parent.name.partition("-")[2].startswith(name)):
            paths[f"{partial.parent.name} (not finished)"] = partial
    try:
        _, stages = find_stages(workspace, name)
    except InputError:
        if not paths:
            raise
        stages = []
    for manifest in stages:
        paths[f"{manifest['kind']}-{manifest['digest']}"] = Path(manifest["folder"]) / "log.txt"
    for title, path in paths.items():
        if (kind is None or title.startswith(f"{kind}-")) and path.exists():
            print(f"==> {title}: {path}")
            print("\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]))


def _users_of(job_path: Path) -> list[str]:
    """The runs that a stage under way is for; [] where its job cannot be read, which the next run writes again."""
    try:
        job = read_object(job_path)
        return [f"{job['experiment']}/{user}" for user in job["used_by"]]
    except (Broken, KeyError, TypeError):
        return []
