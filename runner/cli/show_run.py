"""`nsd show`: one run with the stages that made it, or one stage."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from nsd.plugins.screen import console, print_json
from nsd.plugins.words import duration
from nsd.reports.judge.rows import find_run
from nsd.runner.store.shapes import Manifest
from nsd.runner.store.workspace import Workspace

RESULTS = ("eval", "labels", "training", "discovery")  # what came of a stage, by where its manifest has it


def print_run(workspace: Workspace, name: str, as_json: bool) -> None:
    """A run with the stages that made it, or one stage."""
    row, stages = find_stages(workspace, name)
    if as_json:
        print_json({"run": row, "stages": stages})
        return
    screen = console()
    if row is not None:
        value = "no result yet" if row["mean"] is None else f"{row['metric'] or 'share correct'} {row['mean']:.4f}"
        n = f" on {row['n']} questions" if row["n"] else ""
        screen.print(f"{row['run']}: {row['status']}, {value}{n}" + (f"; {row['reason']}" if row["reason"] else ""))
    for manifest in stages:
        _print_stage(screen, manifest)


def find_stages(workspace: Workspace, name: str) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
    """A run and its finished stages, or the stage whose digest starts with `name`."""
    by_digest = [_plain(manifest) for manifest in workspace.manifests(digest=name)] if len(name) >= 4 else []
    if by_digest:
        return None, by_digest
    row = find_run(workspace, name)

    def look(digest: str) -> dict[str, Any] | None:
        return next((_plain(one) for one in workspace.manifests(digest=digest) if one.digest == digest), None)

    chain = [m for key in ("label_digest", "train_digest", "eval_digest") for m in stage_chain(look, row[key])]
    return row, list({manifest["digest"]: manifest for manifest in chain}.values())


def _plain(manifest: Manifest) -> dict[str, Any]:
    return {**manifest.to_json(), "folder": str(manifest.folder)}


def stage_chain(look: Callable[[str], dict[str, Any] | None], digest: str | None) -> list[dict[str, Any]]:
    """Manifests of a finished stage and of everything it came from, causes first; [] where it is not finished.

    `look` gives the manifest of a finished stage.
    """
    chain: dict[str, dict[str, Any]] = {}
    met: set[str] = set()  # a manifest may name itself among its causes

    def visit(wanted: str) -> None:
        if wanted not in met and (found := look(wanted)) is not None:
            met.add(wanted)
            for cause in found.get("inputs", {}).values():
                visit(cause)
            chain[wanted] = found

    if digest is not None:
        visit(digest)
    return list(chain.values())


def _print_stage(screen: Any, manifest: dict[str, Any]) -> None:
    spent = duration(manifest.get("seconds") or 0)
    what = f"{manifest['kind']} {manifest['digest'][:8]} ({manifest.get('plugin')})"
    screen.print(f"\n{what}, {spent}, ended {manifest.get('ended_at')}")
    machine = manifest.get("machine", {})
    hardware = ", ".join(map(str, machine.get("gpus") or [])) or f"{machine.get('cpus', '?')} CPUs"
    versions = " ".join(f"{key} {value}" for key, value in manifest.get("packages", {}).items())
    facts: list[tuple[str, Any]] = [
        ("inputs", manifest.get("inputs")),
        ("result", next(filter(None, map(manifest.get, RESULTS)), None)),
        ("generation", manifest.get("generation")),
        ("shared", manifest.get("shared")),
        ("on", f"{machine.get('host', '?')}, {hardware}"),
        ("commit", manifest.get("git_commit")),
        ("packages", versions),
        ("plugins", "; ".join(third_party_plugins(manifest["key"]))),
        ("files", manifest["folder"]),
    ]
    for label, fact in facts:
        if fact:
            screen.print(f"  {label:<10} {json.dumps(fact, ensure_ascii=False) if isinstance(fact, dict) else fact}")
    for key, value in (manifest.get("settings") or manifest.get("key", {})).items():
        screen.print(f"  key.{key:<12} {json.dumps(value, ensure_ascii=False)}", soft_wrap=True)
    for event in manifest.get("events", []):
        at = "" if event.get("step") is None else f" at step {event['step']}"
        screen.print(f"  warning{at}: {event['text']} [{event.get('field') or ''}]")


def third_party_plugins(key: dict[str, Any]) -> list[str]:
    """Plugins in a stage's key that are not nsd's own: each with the distribution and version it came with."""
    found: list[str] = []
    for value in key.values():
        if not isinstance(value, dict):
            continue
        if isinstance(its_code := value.get("code"), dict) and "use" in value:
            words = [its_code[name] for name in ("distribution", "distribution_version") if name in its_code]
            found.append(f"{value['use']} of {' '.join(words)}" if words else f"{value['use']}, a file")
        found += third_party_plugins(value)
    return list(dict.fromkeys(found))
