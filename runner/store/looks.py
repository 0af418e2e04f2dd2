"""Looks: which pairs were judged when, on what evidence, so that peeking at growing data can be seen.

    record_looks(workspace, "compare", looks)      # after a command has judged pairs
    read_looks(workspace)                            # every look, oldest first

An entry: `looked_at`, `experiment`, `a`, `b`, `metric`, `evidence` {"a": [evaluation digests], "b": [...]}, `train`
the same with training digests, `by` (a field of the questions, where the pair was shown by one), `n`, `p`, `verdict`,
`command`. Looking again at the same evidence is no new look.
The truth is looks.jsonl in the workspace; the index holds it as the table `looks`, whose JSON column `evidence`
holds `evidence`, `train` and `by`.

Limits: judging outside nsd, or in a workspace that cannot be written, leaves no trace.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from nsd.runner.store import journal
from nsd.runner.store.shapes import Broken, Look, is_look
from nsd.runner.store.workspace import Workspace, canonical_json, now

_told: set[str] = set()  # workspaces whose being read-only was said already


def record_looks(workspace: Workspace, command: str, looks: Sequence[Look]) -> list[Look]:
    """Keep the looks not known yet and return them. A workspace that cannot be written is said once, never an error.

    `looked_at` and `command` are filled in. Call it after closing any connection to the index.
    """
    if not looks:
        return []
    stamp = now()
    wanted = [{"looked_at": stamp, **look.to_json(), "command": command} for look in looks]

    def new_ones(held: journal.Entries) -> journal.Entries:
        seen = {_key(entry) for entry in held if is_look(entry)}
        fresh = []
        for entry in wanted:
            if (key := _key(entry)) not in seen:
                seen.add(key)
                fresh.append(entry)
        return fresh

    try:
        added = journal.append(workspace.looks, [], new_ones)
    except OSError as error:
        if str(workspace.root) not in _told:
            _told.add(str(workspace.root))
            reason = error.strerror or error
            print(f"nsd: this look is not recorded: {workspace.looks} cannot be written ({reason})", file=sys.stderr)
        return []
    if added:
        from nsd.runner.store.index import Store

        # The index is a convenience: the file above has the looks, and the next writer brings the index up to date.
        with contextlib.suppress(Exception):
            Store(workspace).index_journals()
    return [Look.from_json(entry, workspace.looks) for entry in added]


def read_looks(workspace: Workspace) -> list[Look]:
    """Every recorded look, oldest first; a line that is none is passed over."""
    found = []
    for entry in journal.read(workspace.looks):
        with contextlib.suppress(Broken):
            found.append(Look.from_json(entry, workspace.looks))
    return found


def _key(entry: Mapping[str, Any]) -> str:
    """The same for the same pair (either way round), metric, evidence and field of the questions."""
    evidence = entry.get("evidence") or {}
    sides = sorted([entry.get(side), sorted(evidence.get(side, []))] for side in ("a", "b"))
    field = [] if entry.get("by") is None else [entry["by"]]
    return canonical_json([entry.get("metric"), sides, *field])
